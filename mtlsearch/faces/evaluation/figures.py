"""An evaluation to look at and to go on from.

<folder>/ced.png           share of images below each NME, per yaw bin and whole, with AUC and failure rate
<folder>/worst.png, …      the 24 faces of the largest NME, of the middle, and of the smallest
<folder>/per_image.csv     every image's true yaw, NME and angle errors
<folder>/evaluation.json   every figure of the evaluation
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces import metrics
from mtlsearch.faces.arrays import Bytes
from mtlsearch.faces.augmentation import Augmentation, augment, centre_crop, denormalize
from mtlsearch.faces.evaluation.accumulator import AUC_THRESHOLD, FAILURE_THRESHOLD
from mtlsearch.faces.evaluation.checkpoint_evaluation import Evaluation
from mtlsearch.faces.geometry import compose_affines, invert_affine, transform_points
from mtlsearch.faces.packs.pack import Pack
from mtlsearch.faces.pictures.contact_sheet import save_image
from mtlsearch.faces.pictures.drawing import draw_comparison

_SHOWN, _COLUMNS = 24, 8
#: side of a face on a sheet, height of the lines below it and of the heading above them all, in pixels
_CELL, _CAPTION = 192, 49
_HEADING = 22
#: of errors in per_image.csv, whose names alone would read as the angles
_COLUMN = {name: f"error_{name}" for name in ("pitch", "yaw", "roll", "geodesic")}
_PAPER, _INK = (250, 250, 250), (30, 30, 30)


def check_figures(folder: Path) -> None:
    """Makes the folder, before any work. InputError where it cannot be made or nothing can draw curves."""
    if find_spec("matplotlib") is None:
        raise InputError("--figures needs matplotlib; install it with: pip install 'mtlsearch[search]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--figures: {folder} cannot be made ({error.strerror})") from None


def save_figures(evaluation: Evaluation, pack: Pack, image_size: int, folder: Path, facts: dict[str, Any]) -> None:
    """Writes the files above. pack: the one that was scored; image_size: side of the network's input; facts: what the
    JSON file says first."""
    each = {name: values.numpy() for name, values in evaluation.scores.per_image().items()}
    labels = pack.split(evaluation.split).labels
    yaw = labels["angles"][:, 1].astype(float)
    _draw_curves(evaluation, each["nme"], yaw, folder / "ced.png")
    order = np.argsort(-each["nme"], kind="stable")  # worst first; NaN, which is worse than any, comes last
    order = np.r_[order[np.isnan(each["nme"][order])], order[~np.isnan(each["nme"][order])]]
    middle = max(0, len(order) // 2 - _SHOWN // 2)
    for name, rows in (("worst", order[:_SHOWN]), ("median", order[middle:][:_SHOWN]), ("best", order[::-1][:_SHOWN])):
        heading = f"{name} by NME of {_described(evaluation)}"
        save_image(_sheet(evaluation, pack, image_size, rows, each, heading), folder / f"{name}.png")
    names = labels.get("name", np.arange(len(yaw)))
    with (folder / "per_image.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "true_yaw", *(_COLUMN.get(name, name) for name in each)])
        writer.writerows(
            [names[i], _plain(yaw[i]), *(_plain(column[i]) for column in each.values())] for i in range(len(yaw))
        )
    cost = evaluation.cost
    summary = {
        **facts,
        "data": evaluation.data,
        "rendered": evaluation.rendered,
        "split": evaluation.split,
        "pack": pack.digest,
        "images": evaluation.count,
        "images_per_yaw_bin": list(evaluation.bins),
        "images_in_pose_error": evaluation.pose_count,
        "landmarks": evaluation.points,
        "metrics": {name: _plain(value) for name, value in evaluation.metrics.items()},
        "constant_prediction": {name: _plain(value) for name, value in evaluation.constant.items()},
        "constant_prediction_of": evaluation.constant_of,
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "macs": cost.macs,
        "images_per_second": {str(batch): round(speed, 1) for batch, speed in cost.images_per_second.items()},
        "device": cost.device,
    }
    (folder / "evaluation.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: float) -> float | None:
    """A number for a file; NaN is null in JSON and empty in CSV."""
    return round(float(value), 6) if math.isfinite(value) else None


def _draw_curves(evaluation: Evaluation, nme: np.ndarray, yaw: np.ndarray, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bins = metrics.yaw_bin(yaw)
    groups = [
        ("all", np.ones(len(nme), bool)),
        *((f"{name}°", bins == i) for i, name in enumerate(("0–30", "30–60", "60–90"))),
    ]
    thresholds = np.linspace(0, FAILURE_THRESHOLD, 501)
    for name, chosen in groups:
        if not chosen.any():
            continue
        part = nme[chosen]
        area, failure = metrics.area_under_ced(part, AUC_THRESHOLD), metrics.failure_rate(part, FAILURE_THRESHOLD)
        label = f"{name} (n = {len(part):,}): AUC {area:.1f} %, failures {failure:.1f} %"
        style = {"color": "black", "linewidth": 2.2} if name == "all" else {"linewidth": 1.4}
        axes.plot(thresholds, 100 * metrics.cumulative_errors(part, thresholds), label=label, **style)
    axes.set(
        xlabel="NME, % of √(w·h)",
        ylabel="images at or below, %",
        xlim=(0, FAILURE_THRESHOLD),
        ylim=(0, 100),
        title=_described(evaluation),
    )
    axes.grid(alpha=0.3)
    title = f"|yaw|; AUC to {AUC_THRESHOLD:g} %, failures above {FAILURE_THRESHOLD:g} %"
    axes.legend(loc="upper left", fontsize=8, title=title, title_fontsize=8)
    figure.savefig(path, dpi=120)


def _described(evaluation: Evaluation) -> str:
    """What a figure shows, in plain letters."""
    return f"{evaluation.data}, {evaluation.split} split, {evaluation.count:,} images"


def _sheet(
    evaluation: Evaluation, pack: Pack, image_size: int, rows: np.ndarray, each: dict[str, np.ndarray], heading: str
) -> Bytes:
    """Faces with true (green) and predicted (orange) landmarks, their errors below them, a heading above them all."""
    packed = pack.split(evaluation.split)
    stored = torch.from_numpy(packed.images[np.sort(rows)])[np.argsort(np.argsort(rows))]
    shown = denormalize(augment(stored, {}, Augmentation.off(), pack.image_size, _CELL)[0]).numpy()
    from_stored = centre_crop(pack.stored_size, pack.image_size, _CELL).numpy()
    from_input = compose_affines(
        from_stored, invert_affine(centre_crop(pack.stored_size, pack.image_size, image_size).numpy())
    )
    cells = []
    for image, row in zip(shown, rows):
        truth = transform_points(packed.labels["landmarks"][row].astype(float), from_stored)
        predicted = transform_points(evaluation.prediction.landmarks[row].double().numpy(), from_input)
        if len(truth) == 21:
            truth = truth[packed.labels["visible"][row]]
        face = np.ascontiguousarray(image)
        draw_comparison(face, predicted, truth)
        caption = np.full((_CAPTION, _CELL, 3), _PAPER, np.uint8)
        known = _three(packed.labels["angles"][row])
        off = _three([each[name][row] for name in ("pitch", "yaw", "roll")])
        lines = (f"#{row}  NME {each['nme'][row]:.1f} %", f"true {known}", f"off {off}")
        for i, line in enumerate(lines):
            _write(caption, line, 13 + 15 * i)
        cells.append(np.vstack([face, caption]))
    columns = min(_COLUMNS, len(cells))
    cells += [np.full_like(cells[0], _PAPER[0])] * (-len(cells) % columns)
    sheet = np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])
    top = np.full((_HEADING, sheet.shape[1], 3), _PAPER, np.uint8)
    _write(top, heading, 15)
    return np.vstack([top, sheet])


def _write(image: Bytes, line: str, baseline: int) -> None:
    cv2.putText(image, line, (4, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)


def _three(angles: Sequence[float]) -> str:
    """Pitch, yaw, roll in whole degrees; a dash for one that is unknown."""
    shown = (f"{round(angle)}" if math.isfinite(angle) else "-" for angle in angles)
    return "pitch {} yaw {} roll {}".format(*shown)
