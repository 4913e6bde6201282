"""Ray Train's trainer for worker groups. All that is done here with what Ray keeps private is done in this file."""

from __future__ import annotations

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train.torch import TorchTrainer

try:
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.callback import ControllerCallback

    #: what Ray does for each group by a process of its own, and need not: the first watches for the controller's death,
    #: by Ray's dashboard, and lives for ever where there is none, while the exchange does the same; the second hands
    #: out data sets of Ray's, which are not used here
    _NEEDLESS: tuple[type, ...] = (PlacementGroupCleanerCallback, DatasetsCallback)
except ImportError:  # Ray has changed: its own trainer does, with more processes, and is stopped less promptly
    ControllerCallback = None  # type: ignore[assignment, misc]


class GroupTrainer(TorchTrainer):
    """A TorchTrainer without needless processes that tells the exchange who controls the group, which `fit` keeps to
    itself."""

    def __init__(self, *arguments: Any, group: str, exchange: ActorHandle, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._group, self._exchange = group, exchange

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        if ControllerCallback is None:
            return callbacks
        kept = [one for one in callbacks if not isinstance(one, _NEEDLESS)]
        return [*kept, _announcing(self._group, self._exchange)]


def _announcing(group: str, exchange: ActorHandle) -> Any:
    """Made where it is needed, because the class that it builds on may be missing."""

    class Announcing(ControllerCallback):
        """Runs in the controller of a group."""

        def after_controller_start(self, train_run_context: Any) -> None:
            ray.get(exchange.announce.remote(group, ray.get_runtime_context().current_actor))

    return Announcing()


def end_group(controller: ActorHandle, seconds: float) -> None:
    """Ends a group whatever its workers do: by the controller's own way, and by force after so many seconds."""
    try:
        ray.get(controller.abort.remote(), timeout=seconds)
    except Exception:  # it ends before it can answer; or it does not know how, or does not get to it
        ray.kill(controller)
