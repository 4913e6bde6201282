"""The papers' figures: those that matter, read again; and every row against its own arithmetic."""

from __future__ import annotations

import pytest

from mtlsearch.faces.datasets import DATASETS
from mtlsearch.faces.evaluation.published import PublishedRow, published_for, published_rows


def _row(paper: str, table: str, method: str) -> PublishedRow:
    (row,) = (row for row in published_rows() if (row.paper, row.table, row.method) == (paper, table, method))
    return row


def test_every_table_is_whole() -> None:
    counts: dict[tuple[str, str], int] = {}
    for row in published_rows():
        counts[row.paper, row.table] = counts.get((row.paper, row.table), 0) + 1
    assert counts == {
        ("Basak 2023", "Table 1"): 8,
        ("Basak 2023", "Table 2"): 7,
        ("Basak 2023", "Table 3"): 2,
        ("Kim 2023", "Table I"): 3,
        ("Zhang 2018", "Table 1"): 5,
        ("Zhang 2018", "Table 2"): 8,
        ("later work", "targets"): 7,
    }
    assert list(counts)[-1] == ("later work", "targets")


def test_key_figures() -> None:
    small = _row("Kim 2023", "Table I", "MobileNetV3-Small").metrics
    assert [small[name] for name in ("nme_0_30", "nme_30_60", "nme_60_90", "nme")] == [3.085, 3.964, 4.850, 3.967]
    assert [small[name] for name in ("mae_yaw", "mae_pitch", "mae_roll", "mae")] == [3.651, 4.777, 2.931, 3.786]
    parameters = {row.method: row.metrics["parameters"] for row in published_rows() if row.paper == "Kim 2023"}
    assert parameters == {"MobileNetV3-Small": 36_036_302, "MobileViT-S": 47_530_814, "MobileViTV2-1.0": 31_680_423}
    dense = _row("Basak 2023", "Table 3", "MobileNetV2").metrics
    assert (dense["nme"], dense["macs"], dense["parameters"]) == (3.77, 0.39e9, 4.18e6)
    assert _row("Basak 2023", "Table 2", "MobileNetV2").metrics["nme"] == 4.57
    assert _row("Zhang 2018", "Table 1", "CCR (two blocks)").metrics["mae"] == 4.527
    assert _row("Zhang 2018", "Table 2", "CCR (two blocks)").metrics == {"nme_whole": 5.72}
    assert {row.method for row in published_rows() if not row.verified} == {"SynergyNet", "DSFNet"}


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row.label)
def test_a_mean_is_that_of_its_parts_or_a_note_says_otherwise(row: PublishedRow) -> None:
    parts = {"nme": ("nme_0_30", "nme_30_60", "nme_60_90"), "mae": ("mae_pitch", "mae_yaw", "mae_roll")}
    for mean, names in parts.items():
        if all(name in row.metrics for name in (mean, *names)):
            expected = sum(row.metrics[name] for name in names) / 3
            fits = row.metrics[mean] == pytest.approx(expected, abs=0.01)
            assert fits != (f"{expected:.2f}" in row.note)
    assert row.data in DATASETS


def test_figures_keep_the_digits_that_were_printed() -> None:
    assert _row("later work", "targets", "Hopenet").printed == {"mae": "6.16"}
    assert _row("Basak 2023", "Table 1", "3D-FAN").printed["nme_60_90"] == "4.60"
    assert _row("Basak 2023", "Table 1", "3DDFA-V2").printed["nme_30_60"] == "3.420"
    for row in published_rows():
        assert {name: float(text) for name, text in row.printed.items()} == row.metrics


def test_what_a_paper_does_not_state_is_not_claimed_for_its_competitors() -> None:
    rows = [row for row in published_for("aflw") if row.table == "Table 2"]
    assert {row.own: "box" in row.protocol for row in rows} == {True: True, False: False}
    assert all("not stated" in row.protocol for row in rows if not row.own)


def test_rows_are_told_apart_by_their_data() -> None:
    assert {row.data for row in published_rows()} == {"aflw2000", "aflw", "aflw_3ddfa"}
    assert published_for("synthetic") == ()
    assert all(row.protocol.startswith("AFLW2000-3D") for row in published_for("aflw2000"))
    own = [row.method for row in published_for("aflw2000") if row.own]
    assert own == ["MobileNetV2", "ResNet-18", "MobileNetV2", "MobileNetV3-Small", "MobileViT-S", "MobileViTV2-1.0"]
