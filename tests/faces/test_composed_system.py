"""Systems put together in YAML: any head on any backbone, single tasks, errors, checkpoints that predict alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.checkpoints import load_system
from mtlsearch.faces.geometry import euler_to_matrix
from mtlsearch.faces.heads.rotation_6d import geodesic
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.training import load_run_config, run_training, train
from mtlsearch.training.recipes import apply_overrides, parse_run_config, recipe_tree

DATA = "data={name: synthetic, image_size: 32, train: 96, val: 48, test: 48}"


def config_of(heads: str, *overrides: str, backbone: str = "test_resnet"):  # type: ignore[no-untyped-def]
    tree = recipe_tree("quick_plain")
    del tree["losses"]
    tree |= {"system": "composed", "model": {"backbone": backbone}}
    return parse_run_config(apply_overrides(tree, [DATA, f"model.heads={heads}", *overrides]), "test")


def made(heads: str, *overrides: str, backbone: str = "test_resnet") -> FaceProblem:
    problem = FaceProblem(config_of(heads, *overrides, backbone=backbone))
    problem.prepare()
    return problem


TWO = "{landmarks: {kind: points, loss: {kind: wing}}, pose: {kind: rotation_6d, weight: 0.5}}"


@pytest.mark.parametrize(
    ("heads", "tasks"),
    [
        (TWO, ("landmarks", "pose")),
        ("{all: {kind: points, points: dense, regressor: {kind: mbconv, expansion: 0.5, channels: 16}}}", ("all",)),
        ("{face: {kind: parameters, regressor: {kind: linear}}}", ("landmarks", "pose", "parameters")),
        ("{sparse: {kind: points}, all: {kind: points, points: dense}}", ("sparse", "all")),
        ("{maps: {kind: heatmaps, channels: 16}, turn: {kind: binned_pose, bins: {count: 33}}}", ("maps", "turn")),
        (
            "{face: {kind: parameters, regressor: {kind: linear}}, dense: {kind: points, points: dense}}",
            ("landmarks", "pose", "parameters", "dense"),
        ),
    ],
)
def test_heads_in_any_combination_train_a_step(heads: str, tasks: tuple[str, ...]) -> None:
    problem = made(heads, "strategy.name=pcgrad")
    assert problem.tasks == tasks
    model = problem.build_model()
    images, targets = problem.batch(torch.arange(6), torch.Generator().manual_seed(0))
    losses = model.losses(model(images), targets)  # type: ignore[operator]
    assert tuple(losses) == tasks
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in problem.shared_parameters(model) if p.grad is not None)  # type: ignore[union-attr]
    prediction = model.eval().decode(model(images))  # type: ignore[operator]
    dense = any(getattr(head, "points", "") == "dense" for head in problem.config.heads.values())  # type: ignore[attr-defined]
    assert (prediction.dense is not None) == dense
    assert prediction.landmarks.shape[:2] == (6, 68) and prediction.angles.shape == (6, 3)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_every_loss_starts_at_one_and_its_weight_multiplies(backbone: str) -> None:
    problem = made(TWO, "data.image_size=64" if backbone == "test_vit" else "seed=0", backbone=backbone)
    model, targets = problem.build_model(), problem._targets_of("train")
    output = {"landmarks": torch.zeros(96, 204), "pose": torch.zeros(96, 6)}
    losses = model.losses(output, targets)  # type: ignore[operator]
    assert losses["landmarks"].item() == pytest.approx(1, rel=1e-4)
    assert losses["pose"].item() == pytest.approx(0.5, rel=1e-4)


def test_a_weight_of_zero_is_single_task_learning() -> None:
    problem = made(TWO.replace("0.5", "0"))
    model = problem.build_model()
    images, targets = problem.batch(torch.arange(6), torch.Generator().manual_seed(0))
    losses = model.losses(model(images), targets)  # type: ignore[operator]
    alone = torch.autograd.grad(losses["landmarks"], problem.shared_parameters(model)[0], retain_graph=True)[0]  # type: ignore[index]
    both = torch.autograd.grad(sum(losses.values()), problem.shared_parameters(model)[0])[0]  # type: ignore[index]
    assert torch.equal(alone, both)


def test_it_learns_pose_and_landmarks() -> None:
    off = "augmentation={flip: 0, rotation: 0, scale: 0, shift: 0, erase: 0}"
    problem = made(TWO, "training={epochs: 20, batch_size: 24}", off)
    history = train(problem, problem.config).history
    trivial = problem.trivial_metrics("val")
    assert history[-1]["val/nme"] < 0.8 * trivial["nme"]
    assert history[-1]["val/mae"] < 0.8 * trivial["mae"]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ("{pose: {kind: rotation_6d}}", "no head gives landmarks"),
        ("{}", "at least 1"),
        ("{keys: {kind: points}}", "cannot be called 'keys'"),
        ("{training: {kind: points}}", "cannot be called 'training'"),
        ("{lr: {kind: points}}", "cannot be called 'lr'"),
        ("{Pose: {kind: points}}", "pattern"),
        ("{a: {kind: parameter}}", "did you mean 'parameters'"),
        ("{landmarks: {kind: points}, face: {kind: parameters}}", "two heads have a task named 'landmarks'"),
    ],
)
def test_heads_that_make_no_system_are_refused(heads: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_of(heads)


def test_a_checkpoint_predicts_without_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = "{all: {kind: points, points: dense}, pose: {kind: rotation_6d}}"
    config = config_of(heads, "training={epochs: 1, batch_size: 24}")
    run = run_training(config, directory=tmp_path)
    images = torch.randn(3, 3, 32, 32)
    expected = run.result.model.eval()
    monkeypatch.setenv("MTLSEARCH_CACHE", str(tmp_path / "nothing"))
    loaded = load_system(tmp_path / "best.safetensors")
    assert loaded.image_size == 32 and loaded.epoch == 1 and not (tmp_path / "nothing").exists()
    with torch.inference_mode():
        ours = loaded.model.decode(loaded.model(images))
        theirs = expected.decode(expected(images))  # type: ignore[operator]
    for name in ("landmarks", "angles", "dense"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_a_checkpoint_of_another_problem_is_refused(tmp_path: Path, at_root: Path) -> None:
    config = load_run_config("examples/own_problem.yaml", ["training.epochs=1"])
    run_training(config, directory=tmp_path)
    with pytest.raises(InputError, match="not to faces"):
        load_system(tmp_path / "best.safetensors")


def test_the_page_s_own_system_trains_a_step(tmp_path: Path, at_root: Path) -> None:
    page = (at_root / "docs" / "systems" / "README.md").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    small = "data={image_size: 64, train: 24, val: 24, test: 24}"
    config = load_run_config(str(path), [small, "training={epochs: 1, batch_size: 12}"])
    assert config.tasks == ("pose", "all")  # type: ignore[attr-defined]
    problem = FaceProblem(config)  # type: ignore[arg-type]
    problem.prepare()
    assert set(train(problem, config).history[0]) >= {"train/all", "train/pose", "val/nme", "val/mae"}


def test_the_geodesic_angle_is_exact_and_its_gradient_finite() -> None:
    turns = torch.tensor([[0.0, 0.0, d] for d in (0.5, 10.0, 90.0, 179.9)], dtype=torch.float64)
    angle = torch.rad2deg(geodesic(euler_to_matrix(turns), torch.eye(3, dtype=torch.float64)))
    torch.testing.assert_close(angle, turns[:, 2], rtol=1e-6, atol=1e-6)
    for degrees in (0.0, 180.0):
        matrix = euler_to_matrix(torch.tensor([[0.0, 0.0, degrees]])).requires_grad_()
        geodesic(matrix, torch.eye(3)).sum().backward()
        assert torch.isfinite(matrix.grad).all()  # type: ignore[arg-type]
