"""The report, of studies that nobody ran: what must be on the page, and what must not."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy import stats

from mtlsearch.errors import InputError
from mtlsearch.search import load_plan
from mtlsearch.search.report import write_report
from mtlsearch.search.report.chart import Axis, Line, readable_span
from mtlsearch.search.report.section import short_names
from mtlsearch.search.report.sections import confirmation as confirmed
from mtlsearch.search.report.sections import history, slices
from mtlsearch.search.report.sections.history import best_so_far
from mtlsearch.search.report.sections.importances import importances
from mtlsearch.search.report.sections.rungs import rungs, spearman
from mtlsearch.search.report.sections.slices import boundary_warnings
from mtlsearch.search.report.source import read_study
from mtlsearch.search.simulation.replay import replay_study
from mtlsearch.search.study import stops
from mtlsearch.search.study.study import JOURNAL
from tests.search.studies import EPOCHS, NAMES, Writer, curve, large_study

pytestmark = pytest.mark.usefixtures("at_root")

FLAT = [(1.0, 1.0)] * EPOCHS


class Page(HTMLParser):
    """The page as a browser reads it: text by section, figures, and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.figures: list[dict[str, Any]] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.elements: list[str] = []
        self._section, self._script = "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.elements.append(tag)
        if tag == "section":
            self._section = given["id"]
            self.sections[self._section] = ""
        if tag == "script":
            self._script = given.get("type", "javascript")
        self.loads += [given[key] for key in ("src", "srcset", "data", "poster", "action") if key in given]
        (self.links if tag == "a" else self.loads).extend([given["href"]] if "href" in given else [])

    def handle_endtag(self, tag: str) -> None:
        self._section = "" if tag == "section" else self._section
        self._script = "" if tag == "script" else self._script

    def handle_data(self, data: str) -> None:
        if self._script == "application/json":
            self.figures.append(json.loads(data))
        elif not self._script and self._section:
            self.sections[self._section] += " ".join(data.split()) + " "


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        large_study(folder)
        write_report(folder)
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "study", num_samples=4, confirm={"seeds": 0})


def page_of(study: Writer) -> Page:
    return Page(write_report(study.folder))


def test_every_section_of_a_large_study_says_its_thing(large: Path) -> None:
    page = Page(large / "report.html")
    winner = read_study(large).winner
    assert winner is not None
    assert list(page.sections) == [
        "overview", "confirmation", "history", "pareto", "importances", "coordinates", "slices", "curves", "conflicts",
        "rungs", "proxy", "failures", "cost",
    ]  # fmt: skip
    assert "waves" in page.sections["overview"]
    assert f"python -m mtlsearch.tune --space {large}/space.yaml" in page.sections["overview"]
    assert f"Winner: trial {winner.number}" in page.sections["confirmation"]
    assert "constant prediction 3.000" in page.sections["confirmation"]
    assert f"trial {winner.number} − own_problem" in page.sections["confirmation"]
    assert re.search(r"trials? [\d, ]*\b" + str(winner.number), page.sections["pareto"])
    assert "Not seen: uncertainty, weighted_sum" in page.sections["conflicts"]
    assert "loss 'phase' became nan" in page.sections["failures"]
    saved = [trial for trial in read_study(large).searched if trial.status == "stopped"]
    epochs = sum(EPOCHS - len(trial.history) for trial in saved)
    assert (
        f"Stopping ended {len(saved)} of 200 trials and saved {epochs} of {200 * EPOCHS} epochs"
        in (page.sections["rungs"])
    )


def test_each_chart_is_a_valid_figure_and_a_png_file(large: Path) -> None:
    page = Page(large / "report.html")
    assert len(page.figures) == page.elements.count("figure") > 15
    for one in page.figures:
        go.Figure(one)  # raises ValueError for what plotly does not know
    names = {path.stem for path in (large / "figures").glob("*.png")}
    assert names == {
        "confirmation", "history", "pareto", "importances", "coordinates", "slices", "curves", "conflicts",
    }  # fmt: skip
    assert sorted(link for link in page.links if not link.startswith("#")) == sorted(f"figures/{n}.png" for n in names)


