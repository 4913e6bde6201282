from __future__ import annotations

from pathlib import Path

import pytest

from mtlsearch.errors import InputError
from mtlsearch.training import load_run_config, recipe_names
from mtlsearch.training.recipes import apply_overrides, recipe_tree
from mtlsearch.training.yaml_files import parse_yaml, write_text


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_its_complete_tree_is_a_fixed_point(name: str, tmp_path: Path) -> None:
    config = load_run_config(name)
    from mtlsearch.training import parse_run_config

    assert parse_run_config(config.tree(), name) == config


def test_the_published_numbers_of_kim_2023() -> None:
    """Section 3: SGD 0.9 and 5e-4, 80 epochs, 1e-5 to 5e-4 by epoch 5, 1/5 and 1/25 at 40 and 50."""
    config = load_run_config("kim2023").tree()
    assert config["optimizer"] | {"nesterov": False} == {
        "name": "sgd", "lr": 5e-4, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False,
    }  # fmt: skip
    schedule, epochs = config["schedule"], config["training"]["epochs"]
    assert epochs == 80
    assert schedule["warmup"] * epochs == 5
    assert schedule["warmup_factor"] * 5e-4 == pytest.approx(1e-5)
    assert [milestone * epochs for milestone in schedule["milestones"]] == [40, 50]
    assert schedule["gamma"] == pytest.approx(1 / 5)
    assert config["strategy"] == {"name": "pcgrad"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainng.epochs=3", ["unknown key 'trainng'", "did you mean 'training'"]),
        ("training.epoch=3", ["training.epoch", "did you mean 'epochs'"]),
        ("training.epochs=0", ["training.epochs", "greater than 0", "got 0"]),
        ("training.epochs=many", ["training.epochs", "valid integer", "'many'"]),
        (
            "strategy.name=pcgrd",
            ["strategy", "unknown strategy 'pcgrd'", "did you mean 'pcgrad'", "weighted_sum"],
        ),
        ("strategy={name: pcgrad, c: 1}", ["strategy", "pcgrad", "'c'"]),
        ("strategy.name=modo", ["'modo' needs 2 independent samples", "training.accumulate must be at least 2"]),
        ("training.engine=rwos", ["training.engine", "did you mean 'rows'"]),
        ("training={engine: feature, epochs: 1, accumulate: 2}", ["combines gradients of one forward", "got 2"]),
        ("strategy={name: uncertainty}|training.update_every=4", ["update_every=4 needs a strategy", "'uncertainty'"]),
        ("optimizer.lr=-1", ["optimizer.lr", "greater than 0", "-1"]),
        ("optimizer.name=sdg", ["optimizer.name", "'sdg'", "did you mean 'sgd'"]),
        ("schedule.name=cosin", ["schedule.name", "did you mean 'cosine'"]),
        ("schedule.milestones=[0.9, 0.2]", ["schedule", "milestones must rise"]),
        ("losses.landmarks.kind=wings", ["losses.landmarks.kind", "'wings'", "did you mean 'wing'"]),
        (
            "losses.landmarks={kind: wing, beta: 1}",
            ["losses.landmarks.beta", "allowed: epsilon, kind, w, weight"],
        ),
        ("model.backbone=mobilenetv3_smal_100", ["model.backbone", "did you mean", "mobilenetv3_small_100"]),
        ("system=morphabel", ["unknown system 'morphabel'", "did you mean 'morphable'"]),
        ("problem=nowhere:Problem", ["no module 'nowhere'"]),
        ("problem=json:Problem", ["module 'json' has no class 'Problem'"]),
        ("problem=json:JSONDecoder", ["lacks", "Problem protocol"]),
        ("augmentation.rotation=400", ["augmentation", "rotation", "400"]),
        ("augmentation.rotatoin=4", ["augmentation.rotatoin", "did you mean 'rotation'"]),
        ("data.image_size=8", ["data.image_size", "32", "8"]),
        ("optimizer.lr=.inf", ["optimizer.lr", "finite number"]),
        ("training={1: 2}", ["training.1", "unknown key 1"]),
        ("system=[1]", ["unknown system [1]"]),
        ("problem=':X'", ["must read 'module:Class'"]),
        ("model.backbone=mobilenetv3_small_100.evil", ["timm has no model"]),
        ("optimizer={name: sgd, lr: 1, momentum: 0, nesterov: true}", ["nesterov needs a momentum"]),
        ("noequals", ["--set noequals", "key.sub=value"]),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_run_config("quick", override.split("|"))
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_recipe_missing_file_and_bad_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'kim2023'"):
        load_run_config("kim2024")
    with pytest.raises(InputError, match="no file"):
        load_run_config(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1,")
    with pytest.raises(InputError, match="not valid YAML"):
        load_run_config(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match="must hold a mapping"):
        load_run_config(str(tmp_path / "list.yaml"))


def test_a_base_is_found_beside_the_file_and_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\nseed: 1")
    (tmp_path / "b.yaml").write_text("base: quick\nseed: 2")
    assert load_run_config(str(tmp_path / "a.yaml")).seed == 1
    (tmp_path / "c.yaml").write_text("base: c.yaml")
    with pytest.raises(InputError, match="circle"):
        recipe_tree(str(tmp_path / "c.yaml"))


def test_yaml_numbers_are_numbers() -> None:
    assert parse_yaml("[1e-5, 1.0e-5, -2E3, .5, 3, 1.5]") == [1e-5, 1e-5, -2000.0, 0.5, 3, 1.5]
    assert parse_yaml("[abc, 1.2.3, e5]") == ["abc", "1.2.3", "e5"]


def test_overrides_read_values_as_yaml() -> None:
    tree = apply_overrides({"a": {"b": 1}}, ["a.b=2e-3", "a.c=[1, x]", "d={kind: y}"])
    assert tree == {"a": {"b": 0.002, "c": [1, "x"]}, "d": {"kind": "y"}}


def test_a_failed_write_leaves_the_former_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.yaml"
    write_text(path, "before")
    monkeypatch.setattr("os.replace", _full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("base: quick\nseed: 1\nseed: 2")
    with pytest.raises(InputError, match="'seed' stands twice"):
        load_run_config(str(tmp_path / "twice.yaml"))
