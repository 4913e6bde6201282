"""What a pack holds, for people."""

from __future__ import annotations

from rich.table import Table

from mtlsearch.faces.metrics import YAW_BINS, within_pose_limit, yaw_bin
from mtlsearch.faces.packs.pack import SYNTHETIC, Pack


def describe(pack: Pack) -> list[str]:
    """Lines on where a pack comes from."""
    facts = pack.manifest
    lines = [f"{pack.folder.absolute()} [pack {pack.digest}]"]
    if pack.source == SYNTHETIC:
        lines.append(f"synthetic faces, recipe {pack.recipe.digest()}, generator version {facts['generator_version']}")
    else:
        lines.append(f"data set: {pack.source}; {facts['ground_truth']}")
        total = sum(pack.counts.values())
        if facts["published"] not in (None, total):
            lines.append(f"{total:,} samples; the authors published {facts['published']:,}, so figures do not compare")
        if facts.get("left_out"):
            lines.append(f"{facts['left_out']:,} faces of it lack what a sample needs, and are none")
        if facts["pose_limit"] is not None:
            lines.append(f"images with an angle beyond ±{facts['pose_limit']:g}° do not count in its pose error")
    megabytes = sum(count * pack.stored_size**2 * 3 for count in pack.counts.values()) / 1e6
    lines.append(f"crops of {pack.image_size} px in images of {pack.stored_size} px, {megabytes:,.0f} MB")
    if skipped := facts["skipped"]:
        lines.append(f"{len(skipped):,} samples were left out as damaged or missing:")
        lines += [f"  {message}" for message in skipped[:10]]
    return lines


def split_table(pack: Pack) -> Table:
    """A row per split: images, the bins of |yaw|, how many poses count, the share of landmarks that are visible."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    near, far = (f"{edge:g}" for edge in YAW_BINS)
    columns = (
        "split",
        "images",
        f"yaw 0-{near}",
        f"{near}-{far}",
        f"over {far}",
        "poses that count",
        "visible",
        "labels",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("split", "labels") else "right")
    for name, count in pack.counts.items():
        labels = pack.split(name).labels
        bins = [yaw_bin(labels["angles"][:, 1]) == index for index in range(3)]
        counted = within_pose_limit(labels["angles"], pack.manifest.get("pose_limit"))
        visible = f"{100 * labels['visible'].mean():.1f} %" if count else "–"
        figures = [f"{number:,}" for number in (count, *(int(part.sum()) for part in bins), int(counted.sum()))]
        table.add_row(name, *figures, visible, ", ".join(sorted(labels)))
    return table