def test_nothing_is_loaded_from_elsewhere(large: Path) -> None:
    text = (large / "report.html").read_text(encoding="utf-8")
    page = Page(large / "report.html")
    assert page.loads == []
    assert "link" not in page.elements
    own = text[: text.index("* plotly.js v")] + text[text.rindex("<script>") :]
    assert not re.search(r"https?:|@import|url\(", own), "in the page's own part, before and after plotly.js"
    assert "default-src 'none'" in text, "the browser refuses what plotly.js might load"


def test_intervals_and_ties_come_with_five_seeds_and_not_before(tmp_path: Path) -> None:
    def confirmation(seeds: int, other: float) -> str:
        """Its notes and its table of differences."""
        study = Writer(tmp_path / f"{seeds} {other}", num_samples=2, confirm={"seeds": seeds})
        study.trial(FLAT, label="own_problem")
        study.trial([(0.5, 0.5)] * EPOCHS)
        noise = [0.01 * (-1) ** step for step in range(seeds)]
        study.confirm("trial 1", [0.5 + value for value in noise])
        study.confirm("own_problem", [other] * seeds)
        section = confirmed.section(read_study(study.folder))
        return " ".join([*section.notes, *(cell for row in section.tables[1].rows for cell in row)])

    assert "below 5 no winner is claimed" in confirmation(4, 1.0)
    assert "too few seeds" in confirmation(4, 1.0 + 1e-9)
    clear, tied = confirmation(5, 1.0), confirmation(5, 0.5)
    assert "tied" not in clear and "too few seeds" not in clear
    assert "over seeds, tied" in tied


@pytest.mark.parametrize(
    ("lr", "warned"),
    [(1.0e-3, "lower"), (1.2e-3, "lower"), (1.3e-3, ""), (7.5e-2, ""), (8.5e-2, "upper"), (0.1, "upper")],
)
def test_the_boundary_warning_comes_where_the_winner_is_at_the_boundary(study: Writer, lr: float, warned: str) -> None:
    """5 % of log [1e-3, 1e-1] is a factor of 1.26 at each end."""
    study.trial([(0.5, 0.5)] * EPOCHS, study.point(optimizer__lr=lr))
    study.trial(FLAT, study.point(optimizer__lr=1.0e-3))
    study.trial(FLAT, study.point(optimizer__lr=0.1))
    found = boundary_warnings(read_study(study.folder))
    assert len(found) == bool(warned)
    if warned:
        assert found[0].startswith("optimizer.lr") and f"{warned} end" in found[0]
        assert slices.section(read_study(study.folder)).warnings == found


def test_a_whole_number_at_its_end_is_a_boundary_too(study: Writer) -> None:
    study.trial(FLAT, study.point(model__width=64))
    (warning,) = boundary_warnings(read_study(study.folder))
    assert warning.startswith("model.width") and "upper end of its range, 64" in warning


def test_spearman_is_scipys_with_an_interval_that_covers() -> None:
    rng = np.random.default_rng(0)
    one, noise = rng.normal(size=(2, 30))
    value, bounds = spearman(one, one + noise)
    assert value == pytest.approx(stats.spearmanr(one, one + noise).statistic)
    assert bounds is not None and bounds[0] < value < bounds[1]
    # ranks of a bivariate normal of ρ: 6/π · asin(ρ/2)
    truth, covered = 6 / math.pi * math.asin(0.25), 0
    for _ in range(300):
        x, e = rng.normal(size=(2, 25))
        _, bounds = spearman(x, 0.5 * x + math.sqrt(0.75) * e)
        assert bounds is not None
        covered += bounds[0] <= truth <= bounds[1]
    assert 0.91 <= covered / 300 <= 0.99


def test_spearman_says_nothing_of_too_few_or_of_constants() -> None:
    assert math.isnan(spearman(np.arange(3.0), np.arange(3.0))[0])
    assert math.isnan(spearman(np.ones(9), np.arange(9.0))[0])
    assert spearman(np.arange(9.0), -np.arange(9.0)) == (pytest.approx(-1), None)


