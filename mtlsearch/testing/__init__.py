"""The contract of a strategy, as checks that anyone can run on one of their own. Needs torch and numpy only.

from mtlsearch.testing import check_strategy, checks

check_strategy(Mine)  # AssertionError: what was expected, what came, on which Jacobian

@pytest.mark.parametrize(("name", "check"), checks(Mine))  # or a test for each check
def test_contract(name, check):
    check()
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import behaviour, in_optimizer, on_jacobians, on_losses
from .subject import Check, Make, Subject, own_random_numbers

__all__ = ["check_strategy", "checks"]


def check_strategy(
    make: Make,
    *,
    scale_equivariant: bool | None = None,
    permutation_equivariant: bool | None = None,
    float32_tolerance: float = 1e-5,
) -> None:
    """Run every check that applies to a strategy of this kind.

    make: the name of a registered strategy, its `StrategyInfo`, or a callable without arguments that gives a new
        strategy on each call, such as its class; a callable jacobian (T, P) -> gradient (P,) that it gives counts as
        one.
    scale_equivariant, permutation_equivariant: what the strategy claims (see `StrategyInfo`), to be checked. None is
        what the record says of a strategy that has one, and no claim for others.
    float32_tolerance: how far float32 may be from float64, in Σ|w_t|‖g_t‖; more for a solver that amplifies rounding.

    Raises AssertionError that names each check that failed, with what was expected, what came and on which Jacobian.
    """
    failures = []
    for _, check in checks(
        make,
        scale_equivariant=scale_equivariant,
        permutation_equivariant=permutation_equivariant,
        float32_tolerance=float32_tolerance,
    ):
        try:
            check()
        except AssertionError as failure:
            failures.append(str(failure))
    if failures:
        raise AssertionError("\n".join(failures))


def checks(
    make: Make,
    *,
    scale_equivariant: bool | None = None,
    permutation_equivariant: bool | None = None,
    float32_tolerance: float = 1e-5,
) -> list[tuple[str, Callable[[], None]]]:
    """(name, check) of every check that applies, for `pytest.mark.parametrize`. Arguments as of `check_strategy`.

    A check takes no arguments and raises AssertionError. They run on the CPU in this process, in any order, and leave
    the global random generators as they were.
    """
    subject = Subject.of(make, scale_equivariant, permutation_equivariant, float32_tolerance)
    modules = (behaviour, on_jacobians, on_losses, in_optimizer)
    found = [check for module in modules for check in module.checks_of(subject)]
    return [(check.__name__, partial(_run, check, subject)) for check in found]


def _run(check: Check, subject: Subject) -> None:
    """One check; its failure, and whatever the strategy raises, as an AssertionError with both names."""
    try:
        with own_random_numbers():
            check(subject)
    except AssertionError as failure:
        raise AssertionError(f"strategy {subject.label!r} fails {check.__name__}: {failure}") from failure.__cause__
    except Exception as error:
        raise AssertionError(
            f"strategy {subject.label!r} fails {check.__name__}: it raised {type(error).__name__}: {error}"
        ) from error
