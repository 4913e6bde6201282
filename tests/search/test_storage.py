"""A study that is kept at a URI: its trials train from there, and it goes on and is fetched from there."""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from examples.own_problem import SIZES, Waves
from mtlsearch.errors import InputError
from mtlsearch.search import SearchOutcome, load_plan, run_search
from mtlsearch.search.judging.weights import Weights
from mtlsearch.search.recorder import Recorder
from mtlsearch.search.storage import places, study_storage
from mtlsearch.search.storage.fetching import fetch, study_to_resume
from mtlsearch.search.storage.study_storage import StudyStorage, check_new
from mtlsearch.search.study.journal import read_journal
from mtlsearch.search.study.stops import EARLY
from mtlsearch.search.study.study import JOURNAL, Study, TrialState, read_trials, trial_folder
from mtlsearch.search.study.watching import watch
from mtlsearch.search.trials import trial_files
from mtlsearch.search.trials.trainable import TrialJob, run_trial
from mtlsearch.search.trials.trial_files import TrialFiles
from mtlsearch.training import find_record, load_run_config, run_training, storage
from mtlsearch.training.checkpoint import BEST, LAST, load_weights
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.record import RECORD
from mtlsearch.training.sample_scores import SCORES
from mtlsearch.training.storage import RemoteFolder, StorageError
from tests.conftest import ROOT
from tests.search.studies import Writer

pytestmark = pytest.mark.usefixtures("at_root")
EPOCHS = 3
BATCHES = math.ceil(SIZES["train"] / 50)
"""of an epoch"""


class Counted(Waves):
    """Counts the batches of all processes, and kills its own in the middle of the second epoch, once."""

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        folder = Path(os.environ["MTLSEARCH_CACHE"])
        if trained(folder) == BATCHES + 2 and not (folder / "killed while it stored").exists():
            (folder / "killed while it stored").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with (folder / "batches").open("ab") as file:
            file.write(b".")
        return super().batch(indices, generator)


def trained(folder: Path | None = None) -> int:
    """How many batches have been trained on since the last call of `from_now`."""
    path = (folder or Path(os.environ["MTLSEARCH_CACHE"])) / "batches"
    return path.stat().st_size if path.exists() else 0


def from_now() -> None:
    Path(os.environ["MTLSEARCH_CACHE"], "batches").unlink(missing_ok=True)


def figures(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in history]


def names(folder: Path) -> dict[str, bytes]:
    """The files of a study, without those that are its own affair."""
    found = (path for path in folder.rglob("*") if path.is_file())
    own = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in own.items() if not name.startswith(".")}


def stored(folder: RemoteFolder) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.files()}


def search(results: Path, place: RemoteFolder, resume: Path | None = None) -> tuple[SearchOutcome, str]:
    settings = {"start_with": [], "num_samples": 1, "confirm": {"top": 1, "seeds": 1}, "report": False}
    overrides = ["problem=tests.search.test_storage:Counted", f"training.epochs={EPOCHS}", "strategy={name: pcgrad}"]
    screen = io.StringIO()
    space = "examples/own_space.yaml" if resume is None else str(resume / "space.yaml")
    outcome = run_search(
        load_plan(space, overrides, settings) if resume is None else load_plan(space),
        results=results,
        name="study" if resume is None else None,
        resume=resume,
        tracking_uri=f"sqlite:///{results.parent / 'mlflow.db'}",
        storage=place,
        console=Console(file=screen, width=200, markup=False),
    )
    return outcome, screen.getvalue()


