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
    augment,
    denormalize,
    draw,
    transform_labels,
    transform_reference,
)  # fmt: skip
from mtlsearch.faces.augmentation_cpu import transform_fused
from mtlsearch.faces.morphable_model import morphable_model
from mtlsearch.faces.synthetic import LABELS, SyntheticRecipe, render_sample

RECIPE = SyntheticRecipe(train=24, image_size=64)
STRONG = Augmentation(rotation=60, scale=0.25, shift=0.1, erase=0.6, grey=0.4, noise=0.1)
SINGLE = ["rotation", "scale", "shift", "flip", "brightness", "contrast", "gamma", "grey", "noise", "erase"]


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    samples = [render_sample(RECIPE, "train", i) for i in range(24)]
    images = torch.from_numpy(np.stack([s.image for s in samples]))
    return images, {name: torch.from_numpy(np.stack([getattr(s, name) for s in samples])) for name in LABELS}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10**6), st.sampled_from([32, 64, 71]))
@settings(max_examples=15, deadline=None)
def test_fused_and_reference_agree(seed: int, output_size: int) -> None:
    images = torch.randint(0, 256, (6, 80, 80, 3), generator=seeded(seed), dtype=torch.uint8)
    draws = draw(STRONG, 6, 80, 64, output_size, seeded(seed))
    difference = (transform_fused(images, draws, output_size) - transform_reference(images, draws, output_size)).abs()
    assert difference.max() * max(IMAGENET_STD) < 1 / 255


@pytest.mark.parametrize("name", SINGLE)
def test_every_transform_does_something_alone(batch, name: str) -> None:  # type: ignore[no-untyped-def]
    images, labels = batch
    with_it, _ = augment(
        images,
        labels,
        STRONG.only(name, *(["erase_size"] if name == "erase" else [])),
        64,
        generator=seeded(1),
    )
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


def markers(points: np.ndarray, size: int) -> np.ndarray:
    """(K, 3) pixels -> (K, size, size, 3) uint8: an image per landmark with one soft dot at it."""
    y, x = np.mgrid[:size, :size]
    dots = np.exp(-((x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2) / (2 * 2.2**2))
    return np.repeat((dots * 255).round().astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize("implementation", [transform_fused, transform_reference])
@pytest.mark.parametrize("output_size", [64, 96])
def test_a_marker_stays_on_its_landmark(batch, implementation, output_size: int) -> None:  # type: ignore[no-untyped-def]
    """Dots drawn on landmarks of the stored image are found where the transformed labels say, flips and
    all."""
    _, labels = batch
    augmentation = Augmentation(rotation=60, scale=0.25, shift=0.1).only("rotation", "scale", "shift", "flip")
    draws = draw(augmentation, 24, 80, 64, output_size, seeded(9))
    assert 4 < int(draws.flip.sum()) < 20
    moved = transform_labels(labels, draws, 80, output_size)["landmarks"]
    worst, measured = 0.0, 0
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    y, x = torch.meshgrid(torch.arange(output_size).double(), torch.arange(output_size).double(), indexing="ij")
    for i in range(24):
        old, new = labels["landmarks"][i].numpy(), moved[i]
        dots = torch.from_numpy(markers(old, 80))
        one = type(draws)(**{k: v[i : i + 1].expand(68, *v.shape[1:]).contiguous() for k, v in vars(draws).items()})
        seen = (implementation(dots, one, output_size) * std + mean)[:, 0].double().clamp(min=0)
        source = geometry.FLIP_68 if draws.flip[i] else tuple(range(68))
        for k in range(68):  # the label with index k now marks the dot that was drawn for source[k]
            inside = bool(((new[k, :2] > 9) & (new[k, :2] < output_size - 10)).all())
            if not inside or not (old[source[k], :2] > 9).all() or not (old[source[k], :2] < 70).all():
                continue
            dot = seen[source[k]]
            dot = torch.where(dot > 0.02, dot, 0)
            centre = torch.stack([(x * dot).sum(), (y * dot).sum()]) / dot.sum()
            worst = max(worst, float((centre - new[k, :2]).abs().max()))
            measured += 1
    assert measured > 800
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
