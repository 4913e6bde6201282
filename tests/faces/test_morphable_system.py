"""Kim 2023: Table I's counts, eq. 1 against the renderer, finite losses, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsearch.errors import InputError
from mtlsearch.faces.backbones import Backbone
from mtlsearch.faces.geometry import project
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.faces.regressors import MBConvRegressor
from mtlsearch.faces.systems import Morphable
from mtlsearch.faces.targets import Targets
from mtlsearch.training import load_run_config, train

SMALL = ["data.train=96", "data.val=48", "data.test=48", "data.image_size=32"]


@pytest.fixture(scope="module")
def problem() -> FaceProblem:
    problem = FaceProblem(load_run_config("quick", SMALL))  # type: ignore[arg-type]
    problem.prepare()
    return problem


@pytest.mark.parametrize(
    ("backbone", "channels", "published"),
    [
        ("mobilenetv3_small_100", 576, 36_036_302),
        ("mobilevit_s", 640, 47_530_814),
        ("mobilevitv2_100", 512, 31_680_423),
    ],
)
def test_table_1_to_the_parameter(backbone: str, channels: int, published: int) -> None:
    """Kim 2023, Table I, "Total Parameters", with heads for 12 pose, 40 shape and 10 expression numbers."""
    trunk = Backbone(backbone, pretrained=False, image_size=64)
    heads = [MBConvRegressor(trunk.channels, outputs) for outputs in (12, 40, 10)]
    assert trunk.channels == channels
    assert sum(p.numel() for module in (trunk, *heads) for p in module.parameters()) == published


def test_the_kim_2023_recipe_builds_that_model(problem: FaceProblem) -> None:
    config = load_run_config("kim2023", SMALL)
    full = FaceProblem(config)  # type: ignore[arg-type]
    full.prepare()
    assert sum(p.numel() for p in full.build_model().parameters()) == 36_036_302


def test_head_width_is_configurable(problem: FaceProblem) -> None:
    wide, narrow = MBConvRegressor(32, 12), MBConvRegressor(32, 12, expansion=0.5, channels=16)
    count = [sum(p.numel() for p in head.parameters()) for head in (wide, narrow)]
    assert count[1] < count[0] / 4
    assert narrow(torch.randn(2, 32, 2, 2)).shape == (2, 12)


def test_equation_1_gives_the_rendered_landmarks(problem: FaceProblem) -> None:
    """The stored labels of a split, reconstructed from pose, shape and expression, up to the camera's perspective."""
    model = problem.build_model()
    targets = problem._targets_of("val")
    difference = (model.heads["face"].reconstruct(targets.parameters) - targets.landmarks).norm(dim=-1)
    assert difference.mean() < 0.01 * problem.config.data.image_size, "pixels"
    # With a camera at infinity nothing is left: of the landmarks seen from far away.
    basis = morphable_model().landmark_basis()
    modes = np.concatenate([basis.shape, basis.expression], axis=2)
    points = basis.mean + modes @ targets.parameters[0, 12:].double().numpy()
    far = project(points, targets.parameters[0, :12].double().numpy(), problem.config.data.image_size)
    np.testing.assert_allclose(model.heads["face"].reconstruct(targets.parameters[:1])[0].numpy(), far, atol=1e-3)


def test_the_angles_of_the_target_parameters_are_the_target_angles(problem: FaceProblem) -> None:
    model = problem.build_model()
    targets = problem._targets_of("val")
    away_from_profile = targets.angles[:, 1].abs() < 80
    angles = model.heads["face"].angles(targets.parameters)
    assert (angles - targets.angles)[away_from_profile].abs().max() < 0.01


def test_the_mean_face_has_loss_one_in_every_task(problem: FaceProblem) -> None:
    """`normalize` divides by it, so λ = 1 weighs all three alike."""
    model = problem.build_model()
    targets = problem._targets_of("train")
    losses = model.losses({"face": torch.zeros(problem.size("train"), 62)}, targets)
    assert list(losses) == ["landmarks", "pose", "parameters"]
    assert [loss.item() for loss in losses.values()] == pytest.approx([1, 1, 1], rel=1e-5)


