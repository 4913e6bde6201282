"""Landmarks from heatmaps by expectation (Sun et al. 2018, "integral regression"; Zhang 2018, section 3.2).

A heatmap (h, w) covers the crop of S × S pixels. The centre of cell (column i, row j) lies at

    x = (i + ½) · S / w − ½,  y = (j + ½) · S / h − ½     pixels of the crop, whose own pixel centres are whole numbers,

so landmarks in *cells* are fractional column and row numbers. A target is a Gaussian with peak 1 and a σ in cells.

Eq. 3 of Zhang 2018, J = Σ_p p·Ĥ(p), has no normalisation and would give (75, 314) for a perfect Gaussian at (12, 50).
`SumExpectation` divides by the sum of the map with its negative values cut off: a perfect heatmap decodes to less than
a tenth of a cell wherever its peak is two cells or more inside the map (nearer, a part of the Gaussian is missing).
`SoftmaxExpectation` takes a softmax of the map instead; between two cells it is up to a quarter of a cell off.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from mtlsearch.training.schema import Section

#: what an empty map weighs at its centre; a perfect map of σ = 1 weighs 2π, and so moves by at most 0.005 of 64 cells
EMPTY = 1e-3


def pixels_to_cells(landmarks: Tensor, image_size: int, cells: int) -> Tensor:
    """Landmarks (…, 2 or more) in pixels of the crop -> x and y (…, 2) in cells of a map with `cells` cells a side.

    >>> pixels_to_cells(torch.tensor([1.5, 253.5]), image_size=256, cells=64)
    tensor([ 0., 63.])
    """
    return (landmarks[..., :2] + 0.5) * (cells / image_size) - 0.5


def cells_to_pixels(landmarks: Tensor, image_size: int, cells: int) -> Tensor:
    """The inverse of `pixels_to_cells`: (…, 2) cells -> (…, 2) pixels of the crop."""
    return (landmarks + 0.5) * (image_size / cells) - 0.5


def target_heatmaps(landmarks: Tensor, visible: Tensor | None, cells: int, sigma: float = 1.0) -> Tensor:
    """exp(−‖p − J‖² / 2σ²) at each cell p, zero everywhere for a landmark that is not visible.

    Args:
        landmarks: (N, K, 2) cells.
        visible: (N, K) bool; None: all.
        cells: h = w.
        sigma: cells.

    Returns:
        (N, K, h, w) float32.
    """
    steps = torch.arange(cells, dtype=torch.float32, device=landmarks.device)
    columns, rows = torch.exp(-0.5 * ((steps - landmarks.float()[..., None]) / sigma) ** 2).unbind(-2)
    maps = rows[..., :, None] * columns[..., None, :]
    return maps if visible is None else torch.where(visible[..., None, None], maps, 0.0)


class SumExpectation(Section):
    """Eq. 3, normalised by the sum of the rectified map. An empty map, which means invisible, gives the map's centre.

    The centre takes part with the weight `EMPTY`, so that there is no division by zero and no threshold: the gradient
    is finite for any map.
    """

    kind: Literal["sum"] = "sum"

    def __call__(self, heatmaps: Tensor) -> Tensor:
        """(…, h, w) -> x and y (…, 2) in cells, float32 whatever the maps' precision."""
        weights = heatmaps.float().relu()
        return _expectation(weights, weights.sum((-2, -1)) + EMPTY)


class SoftmaxExpectation(Section):
    """Eq. 3 with softmax(sharpness · map) in the map's place; a constant map gives the map's centre."""

    kind: Literal["softmax"] = "softmax"
    sharpness: PositiveFloat = 20.0
    """the 4,096 cells of an empty 64² map together weigh as much as one of height ln(4096) / sharpness: 0.42 at 20"""

    def __call__(self, heatmaps: Tensor) -> Tensor:
        """(…, h, w) -> x and y (…, 2) in cells, float32 whatever the maps' precision."""
        weights = (self.sharpness * heatmaps.float()).flatten(-2).softmax(-1).view(heatmaps.shape)
        return _expectation(weights, torch.ones((), device=weights.device))


Expectation = Annotated[SumExpectation | SoftmaxExpectation, Field(discriminator="kind")]


def _expectation(weights: Tensor, total: Tensor) -> Tensor:
    """centre + Σ_p (p − centre) · weight(p) / total: weights (…, h, w) float32, total (…) -> (…, 2) cells."""
    # products and sums: autocast would run a matrix product in bfloat16
    return torch.stack([_moment(weights.sum(-2), total), _moment(weights.sum(-1), total)], dim=-1)


def _moment(weights: Tensor, total: Tensor) -> Tensor:
    centre = (weights.shape[-1] - 1) / 2
    offsets = torch.arange(weights.shape[-1], dtype=torch.float32, device=weights.device) - centre
    return (weights * offsets).sum(-1) / total + centre


def heatmap_loss(heatmaps: Tensor, targets: Tensor, squared: bool = True) -> Tensor:
    """Eq. 4: ‖H − Ĥ‖² over the cells of a map, mean over images and landmarks; an empty map of σ = 1 has π.

    heatmaps, targets: (N, K, h, w) -> a scalar; squared=False takes the norm as the paper prints it.
    """
    difference = (heatmaps.float() - targets).flatten(-2)
    return (difference.square().sum(-1) if squared else torch.linalg.vector_norm(difference, dim=-1)).mean()


def coordinate_loss(landmarks: Tensor, targets: Tensor, visible: Tensor | None, squared: bool = True) -> Tensor:
    """The first term of eq. 5: ‖J − Ĵ‖² of a landmark, mean over the visible ones of all images.

    landmarks, targets: (N, K, 2), in one unit; visible (N, K) bool, None for all -> a scalar, 0 where none is visible.
    """
    difference = landmarks - targets
    if visible is not None:
        # before the square: what stands for a hidden landmark may be NaN, and NaN · 0 is NaN in the gradient
        difference = torch.where(visible[..., None], difference, 0.0)
    distance = difference.square().sum(-1) if squared else torch.linalg.vector_norm(difference, dim=-1)
    return distance.mean() if visible is None else distance.sum() / visible.sum().clamp(min=1)


class Deconvolutions(nn.Sequential):
    """`count` transposed convolutions 4 × 4 of stride 2 with BN and ReLU: (N, C, h, w) -> (N, channels, h·2^n, w·2^n).

    Those of Xiao et al. 2018, "Simple Baselines for Human Pose Estimation".
    """

    def __init__(self, inputs: int, channels: int, count: int) -> None:
        layers: list[nn.Module] = []
        for position in range(count):
            layers += [
                nn.ConvTranspose2d(channels if position else inputs, channels, 4, 2, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class HeatmapHead(nn.Sequential):
    """A feature map (N, C, H, W) -> heatmaps (N, points, H·2^n, W·2^n): n `Deconvolutions`, a 1 × 1 convolution."""

    def __init__(self, inputs: int, points: int, deconvolutions: int = 3, channels: int = 256) -> None:
        last = nn.Conv2d(channels if deconvolutions else inputs, points, 1)
        # starting near empty maps is starting from the centre
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        super().__init__(Deconvolutions(inputs, channels, deconvolutions), last)
