"""Gradient strategies against TorchJD, strategy by strategy, on every kind of Jacobian."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from mtlsearch.gradients import GramianStrategy, Step, get_strategy
from mtlsearch.gradients.gramian import gramian

from .helpers import JACOBIANS, TOLERANCE, combined, jacobian, pcgrad_oracle, ready, relative_error

peers = pytest.importorskip("torchjd.aggregation")

Aggregator = Callable[[Tensor], Tensor]
F32, F64 = torch.float32, torch.float64


def projector() -> object:
    from torchjd.linalg import QuadprogProjector

    return QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)


@dataclass(frozen=True)
class Peer:
    """What a strategy is compared with, and how closely; TOLERANCE where nothing is said.

    loose: kind -> (float64 tolerance, float32 tolerance, reason). skip: kind -> reason.
    """

    build: Callable[[int], Aggregator]
    tolerance: tuple[float, float] = (TOLERANCE[F64], TOLERANCE[F32])
    reason: str = ""
    loose: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    degree: float = 1.0
    """combine(c·J) = c^degree·combine(J); used to give the peer rows of a size that it can take."""
    hyperparameters: dict[str, object] = field(default_factory=dict)
    reference: str = ""


# The rows of near_opposed differ by 1e-3 of their length: eigenvalues of the Gramian are 1e-7 of the largest,
# where float32 products have their rounding. Strategies that divide by them have no digits to compare.
RANK = "in float32 these eigenvalues are rounding: compared in float64 only"

PEERS = {
    "mgda": Peer(
        lambda tasks: peers.MGDA(epsilon=1e-12, max_iters=2000),
        (1e-10, 1e-5),
        loose={
            "near_opposed": (
                2e-3,
                2e-3,
                "TorchJD's Frank-Wolfe converges sublinearly; ours is checked by KKT",
            ),
            "duplicate_rows": (2e-2, 2e-2, "the same"),
        },
    ),
    "cagrad": Peer(
        lambda tasks: peers.CAGrad(c=0.5, norm_eps=0.0),
        (1e-4, 1e-4),
        "CLARABEL stops at 1e-8 in the objective, which is 1e-4 in its argument; ours is checked by duality",
        loose={
            "zero_row": (
                torch.inf,
                torch.inf,
                "a zero gradient makes w degenerate: TorchJD answers 0, which breaks ‖d − g_0‖ ≤ c‖g_0‖; "
                "ours is checked against the definition in test_strategy_conditions.py",
            )
        },
    ),
    "nash_mtl": Peer(
        lambda tasks: peers.NashMTL(tasks, optim_niter=100),
        (1e-6, 1e-5),
        "TorchJD stops when G·w = 1/w holds to 1e-3; ours is checked by its residual",
        loose={"near_opposed": (1e-3, 1e-3, "the same, on a problem that is worse conditioned")},
        degree=0,
    ),
    "fairgrad": Peer(
        lambda tasks: peers.FairGrad(alpha=1.0),
        (1e-6, 1e-5),
        "scipy stops at a gradient of 1e-8; ours is checked by its residual",
        loose={"near_opposed": (1e-3, 1e-3, "the same, on a problem that is worse conditioned")},
        degree=0,
    ),
    "fairgrad, alpha 2": Peer(
        lambda tasks: peers.FairGrad(alpha=2.0),
        (1e-6, 1e-5),
        "scipy stops at a gradient of 1e-8; ours is checked by its residual",
        loose={"near_opposed": (1e-3, 1e-3, "the same, on a problem that is worse conditioned")},
        degree=-1 / 3,
        hyperparameters={"alpha": 2.0},
        reference="fairgrad",
    ),
    "imtl_g": Peer(lambda tasks: peers.IMTLG(), loose={"near_opposed": (1e-10, torch.inf, RANK)}),
    "aligned_mtl": Peer(lambda tasks: peers.AlignedMTL(), loose={"near_opposed": (1e-10, torch.inf, RANK)}),
    "aligned_mtl, median": Peer(
        lambda tasks: peers.AlignedMTL(scale_mode="median"),
        loose={"near_opposed": (1e-10, torch.inf, RANK)},
        hyperparameters={"scale": "median"},
        reference="aligned_mtl",
    ),
    "aligned_mtl, rmse": Peer(
        lambda tasks: peers.AlignedMTL(scale_mode="rmse"),
        loose={"near_opposed": (1e-10, torch.inf, RANK)},
        hyperparameters={"scale": "rmse"},
        reference="aligned_mtl",
    ),
    "upgrad": Peer(
        lambda tasks: peers.UPGrad(projector=projector()),
        (1e-9, 1e-5),
        "TorchJD needs a regulariser, 1e-12 here",
        loose={"near_opposed": (1e-8, 1e-3, "the same; float32 Gramian of nearly opposed rows")},
    ),
    "dualproj": Peer(
        lambda tasks: peers.DualProj(projector=projector()),
        (1e-9, 1e-5),
        "TorchJD needs a regulariser, 1e-12 here",
        loose={"near_opposed": (1e-8, 1e-3, "the same; float32 Gramian of nearly opposed rows")},
    ),
    "config": Peer(lambda tasks: peers.ConFIG(), loose={"near_opposed": (1e-10, torch.inf, RANK)}),
    "pcd": Peer(lambda tasks: peers.PCD(), loose={"near_opposed": (1e-10, torch.inf, RANK)}),
    "gradvac": Peer(lambda tasks: peers.GradVac(beta=0.01, eps=0.0)),
}


def scaled_error(got: Tensor, expected: Tensor, rows: Tensor, weights: Tensor) -> float:
    """`relative_error`, against the longest row where all weight is on a zero row."""
    if not float((weights.abs() * rows.double().norm(dim=1)).sum()):
        weights = torch.ones_like(weights) / len(weights)
    return relative_error(got, expected, rows, weights)


@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
@pytest.mark.parametrize("kind", JACOBIANS)
@pytest.mark.parametrize("case", PEERS)
@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem", "ignore:Solution may be inaccurate")
def test_agrees_with_torchjd(case: str, kind: str, dtype: torch.dtype) -> None:
    peer = PEERS[case]
    name = peer.reference or case
    if name == "nash_mtl" and find_spec("ecos") is None:
        pytest.skip("TorchJD's Nash-MTL needs ecos, which has no wheel for this Python")
    tolerances = peer.loose[kind][:2] if kind in peer.loose else peer.tolerance
    tolerance = tolerances[dtype == F32]
    if tolerance == torch.inf:
        pytest.skip(peer.loose[kind][2])
    # TorchJD draws orders from the global generator: only two tasks have none.
    for tasks in (2,) if name == "gradvac" else (2, 3, 5):
        rows = jacobian(kind, tasks, dtype)
        strategy = get_strategy(name, **peer.hyperparameters)
        assert isinstance(strategy, GramianStrategy)
        got = strategy.combine(rows)
        weights = get_strategy(name, **peer.hyperparameters).weigh(  # type: ignore[attr-defined]
            gramian(rows), Step(tasks=tuple(range(tasks)), precision=torch.finfo(dtype).eps)
        )
        theirs = rows.double()
        if peer.degree != 1:
            # Its absolute tolerances and its start want gradients of length 1 and no zero row, which takes
            # no part with us.
            theirs = theirs[theirs.norm(dim=1) > 0]
            if len(theirs) == 1:
                continue
        unit = float(theirs.norm(dim=1).max()) if peer.degree != 1 else 1.0
        expected = peer.build(len(theirs))(theirs / unit) * unit**peer.degree
        if name == "nash_mtl":
            # It writes 1 / (α + 1e-10); what it finds need not have length √T.
            expected = expected / expected.norm()
        assert scaled_error(got, expected, rows, weights) <= tolerance


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tensor]:
    """Our draws of step 0, which TorchJD gets for its call of torch.rand."""
    fixed = torch.rand(3000, generator=Step().generator()).double()
    real = torch.rand

    def rand(*sizes: object, **options: object) -> Tensor:
        return real(*sizes, **options) if "generator" in options else fixed  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "rand", rand)
    yield fixed


@pytest.mark.parametrize("kind", JACOBIANS)
@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_graddrop_agrees_with_torchjd_on_the_same_draws(kind: str, leak: float, draws: Tensor) -> None:
    for tasks in (2, 5):
        rows = jacobian(kind, tasks, F64)
        got = get_strategy("graddrop", leak=leak).combine(rows)
        expected = peers.GradDrop(leak=torch.full((tasks,), leak, dtype=F64))(rows)
        assert relative_error(got, expected, rows) <= 1e-12
        if kind != "zero_row" or tasks > 2:  # else nothing disagrees
            assert relative_error(rows.sum(0), got, rows) > 1e-6, "something must have been dropped"


def series(tasks: int, length: int = 6) -> list[Tensor]:
    return [jacobian("conflicting", tasks, F64, seed=seed, width=40) for seed in range(length)]


@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_gradvac_agrees_over_many_steps(beta: float) -> None:
    ours, theirs = get_strategy("gradvac", beta=beta), peers.GradVac(beta=beta, eps=0.0)
    for index, rows in enumerate(series(2, 20)):
        got, expected = combined(ours, rows, index=index), theirs(rows)
        assert relative_error(got, expected, rows) <= 1e-10


def test_pcd_agrees_over_many_steps() -> None:
    ours, theirs = get_strategy("pcd", tau=0.2, beta=0.9), peers.PCD(tau=0.2, beta=0.9)
    for index, rows in enumerate(series(4)):
        assert relative_error(combined(ours, rows, index=index), theirs(rows), rows) <= 1e-10


def test_cr_mogm_agrees_over_many_steps() -> None:
    theirs = peers.GramianWeightedAggregator(
        peers.CRMOGMWeighting(peers.UPGradWeighting(projector=projector()), alpha=0.7)
    )
    ours = get_strategy("cr_mogm", of="upgrad", alpha=0.7)
    for index, rows in enumerate(series(3)):
        assert relative_error(combined(ours, rows, index=index), theirs(rows), rows) <= 1e-9


def test_excess_mtl_agrees_over_many_steps() -> None:
    # TorchJD adds 1e-7 to the squares and to the base line.
    ours = get_strategy("excess_mtl", eta=0.3, warmup=2)
    theirs = peers.ExcessMTL(robust_step_size=0.3, n_warmup_steps=2)
    for index, rows in enumerate(series(3)):
        got, expected = combined(ours, rows, index=index), theirs(rows)
        assert relative_error(got, expected, rows) <= 1e-5


def test_modo_agrees_over_many_steps() -> None:
    ours, theirs = ready("modo", 3, gamma=0.01, rho=0.1), peers.MoDoWeighting(gamma=0.01, rho=0.1)
    for index, (first, second) in enumerate(zip(series(3, 8)[::2], series(3, 8)[1::2])):
        got = ours.combine(torch.stack([first, second]), Step(index=index))
        expected = theirs(first @ second.T) @ (first + second) / 2
        assert relative_error(got, expected, first) <= 1e-10


def test_sdmgrad_agrees_over_many_steps() -> None:
    # TorchJD adds 1e-8 to the square of the scale.
    ours, theirs = get_strategy("sdmgrad"), peers.SDMGradWeighting()
    rows = series(3, 12)
    for index in range(4):
        first, second, third = rows[3 * index : 3 * index + 3]
        # Independent samples of the same gradients.
        second = first + 0.3 * second
        got = ours.combine(torch.stack([first, second, third]), Step(index=index))
        expected = theirs(first @ second.T) @ third
        assert relative_error(got, expected, third) <= 1e-8


@pytest.mark.parametrize("kind", JACOBIANS)
def test_pcgrad_agrees_with_torchjd_on_two_tasks(kind: str) -> None:
    rows = jacobian(kind, 2, F64)
    expected = peers.PCGrad()(rows)
    assert relative_error(get_strategy("pcgrad").combine(rows), expected, rows) <= 1e-10


def test_pcgrad_has_the_distribution_of_torchjd_on_three_tasks() -> None:
    rows = jacobian("conflicting", 3, F64, width=6)
    orders = list(itertools.product(itertools.permutations(range(3)), repeat=3))
    outcomes = {tuple(round(x, 8) for x in pcgrad_oracle(rows, order).tolist()) for order in orders}
    ours = {
        tuple(round(x, 8) for x in get_strategy("pcgrad").combine(rows, Step(index=i)).tolist()) for i in range(300)
    }
    peer = peers.PCGrad()
    theirs = {tuple(round(x, 8) for x in peer(rows).tolist()) for _ in range(300)}
    # 300 draws miss one of the 8 equally likely outcomes (two orders for each of three tasks) once in 1e16.
    assert len(outcomes) == 8
    assert ours == theirs == outcomes