def test_rung_correlations_are_of_the_trials_that_reached_both(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    study = Writer(tmp_path / "study", num_samples=12, confirm={"seeds": 0})
    curves = [curve(1 + rng.random(), EPOCHS, rng) for _ in range(10)]
    for own in curves:
        study.trial(own)
    study.trial(curve(9.0, 2, rng), end="stopped")
    found = read_study(study.folder)
    assert rungs(found) == [2, 6], "grace 2, factor 3, below 9 epochs"
    expected = stats.spearmanr([own[1][0] for own in curves], [min(own)[0] for own in curves]).statistic
    assert f"val/frequency_error 2 10 {expected:.3f}" in page_of(study).sections["rungs"]


def test_what_users_and_budgets_stop_is_no_saving(study: Writer) -> None:
    study.trial(FLAT)
    study.trial(FLAT[:2], end="stopped", reason=stops.stop_reason(stops.BY_HAND, 2))
    study.trial(FLAT[:3], end="stopped", reason=stops.stop_reason(stops.out_of("time"), 3))
    assert "No trial was stopped early. 2 more stopped" in page_of(study).sections["rungs"]
    own = replay_study(study.folder).own
    assert (own.finished, own.stopped, own.unknown, own.epochs_saved) == (1, 0, 2, 0)
    study.trial(FLAT[:4], end="stopped", reason=stops.stop_reason(stops.EARLY, 4))
    saved = "ended 1 of 4 trials and saved 5 of 36 epochs (14%), about 12 s at these trials' own speed."
    assert saved in page_of(study).sections["rungs"], "five epochs of 2.5 s"


def test_cheap_stages_are_compared_and_priced_apart(tmp_path: Path) -> None:
    plan = load_plan(
        "examples/own_space.yaml",
        [f"training.epochs={EPOCHS}", "training.stages=[{until: 3, data: 0.5, image_size: null}]"],
        {"confirm": {"seeds": 0}},
    )
    study = Writer(tmp_path / "study", plan)
    study.trial([(0.1, 0.1)] * 3 + [(0.6, 0.6), (0.5, 0.5)], end="stopped")
    assert "saved 4 of 9 epochs (44%), about 10 s" in page_of(study).sections["rungs"]
    best = history._over_seconds(read_study(study.folder), NAMES[0], "min", Axis("")).series[0]
    assert isinstance(best, Line)
    np.testing.assert_array_equal(best.y, [math.nan] * 3 + [0.6, 0.5])
    assert "Trials began in cheap stages" in page_of(study).sections["history"]
    study.trial([(0.1, 0.1)] * 2, end="stopped")
    assert "saved 11 of 18 epochs (61%)." in page_of(study).sections["rungs"], "no whole epoch of the second was timed"


@pytest.mark.parametrize("stopping", ["none", "median", "hyperband", "mo_asha"])
def test_every_early_stopping_has_its_rungs(tmp_path: Path, stopping: str) -> None:
    study = Writer(tmp_path / "study", num_samples=2, early_stopping={"name": stopping})
    study.trial(FLAT)
    epochs = rungs(read_study(study.folder))
    assert epochs == ([1, 3] if stopping in ("hyperband", "mo_asha") else [1, 2, 4, 8])


def test_importances_name_what_mattered(large: Path) -> None:
    found = importances(read_study(large), "val/frequency_error")
    assert sum(found.values()) == pytest.approx(1)
    assert next(iter(found)) == "optimizer.lr" and found["optimizer.lr"] > 0.8
    assert "schedule.onecycle.pct_start" in found, "a parameter of one option is there too"


def test_too_few_trials_for_importances_are_said(study: Writer) -> None:
    study.trial(FLAT)
    assert "1 trials with figures are too few" in page_of(study).sections["importances"]


def test_names_and_reasons_are_text_whatever_they_hold(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><b>$x_{$"
    study = Writer(tmp_path / "study", data=evil, num_samples=3, confirm={"seeds": 5})
    study.trial(FLAT, label=evil, conflict=0.1)
    study.trial([(0.5, 0.5)] * EPOCHS)
    study.trial(FLAT[:1], end="failed", reason=evil)
    study.confirm(evil, [1.0] * 5)
    study.confirm("trial 1", [0.5] * 5)
    page = page_of(study)
    ordinary = Writer(tmp_path / "ordinary", num_samples=3)
    ordinary.trial(FLAT)
    scripts = page.elements.count("script") - len(page.figures)
    other = page_of(ordinary)
    assert scripts == other.elements.count("script") - len(other.figures) == 2
    assert "b" not in page.elements
    for section in ("overview", "confirmation", "failures"):
        assert evil in page.sections[section]
    assert "<script>" not in json.dumps(page.figures) and "&lt;script&gt;" in json.dumps(page.figures)


@pytest.mark.parametrize("kind", ["nothing", "one running", "all failed", "one", "NaN", "no seeds", "begun"])
def test_odd_studies_have_a_report(tmp_path: Path, kind: str) -> None:
    study = Writer(tmp_path / "study", num_samples=3, confirm={"seeds": 2 if kind == "begun" else 0})
    if kind == "one running":
        study.trial([], end="")
    if kind == "all failed":
        for number in range(3):
            study.trial([], end="failed", reason=f"out of memory at {number} MB")
    if kind in ("one", "no seeds", "begun"):
        study.trial(FLAT)
    if kind == "NaN":
        study.trial([(math.nan, math.nan), (1.0, math.nan)], end="failed", reason="phase became nan")
        study.trial(FLAT, conflict=math.nan)
    if kind == "begun":
        study.trial(FLAT[:3], label="trial 0", phase="confirm", seed=1, end="")
    page = page_of(study)
    for one in page.figures:
        go.Figure(one)
    if kind in ("nothing", "one running", "all failed"):
        assert "there is no winner" in page.sections["confirmation"]
    if kind == "all failed":
        assert "3 0, 1, 2 out of memory at 0 MB" in page.sections["failures"]
    if kind == "one running":
        assert "running or cut off: 0" in page.sections["failures"]
    if kind == "begun":
        assert "Not confirmed" in page.sections["confirmation"]


def test_a_journal_cut_off_anywhere_in_its_last_lines_still_gives_a_report(study: Writer) -> None:
    study.trial(FLAT)
    study.trial(FLAT[:2], end="stopped", reason="early stopping after epoch 2")
    path = study.folder / JOURNAL
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 40, whole[:-1].rfind(b"\n") + 1, whole[:-1].rfind(b"\n") - 9):
        path.write_bytes(whole[:cut])
        found = read_study(study.folder)
        assert [len(trial.history) for trial in found.trials] in ([EPOCHS, 2], [EPOCHS, 1])
        assert found.trials[1].status == "running"
    assert "cut short" in page_of(study).sections["overview"]


def test_pauses_before_a_resume_are_no_wall_time(study: Writer) -> None:
    study.trial(FLAT)
    before = read_study(study.folder).wall_seconds
    study.clock += 1e6
    study.event("resumed", space="")
    study.event("end", number=0, status="finished", reason="", test={}, environment={})
    assert read_study(study.folder).wall_seconds == pytest.approx(before + 1)


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable study"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_diverged_value_does_not_hide_the_others() -> None:
    span = readable_span([1.0, 1.1, 1.2, 1.3, 1e9], "min")
    assert span is not None and span[0] < 1.0 and 1.3 < span[1] < 2
    span = readable_span([0.9, 0.8, 0.85, 0.7, -1e9], "max")
    assert span is not None and span[0] < 0.7 and 0.9 < span[1] < 1
    assert readable_span([1.0, 1.5, 2.0], "min") is None, "what is near is all shown"
    assert readable_span([math.nan], "min") is None


def test_the_best_so_far_only_gets_better() -> None:
    assert best_so_far([3.0, math.nan, 1.0, 2.0], "min") == [3.0, 3.0, 1.0, 1.0]
    assert best_so_far([1.0, 3.0, 2.0], "max") == [1.0, 3.0, 3.0]
    assert math.isnan(best_so_far([math.nan, 1.0], "min")[0])


def test_short_names_stay_apart() -> None:
    names = ["optimizer.lr", "a.pose.weight", "b.pose.weight", "strategy", "model." + "long" * 9 + ".width"]
    assert list(short_names(names).values()) == [
        "optimizer.lr", "a.pose.weight", "b.pose.weight", "strategy", "…" + ("long" * 9 + ".width")[-31:],
    ]  # fmt: skip
    assert short_names([]) == {}


def test_a_search_that_ended_before_its_trials_says_why_and_is_not_called_cut_short(study: Writer) -> None:
    study.trial(FLAT, label="own_problem")
    study.event("search_end", why="its 600 s are used up")
    page = page_of(study)
    assert "The search ended before its 4 trials: its 600 s are used up." in page.sections["overview"]
    assert "cut short" not in page.sections["overview"]
    study.event("search", gpus=0.0)
    assert "cut short" in page_of(study).sections["overview"]
