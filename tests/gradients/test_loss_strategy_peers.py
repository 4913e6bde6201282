"""Loss strategies against TorchJD's scalarizers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mtlsearch.gradients import Step

from .helpers import loss_weights, ready

peers = pytest.importorskip("torchjd.scalarization")

LOSSES = [
    torch.tensor([0.7, 2.0, 0.1], dtype=torch.float64),
    torch.tensor([1e-5, 1.0, 300.0], dtype=torch.float64),
    torch.tensor([0.5, 0.5], dtype=torch.float64),
    torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.01,
]


def derivatives(scalarizer: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:
    losses = losses.clone().requires_grad_()
    return torch.autograd.grad(scalarizer(losses), losses)[0]


def uniform(losses: Tensor) -> Tensor:
    return torch.full_like(losses, 1 / len(losses))


# Strategy, its hyperparameters, the peer for given losses, relative tolerance with its reason.
CASES: list[tuple[str, dict[str, object], Callable[[Tensor], Callable[[Tensor], Tensor]], float]] = [
    ("gls", {}, lambda losses: peers.GeometricMean(), 1e-12),
    ("stch", {"mu": 0.1}, lambda losses: peers.STCH(0.1), 1e-12),
    ("stch", {"mu": 1.0}, lambda losses: peers.STCH(1.0), 1e-12),
    ("cosmos", {"penalty_weight": 2.0}, lambda losses: peers.COSMOS(2.0, uniform(losses)), 1e-10),
    # TorchJD adds 1e-12 under the root of d_2.
    ("pbi", {"theta": 3.0}, lambda losses: peers.PBI(3.0, uniform(losses)), 1e-6),
]


@pytest.mark.parametrize("losses", LOSSES, ids=len)
@pytest.mark.parametrize(("name", "hyperparameters", "peer", "tolerance"), CASES)
def test_weights_are_the_derivatives_of_torchjd(
    name: str,
    hyperparameters: dict[str, object],
    peer: Callable[[Tensor], Callable[[Tensor], Tensor]],
    tolerance: float,
    losses: Tensor,
) -> None:
    if name == "pbi" and bool((losses == losses[0]).all()):
        pytest.skip("on the direction itself d_2 has no derivative, and TorchJD's depends on its constant")
    got = loss_weights(ready(name, len(losses), **hyperparameters), losses)
    expected = derivatives(peer(losses), losses)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_preferences_and_ideal_points() -> None:
    losses = LOSSES[0]
    preference, ideal = [0.2, 0.3, 0.5], [0.1, 0.2, -0.3]
    tensors = torch.tensor(preference, dtype=torch.float64), torch.tensor(ideal, dtype=torch.float64)
    stch = ready("stch", 3, mu=0.5, preference=preference, ideal={"0": 0.1, "1": 0.2, "2": -0.3})
    torch.testing.assert_close(loss_weights(stch, losses), derivatives(peers.STCH(0.5, *tensors), losses))
    pbi = ready("pbi", 3, preference=preference, ideal=ideal)
    torch.testing.assert_close(loss_weights(pbi, losses), derivatives(peers.PBI(5.0, *tensors), losses))
    cosmos = ready("cosmos", 3, preference={"2": 0.5, "0": 0.2, "1": 0.3})
    torch.testing.assert_close(loss_weights(cosmos, losses), derivatives(peers.COSMOS(1.0, tensors[0]), losses))


def test_imtl_l_and_uncertainty_agree_with_torchjd() -> None:
    for name, peer, parameter in (
        ("imtl_l", peers.IMTLL(3), "log_scale"),
        ("uncertainty", peers.UW(3), "log_var"),
    ):
        strategy = ready(name, 3)
        learned = getattr(peer, parameter)
        values = [0.3, -1.0, 2.0]
        with torch.no_grad():
            for own, value in zip(strategy.parameters(), values):
                own.fill_(value)
            learned.copy_(torch.tensor(values))
        losses = LOSSES[0].float()
        theirs = losses.clone().requires_grad_()
        total = peer(theirs)
        gradients = torch.autograd.grad(total, [theirs, learned])
        weights = strategy.weigh(losses, Step(tasks=(0, 1, 2)))  # type: ignore[attr-defined]
        ours = (weights * losses).sum() + strategy.penalty((0, 1, 2))  # type: ignore[attr-defined]
        torch.testing.assert_close(ours, total)
        torch.testing.assert_close(weights.detach(), gradients[0])
        own_gradients = torch.autograd.grad(ours, strategy.parameters())
        torch.testing.assert_close(torch.stack(own_gradients), gradients[1])


@pytest.mark.parametrize("period", [1, 4])
def test_dwa_agrees_with_torchjd_over_many_epochs(period: int) -> None:
    ours, theirs = ready("dwa", 3, period=period, temperature=1.5), peers.DWA(1.5)
    seen = []
    for index in range(6 * period):
        losses = torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(index)) + 0.1
        seen.append(loss_weights(ours, losses, index))
        torch.testing.assert_close(seen[-1], derivatives(theirs, losses))
        if (index + 1) % period == 0:
            theirs.step()
    assert torch.equal(seen[2 * period - 1], torch.ones(3).double()) and not torch.equal(seen[-1], seen[0])


def test_famo_agrees_with_torchjd_given_the_next_losses() -> None:
    ours, theirs = ready("famo", 3, lr=0.1, gamma=0.01), peers.FAMO(3, lr=0.1, weight_decay=0.01).double()
    weights = []
    for index in range(8):
        losses = torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(index)) + 0.1
        if index:
            theirs.update(losses)
        weights.append(loss_weights(ours, losses, index))
        # TorchJD adds 1e-8 to every loss.
        torch.testing.assert_close(weights[-1], derivatives(theirs, losses), rtol=1e-6, atol=1e-6)
        assert float(weights[-1].sum()) == pytest.approx(1)
    logits = ours.logits  # type: ignore[attr-defined]
    assert float((logits - logits.mean()).abs().max()) > 0.1, "ξ must have moved, or this test shows nothing"


def test_rlw_has_the_distribution_of_torchjd() -> None:
    draws = torch.stack([loss_weights(ready("rlw", 3), torch.ones(3), index) for index in range(2000)])
    assert float((draws.sum(1) - 1).abs().max()) < 1e-6
    torch.manual_seed(0)
    peer = peers.Random()
    theirs = torch.stack([derivatives(peer, torch.ones(3)) for _ in range(2000)])
    # Means of 2000 draws with a standard deviation of 0.2: 0.0045 each, 0.0063 their difference.
    assert float((draws.mean(0) - theirs.mean(0)).abs().max()) < 4 * 0.0063
    assert float((draws.std(0) - theirs.std(0)).abs().max()) < 0.02
