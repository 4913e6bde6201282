"""The papers' table: a checkpoint's figures and the published ones, each under the data they belong to.

One table holds figures of one data set only. Published rows stand in the checkpoint's own table where it was scored on
all the images of that data set; otherwise they come in a table of their own, whose title says that they do not compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from mtlsearch.faces.evaluation.accumulator import AUC_THRESHOLD, FAILURE_THRESHOLD
from mtlsearch.faces.evaluation.checkpoint_evaluation import SPEED_BATCHES, Evaluation
from mtlsearch.faces.evaluation.published import PublishedRow, published_for

#: heading -> our name; "All" is the mean of the three bins' means, "whole" the mean over all images
_FIGURES = {
    "0–30": "nme_0_30",
    "30–60": "nme_30_60",
    "60–90": "nme_60_90",
    "All": "nme",
    "whole": "nme_whole",
    "yaw": "mae_yaw",
    "pitch": "mae_pitch",
    "roll": "mae_roll",
    "mean": "mae",
}
#: what the papers call our data sets
_TITLES = {"aflw2000": "AFLW2000-3D", "aflw": "AFLW", "aflw_3ddfa": "AFLW (21,080)"}
#: shown beside a data set that has no published figures: the benchmark of all three papers' successors
_DEFAULT = "aflw2000"
#: images at a time in the table's column of speeds
TABLE_BATCH = max(SPEED_BATCHES)
#: a figure that no image gives, or that nobody measured
_NOT_MEASURED = "–"


def scoreboard(evaluation: Evaluation) -> list[Table | str]:
    """Tables and lines, in the order in which they are shown."""
    near, middle, far = evaluation.bins
    images = f"{evaluation.count:,} images: {near:,} with |yaw| to 30°, {middle:,} to 60°, {far:,} beyond"
    title = f"{evaluation.data}, {evaluation.split} split, {evaluation.points} points; {images}"
    cost = evaluation.cost
    sizes = {"parameters": cost.parameters, "active": cost.active_parameters, "macs": cost.macs}
    speed = f"{cost.images_per_second[TABLE_BATCH]:,.0f}"
    own = [
        ["this checkpoint", "", *_figures(evaluation.metrics), *_sizes(sizes), speed, evaluation.data],
        ["constant prediction", "", *_figures(evaluation.constant), *_sizes({}), "", evaluation.data],
    ]
    shown = evaluation.source if evaluation.source in _TITLES else _DEFAULT
    rows = published_for(shown)
    if evaluation.source == shown and evaluation.whole:
        parts: list[Table | str] = [_table(title, [*own, *map(_published, rows)])]
    else:
        parts = [_table(title, own)]
        if evaluation.rendered:
            parts.append("Rendered faces: these figures are no evidence for accuracy on photographs.")
        other = _difference(evaluation, shown)
        heading = f"{_TITLES[shown]}, as published: {other} than above, so the two tables do not compare"
        parts.append(_table(heading, list(map(_published, rows))))
    parts += dict.fromkeys(f"{row.paper}, {row.table}: {row.protocol}" for row in rows)
    parts += [f"{row.label}: {row.note}" for row in rows if row.note]
    if any(not row.verified for row in rows):
        parts.append("?: not verified in its source")
    parts.append(
        f"Constant prediction: the mean face of {evaluation.constant_of}. "
        "NME in %: All is the mean of the three bins, whole the mean over all images. MAE in degrees. "
        "MACs: half the FLOPs of one image."
    )
    return parts


def metrics_table(evaluation: Evaluation) -> Table:
    """Every metric beside the constant prediction's."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in ("metric", "value", "constant prediction", "ratio", ""):
        table.add_column(column, justify="left" if column in ("metric", "") else "right")
    words = {
        "nme_auc": f"area under the CED to {AUC_THRESHOLD:g} %",
        "nme_failure": f"images above {FAILURE_THRESHOLD:g} %, in %",
        "mae": f"{evaluation.pose_count:,} of {evaluation.count:,} images count",
    }
    for name, value in evaluation.metrics.items():
        constant = evaluation.constant[name]
        ratio = _number(value / constant if constant else math.nan)
        table.add_row(name, _number(value), _number(constant), ratio, words.get(name, ""))
    return table


def cost_lines(evaluation: Evaluation) -> list[str]:
    """What the network costs, in words."""
    cost = evaluation.cost
    speeds = ", ".join(f"{speed:,.0f} images/s at batch {batch}" for batch, speed in cost.images_per_second.items())
    return [
        f"{cost.parameters:,} parameters, {cost.active_parameters:,} of them active (the outputs depend on them)",
        f"{cost.macs / 1e6:,.1f} million MACs an image (half the FLOPs of convolutions, linear layers and products)",
        f"{speeds} ({cost.device}; medians, decoding included)",
    ]


def _difference(evaluation: Evaluation, shown: str) -> str:
    """What the published figures of a data set are about and an evaluation is not."""
    if evaluation.source != shown:
        return "other data"
    what = {"images": evaluation.count != evaluation.published, "landmarks": not evaluation.all_points}
    return "other " + " and ".join(name for name, differs in what.items() if differs)


def _table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_style="bold", title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.collapse_padding = True  # a row of AFLW2000-3D's takes 140 characters
    printed = any(row[1] for row in rows)
    table.add_column("method", no_wrap=True)
    if printed:
        table.add_column("source", no_wrap=True)
    for heading in _FIGURES:
        first = {"0–30": "NME\n", "yaw": "MAE\n"}.get(heading, "\n")
        table.add_column(first + heading, justify="right", no_wrap=True)
    for heading in ("\nparams", "\nactive", "\nMACs", f"images/s\nbatch {TABLE_BATCH}"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("data")
    for row in rows:
        table.add_row(*(row if printed else [row[0], *row[2:]]))
    return table


def _published(row: PublishedRow) -> list[str]:
    """With the digits of the paper. Active parameters and images/s are ours alone."""
    method = row.method + ("" if row.verified else " ?")
    figures = [row.printed.get(name, "") for name in _FIGURES.values()]
    sizes = _sizes({"active": math.nan, **row.metrics})
    return [method, f"{row.paper}, {row.table}", *figures, *sizes, _NOT_MEASURED, _TITLES[row.data]]


def _figures(metrics: Mapping[str, float]) -> list[str]:
    return [_number(metrics[name]) for name in _FIGURES.values()]


def _sizes(sizes: Mapping[str, float]) -> list[str]:
    """Parameters, active ones and MACs; what is not stated is left blank."""
    return [_size(sizes[name]) if name in sizes else "" for name in ("parameters", "active", "macs")]


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else _NOT_MEASURED


def _size(value: float) -> str:
    if not math.isfinite(value):
        return _NOT_MEASURED
    return f"{value / 1e9:.2f} G" if value >= 1e8 else f"{value / 1e6:.2f} M"
