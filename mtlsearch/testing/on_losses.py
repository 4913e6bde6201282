"""Checks on the weights of a loss strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .subject import Check, Subject


def checks_of(subject: Subject) -> Sequence[Check]:
    if subject.kind != "loss":
        return []
    return [each_loss_has_a_finite_weight, losses_are_not_modified, float32_weights_agree_with_float64]


def each_loss_has_a_finite_weight(subject: Subject) -> None:
    for losses in _all_losses():
        weights = subject.answer(subject.new(len(losses)), losses, losses)
        if weights.shape != losses.shape or not bool(weights.isfinite().all()):
            raise AssertionError(
                f"weigh must give a finite weight for each of the losses {losses.tolist()}, but gave {weights.tolist()}"
            )


def losses_are_not_modified(subject: Subject) -> None:
    for losses in _all_losses():
        before = losses.clone()
        subject.answer(subject.new(len(losses)), losses, losses)
        if not torch.equal(losses, before):
            raise AssertionError(f"the losses {before.tolist()} must not be modified, but became {losses.tolist()}")


def float32_weights_agree_with_float64(subject: Subject) -> None:
    for losses in _all_losses():
        got = subject.answer(subject.new(len(losses)), losses, losses).double()
        expected = subject.answer(subject.new(len(losses)), losses.double(), losses.double()).double()
        tolerance = subject.float32_tolerance
        if not float((got - expected).norm()) <= tolerance * float(expected.norm()):
            raise AssertionError(
                f"float32 weights must agree with float64 to {tolerance:g}, but for the losses {losses.tolist()} "
                f"came {got.tolist()} instead of {expected.tolist()}"
            )


def _all_losses() -> Iterator[Tensor]:
    yield torch.tensor([0.9, 0.2, 0.5, 0.7])
    yield torch.tensor([1e-6, 1.0, 1e6])
    yield torch.ones(2)
