"""The loop on the example problem: learning, exact resume, stopping, failing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtlsearch.errors import InputError
from mtlsearch.training import TrainingDiverged, find_problem, load_run_config, run_training, train
from mtlsearch.training.checkpoint import BEST, LAST, load_last, load_weights
from mtlsearch.training.record import compare_histories, load_record

pytestmark = pytest.mark.usefixtures("at_root")
CONFIG = "examples/own_problem.yaml"


def run(*overrides: str, **options: object) -> object:
    return run_training(load_run_config(CONFIG, overrides), threads=1, **options)


def untimed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in history]


@pytest.mark.parametrize("strategy", ["weighted_sum", "uncertainty", "pcgrad"])
def test_it_learns_with_every_strategy(strategy: str) -> None:
    finished = run(f"strategy.name={strategy}")
    trivial = finished.problem.trivial_metrics("val")
    for name, constant in trivial.items():
        assert finished.result.best[f"val/{name}"] < 0.5 * constant


@pytest.mark.parametrize("override", ["training.engine=feature", "training.update_every=4"])
def test_it_learns_with_cheaper_steps_and_goes_on_exactly(override: str, tmp_path: Path) -> None:
    overrides = ("strategy.name=pcgrad", override)
    whole = run(*overrides)
    for name, constant in whole.problem.trivial_metrics("val").items():
        assert whole.result.best[f"val/{name}"] < 0.5 * constant
    run(*overrides, directory=tmp_path, stop_after=1)
    assert untimed(run(*overrides, directory=tmp_path).result.history) == untimed(whole.result.history)


def test_one_config_gives_one_history_whatever_the_global_generators_hold() -> None:
    torch.manual_seed(1)
    first = run("training.epochs=2")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = run("training.epochs=2")
    assert untimed(first.result.history) == untimed(second.result.history)
    assert torch.equal(torch.get_rng_state(), before), "a run gives the caller's generators back"
    assert untimed(run("training.epochs=2", "seed=1").result.history) != untimed(first.result.history)


@pytest.mark.parametrize("strategy", ["weighted_sum", "uncertainty", "pcgrad"])
def test_a_run_cut_off_after_any_epoch_goes_on_exactly(strategy: str, tmp_path: Path) -> None:
    overrides = (f"strategy.name={strategy}", "training.epochs=4", "schedule={name: onecycle}")
    whole = run(*overrides)
    for cut in (1, 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        run(*overrides, directory=folder, stop_after=cut)
        resumed = run(*overrides, directory=folder)
        assert untimed(resumed.result.history) == untimed(whole.result.history)
        for ours, theirs in zip(resumed.result.model.parameters(), whole.result.model.parameters()):
            assert torch.equal(ours, theirs)


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_exactly(tmp_path: Path) -> None:
    """A process that dies without warning, between two checkpoints."""
    script = (
        "import os, sys; from pathlib import Path; from mtlsearch.training import *; import torch\n"
        "config = load_run_config(sys.argv[1], ['training.epochs=4'])\n"
        "problem = find_problem(config.problem); batch = problem.batch; seen = []\n"
        "def dying(self, *a):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 30: os._exit(9)\n"
        "    return batch(self, *a)\n"
        "problem.batch = dying\n"
        "run_training(config, threads=1, directory=Path(sys.argv[2]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, CONFIG, str(tmp_path)], env={**os.environ, "PYTHONPATH": "."}
    )
    assert result.returncode == 9
    assert len(load_last(tmp_path / LAST)["history"]) == 2
    resumed = run("training.epochs=4", directory=tmp_path)
    assert compare_histories(run("training.epochs=4").result.history, resumed.result.history) == []


def test_the_best_epochs_metrics_and_weights_travel_together(tmp_path: Path) -> None:
    finished = run("optimizer.lr=0.3", "schedule={name: constant}", directory=tmp_path)
    name = "val/frequency_error"
    history = finished.result.history
    best = min(history, key=lambda row: row[name])
    weights = load_weights(tmp_path / BEST)
    assert weights.epoch == best["epoch"] == history[-1]["best/epoch"]
    assert weights.metrics[name] == best[name] == history[-1][f"best/{name}"]
    assert history[-1]["best/val/phase_error"] == best["val/phase_error"], "the whole row is the best epoch's"
    model = finished.problem.build_model()
    model.load_state_dict(weights.tensors)
    assert finished.problem.evaluate(model.eval(), "val")["frequency_error"] == pytest.approx(best[name])


def test_another_objective_chooses_another_best_epoch_or_is_refused() -> None:
    finished = run(objective=("val/phase_error", "max"), stop_after=3)
    worst = max(row["val/phase_error"] for row in finished.result.history)
    assert finished.result.best["val/phase_error"] == worst
    with pytest.raises(InputError, match="val/phase_error"):
        run(objective=("val/nme", "min"))


def test_a_report_that_returns_true_stops_the_run() -> None:
    finished = run(report=lambda row: row["epoch"] == 2)
    assert len(finished.result.history) == 2
    assert finished.result.stopped_early


def test_accumulated_steps_equal_joint_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = find_problem("examples.own_problem:Waves")
    monkeypatch.setattr(problem, "batch", lambda self, i, g: tuple(t[i] for t in self.splits["train"]))
    sgd = "optimizer={name: sgd, lr: 0.05}"
    joint = run("training.epochs=2", "training.batch_size=100", sgd)
    parts = run("training.epochs=2", "training.batch_size=25", "training.accumulate=4", sgd)
    for ours, theirs in zip(parts.result.model.parameters(), joint.result.model.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    step = torch.optim.SGD.step

    def measured(self: torch.optim.SGD, closure: None = None) -> None:
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        steps.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())
        step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", measured)
    run("training.epochs=1", "training.clip_norm=0.01", "optimizer={name: sgd, lr: 0.05}")
    assert len(steps) == 12
    assert max(steps) <= 0.0101


def test_bfloat16_learns_too() -> None:
    finished = run("training.precision=bfloat16")
    assert (
        finished.result.best["val/frequency_error"] < 0.5 * finished.problem.trivial_metrics("val")["frequency_error"]
    )


def test_a_loss_that_becomes_nan_stops_the_run_and_is_named() -> None:
    with pytest.raises(TrainingDiverged, match=r"loss '(frequency|phase)' became (nan|inf) in epoch \d+"):
        run("optimizer={name: sgd, lr: 1.0e+6}")


def test_a_nan_objective_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = find_problem("examples.own_problem:Waves")
    nan = {"frequency_error": float("nan"), "phase_error": 1.0}
    monkeypatch.setattr(problem, "evaluate", lambda *_: nan)
    with pytest.raises(TrainingDiverged, match="val/frequency_error became nan in epoch 1"):
        run()


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    run(directory=tmp_path, stop_after=1)
    with pytest.raises(InputError, match="another run config"):
        run("seed=5", directory=tmp_path)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:1000])
    with pytest.raises(InputError, match="delete it to start anew"):
        run(directory=tmp_path)
    (tmp_path / BEST).write_bytes((tmp_path / BEST).read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(tmp_path / BEST)
    with pytest.raises(InputError, match="no checkpoint"):
        load_weights(tmp_path / "none.safetensors")


def test_a_malicious_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"history": Evil()}, tmp_path / LAST)
    with pytest.raises(InputError, match="cannot be continued"):
        load_last(tmp_path / LAST)
    assert not (tmp_path / "owned").exists()


def test_the_record_holds_what_is_needed_to_repeat(tmp_path: Path) -> None:
    finished = run(directory=tmp_path, stop_after=2)
    record = load_record(tmp_path / "record.yaml")
    assert record.history == finished.result.history
    assert record.config == finished.record.config
    assert record.environment["threads"] == 1
    assert record.environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record.config == record.config_as_run


def test_no_gpu_is_said_before_any_work() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(InputError, match="torch sees no GPU here"):
        train(
            find_problem("examples.own_problem:Waves")(load_run_config(CONFIG)),
            load_run_config(CONFIG, ["training.device=cuda"]),
        )


def test_any_objective_of_a_search_that_is_nan_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = find_problem("examples.own_problem:Waves")
    nan = {"frequency_error": 1.0, "phase_error": float("nan")}
    monkeypatch.setattr(problem, "evaluate", lambda *_: nan)
    with pytest.raises(TrainingDiverged, match="val/phase_error became nan in epoch 1"):
        run(must_be_finite=("val/frequency_error", "val/phase_error"))


def test_a_run_goes_on_with_the_threads_it_began_with(tmp_path: Path) -> None:
    config = load_run_config(CONFIG, ["training.epochs=2"])
    run_training(config, threads=2, directory=tmp_path, stop_after=1)
    resumed = run_training(config, threads=1, directory=tmp_path)
    assert resumed.record.environment["threads"] == 2
    record = (tmp_path / "record.yaml").read_bytes()
    run_training(config, threads=1, directory=tmp_path)
    assert (tmp_path / "record.yaml").read_bytes() == record, "a finished run's record stays as it is"


def test_a_single_left_over_sample_joins_the_batch_before() -> None:
    from mtlsearch.training.batching import split

    assert [len(part) for part in split(torch.arange(65), 64)] == [65]
    assert [len(part) for part in split(torch.arange(66), 64)] == [64, 2]
    assert [len(part) for part in split(torch.arange(1), 64)] == [1]


def test_a_full_disk_is_said_by_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 4288 vs 4182")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"last\.pt cannot be written .* MB are free there"):
        run(directory=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"best.safetensors"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("threads: 1", "threads: one"),
        ("val/frequency_error: min", "val/frequency_error: minimum"),
        ("config_as_run: '{", "config_as_run: '{{"),
        ("history:", "history: []\nothers:"),
        ("environment:", "environment: null\nothers:"),
    ],
)
def test_damaged_records_are_named(old: str, new: str, tmp_path: Path) -> None:
    run(directory=tmp_path, stop_after=1)
    path = tmp_path / "record.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match="is not the record of a run"):
        load_record(path)
