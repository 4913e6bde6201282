"""Wrong use: an error that says what was given, what is allowed and what to do."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

from mtlsearch import MultiTaskOptimizer, PCGrad, get_strategy

from .helpers import TwoHeads


@pytest.fixture
def model() -> TwoHeads:
    return TwoHeads()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def losses(model: TwoHeads) -> dict[str, torch.Tensor]:
    return model.losses(torch.randn(8, 6))


def test_step_takes_no_closure(model: TwoHeads) -> None:
    with pytest.raises(ValueError, match="takes no closure"):
        PCGrad(sgd(model)).step(lambda: 0.0)  # type: ignore[arg-type, return-value]


def test_only_an_optimizer_is_wrapped(model: TwoHeads) -> None:
    with pytest.raises(TypeError, match=r"wraps a torch optimizer.*but got generator"):
        PCGrad(model.parameters())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="already combines"):
        PCGrad(PCGrad(sgd(model)))


@pytest.mark.parametrize("strategy", [3, dict, None])
def test_what_a_strategy_is(model: TwoHeads, strategy: Any) -> None:
    with pytest.raises(TypeError, match="must be a name"):
        MultiTaskOptimizer(sgd(model), strategy)


def test_uncertainty_wants_its_tasks_named(model: TwoHeads) -> None:
    with pytest.raises(ValueError, match=r'tasks=\["landmarks", "pose"\]'):
        MultiTaskOptimizer(sgd(model), "uncertainty")
    strategy = get_strategy("uncertainty")
    MultiTaskOptimizer(sgd(model), strategy, tasks=2)
    with pytest.raises(ValueError, match="already belongs to an optimizer"):
        MultiTaskOptimizer(sgd(model), strategy, tasks=2)


@pytest.mark.parametrize("tasks", [[], ["a", "a"], 0])
def test_task_names(model: TwoHeads, tasks: Any) -> None:
    with pytest.raises(ValueError, match="no name twice"):
        PCGrad(sgd(model), tasks=tasks)
    with pytest.raises(TypeError, match="number of tasks or a list"):
        PCGrad(sgd(model), tasks="a")


def test_unknown_task_name(model: TwoHeads) -> None:
    optimizer = PCGrad(sgd(model), tasks=["landmarks", "pose"])
    with pytest.raises(ValueError, match=r"unknown task 'landmark'; did you mean 'landmarks'\?"):
        optimizer.backward({"landmark": losses(model)["a"]})
    optimizer = PCGrad(sgd(model))
    optimizer.backward(losses(model))
    with pytest.raises(ValueError, match=r"unknown task 'd' \(allowed: a, b\)"):
        optimizer.backward({**losses(model), "d": losses(model)["a"]})
    with pytest.raises(ValueError, match="3 losses were given for 2 tasks"):
        optimizer.backward([*losses(model).values(), None])


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda loss: loss.detach(), ValueError, "task 'b' does not require grad"),
        (lambda loss: loss.expand(3), ValueError, r"task 'b' must be a scalar, but has shape \(3,\)"),
        (lambda loss: 1.0, TypeError, "task 'b' must be a tensor or None, but got float"),
        (lambda loss: loss * float("nan"), FloatingPointError, "task 'b' is nan at step 0"),
        (lambda loss: loss * float("inf"), FloatingPointError, "task 'b' is inf at step 0"),
    ],
)
@pytest.mark.parametrize("strategy", ["pcgrad", "weighted_sum"])
def test_losses_that_cannot_be_used(model: TwoHeads, strategy: str, bad: Any, error: Any, message: str) -> None:
    optimizer = MultiTaskOptimizer(sgd(model), strategy)
    given = losses(model)
    with pytest.raises(error, match=message):
        optimizer.backward({**given, "b": bad(given["b"])})
    assert all(p.grad is None for p in model.parameters()), "checked before anything is computed"
    optimizer.backward(losses(model))  # and nothing is left behind


def test_losses_in_one_tensor(model: TwoHeads) -> None:
    with pytest.raises(ValueError, match="one scalar for each task"):
        PCGrad(sgd(model)).backward(sum(losses(model).values()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every loss is None"):
        PCGrad(sgd(model)).backward([None, None])


def test_no_shared_parameter() -> None:
    left, right = nn.Linear(2, 1), nn.Linear(2, 1)
    pair = nn.ModuleList([left, right])
    data = torch.ones(1, 2)
    with pytest.raises(ValueError, match="tasks 0, 1 share no parameter"):
        PCGrad(sgd(pair)).backward([left(data).sum(), right(data).sum()])
    with pytest.raises(ValueError, match="None of the parameters in shared="):
        PCGrad(sgd(pair), shared=nn.Linear(1, 1)).backward([left(data).sum(), left(data).sum()])
    with pytest.raises(ValueError, match="at least one"):
        PCGrad(sgd(pair), shared=[])


def test_parameters_outside_the_optimizer(model: TwoHeads) -> None:
    with pytest.raises(ValueError, match="task 'a' reaches no parameter of this optimizer"):
        PCGrad(sgd(nn.Linear(1, 1))).backward(losses(model))
    with pytest.warns(UserWarning, match="reaches 2 parameters that this optimizer does not hold") as caught:
        PCGrad(sgd(model.trunk)).backward(losses(model))
    assert caught[0].filename == __file__


def test_waiting_gradients(model: TwoHeads) -> None:
    optimizer = PCGrad(sgd(model))
    with pytest.raises(RuntimeError, match="nothing to combine"):
        optimizer.combine()
    with pytest.raises(RuntimeError, match="no diagnostics before"):
        _ = optimizer.diagnostics
    optimizer.backward(losses(model), combine=False)
    with pytest.raises(RuntimeError, match=r"gradients of a, b wait.*call combine\(\)"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="cannot be saved"):
        optimizer.state_dict()
    with pytest.raises(RuntimeError, match="cannot be copied or pickled"):
        pickle.dumps(optimizer)
    with pytest.raises(ValueError, match="all have a scaler, or none"):
        optimizer.backward(losses(model), scaler=torch.amp.GradScaler("cpu"))
    optimizer.backward(losses(model), combine=False)
    optimizer.zero_grad()
    optimizer.state_dict()


def test_state_of_another_optimizer(model: TwoHeads) -> None:
    optimizer = PCGrad(sgd(model), tasks=["a", "b"])
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"plain optimizer.*optimizer.optimizer.load_state_dict"):
        optimizer.load_state_dict(sgd(model).state_dict())
    with pytest.raises(ValueError, match=r"belongs to strategy 'weighted_sum'.*has 'pcgrad'"):
        optimizer.load_state_dict(MultiTaskOptimizer(sgd(model), "weighted_sum").state_dict())
    with pytest.raises(ValueError, match=r"belongs to the tasks b, a.*has a, b"):
        optimizer.load_state_dict(PCGrad(sgd(model), tasks=["b", "a"]).state_dict())
    assert optimizer.state_dict() == before


def test_callable_that_gives_the_wrong_shape(model: TwoHeads) -> None:
    with pytest.raises(ValueError, match=r"must turn a jacobian \(T, P\) = \(2, .*but gave \(2,\)"):
        MultiTaskOptimizer(sgd(model), lambda rows: rows.sum(1)).backward(losses(model))