def test_lambda_multiplies_its_loss(problem: FaceProblem) -> None:
    targets = problem._targets_of("train")
    output = {"face": torch.randn(problem.size("train"), 62)}
    weighted = FaceProblem(load_run_config("quick", [*SMALL, "losses.pose.weight=3"]))  # type: ignore[arg-type]
    weighted.prepare()
    plain, tripled = (p.build_model().losses(output, targets) for p in (problem, weighted))
    assert tripled["pose"].item() == pytest.approx(3 * plain["pose"].item())
    assert tripled["landmarks"].item() == pytest.approx(plain["landmarks"].item())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-20, 1e20, 3.5]), min_size=62, max_size=62))
def test_losses_and_gradients_are_finite_for_any_output(problem: FaceProblem, numbers: list[float]) -> None:
    model = problem.build_model()
    head = model.heads["face"]
    output = (torch.tensor([numbers]) / head.unit - head.mean) / head.std
    output = output.detach().clamp(-1e18, 1e18).requires_grad_()
    targets = problem._targets_of("val")
    one = Targets(targets.landmarks[:1], targets.angles[:1], parameters=targets.parameters[:1])
    pose = model.losses({"face": output}, one)["pose"]
    (gradient,) = torch.autograd.grad(pose, output)
    assert torch.isfinite(pose)
    assert torch.isfinite(gradient).all()


def test_only_the_backbone_is_shared(problem: FaceProblem) -> None:
    model = problem.build_model()
    shared = {id(p) for p in problem.shared_parameters(model)}
    assert shared == {id(p) for p in model.backbone.parameters()}


def test_metrics_are_in_their_units_and_the_constant_is_worse_than_the_truth(problem: FaceProblem) -> None:
    class Oracle(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 62)

    model = problem.build_model()
    targets = problem._targets_of("val")
    rows = iter(targets.parameters.split(256))
    perfect = Oracle()
    head = model.heads["face"]
    perfect.decode = lambda output: model.decode({"face": (next(rows) / head.unit - head.mean) / head.std})  # type: ignore[assignment]
    scores = problem.evaluate(perfect, "val")
    assert set(scores) == set(FaceProblem.metrics)
    assert scores["nme"] < 1.0  # the weak perspective of the parameters
    assert scores["mae_pitch"] < 0.5
    trivial = problem.trivial_metrics("val")
    assert trivial["nme"] > 10
    assert trivial["mae"] > 10
    assert trivial["mae"] == pytest.approx(np.mean([trivial[f"mae_{name}"] for name in ("pitch", "yaw", "roll")]))


def test_training_batches_repeat_with_their_generator(problem: FaceProblem) -> None:
    indices = torch.arange(8)
    first, second, other = (problem.batch(indices, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].landmarks, second[1].landmarks)
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (8, 3, 32, 32)


@pytest.mark.parametrize("strategy", ["weighted_sum", "pcgrad", "uncertainty"])
def test_a_small_model_overfits_the_training_faces(problem: FaceProblem, strategy: str) -> None:
    """On 96 faces without augmentation the loss falls well below the mean face's 1."""
    off = dict.fromkeys(type(problem.config.augmentation).model_fields, 0.0)
    overrides = [
        *SMALL,
        f"augmentation={off}",
        f"strategy.name={strategy}",
        "training.epochs=30",
        "training.batch_size=24",
    ]
    config = load_run_config("quick_plain", overrides)
    own = FaceProblem(config)  # type: ignore[arg-type]
    own.prepare()
    history = train(own, config).history
    assert history[-1]["train/landmarks"] < 0.5 * history[0]["train/landmarks"]


def test_a_split_without_profiles_is_refused() -> None:
    with pytest.raises(InputError, match="yaw bins"):
        FaceProblem(load_run_config("quick", [*SMALL[:1], "data.val=1", "data.test=1", "data.image_size=32"])).prepare()  # type: ignore[arg-type]


def test_the_system_is_named_in_its_config() -> None:
    assert Morphable.Config.model_fields["system"].default == "morphable"
