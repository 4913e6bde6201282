"""Showing that something goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mtlsearch.training.loop import Row

#: seconds between plain lines about the same thing
_PLAIN_INTERVAL_S = 5.0


class Progressing:
    """Feeds (done, total) into a bar or into a line now and then; prints nothing for work already done."""

    def __init__(self, console: Console, label: str) -> None:
        self._console, self._label = console, label
        self._bar: Progress | None = None
        self._spoke = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self._console.is_terminal:
            if self._bar is None:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                )
                self._bar = Progress(*columns, console=self._console, transient=True)
                self._bar.add_task(self._label, total=total)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        elif time.monotonic() - self._spoke >= _PLAIN_INTERVAL_S:
            self._spoke = time.monotonic()
            self._console.print(f"{self._label}: {done} of {total}", highlight=False)

        if done == total:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def progressing(console: Console, label: str) -> Iterator[Progressing]:
    shown = Progressing(console, label)
    try:
        yield shown
    finally:
        shown.close()


def epoch_line(row: Row, epochs: int) -> str:
    """One epoch as one line: epoch, validation metrics, best epoch so far, losses, learning rate, speed."""
    validation = "  ".join(f"{key[4:]} {value:.3f}" for key, value in row.items() if key in _headline(row))
    losses = "  ".join(
        f"{key[6:]} {value:.3g}"
        for key, value in row.items()
        if key.startswith("train/") and key not in ("train/lr", "train/grad_norm")
    )
    speed = f"lr {row['train/lr']:.2g}  {row['time/samples_per_s']:.0f} samples/s"
    return f"epoch {int(row['epoch']):>3}/{epochs}  {validation}  best {int(row['best/epoch'])} | {losses} | {speed}"


def _headline(row: Row) -> list[str]:
    """The metrics that stand for the others: those whose name extends no other metric's name with `_…`."""
    names = [key for key in row if key.startswith("val/")]
    return [key for key in names if not any(key != other and key.startswith(f"{other}_") for other in names)]
