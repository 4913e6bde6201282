"""Zhang 2018: the recipe's network, the three links, shared parameters, losses, targets, decoding, overfitting."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.augmentation import Augmentation
from mtlsearch.faces.cascade.config import CascadeModelConfig, Links
from mtlsearch.faces.cascade.network import CascadeNetwork
from mtlsearch.faces.cascade.stem import STRIDE
from mtlsearch.faces.checkpoints import load_system
from mtlsearch.faces.heads.heatmaps import pixels_to_cells, target_heatmaps
from mtlsearch.faces.metrics import POINTS_68_TO_21
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.faces.systems import Cascade
from mtlsearch.faces.systems.cascade import CascadeRunConfig
from mtlsearch.faces.targets import FaceStatistics, Targets
from mtlsearch.training import load_run_config, train

SMALL_MODEL: dict[str, Any] = {"channels": 16, "stem": 8, "backbone": "test_resnet"}
SMALL = [
    "model.channels=16",
    "model.stem=8",
    "model.backbone=test_resnet",
    "data={image_size: 64, train: 32, val: 12, test: 12}",
]
ALL_LINKS = [dict(zip(Links.model_fields, switches)) for switches in itertools.product([False, True], repeat=3)]


def config(*overrides: str) -> CascadeRunConfig:
    loaded = load_run_config("zhang2018", [*SMALL, *overrides])
    assert isinstance(loaded, CascadeRunConfig)
    return loaded


def network(**model: Any) -> CascadeNetwork:
    return CascadeNetwork(CascadeModelConfig(**SMALL_MODEL | model), image_size=64)


def targets(count: int = 4, size: int = 64, seed: int = 0) -> Targets:
    """Landmarks well inside a crop of that side, as shares of it: the same for every size."""
    generator = torch.Generator().manual_seed(seed)
    landmarks = (0.3 + 0.4 * torch.rand(count, 68, 2, generator=generator)) * size
    angles = 60 * torch.randn(count, 3, generator=generator).clamp(-1.5, 1.5)
    visible = torch.rand(count, 68, generator=generator) < 0.8
    return Targets(landmarks, angles, visible)


def system(*overrides: str, size: int = 64, known: Targets | None = None) -> Cascade:
    chosen = config(f"data.image_size={size}", *overrides)
    return Cascade(chosen, FaceStatistics(size, known or targets(64, size, seed=1)))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def reaches(output: torch.Tensor, module: torch.nn.Module) -> bool:
    """Whether what the module computes has any part in `output`."""
    found = torch.autograd.grad(output.square().sum(), list(module.parameters()), allow_unused=True, retain_graph=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in found)


def test_the_recipe_is_the_paper_s() -> None:
    recipe = load_run_config("zhang2018")
    assert isinstance(recipe, CascadeRunConfig)
    assert (recipe.data.image_size, recipe.optimizer.lr, recipe.schedule.name) == (256, 2.5e-4, "constant")
    net = CascadeNetwork(recipe.model, 256)
    first, second = net.blocks
    assert first.landmarks.hourglass.levels == 4
    with torch.no_grad():
        net.eval()
        stem = net.stem(torch.zeros(1, 3, 256, 256))
        output = net(torch.zeros(1, 3, 256, 256))
    assert stem.shape == (1, 256, 64, 64)
    assert output["heatmaps"].shape == (1, 2, 68, 64, 64)
    assert output["logits"].shape == (1, 2, 3, 66)
    import timm

    stages = timm.create_model("resnet50", num_classes=0)
    published = sum(parameters(getattr(stages, f"layer{i}")) for i in (1, 2, 3, 4))
    assert parameters(second.pose.first) + parameters(second.pose.stages) == published


@pytest.mark.parametrize("size", [32, 64, 80, 96, 112, 128])
def test_images_of_any_multiple_of_16(size: int) -> None:
    output = CascadeNetwork(CascadeModelConfig(**SMALL_MODEL), size)(torch.randn(2, 3, size, size))
    assert output["heatmaps"].shape == (2, 2, 68, size // 4, size // 4)


def test_other_sizes_are_refused_in_the_config_and_in_the_network() -> None:
    with pytest.raises(InputError, match=r"data\.image_size: .*multiple of 16.*got 120; take 112 or 128"):
        config("data.image_size=120")
    with pytest.raises(InputError, match=r"data\.image_size: .*multiple of 16.*got 100"):
        CascadeNetwork(CascadeModelConfig(**SMALL_MODEL), 100)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "no_such_model"])
def test_a_pose_backbone_that_is_no_resnet_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"model\.backbone: .*(a ResNet's stages|timm has no model)"):
        config(f"model.backbone={name}")


@pytest.mark.parametrize("links", ALL_LINKS, ids=str)
def test_links_are_the_ways_between_the_tasks(links: dict[str, bool]) -> None:
    """What reaches what in the second block of two, for each combination of the switches."""
    net = network(links=links)
    first, second = net.blocks
    output = net(torch.randn(2, 3, 64, 64))
    pose, heatmaps = output["logits"][:, 1], output["heatmaps"][:, 1]
    assert reaches(heatmaps, first.pose.stages) == (links["sum"] or links["insertion"])
    assert reaches(pose, first.pose.stages) == links["sum"]
    assert reaches(pose, first.landmarks) == links["unification"]
    assert reaches(heatmaps, first.landmarks) == links["unification"]
    assert not reaches(output["logits"][:, 0], first.landmarks)
    assert not reaches(output["heatmaps"][:, 0], first.pose.stages)
    assert (first.unify is not None) == links["unification"]
    assert (second.landmarks.hourglass.insert is not None) == links["insertion"]
    assert (first.pose.upsample is not None) == (links["sum"] or links["insertion"])
    assert (first.pose.intermediate is not None) == links["sum"]
    assert reaches(pose, net.stem)
    assert reaches(heatmaps, net.stem)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("links", ALL_LINKS, ids=str)
def test_shared_parameters_are_those_that_both_tasks_reach(links: dict[str, bool], blocks: int) -> None:
    """Found by autograd; and no parameter is there for nothing."""
    net = network(links=links, blocks=blocks)
    output = net(torch.randn(2, 3, 64, 64))
    everything = list(net.parameters())
    found = [
        torch.autograd.grad(part.square().sum(), everything, allow_unused=True, retain_graph=True)
        for part in (output["heatmaps"], output["logits"])
    ]
    tasks = [sum(gradient is not None for gradient in of_one) for of_one in zip(*found)]
    assert min(tasks) == 1
    shared = net.shared_parameters()
    assert len(shared) == len({id(p) for p in shared})
    assert {id(p) for p in shared} == {id(p) for p, count in zip(everything, tasks) if count == 2}


def test_each_link_has_parameters_of_its_own() -> None:
    counts = {tuple(links.values()): parameters(network(links=links)) for links in ALL_LINKS}
    whole = counts[True, True, True]
    assert whole - counts[True, False, True] == 68 * 16 + 16, "the channel unification layer"
    assert whole - counts[True, True, False] == 16 * 16 + 16, "the convolution of the insertion"
    assert whole - counts[False, True, True] == 32 * 16 + 16, "the intermediate features' convolution"
    assert counts[False, False, False] < min(count for links, count in counts.items() if any(links))


def test_without_sum_the_block_s_input_stands_in() -> None:
    net = network(links={"sum": False, "unification": False, "insertion": False})
    x = torch.randn(1, 16, 16, 16)
    assert net.blocks[0](x).next_map is x


def test_the_stem_learns_from_each_task_alone() -> None:
    model = system()
    stem = list(model.network.stem.parameters())
    assert {id(p) for p in stem} <= {id(p) for p in model.shared_parameters()}
    losses = model.losses(model(torch.randn(4, 3, 64, 64)), targets())
    assert list(losses) == ["landmarks", "pose"]
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, stem, retain_graph=True)
        assert all(torch.isfinite(gradient).all() and gradient.abs().sum() > 0 for gradient in gradients)


def constant_output(model: Cascade, known: Targets) -> dict[str, torch.Tensor]:
    """The mean angles' bin for certain, and empty heatmaps: the same for every face."""
    logits = torch.full((len(known.angles), model._model.blocks, 3, model._model.bins.count), -50.0)
    bins = model._model.bins.indices(known.angles.mean(0))
    logits.scatter_(3, bins.view(1, 1, 3, 1).expand(*logits.shape[:3], 1), 50.0)
    heatmaps = torch.zeros(
        len(known.angles),
        model._model.blocks,
        model._model.points,
        model.image_size // STRIDE,
        model.image_size // STRIDE,
    )
    return {"heatmaps": heatmaps, "logits": logits}


