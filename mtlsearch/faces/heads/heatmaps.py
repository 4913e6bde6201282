"""Landmarks from heatmaps by expectation (Sun et al. 2018, "integral regression"; Zhang 2018, section 3.2).

A heatmap (h, w) covers the crop of S × S pixels. The centre of cell (column i, row j) lies at

    x = (i + ½) · S / w − ½,  y = (j + ½) · S / h − ½     pixels of the crop, whose own pixel centres are whole numbers,

so landmarks in *cells* are fractional column and row numbers. A target is a Gaussian with peak 1 and a σ in cells.

Eq. 3 of Zhang 2018, J = Σ_p p·Ĥ(p), has no normalisation and would give (75, 314) for a perfect Gaussian at (12, 50).
`SumExpectation` divides by the sum of the map with its negative values cut off: a perfect heatmap of σ = 1 decodes to
less than a tenth of a cell wherever its peak is two cells or more inside the map (nearer, or with a wider σ, a part of
the Gaussian is missing). `SoftmaxExpectation` takes a softmax of the map instead; between two cells it is up to 0.28
cells off at its default sharpness.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mtlsearch.faces.heads.head import Part, SingleTaskHeadConfig, TaskHead
from mtlsearch.faces.targets import FaceStatistics, Targets
from mtlsearch.training.schema import Section

#: the side of the map in whose cells coordinate errors are measured, whatever the map's own
LOSS_CELLS = 64
#: faces whose target heatmaps are made at once to measure what empty maps lose: 70 MB
_MEASURED = 64
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


def visible_where_needed(targets: Targets, rule: Literal["labelled", "inside"]) -> Tensor | None:
    """visible (N, K) where a landmark must be visible to be learned: by the rule "labelled", and of 21 landmarks by any
    rule, since those that AFLW hides have no coordinates. None where it need not be."""
    return targets.visible if rule == "labelled" or targets.landmarks.shape[1] == 21 else None


def landmarks_that_count(landmarks: Tensor, visible: Tensor | None, image_size: int) -> Tensor:
    """(N, K) bool: of landmarks (N, K, 2) in pixels, those inside the crop and visible (N, K), where that is given."""
    inside = ((landmarks > -0.5) & (landmarks < image_size - 0.5)).all(-1)
    return inside if visible is None else inside & visible


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


class HeatmapLayers(nn.Sequential):
    """A feature map (N, C, H, W) -> heatmaps (N, points, H·2^n, W·2^n): n `Deconvolutions`, a 1 × 1 convolution."""

    def __init__(self, inputs: int, points: int, deconvolutions: int = 3, channels: int = 256) -> None:
        last = nn.Conv2d(channels if deconvolutions else inputs, points, 1)
        # starting near empty maps is starting from the centre
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        super().__init__(Deconvolutions(inputs, channels, deconvolutions), last)


class HeatmapHead(TaskHead):
    """(N, C, H, W) -> heatmaps (N, K, h, w), h = H·2^deconvolutions, of the K landmarks that the data has."""

    def __init__(self, config: HeatmapHeadConfig, channels: int, statistics: FaceStatistics) -> None:
        super().__init__(config)
        self._config = config
        self.image_size = statistics.image_size
        some = statistics.targets.first(_MEASURED)
        faces, points = some.landmarks.shape[:2]
        self.layers = HeatmapLayers(channels, points, config.deconvolutions, config.channels)
        # what empty maps lose depends little on their side, which is known only when an image has gone through
        self.measure(torch.zeros(faces, points, LOSS_CELLS, LOSS_CELLS), some)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)

    def decode(self, output: Tensor) -> Part:
        return {"landmarks": cells_to_pixels(self._config.expectation(output), self.image_size, output.shape[-1])}

    def loss_values(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        config, landmarks = self._config, targets.landmarks[..., :2]
        visible = landmarks_that_count(landmarks, visible_where_needed(targets, config.visible), self.image_size)
        cells = output.shape[-1]
        maps = target_heatmaps(pixels_to_cells(landmarks, self.image_size, cells), visible, cells, config.sigma)
        unit = LOSS_CELLS / self.image_size
        found = self.decode(output)["landmarks"]
        error = coordinate_loss(found * unit, landmarks * unit, visible, config.squared)
        return {"": error + config.alpha * heatmap_loss(output, maps, config.squared)}


class HeatmapHeadConfig(SingleTaskHeadConfig):
    """Landmarks in 2D by expectation over heatmaps; one task.

    deconvolutions: stride-2 transposed convolutions of so many channels, from the backbone's map to the heatmaps: three
    bring a map of stride 32 to stride 4. sigma: of the target heatmaps, cells; alpha: α₂, of the heatmaps' own error;
    visible: "labelled" or "inside", see `cascade.losses.LandmarkLoss`.
    """

    kind: Literal["heatmaps"] = "heatmaps"
    deconvolutions: Annotated[int, Field(ge=0, le=5)] = 3
    channels: PositiveInt = 256
    expectation: Expectation = SumExpectation()
    sigma: PositiveFloat = 1.0
    alpha: NonNegativeFloat = 1.0
    squared: bool = True
    visible: Literal["labelled", "inside"] = "inside"

    @property
    def learns(self) -> tuple[str, ...]:
        return ("landmarks",)

    @property
    def labels(self) -> tuple[str, ...]:
        return ("visible",) if self.visible == "labelled" else ()

    def build(self, channels: int, statistics: FaceStatistics) -> HeatmapHead:
        return HeatmapHead(self, channels, statistics)
