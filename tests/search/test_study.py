from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtlsearch.errors import InputError
from mtlsearch.search.plan.plan import SearchPlan, load_plan
from mtlsearch.search.sampling.searcher import StudySearcher
from mtlsearch.search.study import study as study_module
from mtlsearch.search.study.requests import Requests
from mtlsearch.search.study.stops import EARLY, stop_reason
from mtlsearch.search.study.study import JOURNAL, LEADERBOARD, Study, TrialState, read_trials
from mtlsearch.search.study.watching import stop_trial, watch
from mtlsearch.study import show

pytestmark = pytest.mark.usefixtures("at_root")


def row(epoch: int, value: float, best: float) -> dict[str, float]:
    figures = {"val/frequency_error": value, "val/phase_error": value}
    bests = {f"best/{key}": best for key in figures}
    return {"epoch": float(epoch), **figures, **bests, "best/epoch": 1.0}


@pytest.fixture
def study(tmp_path: Path, at_root: Path) -> Iterator[Study]:
    with closing(Study.create(tmp_path, load_plan("examples/own_space.yaml"), "study")) as study:
        yield study


def test_the_journal_replays_to_the_same_trials(study: Study) -> None:
    config = study.plan.baselines[0].config.tree()
    for number in range(3):
        study.add_trial("search", "base" if number == 0 else "", config, {"optimizer.lr": 0.1 * number})
        study.add_epoch(number, row(1, 2.0 - number, 2.0 - number))
    study.end_trial(0, "finished", environment={"threads": 1})
    study.end_trial(1, "failed", "it broke")
    assert read_trials(study.folder) == list(study.trials.values())


def test_what_a_kill_cuts_off_is_one_unfinished_line(study: Study) -> None:
    study.add_trial("search", "", study.plan.baselines[0].config.tree(), {})
    study.add_epoch(0, row(1, 1.0, 1.0))
    path = study.folder / JOURNAL
    whole = path.read_bytes()
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last_line + 1, len(whole)):
        path.write_bytes(whole[:cut])
        trials = read_trials(study.folder)
        assert len(trials) == 1
        assert trials[0].history == []


def test_damage_elsewhere_is_named(study: Study) -> None:
    study.add_trial("search", "", {}, {})
    path = study.folder / JOURNAL
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(InputError, match="line 1 is damaged"):
        read_trials(study.folder)
    with pytest.raises(InputError, match="no readable study"):
        read_trials(study.folder.parent)


def test_the_leaderboard_ranks_by_the_first_objective_with_failures_last(study: Study) -> None:
    tree = study.plan.baselines[0].config.tree()
    for number, value in enumerate((3.0, 1.0, 2.0)):
        study.add_trial("search", "", {**tree, "seed": number}, {})
        study.add_epoch(number, row(1, value, value))
    study.end_trial(0, "finished")
    study.end_trial(1, "failed", "diverged")
    study.end_trial(2, "finished")
    study.write_leaderboard()
    rows = list(csv.DictReader((study.folder / LEADERBOARD).read_text().splitlines()))
    assert [line["trial"] for line in rows] == ["2", "0", "1"]
    assert rows[0]["val/frequency_error"] == "2.0"
    assert rows[0]["seed"] == "2", "keys that differ between trials are columns"
    assert "training.epochs" not in rows[0], "keys that do not are left out"
    assert rows[2]["reason"] == "diverged"