@pytest.mark.parametrize("size", [64, 128])
def test_a_constant_prediction_has_loss_one_in_both_tasks(size: int) -> None:
    """`normalize` divides by it, so λ = 1 weighs both alike; at any image size, and for any number of blocks."""
    centred = targets(400, size)
    for blocks in (1, 3):
        model = system("losses.pose.alpha=0", f"model.blocks={blocks}", size=size, known=centred)
        losses = model.losses(constant_output(model, centred), centred)
        assert losses["landmarks"].item() == pytest.approx(1, rel=0.02)  # the centre is where the mean landmarks are
        assert losses["pose"].item() == pytest.approx(1, rel=0.02)  # a bin's centre is not quite the mean


def test_losses_do_not_depend_on_the_image_size() -> None:
    """Every landmark half a cell of a 64² map off, at 64 and at 128 pixels: 2 blocks of 0.25."""
    alone = ("losses.normalize=false", "losses.landmarks.visible=inside", "losses.landmarks.alpha=0")
    values = []
    for size in (64, 128):
        known = targets(8, size)
        model = system(*alone, size=size, known=known)
        cells = pixels_to_cells(known.landmarks + torch.tensor([size / 128, 0.0]), size, model.image_size // STRIDE)
        maps = target_heatmaps(cells, None, model.image_size // STRIDE)[:, None].expand(-1, 2, -1, -1, -1)
        output = constant_output(model, known) | {"heatmaps": maps}
        values.append(model.losses(output, known))
        off = model.decode(output).landmarks - known.landmarks
        torch.testing.assert_close(off, torch.tensor([size / 128, 0.0]).expand_as(off), atol=0.02, rtol=0)
    assert values[0]["pose"].item() == pytest.approx(values[1]["pose"].item())
    assert [value["landmarks"].item() for value in values] == pytest.approx([0.5, 0.5], rel=0.02)


def test_equation_6_weighs_the_tasks_and_alpha_their_second_terms() -> None:
    known = targets()
    output = {"heatmaps": torch.randn(4, 2, 68, 16, 16), "logits": torch.randn(4, 2, 3, 66)}

    def of(*overrides: str) -> dict[str, float]:
        return {k: v.item() for k, v in system("losses.normalize=false", *overrides).losses(output, known).items()}

    plain, none = of(), of("losses.landmarks.alpha=0", "losses.pose.alpha=0")
    twice = of("losses.landmarks.alpha=2", "losses.pose.alpha=2")
    weighted = of("losses.landmarks.weight=3", "losses.pose.weight=0.5")
    for task in plain:
        assert twice[task] - plain[task] == pytest.approx(plain[task] - none[task], rel=1e-4)
        assert none[task] < plain[task]
    assert weighted["landmarks"] == pytest.approx(3 * plain["landmarks"])
    assert weighted["pose"] == pytest.approx(0.5 * plain["pose"])


def test_a_hidden_landmark_is_learned_as_an_empty_map_only() -> None:
    """Labelled: its heatmap goes to zero and its coordinates do not matter. Inside: it is learned like any other."""
    known = targets()
    visible = known.visible
    assert visible is not None and not visible.all()
    moved = Targets(torch.where(visible[..., None], known.landmarks, 1.0), known.angles, visible)
    output = {"heatmaps": torch.randn(4, 2, 68, 16, 16), "logits": torch.randn(4, 2, 3, 66)}
    labelled, inside = (system(f"losses.landmarks.visible={how}") for how in ("labelled", "inside"))
    assert "visible" in labelled.Config.model_validate(config("losses.landmarks.visible=labelled").tree()).labels
    assert labelled.losses(output, known)["landmarks"] == labelled.losses(output, moved)["landmarks"]
    assert inside.losses(output, known)["landmarks"] != inside.losses(output, moved)["landmarks"]


def test_landmarks_outside_the_crop_do_not_count() -> None:
    known = targets()
    landmarks = known.landmarks.clone()
    landmarks[:, 0] = torch.tensor([-30.0, 20.0])
    model = system("losses.landmarks.visible=inside")
    _, visible = model._points(Targets(landmarks, known.angles))
    assert not visible[:, 0].any() and visible[:, 1:].all()
    output = {"heatmaps": torch.zeros(4, 2, 68, 16, 16), "logits": torch.zeros(4, 2, 3, 66)}
    assert torch.isfinite(model.losses(output, Targets(landmarks, known.angles))["landmarks"])


def test_21_points_follow_from_68() -> None:
    known = targets(6)
    model = system("model.points=21", "losses.landmarks.visible=labelled")
    points, visible = model._points(known)
    assert points.shape == (6, 21, 2)
    assert known.visible is not None
    for index, group in enumerate(POINTS_68_TO_21):
        torch.testing.assert_close(points[:, index], known.landmarks[:, list(group)].mean(1))
        assert torch.equal(visible[:, index], known.visible[:, list(group)].all(1))
    output = model(torch.randn(6, 3, 64, 64))
    assert output["heatmaps"].shape == (6, 2, 21, 16, 16)
    assert model.decode(output).landmarks.shape == (6, 21, 2)


def test_68_points_do_not_follow_from_21() -> None:
    known = Targets(torch.rand(4, 21, 2) * 60, torch.zeros(4, 3))
    with pytest.raises(InputError, match=r"model\.points: 68 points .* data with 21; set model\.points=21"):
        system("losses.landmarks.visible=inside", known=known)


def test_decoding_gives_back_what_the_targets_say() -> None:
    known = targets()
    model = system()
    maps = target_heatmaps(pixels_to_cells(known.landmarks, 64, 16), None, 16)
    last = {"heatmaps": maps[:, None], "logits": constant_output(model, known)["logits"][:, :1]}
    other = {"heatmaps": torch.zeros(4, 1, 68, 16, 16), "logits": torch.zeros(4, 1, 3, 66)}
    prediction = model.decode({key: torch.cat([other[key], last[key]], 1) for key in last})
    assert (prediction.landmarks - known.landmarks).abs().max() < 0.1 * 4, "a tenth of a cell of 4 pixels"
    assert (prediction.angles - known.angles.mean(0)).abs().max() <= 1.5
    empty = model.decode({key: torch.cat([last[key], other[key]], 1) for key in last})
    torch.testing.assert_close(empty.landmarks, torch.full((4, 68, 2), 31.5))
    assert empty.angles.abs().max() < 1e-3


def test_losses_are_in_float32_under_autocast() -> None:
    model = system()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(4, 3, 64, 64))
        losses = model.losses(output, targets())
        prediction = model.decode(output)
    assert output["heatmaps"].dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert prediction.landmarks.dtype == prediction.angles.dtype == torch.float32
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_forward_and_its_decoding_can_be_exported() -> None:
    class Predictor(torch.nn.Module):
        def __init__(self, model: Cascade) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            prediction = self.model.decode(self.model(images))
            return prediction.landmarks, prediction.angles

    predictor = Predictor(system().eval())
    images = torch.randn(2, 3, 64, 64)
    exported = torch.export.export(predictor, (images,)).module()
    for traced, run in zip(exported(images), predictor(images)):
        torch.testing.assert_close(traced, run, atol=1e-3, rtol=1e-4)


def test_it_overfits_32_faces() -> None:
    """By the training loop, at a small width, in 400 steps: NME below 1 % and pose error below 1° on the faces seen."""
    chosen = config(
        "model.channels=32",
        "model.stem=16",
        f"augmentation={Augmentation.off().model_dump()}",
        "optimizer={name: adamw, lr: 0.01}",
        "schedule={name: onecycle}",
        "training={epochs: 200, batch_size: 16}",
        "data.image_size=48",
    )
    problem = FaceProblem(chosen)
    problem.prepare()
    model = train(problem, chosen).model.eval()
    with torch.inference_mode():
        scores = problem.evaluate(model, "train")
    assert scores["nme_whole"] < 1.0
    assert scores["mae"] < 1.0


@pytest.mark.parametrize("points", [68, 21])
def test_a_checkpoint_alone_predicts_what_the_run_did(tmp_path: Path, points: int) -> None:
    chosen = config("training={epochs: 1, batch_size: 16}", f"model.points={points}")
    problem = FaceProblem(chosen)
    problem.prepare()
    result = train(problem, chosen, directory=tmp_path)
    loaded = load_system(tmp_path / "best.safetensors")
    with torch.inference_mode():
        again = problem.evaluate(loaded.model, "val")
    assert again["nme"] == pytest.approx(result.best["val/nme"], rel=1e-5)
    assert again["mae"] == pytest.approx(result.best["val/mae"], rel=1e-5)
    assert math.isnan(again["nme_3d"]), "landmarks have no depth here"
