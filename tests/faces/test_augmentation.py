"""Augmentation: one meaning in two implementations, and labels that stay on what they mark."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsearch.errors import InputError
from mtlsearch.faces import geometry
from mtlsearch.faces.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Draws,
    augment,
    denormalize,
    draw,
    transform_labels,
    transform_reference,
)  # fmt: skip
from mtlsearch.faces.augmentation_cpu import transform_fused
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.morphable.dense_points import dense_points
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.rendering.synthetic import LABELS, SyntheticRecipe, render_sample

RECIPE = SyntheticRecipe(train=24, image_size=64)
STRONG = Augmentation(
    rotation=60, scale=0.25, shift=0.1, erase=0.6, grey=0.4, noise=0.1, blur=0.5, blur_size=0.03, colour=0.3
)
SINGLE = {
    **{name: [name] for name in ("rotation", "scale", "shift", "flip", "brightness", "contrast", "gamma", "colour")},
    **{name: [name] for name in ("grey", "noise")},
    "blur": ["blur", "blur_size"],
    "erase": ["erase", "erase_size"],
}


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    samples = [render_sample(RECIPE, "train", i) for i in range(24)]
    images = torch.from_numpy(np.stack([s.image for s in samples]))
    return images, {name: torch.from_numpy(np.stack([getattr(s, name) for s in samples])) for name in LABELS}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


strengths = st.builds(
    Augmentation,
    rotation=st.floats(0, 180),
    **{name: st.floats(0, 1) for name in Augmentation.model_fields if name not in ("rotation", "gamma", "blur_size")},
    gamma=st.floats(0, 2),
    blur_size=st.floats(0, 0.05),
)


@given(strengths, st.integers(0, 10**6), st.sampled_from([32, 64, 71]))
@settings(max_examples=25, deadline=None)
def test_fused_and_reference_agree(augmentation: Augmentation, seed: int, output_size: int) -> None:
    images = torch.randint(0, 256, (6, 80, 80, 3), generator=seeded(seed), dtype=torch.uint8)
    draws = draw(augmentation, 6, 80, 64, output_size, seeded(seed))
    difference = (transform_fused(images, draws, output_size) - transform_reference(images, draws, output_size)).abs()
    assert difference.max() * max(IMAGENET_STD) < 1 / 255


def test_every_transform_is_tested() -> None:
    assert {field for fields in SINGLE.values() for field in fields} == set(Augmentation.model_fields)


@pytest.mark.parametrize("name", SINGLE)
def test_every_transform_does_something_alone(batch, name: str) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    with_it, _ = augment(images, labels, STRONG.only(*SINGLE[name]), 64, generator=seeded(1))
    without, _ = augment(images, labels, Augmentation.off(), 64)
    assert (with_it - without).abs().mean() > 1e-3


def test_evaluation_is_the_centre_crop(batch) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    out, moved = augment(images, labels, Augmentation.off(), 64, generator=seeded(3))
    expected = (
        images[:, 8:72, 8:72].permute(0, 3, 1, 2) / 255 - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    ) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert torch.equal(denormalize(out), images[:, 8:72, 8:72])
    shifted = labels["landmarks"] - torch.tensor([8.0, 8.0, 0.0])
    torch.testing.assert_close(moved["landmarks"], shifted.to(moved["landmarks"].dtype), atol=1e-9, rtol=0)
    assert torch.equal(moved["angles"], labels["angles"]) and torch.equal(moved["shape"], labels["shape"])


@given(strengths, st.integers(0, 10**6), st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_threads_and_batches_do_not_matter(augmentation: Augmentation, seed: int, cut: int) -> None:
    images = torch.randint(0, 256, (20, 40, 40, 3), generator=seeded(seed), dtype=torch.uint8)
    draws = draw(augmentation, 20, 40, 32, 32, seeded(seed))
    alone = transform_fused(images, draws, 32)
    torch.set_num_threads(2)
    try:
        assert torch.equal(transform_fused(images, draws, 32), alone)
    finally:
        torch.set_num_threads(1)
    for rows in (slice(0, cut), slice(cut, None)):
        some = Draws(**{name: values[rows] for name, values in vars(draws).items()})
        torch.testing.assert_close(transform_fused(images[rows], some, 32), alone[rows], atol=1e-5, rtol=0)


def test_tone_by_hand() -> None:
    """v^gamma, contrast about ½, brightness, gain, clipped: on grey levels that cover the range."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(3, -1, -1, 3).contiguous()
    draws = draw(Augmentation.off(), 3, 16, 16, 16)
    v = torch.arange(256) / 255
    draws.table[0] = v**2
    draws.table[1] = ((v - 0.5) * 1.5 + 0.6).clamp(0, 1)
    draws.table[2, 2] = 0.5 * v
    seen = denormalize(transform_fused(ramp, draws, 16)).view(3, 256, 3).double() / 255
    np.testing.assert_allclose(seen[0, :, 0], v**2, atol=0.003)
    np.testing.assert_allclose(seen[1, :, 1], ((v - 0.5) * 1.5 + 0.6).clamp(0, 1), atol=0.003)
    np.testing.assert_allclose(seen[2, :, 2] * 2, seen[2, :, 0], atol=0.006)


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_draws_stay_in_their_ranges(seed: int) -> None:
    draws = draw(STRONG, 64, 80, 64, 64, seeded(seed))
    assert draws.turn.abs().max() <= 60
    factor = draws.affine[:, :, 0].norm(dim=1)
    assert ((factor.log().abs()) <= 0.25 + 1e-9).all()
    centre = draws.affine[..., :2].sum(-1) * 39.5 + draws.affine[..., 2]
    assert ((centre - 31.5).abs() <= 6.4 + 1e-9).all()
    assert ((draws.table >= 0) & (draws.table <= 1)).all() and (draws.table.diff(dim=2) >= 0).all()
    assert ((draws.blur >= 0) & (draws.blur <= 0.03 * 64)).all() and (draws.sigma <= 0.1).all()
    sides = (draws.erased[:, 2:] - draws.erased[:, :2]).max()
    assert sides <= 0.35 * 64 + 1 and draws.erased.min() >= 0 and draws.erased.max() <= 64


