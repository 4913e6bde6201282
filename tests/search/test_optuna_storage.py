from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mtlsearch.search.judging.winner import pareto_front
from mtlsearch.search.report.optuna_storage import STORAGE, write_storage
from mtlsearch.search.report.source import read_study
from tests.search.studies import Writer, large_study

pytestmark = pytest.mark.usefixtures("at_root")


def load(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / STORAGE)))
    return optuna.load_study(study_name=folder.name, storage=storage)


def test_optuna_sees_the_study_that_we_see(tmp_path: Path) -> None:
    large_study(tmp_path / "study", count=60)
    record = read_study(tmp_path / "study")
    write_storage(record)
    write_storage(record)  # anew, not once more
    study = load(tmp_path / "study")
    assert study.metric_names == list(record.objectives)
    assert [trial.number for trial in study.trials] == [trial.number for trial in record.searched]
    for seen, ours in zip(study.trials, record.searched, strict=True):
        assert seen.params == ours.point
        assert list(seen.intermediate_values) == list(range(1, len(ours.history) + 1))
        assert seen.duration is not None
        assert seen.duration.total_seconds() == pytest.approx(len(ours.history) + 1)
    counts = {status: sum(trial.status == status for trial in record.searched) for status in ("finished", "failed")}
    assert len(study.get_trials(states=[TrialState.COMPLETE])) == counts["finished"]
    assert len(study.get_trials(states=[TrialState.FAIL])) == counts["failed"]
    finished = {trial.number: trial.best for trial in record.searched if trial.status == "finished"}
    assert {trial.number for trial in study.best_trials} == set(pareto_front(finished, record.objectives))


def test_a_running_trial_is_running_and_a_nan_is_a_failure(tmp_path: Path) -> None:
    written = Writer(tmp_path / "study", num_samples=4, confirm={"seeds": 0})
    written.trial([(1.0, 1.0)], label="own_problem")
    written.trial([(float("inf"), 1.0)])
    written.trial([(0.5, 0.5)], end="")
    written.trial([], end="failed", reason="it broke")
    write_storage(read_study(written.folder))
    states = [trial.state for trial in load(written.folder).trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.FAIL]
    assert load(written.folder).trials[3].user_attrs["reason"] == "it broke"
