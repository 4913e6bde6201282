"""Runs a function on two gloo ranks, each a process of its own, and brings back what they return."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def on_two_ranks(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """[function(rank, *arguments) for each rank], computed in two processes of one process group.

    `function` is found by its import path; results travel through torch.save. An exception on a rank is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_run, (folder, function, arguments), nprocs=2)
        results = [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(2)]
    for result in results:
        if isinstance(result, _Failure):
            raise AssertionError(f"on a rank:\n{result.text}")
    return results


class _Failure:
    def __init__(self, text: str) -> None:
        self.text = text


def _run(rank: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        result = function(rank, *arguments)
        dist.barrier()
    except BaseException:
        result = _Failure(traceback.format_exc())
    torch.save(result, Path(folder, f"{rank}.pt"))
    os._exit(0)  # a rank whose peer failed may wait in a collective: no orderly end