@pytest.fixture(scope="module")
def place(object_store: str) -> RemoteFolder:
    """Where studies are kept, with the keys in it: processes of Ray may be older than this session's environment."""
    return RemoteFolder(object_store.replace("s3://", "s3://test:test@"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, shared_ray: None, place: RemoteFolder) -> Path:
    """A study that is kept at `place`, one trial and its confirmation, whose process was killed once."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.syspath_prepend(str(ROOT))
        patch.setenv("MTLSEARCH_CACHE", os.environ["MTLSEARCH_CACHE"])
        from_now()
        outcome, screen = search(folder / "results", place)
    assert outcome.winner is not None and not outcome.interrupted, screen
    return outcome.study.folder


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:::ray")
def test_a_trial_goes_on_from_the_storage_and_the_copy_is_whole(kept: Path, place: RemoteFolder) -> None:
    assert Path(os.environ["MTLSEARCH_CACHE"], "killed while it stored").exists()
    assert trained() == BATCHES + 2 + (EPOCHS - 1) * BATCHES + EPOCHS * BATCHES, "an epoch that was stored is not again"
    trial, confirmed = read_trials(kept)
    assert [row["epoch"] for row in trial.history] == [1, 2, 3], "no gap and no epoch twice"
    alone = run_training(parse_run_config(trial.config, "the trial"), threads=trial.environment["threads"])
    assert figures(trial.history) == figures(alone.result.history)
    here = names(kept)
    assert stored(place.join("study")) == here
    assert {f"trials/0000/{BEST}", f"trials/0000/{RECORD}", f"trials/0001/{SCORES}"} <= here.keys()
    assert not {f"trials/0000/{LAST}", f"trials/0001/{LAST}", f"trials/0001/{BEST}"} & here.keys()
    assert load_weights(kept / "winner.safetensors").epoch == trial.best_epoch
    assert confirmed.test


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:::ray")
def test_a_study_goes_on_where_its_folder_is_lost(kept: Path, tmp_path: Path, place: RemoteFolder) -> None:
    """The head is gone after the first epoch came to the storage's journal; the trial had stored two by then, and
    another trial began of which nothing is known."""
    whole = read_trials(kept)[0]
    lines = (kept / JOURNAL).read_bytes().splitlines(keepends=True)
    first_epoch = next(number for number, line in enumerate(lines) if b'"event": "epoch"' in line)
    lost = place.join("lost head").join("study")
    for name in ("space.yaml", "base.yaml"):
        lost.upload(kept / name, name)
    lost.write(JOURNAL, b"".join(lines[: first_epoch + 1]))
    threads = whole.environment["threads"]
    run_training(parse_run_config(whole.config, "the trial"), threads=threads, directory=tmp_path, stop_after=2)
    for name in (BEST, LAST):
        lost.upload(tmp_path / name, f"trials/0000/{name}")
    lost.write(f"trials/0001/{LAST}", b"of another config")
    from_now()
    folder = study_to_resume(Path("study"), tmp_path / "results", place.join("lost head"))
    assert folder == tmp_path / "results" / "study" and not list(folder.rglob(LAST))
    outcome, screen = search(tmp_path / "results", place.join("lost head"), folder)
    assert outcome.winner is not None, screen
    assert trained() == BATCHES + EPOCHS * BATCHES, "the third epoch, and the confirmation"
    assert figures(outcome.study.trials[0].history) == figures(whole.history)
    assert stored(lost) == names(folder)


# the copy of a study, without a search


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    study = Study.create(tmp_path / "results", load_plan("examples/own_space.yaml"), "study")
    yield study
    study.close()


@pytest.fixture
def remote(tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(tmp_path / "stored" / "study")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches every storage off and on."""
    state = {"away": False}

    def filesystem(folder: RemoteFolder) -> Any:
        if state["away"]:
            raise StorageError("it is away")
        return folder._opened[0]

    monkeypatch.setattr(RemoteFolder, "filesystem", property(filesystem))
    monkeypatch.setattr(storage, "_RETRY_S", 0.01)
    return lambda now: state.update(away=now)


def begin(study: Study) -> TrialState:
    trial = study.add_trial("search", "", study.plan.baselines[0].config.tree(), {})
    names = study.plan.settings.objectives
    study.add_epoch(trial.number, {"epoch": 1.0, "best/epoch": 1.0, **{f"best/{name}": 1.0 for name in names}})
    return trial


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_events_come_to_the_copy_by_themselves(study: Study, remote: RemoteFolder) -> None:
    copy = StudyStorage(remote, study, pytest.fail)
    assert stored(remote) == names(study.folder)
    begin(study)
    eventually(lambda: stored(remote) == names(study.folder))
    with (study.folder / JOURNAL).open("ab") as file:
        file.write(b'{"event": "unfin')
    copy.close()
    assert remote.read(JOURNAL) == names(study.folder)[JOURNAL].removesuffix(b'{"event": "unfin'), "whole lines alone"


def test_what_a_trial_leaves_is_brought_and_what_goes_goes_at_both_ends(study: Study, remote: RemoteFolder) -> None:
    copy = StudyStorage(remote, study, pytest.fail)
    trials = [begin(study), begin(study)]
    for trial in trials:
        own = RemoteFolder(copy.trial_uri(trial.number))
        own.write(LAST, b"state")
        own.write(BEST, b"weights %d" % trial.number)
    copy.settle()
    assert all(remote.exists(f"trials/000{number}/{LAST}") for number in (0, 1)), "a trial that runs has its files"
    finished, stopped = trials
    copy.collect(finished)
    study.end_trial(finished.number, "finished")
    study.end_trial(stopped.number, "stopped", "early")
    for trial in trials:
        copy.ended(trial.number)
    copy.settle()
    weights = study.trial_folder(finished.number) / BEST
    assert weights.read_bytes() == b"weights 0"
    assert stored(remote) == names(study.folder), "last.pt is gone, and the weights of whom was stopped"
    weights.unlink()
    copy.settle()
    assert not remote.exists(f"trials/0000/{BEST}")
    copy.close()


def test_storage_that_is_away_for_a_while(study: Study, remote: RemoteFolder, away: Callable[[bool], None]) -> None:
    said: list[str] = []
    copy = StudyStorage(remote, study, said.append)
    away(True)
    begin(study)
    copy.settle()
    copy.settle()
    assert len(said) == 1 and "it is away" in said[0] and "the study goes on" in said[0]
    assert b'"epoch"' not in (remote_path(remote) / JOURNAL).read_bytes()
    away(False)
    copy.settle()
    assert said[1:] == ["storage: it answers again, and has what was held back"]
    assert stored(remote) == names(study.folder)
    copy.close()


def test_storage_that_stays_away(
    study: Study, remote: RemoteFolder, away: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    copy = StudyStorage(remote, study, said.append)
    monkeypatch.setattr(study_storage, "_PATIENCE_S", 0.1)
    away(True)
    trial = begin(study)
    copy.collect(trial)
    assert "what trial 0 leaves comes later" in said[-1]
    away(False)
    RemoteFolder(copy.trial_uri(0)).write(BEST, b"weights")
    study.end_trial(0, "finished")
    copy.ended(0)
    copy.settle()
    assert (study.trial_folder(0) / BEST).read_bytes() == b"weights", "what could not be brought is, before it goes"
    away(True)
    begin(study)
    copy.close()
    assert f"lies whole in {study.folder}" in said[-1] and f"--resume {study.folder} --storage-path" in said[-1]
    away(False)
    StudyStorage(remote, study, pytest.fail).close()
    assert stored(remote) == names(study.folder), "which is what that command does"


def test_what_is_owed_outlives_the_driver_and_is_not_deleted(
    study: Study, remote: RemoteFolder, away: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    copy = StudyStorage(remote, study, said.append, new=True)
    monkeypatch.setattr(study_storage, "_PATIENCE_S", 0.05)
    kept, pruned = begin(study), begin(study)
    for trial in (kept, pruned):
        RemoteFolder(copy.trial_uri(trial.number)).write(BEST, b"weights")
    away(True)
    for trial in (kept, pruned):
        copy.collect(trial)
        study.end_trial(trial.number, "finished")
        copy.ended(trial.number)
    Weights(study)._remove(pruned)
    copy.close()
    assert "lies whole" not in said[-1] and "what trial 0 left lies only at the storage: keep both" in said[-1]
    study.close()
    away(False)
    again = Study.reopen(study_to_resume(study.folder, study.folder.parent, remote_parent(remote)), study.plan)
    StudyStorage(remote, again, pytest.fail).close()
    again.close()
    assert (again.trial_folder(0) / BEST).read_bytes() == b"weights"
    assert not (again.trial_folder(1) / BEST).exists(), "the study wanted these no longer"
    assert stored(remote) == names(study.folder)


def test_a_study_that_began_without_storage_hands_its_checkpoints_over(study: Study, remote: RemoteFolder) -> None:
    trials = [begin(study), begin(study)]
    for trial in trials:
        for name in (BEST, LAST):
            (study.trial_folder(trial.number) / name).write_bytes(b"here")
    newer = f"trials/0001/{LAST}"
    remote.write(newer, b"there, and newer")
    past = time.time() - 60
    os.utime(study.trial_folder(1) / LAST, (past, past))
    remote.write("trials/0007/last.pt", b"of a trial that the journal does not know")
    StudyStorage(remote, study, pytest.fail).close()
    assert remote.read(f"trials/0000/{LAST}") == remote.read(f"trials/0000/{BEST}") == b"here"
    assert remote.read(newer) == b"there, and newer"
    assert not list(study.folder.rglob(LAST)) and not remote.exists("trials/0007/last.pt")


def test_a_name_that_is_taken(study: Study, remote: RemoteFolder) -> None:
    check_new(remote)
    StudyStorage(remote, study, pytest.fail).close()
    with pytest.raises(InputError, match=r"holds a study already; give another --name, or go on .* --resume study"):
        check_new(remote)


def test_a_place_that_holds_other_files(study: Study, remote: RemoteFolder, tmp_path: Path) -> None:
    remote.write(".scratch/state", b"")
    check_new(remote)
    remote.write("trials/patients.csv", b"precious")
    with pytest.raises(
        InputError, match=r"files that are of no study, such as trials/patients\.csv; give another --name"
    ):
        check_new(remote)
    with pytest.raises(InputError, match=r"not of .*study, such as trials/patients\.csv"):
        study_to_resume(study.folder, tmp_path, remote_parent(remote))
    StudyStorage(remote, study, pytest.fail, new=True).close()
    assert remote.read("trials/patients.csv") == b"precious"


# a trial, in its own process


def test_a_stopped_process_leaves_no_folder_and_the_next_goes_on(
    remote: RemoteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = load_run_config("examples/own_problem.yaml", ["training.epochs=3"])
    whole = run_training(config, threads=1).result.history
    here, objectives = str(tmp_path / "none"), {"val/frequency_error": "min"}
    batches: list[int] = []
    batch = Waves.batch
    monkeypatch.setattr(Waves, "batch", lambda *given: batches.append(1) or batch(*given))

    def send(result: dict[str, Any]) -> None:
        if result.get("epoch") == 2:
            assert {BEST, LAST} <= remote.files().keys(), "it is stored before the epoch is told"
            assert len(list(tmp_path.glob("mtlsearch-trial-*"))) == 2, "the folder and its lock"
            raise SystemExit  # as Tune ends a trial

    for name in ("mtlsearch-trial-killed", "mtlsearch-trial-killed.lock"):
        (tmp_path / name).mkdir() if name.endswith("killed") else (tmp_path / name).touch()
    with pytest.raises(SystemExit):
        run_trial(TrialJob(0, config.tree(), here, 1, objectives, storage=remote.uri), send)
    assert not list(tmp_path.glob("mtlsearch-trial-*")) and len(batches) == 2 * BATCHES
    told: list[dict[str, Any]] = []
    run_trial(TrialJob(0, config.tree(), here, 1, objectives, reported=1, storage=remote.uri), told.append)
    assert figures([row for row in told if "epoch" in row]) == figures(whole)[1:], "the second epoch is told, not run"
    assert len(batches) == 3 * BATCHES
    assert not Path(here).exists()


def test_weights_are_stored_before_the_state_that_names_their_epoch(
    remote: RemoteFolder, tmp_path: Path, away: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = TrialFiles(tmp_path, remote)
    for name in (LAST, BEST):
        (tmp_path / name).write_bytes(b"1")
    uploaded = []
    upload = RemoteFolder.upload

    def noted(self: RemoteFolder, local: Path, name: str) -> None:
        upload(self, local, name)
        uploaded.append(name)

    monkeypatch.setattr(RemoteFolder, "upload", noted)
    away(True)
    files.push()
    monkeypatch.setattr(trial_files, "_PATIENCE_S", 0.05)
    with pytest.raises(StorageError, match="away"):
        files.settle()
    assert uploaded == []
    away(False)
    files.push()
    files.settle()
    assert uploaded == [BEST, LAST], "once, in this order"


# fetching


def written(folder: Path) -> Path:
    """A study of two trials of which one runs, that nobody ran."""
    study = Writer(folder)
    study.trial([(1.0, 1.0)] * 2)
    study.trial([(1.0, 1.0)], end="")
    for number, name in ((0, BEST), (1, BEST), (1, LAST)):
        path = trial_folder(folder, number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    return folder


def test_a_study_is_fetched_and_then_only_what_changed(
    tmp_path: Path, place: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place.join(tmp_path.name).join("one")
    here = written(tmp_path / "one")
    for name in names(here):
        there.upload(here / name, name)
    there.write(".scratch/state", b"hidden")
    monkeypatch.setattr(storage, "_SETTLED_NS", -(10**12))  # as if it had been there for a while
    first = fetch(there.uri, tmp_path / "fetched")
    assert (first.files, first.here) == (len(names(here)), 0)
    assert names(first.folder) == names(here)
    assert fetch(there.uri, tmp_path / "fetched").files == 0
    journal = (here / JOURNAL).read_bytes()
    journal += b'{"event": "end", "number": 1, "status": "failed", "reason": "", "test": {}, "environment": {}}\n'
    there.write(JOURNAL, journal)
    there.write("best.yaml", b"{}")
    there.delete(f"trials/0001/{LAST}")
    assert fetch(there.uri, tmp_path / "fetched").files == 2
    assert [trial.status for trial in watch(first.folder).trials] == ["finished", "failed"]
    assert not list(first.folder.rglob(LAST)), "what would have continued a trial that has ended is of no use"
    light = fetch(there.uri, tmp_path / "light", weights=False).folder
    assert names(light).keys() == {name for name in names(first.folder) if not name.endswith(BEST)}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore:::ray")
def test_what_was_fetched_is_a_study(kept: Path, tmp_path: Path, place: RemoteFolder) -> None:
    folder = fetch(place.join("study").uri, tmp_path).folder
    assert names(folder) == names(kept)
    seen = watch(folder)
    assert seen.complete and not seen.running
    assert find_record(folder / "trials" / "0000").history == seen.trials[0].history
    again = Study.reopen(folder, seen.plan)
    again.close()


def test_a_folder_is_fetched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "shared" / "one")
    monkeypatch.chdir(tmp_path)
    assert names(fetch("shared/one", Path("here")).folder) == names(tmp_path / "shared" / "one")


def test_what_cannot_be_fetched_is_said(tmp_path: Path) -> None:
    one = written(tmp_path / "shared" / "one")
    with pytest.raises(InputError, match="shared/two holds no study"):
        fetch(str(one.with_name("two")), tmp_path / "here")
    with pytest.raises(InputError, match="is the study itself"):
        fetch(str(one), tmp_path / "shared")
    copy = fetch(str(one), tmp_path / "here").folder
    with (copy / JOURNAL).open("a") as journal:
        journal.write('{"event": "resumed"}\n')
    with pytest.raises(InputError, match="has gone on by itself"):
        fetch(str(one), tmp_path / "here")
    with (one / JOURNAL).open("a") as journal:
        journal.write('{"event": "search"}\n')
    with pytest.raises(InputError, match="neither journal is a beginning of the other"):
        fetch(str(one), tmp_path / "here")


# going on


def test_what_a_study_goes_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, stored_at = tmp_path / "results", RemoteFolder(tmp_path / "stored")
    with pytest.raises(InputError, match=r"neither .*results/one nor file://.*stored/one holds a study"):
        study_to_resume(Path("one"), results, stored_at)
    there = written(tmp_path / "stored" / "one")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    assert study_to_resume(Path("one"), results, None) == results / "one", "a name is one under the results"
    here = study_to_resume(Path("one"), results, stored_at)
    assert here == results / "one" and (here / JOURNAL).read_bytes() == (there / JOURNAL).read_bytes()
    assert (trial_folder(here, 0) / BEST).exists(), "a trial that has ended is the study's"
    assert not trial_folder(here, 1).exists(), "one that goes on takes its checkpoints from there itself"
    event = '{"event": "search"}\n'
    with (there / JOURNAL).open("a") as journal:
        journal.write(event)
    study_to_resume(here, results, stored_at)
    assert (here / JOURNAL).read_text().endswith(event), "an older folder is brought up to date"
    with (here / JOURNAL).open("a") as journal:
        journal.write('{"event": "resumed"}\n')
    (trial_folder(here, 0) / BEST).unlink()
    study_to_resume(here, results, stored_at)
    assert (here / JOURNAL).read_text().endswith('{"event": "resumed"}\n'), "a newer one is what goes on"
    assert (trial_folder(here, 0) / BEST).exists(), "with what it lacks"
    with (there / JOURNAL).open("a") as journal:
        journal.write(event)
    with pytest.raises(InputError, match="neither journal is a beginning of the other"):
        study_to_resume(here, results, stored_at)
    shutil.rmtree(there)
    assert study_to_resume(here, results, stored_at) == here, "a study that was not kept there before"


def test_a_trial_whose_folder_is_lost_ends_once(study: Study, remote: RemoteFolder) -> None:
    StudyStorage(remote, study, pytest.fail).close()
    begin(study)
    study.close()
    shutil.rmtree(study.folder / "trials")
    again = Study.reopen(study.folder, study.plan)
    copy = StudyStorage(remote, again, pytest.fail)
    trial = again.trials[0]
    recorder = Recorder(again, [], {0: EARLY}, storage=copy)
    tuned: Any = SimpleNamespace(config={"job": SimpleNamespace(number=0)}, pickled_error_file=None, error_file=None)
    recorder.on_trial_complete(0, [], tuned)
    assert (again.trial_folder(0) / RECORD).exists() and trial.status == "stopped"
    recorder.on_trial_result(0, [], tuned, {**trial.history[0], "epoch": 2.0})
    recorder.on_trial_error(0, [], tuned)
    again.end_trial(0, "finished")
    copy.close()
    again.close()
    assert [event["event"] for event in read_journal(study.folder / JOURNAL)].count("end") == 1
    assert (trial.status, len(trial.history)) == ("stopped", 1)


# where things lie


def test_in_a_job_nothing_is_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert places.results_folder(None) == Path("results") and places.results_folder(Path("a")) == Path("a")
    assert places.tracking_uri(None, Path("results")) == f"sqlite:///{Path('mlflow.db').absolute()}"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    results = places.results_folder(None)
    assert results == tmp_path / "mtlsearch-results" and places.results_folder(Path("/data")) == Path("/data")
    assert places.tracking_uri(None, results) == f"sqlite:///{results / 'mlflow.db'}"
    assert places.tracking_uri("http://tracker", results) == "http://tracker"
    with pytest.raises(InputError, match="--results results is relative, and the working folder of a Ray job"):
        places.results_folder(Path("results"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(InputError, match=r"--tracking-uri sqlite:///mlflow\.db is relative"):
        places.tracking_uri(None, results)


def remote_parent(remote: RemoteFolder) -> RemoteFolder:
    return RemoteFolder(remote_path(remote).parent)


def remote_path(remote: RemoteFolder) -> Path:
    return Path(remote.uri.removeprefix("file://"))