def test_blur_is_a_gaussian() -> None:
    """Of a single point: its sum, its spread, and the edge that continues."""
    images = torch.zeros(2, 65, 65, 3, dtype=torch.uint8)
    images[0, 32, 32] = 255
    images[1] = 90
    draws = draw(Augmentation.off(), 2, 65, 65, 65)
    draws.blur[:] = 2.0
    for implementation in (transform_fused, transform_reference):
        seen = implementation(images, draws, 65) * torch.tensor(IMAGENET_STD).view(3, 1, 1)
        seen = (seen + torch.tensor(IMAGENET_MEAN).view(3, 1, 1))[:, 0].double()
        assert seen[0].sum() == pytest.approx(1, abs=1e-3)
        x = torch.arange(65).double() - 32
        assert (seen[0].sum(0) * x**2).sum() == pytest.approx(4.0, rel=0.03)
        torch.testing.assert_close(seen[1], torch.full_like(seen[1], 90 / 255), atol=1e-5, rtol=0)


def markers(points: np.ndarray, size: int) -> np.ndarray:
    """(K, 3) pixels -> (K, size, size, 3) uint8: an image per landmark with one soft dot at it."""
    y, x = np.mgrid[:size, :size]
    dots = np.exp(-((x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2) / (2 * 2.2**2))
    return np.repeat((dots * 255).round().astype(np.uint8)[..., None], 3, -1)


MOVES = {
    "rotation": Augmentation(rotation=180).only("rotation"),
    "scale": Augmentation(scale=0.3).only("scale"),
    "shift": Augmentation(shift=0.2).only("shift"),
    "flip": Augmentation(flip=1.0).only("flip"),
    "tone": Augmentation(gamma=0.3, contrast=0.3, colour=0.2).only("gamma", "contrast", "colour"),
    "grey": Augmentation(grey=1.0).only("grey"),
    "blur": Augmentation(blur=1.0, blur_size=0.02).only("blur", "blur_size"),
    "noise": Augmentation(noise=0.01).only("noise"),
    "erase": Augmentation(erase=0.5).only("erase", "erase_size"),
    "all": Augmentation(rotation=60, scale=0.25, shift=0.1, noise=0.01, erase=0.3, blur_size=0.02),
}


def dense_landmarks(labels: dict[str, torch.Tensor], count: int) -> torch.Tensor:
    """(count, 520, 3): the dense points of the first faces, where the camera shows them."""
    model = morphable_model()
    corners, weights = dense_points().on_mesh(model.mesh)
    shown = []
    for i in range(count):
        vertices = model.vertices(labels["shape"][i].numpy(), labels["expression"][i].numpy())
        points = (vertices[corners] * weights[..., None]).sum(1)
        shown.append(geometry.project(points, labels["pose"][i].numpy(), 80, float(labels["inverse_distance"][i])))
    return torch.from_numpy(np.stack(shown))


LAYOUTS = [*((points, name) for points in (68, 21) for name in MOVES), (520, "flip"), (520, "all")]


@pytest.mark.parametrize("implementation", [transform_fused, transform_reference])
@pytest.mark.parametrize(("points", "name"), LAYOUTS)
def test_a_marker_stays_on_its_landmark(batch, implementation, points: int, name: str) -> None:  # type: ignore[no-untyped-def]
    """Dots drawn on landmarks of the stored image are found where the transformed labels say, to a tenth of a pixel."""
    _, labels = batch
    count, output_size = 2 if points == 520 else 8, 96 if name == "scale" else 64
    landmarks, flip = labels["landmarks"][:count], geometry.FLIPS.get(points)
    if points == 21:
        landmarks = to_21_points(landmarks[..., :2])
    elif points == 520:
        landmarks, flip = dense_landmarks(labels, count), tuple(dense_points().flip.tolist())
    draws = draw(MOVES[name], count, 80, 64, output_size, seeded(9))
    visible = torch.ones(count, points, dtype=torch.bool)
    moved = transform_labels({"landmarks": landmarks, "visible": visible}, draws, 80, output_size, flip)
    worst, measured = 0.0, 0
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    y, x = torch.meshgrid(torch.arange(output_size).double(), torch.arange(output_size).double(), indexing="ij")
    for i in range(count):
        old, new = landmarks[i].numpy(), moved["landmarks"][i]
        dots = torch.from_numpy(markers(old, 80))
        one = Draws(**{k: v[i : i + 1].expand(points, *v.shape[1:]).contiguous() for k, v in vars(draws).items()})
        seen = (implementation(dots, one, output_size) * std + mean).mean(1).double()
        source = flip if draws.flip[i] else tuple(range(points))
        top, left, bottom, right = draws.erased[i].tolist()
        for k in range(points):  # the label with index k now marks the dot that was drawn for source[k]
            px, py = new[k, :2].tolist()
            inside = 9 < px < output_size - 10 and 9 < py < output_size - 10
            if not inside or not (old[source[k], :2] > 9).all() or not (old[source[k], :2] < 70).all():
                continue
            if right > left and left - 12 < px < right + 11 and top - 12 < py < bottom + 11:
                continue  # a part of the dot is erased
            dot = (seen[source[k]] - seen[source[k]].median()).clamp(min=0)
            dot = torch.where(((x - px) ** 2 + (y - py) ** 2 < 100) & (dot > 0.1 * dot.max()), dot, 0)
            centre = torch.stack([(x * dot).sum(), (y * dot).sum()]) / dot.sum()
            worst = max(worst, float((centre - new[k, :2]).abs().max()))
            measured += 1
    assert measured > 40
    assert worst < 0.1


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_parameters_reconstruct_the_transformed_landmarks(batch, seed: int) -> None:  # type: ignore[no-untyped-def]
    _, labels = batch
    moved = transform_labels(labels, draw(STRONG, 24, 80, 64, 64, seeded(seed)), 80, 64)
    basis = morphable_model().landmark_basis()
    model = (
        torch.from_numpy(basis.mean)
        + torch.einsum("lck,bk->blc", torch.from_numpy(basis.shape), moved["shape"])
        + torch.einsum("lck,bk->blc", torch.from_numpy(basis.expression), moved["expression"])
    )
    points = geometry.project(model, moved["pose"], 64, moved["inverse_distance"])
    torch.testing.assert_close(points, moved["landmarks"], atol=1e-8, rtol=0)
    rotation, _ = geometry.orthonormalize(moved["pose"].view(-1, 3, 4)[..., :3])
    torch.testing.assert_close(rotation, geometry.euler_to_matrix(moved["angles"]), atol=1e-9, rtol=0)


def test_flipping_twice_is_the_identity(batch) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    draws = draw(Augmentation(flip=1.0).only("flip"), 24, 80, 80, 80, seeded(0))
    assert draws.flip.all()
    twice = transform_labels(transform_labels(labels, draws, 80, 80), draws, 80, 80)
    for name, values in labels.items():
        torch.testing.assert_close(twice[name], values, atol=1e-12, rtol=0)
    once = denormalize(transform_fused(images, draws, 80))
    assert torch.equal(once, images.flip(2))
    assert torch.equal(denormalize(transform_fused(once, draws, 80)), images)


def test_what_is_erased_or_outside_is_invisible(batch) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    everything = {**labels, "visible": torch.ones_like(labels["visible"])}
    augmentation = Augmentation(erase=1.0, erase_size=0.8).only("erase", "erase_size")
    out, moved = augment(images, everything, augmentation, 64, generator=seeded(4))
    x, y = moved["landmarks"][..., 0].round().long(), moved["landmarks"][..., 1].round().long()
    checked = 0
    for b in range(24):
        for k in range(68):
            if 0 <= x[b, k] < 64 and 0 <= y[b, k] < 64:
                erased = bool((out[b, :, y[b, k], x[b, k]] == 0).all())
                assert erased == (not bool(moved["visible"][b, k]))
                checked += erased
            else:
                assert not moved["visible"][b, k]
    assert checked > 50


def test_the_generator_decides(batch) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    a, b, c = (augment(images, labels, STRONG, 64, generator=seeded(s))[0] for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_no_images_are_a_batch_too(batch) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    none = {name: values[:0] for name, values in labels.items()}
    out, moved = augment(images[:0], none, STRONG, 64, generator=seeded(1))
    assert out.shape == (0, 3, 64, 64) and {name: len(values) for name, values in moved.items()} == dict.fromkeys(
        none, 0
    )
    assert transform_reference(images[:0], draw(STRONG, 0, images.shape[1], 64, 64), 64).shape == (0, 3, 64, 64)


def test_labels_may_be_a_subset_and_unknown_ones_are_refused(batch) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    _, moved = augment(images, {"angles": labels["angles"]}, STRONG, 64, generator=seeded(1))
    assert set(moved) == {"angles"}
    with pytest.raises(InputError, match="gaze"):
        augment(images, {"gaze": labels["angles"]}, STRONG, 64)
    with pytest.raises(InputError, match="uint8"):
        augment(images.float(), labels, STRONG, 64)
    with pytest.raises(InputError, match="image_size"):
        augment(images, labels, STRONG, 128)
    with pytest.raises(ValueError, match="rotation"):
        Augmentation(rotation=-3)
