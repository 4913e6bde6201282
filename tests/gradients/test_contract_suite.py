"""mtlsearch.testing fails on strategies that break the contract, and says which part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mtlsearch.gradients import GramianStrategy, LossStrategy, RowStrategy, Step, get_strategy, strategy_info
from mtlsearch.gradients.gramian import norms
from mtlsearch.gradients.learned import LearnedScalars
from mtlsearch.testing import check_strategy, checks

ROOT = Path(__file__).parents[2]


def failing(make: Any, **flags: bool) -> set[str]:
    """The names of the checks that fail."""
    found = set()
    for name, check in checks(make, **flags):
        try:
            check()
        except AssertionError:
            found.add(name)
    return found


@dataclass(eq=False)
class Sum(GramianStrategy):
    """Sound; those below each break one thing."""

    name: ClassVar[str] = "sum"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        return torch.ones_like(gramian.diagonal())


@dataclass(eq=False)
class SumOfRows(RowStrategy):
    """Sound."""

    name: ClassVar[str] = "sum_of_rows"

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        return jacobian.sum(0)


@dataclass(eq=False)
class Ones(LossStrategy):
    """Sound."""

    name: ClassVar[str] = "ones"

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return torch.ones_like(losses)


@dataclass(eq=False)
class HalvesOneTask(Sum):
    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        return super().combine(jacobian, step) / (2 if len(jacobian) == 1 else 1)


@dataclass(eq=False)
class EpsilonInDenominator(GramianStrategy):
    """PCGrad in the tasks' order, as one widely copied version has it."""

    name: ClassVar[str] = "epsilon"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        weights = torch.eye(len(gramian), dtype=gramian.dtype)
        for i, row in enumerate(weights):
            for j in range(len(gramian)):
                if j != i and (inner := row @ gramian[j]) < 0:
                    row[j] -= inner / (gramian[j, j] + 1e-8)
        return weights.sum(0)


@dataclass(eq=False)
class FirstTaskTwice(Sum):
    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        weights = super().weigh(gramian, step)
        weights[0] = 2
        return weights


@dataclass(eq=False)
class LeavesTheSpan(Sum):
    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        return super().combine(jacobian, step) + (0 if len(jacobian) == 1 else 1e-6 * jacobian.norm())


@dataclass(eq=False)
class DividesByZero(GramianStrategy):
    name: ClassVar[str] = "divides_by_zero"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        return 1 / norms(gramian)


@dataclass(eq=False)
class ModifiesItsInput(SumOfRows):
    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        return jacobian.mul_(2).sum(0)


@dataclass(eq=False)
class ReturnsAView(SumOfRows):
    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        return jacobian[0]


@dataclass(eq=False)
class ReturnsDouble(SumOfRows):
    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        return super().combine(jacobian, step).double()


@dataclass(eq=False)
class HalfPrecision(SumOfRows):
    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        return jacobian.bfloat16().sum(0).to(jacobian.dtype) if jacobian.dtype == torch.float32 else jacobian.sum(0)


@dataclass(eq=False)
class TakesAnything(SumOfRows):
    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        return jacobian.detach().sum(0)


@dataclass(eq=False)
class GlobalRandomNumbers(GramianStrategy):
    name: ClassVar[str] = "global_random_numbers"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        return torch.rand(len(gramian), dtype=gramian.dtype)


@dataclass(eq=False)
class SeedsTheGlobalGenerator(GramianStrategy):
    name: ClassVar[str] = "seeds_the_global_generator"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        torch.manual_seed(step.index)
        return torch.rand(len(gramian), dtype=gramian.dtype)


@dataclass(eq=False)
class Remembers(GramianStrategy):
    """Sound: weights that grow with the steps."""

    name: ClassVar[str] = "remembers"
    steps: Tensor | None = field(default=None, init=False, repr=False)

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        self.steps = torch.tensor(1.0) if self.steps is None else self.steps + 1
        return torch.ones_like(gramian.diagonal()) * self.steps


@dataclass(eq=False)
class HidesItsState(Sum):
    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        self.seen = getattr(self, "seen", 0) + 1
        return super().weigh(gramian, step) * self.seen


@dataclass(eq=False)
class ForgetsItsState(Remembers):
    def state_dict(self) -> dict[str, Any]:
        return {}


@dataclass(eq=False)
class DeniesItsState(Remembers):
    @property
    def stateful(self) -> bool:
        return False


@dataclass(eq=False)
class TakesAnyState(Sum):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass(eq=False)
class SharesItsState(Remembers):
    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        self.steps = torch.tensor(0.0) if self.steps is None else self.steps
        self.steps += 1
        return torch.ones_like(gramian.diagonal()) * self.steps

    def __deepcopy__(self, memo: dict[int, Any]) -> SharesItsState:
        twin = SharesItsState()
        twin.steps = self.steps
        return twin


@dataclass(eq=False)
class CannotBePickled(Sum):
    function: Callable[[Tensor], Tensor] = field(default=lambda x: x, repr=False)

    def __post_init__(self) -> None:
        self.function = lambda x: x


@dataclass(eq=False)
class WantsAllTasks(Remembers):
    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        self.steps = gramian.diagonal() if self.steps is None else self.steps + gramian.diagonal()
        return torch.ones_like(gramian.diagonal())


@dataclass(eq=False)
class NeverTrainsItsScalars(LearnedScalars, Sum):
    pass


@dataclass(eq=False)
class ForgetsToAskForAllLosses(Ones):
    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return 1 / losses


@dataclass(eq=False)
class OneWeightForAll(Ones):
    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return losses.sum()