def test_the_leaderboard_is_written_now_and_then_and_whole_at_the_end(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    whole = study_module.leaderboard

    def counted(trials: list[TrialState], plan: SearchPlan) -> str:
        written.append(len(trials))
        time.sleep(0.02)
        return whole(trials, plan)

    monkeypatch.setattr(study_module, "leaderboard", counted)
    for number in range(50):
        study.add_trial("search", "", study.plan.baselines[0].config.tree(), {})
        study.end_trial(number, "finished")
    assert written == [1], "fifty trials of no time at all, of which the leaderboard may take a fiftieth"
    study.close()
    assert written == [1, 50], "whoever interrupts a study finds every trial in it"
    assert (study.folder / LEADERBOARD).read_text().count("\n") == 51


def test_two_studies_of_one_second_get_a_folder_each(tmp_path: Path) -> None:
    plan = load_plan("examples/own_space.yaml")
    folders = set()
    for _ in range(5):
        with closing(Study.create(tmp_path, plan)) as study:
            folders.add(study.folder)
    assert len(folders) == 5


def test_a_taken_name_and_an_unwritable_place_are_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there already"):
        Study.create(study.folder.parent, study.plan, "study")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Study.create(tmp_path / "file" / "results", study.plan)


def test_the_journal_is_plain_json_lines(study: Study) -> None:
    study.add_trial("search", "", {"a": 1}, {})
    events = [json.loads(line)["event"] for line in (study.folder / JOURNAL).read_text().splitlines()]
    assert events == ["study", "trial"]


def test_a_studys_name_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    for name in ("../evil", "/tmp/evil", "a/b", "..", ""):
        with pytest.raises(InputError, match="plain name"):
            Study.create(tmp_path, load_plan("examples/own_space.yaml"), name)
    assert list(tmp_path.iterdir()) == []


def test_how_a_trial_ended_is_said_in_plain_words(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    config = study.plan.baselines[0].config.tree()
    for label in ("", "plain", ""):
        study.add_trial("search", label, config, {})
    study.end_trial(0, "stopped", stop_reason(EARLY, 1))
    study.end_trial(1, "finished")
    for number, words in enumerate(
        ("trial 0: stopped (early stopping after epoch 1)", "trial 1 plain: finished", "trial 2: running")
    ):
        show(study.folder, number)
        assert capsys.readouterr().out.splitlines()[0] == words


def test_a_run_of_the_confirmation_is_not_promised_to_stop(study: Study) -> None:
    config = study.plan.baselines[0].config.tree()
    study.add_trial("search", "", config, {})
    study.add_trial("confirm", "trial 0", config, {})
    study.add_trial("full", "trial 0", config, {})
    assert stop_trial(study.folder, 0) == "trial 0 stops after its epoch 1"
    for number, phase in ((1, "confirmation"), (2, "full size")):
        with pytest.raises(InputError, match=f"is a run of the {phase}, .* only trials of the search"):
            stop_trial(study.folder, number)


def test_a_request_outlives_a_kill_until_its_trial_is_registered_and_runs_once(study: Study) -> None:
    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    requests, point = Requests(study.folder), study.plan.baselines[0].point
    study.plan = replace(study.plan, baselines=())
    requests.add_trial(point)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Study, "add_trial", killed)
        StudySearcher(study, killed).suggest("a")
    assert requests.waiting() == 1 and not study.trials
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Requests, "taken", killed)
        StudySearcher(study, killed).suggest("a")
    assert requests.waiting() == 1 and study.trials[0].point == point
    searcher = StudySearcher(study, lambda trial: {"trial": trial})
    assert requests.waiting() == 0
    assert [searcher.suggest("a")["trial"].number, searcher.suggest("b")["trial"].point == point] == [0, False]


def test_a_request_that_the_study_no_longer_admits_is_refused_with_the_reason(study: Study) -> None:
    requests = Requests(study.folder)
    point = study.plan.baselines[0].point
    wrong = ({**point, "optimizer.lr": 5.0}, {**point, "schedule": "step"}, {**point, "other": 1}, {})
    for one in wrong:
        requests.add_trial(one)
    study.plan = replace(study.plan, baselines=())
    searcher = StudySearcher(study, lambda trial: {"trial": trial})
    assert searcher.suggest("a")["trial"].point not in wrong
    assert requests.waiting() == 0
    refused = watch(study.folder).lines()[-4:]
    assert "optimizer.lr = 5.0 is outside" in refused[0]
    assert all(line.startswith("a trial that was asked for was refused: it ") for line in refused[1:])


def test_a_study_with_other_objectives_is_not_gone_on_with(tmp_path: Path) -> None:
    study = Study.create(tmp_path, load_plan("examples/own_space.yaml"), "study")
    study.close()
    other = {"val/frequency_error": "max", "val/phase_error": "min"}
    with pytest.raises(InputError, match=r"frequency_error \(min\), .* and are now val/frequency_error \(max\)"):
        Study.reopen(study.folder, load_plan("examples/own_space.yaml", [], {"objectives": other}))
    Study.reopen(study.folder, load_plan("examples/own_space.yaml", [], {"winner": "first"})).close()


def test_a_study_whose_lists_leave_out_defaults_is_gone_on_with(tmp_path: Path) -> None:
    plan = load_plan("examples/own_space.yaml", ["training.stages=[{until: 2, data: 0.3}]"], {"start_with": []})
    study = Study.create(tmp_path, plan, "study")
    point = {"model.width": 32, "strategy": "pcgrad", "optimizer.lr": 0.01, "schedule": "cosine"}
    config = plan.config_of(plan.space.at(point)).tree()
    assert config["training"]["stages"][0]["image_size"] is None
    study.add_trial("search", "", config, point)
    study.close()
    Study.reopen(study.folder, plan).close()
    assert plan.point_of(config, "it") == point
    other = load_plan("examples/own_space.yaml", ["training.stages=[{until: 2, data: 0.4}]"], {"start_with": []})
    with pytest.raises(InputError, match="stages"):
        Study.reopen(study.folder, other)


def test_a_trial_that_waits_to_be_trained_alone_still_does_when_its_study_goes_on(tmp_path: Path) -> None:
    plan = load_plan("examples/own_space.yaml", [], {"start_with": []})
    study = Study.create(tmp_path, plan, "study")
    searcher = StudySearcher(study, lambda trial: {"trial": trial})
    numbers = [searcher.suggest(name)["trial"].number for name in "ab"]
    study.postpone_trial(0, "ran out of memory at 0.25 GPU")
    study.close()
    assert [trial.postponed for trial in read_trials(study.folder)] == ["ran out of memory at 0.25 GPU", ""]
    with closing(Study.reopen(study.folder, plan)) as again:
        assert [trial.number for trial in again.postponed("search")] == [0]
        unfinished = StudySearcher(again, lambda trial: {"trial": trial}).unfinished
        assert numbers == [0, 1] and [trial.number for trial in unfinished] == [1], "not beside others"
        again.end_trial(0, "finished")
        assert not again.postponed("search")
