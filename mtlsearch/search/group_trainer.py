"""Ray Train's trainer for worker groups. All that is done here with what Ray keeps private is done in this file."""

from __future__ import annotations

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train.torch import TorchTrainer

try:
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.callback import ControllerCallback
except ImportError:  # Ray has changed: its own trainer does, with one more process, and is stopped less promptly
    PlacementGroupCleanerCallback = ControllerCallback = None  # type: ignore[assignment, misc]


class GroupTrainer(TorchTrainer):
    """A TorchTrainer that tells the exchange who controls the group, because `fit` keeps that to itself, and without
    the process that Ray starts beside each group to give its place free if the controller dies: that one asks Ray's
    dashboard, lives for ever where there is none, and the exchange does the same."""

    def __init__(self, *arguments: Any, group: str, exchange: ActorHandle, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._group, self._exchange = group, exchange

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        if ControllerCallback is None:
            return callbacks
        kept = [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]
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