@dataclass(eq=False)
class ModifiesLosses(Ones):
    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return torch.ones_like(losses.mul_(2))


NOTHING: set[str] = set()


@pytest.mark.parametrize(
    ("make", "flags", "expected"),
    [
        (Sum, {"scale_equivariant": True, "permutation_equivariant": True}, NOTHING),
        (SumOfRows, {"scale_equivariant": True, "permutation_equivariant": True}, NOTHING),
        (Ones, {"permutation_equivariant": True}, NOTHING),
        (Remembers, {}, NOTHING),
        (HalvesOneTask, {}, {"one_task_is_the_plain_gradient"}),
        (EpsilonInDenominator, {}, NOTHING),
        (EpsilonInDenominator, {"scale_equivariant": True}, {"scale_equivariance"}),
        (FirstTaskTwice, {"permutation_equivariant": True}, {"permutation_equivariance"}),
        (LeavesTheSpan, {}, {"result_is_the_weighted_sum_of_the_rows"}),
        (DividesByZero, {}, {"result_is_a_finite_gradient", "dependent_rows_give_a_finite_gradient"}),
        (ModifiesItsInput, {}, {"input_is_not_modified"}),
        (ReturnsAView, {}, {"input_is_not_modified"}),
        (ReturnsDouble, {}, {"result_is_a_finite_gradient"}),
        (HalfPrecision, {}, {"float32_agrees_with_float64"}),
        (TakesAnything, {}, {"refuses_what_is_no_jacobian"}),
        (GlobalRandomNumbers, {}, {"same_seed_and_step_give_the_same", "leaves_the_global_generators_alone"}),
        (SeedsTheGlobalGenerator, {}, {"leaves_the_global_generators_alone"}),
        (HidesItsState, {}, {"declares_its_state", "state_dict_goes_on_bit_for_bit", "optimizer_resumes_bit_for_bit"}),
        (ForgetsItsState, {}, {"state_dict_goes_on_bit_for_bit", "optimizer_resumes_bit_for_bit"}),
        (DeniesItsState, {}, {"declares_its_state", "overflow_leaves_state_alone"}),
        (TakesAnyState, {}, {"refuses_the_state_of_another"}),
        (SharesItsState, {}, {"pickle_and_deepcopy_go_on_alike", "optimizer_copies_go_on_alike"}),
        (CannotBePickled, {}, {"pickle_and_deepcopy_go_on_alike", "optimizer_copies_go_on_alike"}),
        (WantsAllTasks, {}, {"absent_task_takes_no_part"}),
        (NeverTrainsItsScalars, {}, {"own_parameters_have_gradients"}),
        (ForgetsToAskForAllLosses, {}, {"micro_batches_equal_the_batch"}),
        (OneWeightForAll, {}, {"each_loss_has_a_finite_weight"}),
        (ModifiesLosses, {}, {"losses_are_not_modified"}),
    ],
)
def test_names_what_is_broken(make: type, flags: dict[str, bool], expected: set[str]) -> None:
    failed = failing(make, **flags)
    assert expected <= failed if expected else not failed


def test_failures_say_what_was_expected_what_came_and_where() -> None:
    message = (
        r"^strategy 'epsilon' fails scale_equivariance: combine\(1e-05·J\) must be 1e-05·combine\(J\), of norm "
        r"[\d.e-]+, but for the conflicting Jacobian \(3, 3000\) torch.float64 came a vector of norm .* of Σ‖g_t‖ away"
    )
    with pytest.raises(AssertionError, match=message):
        check_strategy(EpsilonInDenominator, scale_equivariant=True)
    with pytest.raises(AssertionError, match=r"rows \[0, 1\] of the random Jacobian \(2, 3000\) torch.float64 were"):
        check_strategy(ModifiesItsInput)
    with pytest.raises(
        AssertionError, match=r"fails absent_task_takes_no_part: it raised RuntimeError: .*size"
    ) as raised:
        check_strategy(WantsAllTasks)
    assert "fails one_task" not in str(raised.value)


def test_claims_of_the_record_are_checked_unless_others_are_made() -> None:
    def names(make: Any, **flags: bool) -> set[str]:
        return {name for name, _ in checks(make, **flags)} & {"scale_equivariance", "permutation_equivariance"}

    both = {"scale_equivariance", "permutation_equivariance"}
    info = strategy_info("upgrad")
    assert names("upgrad") == names(info) == names(info.strategy) == names(lambda: get_strategy("upgrad")) == both
    assert names("upgrad", scale_equivariant=False) == {"permutation_equivariance"}
    assert names(Sum) == NOTHING


def test_what_can_be_checked() -> None:
    for wrong in (3, get_strategy("pcgrad")):
        with pytest.raises(TypeError, match="make must be the name of a strategy"):
            checks(wrong)  # type: ignore[arg-type]
    one = get_strategy("pcgrad")
    with pytest.raises(ValueError, match="a new strategy on each call"):
        checks(lambda: one)
    with pytest.raises(ValueError, match="did you mean 'pcgrad'"):
        checks("pcgrd")


def test_needs_no_pytest_and_leaves_the_callers_random_numbers() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import torch\n"
        "from mtlsearch.testing import check_strategy\n"
        "before = torch.get_rng_state()\n"
        "check_strategy('pcgrad')\n"
        "assert torch.equal(before, torch.get_rng_state())\n"
        "print([m for m in sys.modules if m[:10] == 'mtlsearch.' and m[10:17] not in ('gradien', 'testing')])"
    )
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
