"""The commands as a user types them: help, mistakes, exit status, nothing half written."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtlsearch import _command
from mtlsearch.__main__ import COMMANDS
from mtlsearch.faces.packs.pack import ensure_pack
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
from mtlsearch.training import load_run_config

ROOT = Path(__file__).parents[2]


def command(name: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"mtlsearch.{name}", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def call(
    name: str,
    *arguments: str,
    cwd: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    """The same within this process, where the imports are paid already: exit status, output, errors."""
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", [f"mtlsearch.{name}", *arguments])
    with pytest.raises(SystemExit) as ended:
        module = importlib.import_module(f"mtlsearch.{name}")
        _command.run(name, module.main, *getattr(module, "VERBS", ()))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_the_package_lists_its_commands() -> None:
    result = subprocess.run([sys.executable, "-m", "mtlsearch"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0
    for name in COMMANDS:
        assert f"python -m mtlsearch.{name}" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples(name: str, tmp_path: Path) -> None:
    result = command(name, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Examples:" in result.stdout
    assert f"\n    python -m mtlsearch.{name}" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune", "--space", "quik"], "did you mean 'quick'"),
        (["tune", "--space", "none.yaml"], "no file none.yaml"),
        (["tune", "--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["tune", "--set", "strategy.name=pcgrd"], "did you mean 'pcgrad'"),
        (["tune", "--set", "model.backbone=mobilenetv3_smal_050"], "did you mean"),
        (["tune", "--set", "losses.pose.weight={uniform: [2, 1]}"], "low <= high"),
        (["tune", "--num-samples", "1"], "start_with lists 2 trials"),
        (["tune", "--cpus-per-trial", "4096"], "lower --cpus-per-trial"),
        (["tune", "--results", "file/results"], "file"),
        (["tune", "--tracking-uri", "sqlite:///file/mlflow.db"], "--tracking-uri"),
        (["tune", "--name", "../elsewhere"], "plain name"),
        (["tune", "--set", "optimizer.lr=0.01"], "optimizer is a choice"),
        (["train", "--config", "kim2024"], "did you mean 'kim2023'"),
        (["train", "--output", "file/run"], "file"),
        (["reproduce", "none/best.yaml"], "no file none/best.yaml"),
        (["reproduce", "file"], "must hold a mapping"),
        (["reproduce", "0" * 32], "there is no MLflow store"),
        (["report", "file"], "holds no readable study"),
        (["report", "none", "--pictures"], "no winner.safetensors"),
        (["evaluate", "none.safetensors"], "no checkpoint none.safetensors"),
        (["evaluate", "file"], "not a readable safetensors file"),
        (["evaluate", "file", "--split", "tset"], "did you mean 'test'"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("just text")
    status, _, errors = call(*arguments, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    lines = errors.strip().splitlines()
    assert status == 2, errors
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    left = {path.name for path in tmp_path.iterdir()} - {"file", "mlflow.db", ".mlflow.db.lock"}
    assert left == set(), "nothing half written"


def test_a_mistake_in_a_process_of_its_own_shows_no_traceback(tmp_path: Path) -> None:
    result = command("tune", "--set", "training.epoch=3", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unreadable_pack_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTLSEARCH_CACHE", str(tmp_path / "cache"))
    small = ["--set", "data={train: 64, val: 48, test: 48, image_size: 32}", "--set", "training.epochs=1"]
    arguments = ["train", "--config", "quick", *small, "--output"]
    status, screen, errors = call(*arguments, "run", cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 0, errors
    assert "mtlsearch.reproduce" in screen
    status, screen, errors = call(
        "evaluate",
        "run/best.safetensors",
        "--split",
        "val",
        cwd=tmp_path,
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert status == 0, errors
    assert "nme_0_30" in screen
    (images,) = (tmp_path / "cache").glob("*/train.images.npy")
    with images.open("r+b") as file:
        file.truncate(1000)
    status, _, errors = call(*arguments, "other", cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    for words in ("train.images.npy", "found 1000", "Delete the folder"):
        assert words in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_repeated_training_is_said_to_be_identical_and_a_changed_value_named(
    tmp_path: Path, at_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(at_root / "examples" / "own_problem.yaml")
    options = {"cwd": tmp_path, "monkeypatch": monkeypatch, "capsys": capsys}
    assert call("train", "--config", config, "--output", "run", "--threads", "1", **options)[0] == 0
    status, screen, _ = call("reproduce", "run", **options)
    assert status == 0
    assert "identical bit for bit" in screen
    status, screen, _ = call("reproduce", "run/record.yaml", "--set", "optimizer.lr=0.5", **options)
    assert status == 1
    assert "config differs from the recorded run: optimizer.lr: 0.01 -> 0.5" in screen
    status, screen, _ = call(
        "train",
        "--config",
        config,
        "--output",
        "bad",
        "--set",
        "optimizer={name: sgd, lr: 1.0e+8}",
        **options,
    )
    assert status == 1
    assert "training stopped: loss" in screen


def test_data_is_short_for_a_pack_of_faces(
    tmp_path: Path, at_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a pack: 'mine'"
    ensure_pack(SyntheticRecipe(train=48, val=40, test=40, image_size=32), folder=folder, workers=1)
    settings = ["model.backbone=test_resnet", "training.epochs=1", "training.batch_size=16", "data.image_size=48"]
    arguments = ["--data", folder.name, "--output", "run", "--threads", "1", *(f"--set={text}" for text in settings)]
    code, _, error = call("train", *arguments, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, error
    data = load_run_config(str(tmp_path / "run" / "record.yaml")).data  # type: ignore[attr-defined]
    assert (data.name, data.train, data.image_size) == ("packed", str(folder), 48)
    own = ["--config", str(ROOT / "examples" / "own_problem.yaml"), "--data", folder.name, "--output", "none"]
    code, _, error = call("train", *own, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and "--data names a pack of faces" in error and "own_problem:Waves" in error
    assert not (tmp_path / "none").exists()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """Linux's /dev/full answers every write with "no space left"."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    script = (
        "import sys; from mtlsearch import _command\n"
        "def main() -> None:\n    'x'\n    open('/dev/full', 'w').write('x' * 100000)\n"
        "sys.argv = ['x']; _command.run('tune', main)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_too_little_room_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    from mtlsearch.errors import InputError
    from mtlsearch.search.preparing import check_results

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(InputError, match=r"1 MB free and a study may need 500 MB"):
        check_results(tmp_path / "deep" / "results")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_a_command_names_the_pip_line(tmp_path: Path) -> None:
    """The base install: torch and numpy importable, nothing of the extra."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import sys, importlib.machinery as m\n"
        "hidden = {'typer', 'rich', 'pydantic', 'yaml', 'ray', 'optuna', 'mlflow', 'timm', 'cv2', 'numba',\n"
        "          'safetensors', 'filelock', 'platformdirs', 'scipy', 'matplotlib', 'jinja2', 'plotly'}\n"
        "find = m.PathFinder.find_spec\n"
        "def without(name, *a, **k):\n"
        "    return None if name.partition('.')[0] in hidden else find(name, *a, **k)\n"
        "m.PathFinder.find_spec = staticmethod(without)\n"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    for name in COMMANDS:
        result = command(name, cwd=tmp_path, PYTHONPATH=path)
        assert result.returncode == 2
        assert "pip install 'mtlsearch[search]'" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    script = (
        "import torch; from mtlsearch import PCGrad\n"
        "p = torch.nn.Parameter(torch.ones(2)); o = PCGrad(torch.optim.SGD([p], lr=0.1))\n"
        "o.backward([p.sum(), -p[0] * 3]); o.step(); print(p.tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr


def test_next_commands_are_quoted_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
    assert _command.command("evaluate", "a b.safetensors") == (
        "'/opt/my env/bin/python' -m mtlsearch.evaluate 'a b.safetensors'"
    )
