"""Memory that ran out: how it is told from other failures, and how what a training took is given back."""

from __future__ import annotations

import gc

import torch

#: of RuntimeErrors, in small letters: CUDA's allocator, cuBLAS and cuDNN, which allocate by themselves, torch's on CPU
_SIGNS = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "can't allocate memory",
    "not enough memory",
)


def ran_out_of_memory(failure: BaseException | None) -> bool:
    """Whether an exception, or one behind it, says that a device or the machine has no memory left."""
    seen: set[int] = set()
    while failure is not None and id(failure) not in seen:
        seen.add(id(failure))
        if isinstance(failure, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(failure, RuntimeError) and any(sign in str(failure).lower() for sign in _SIGNS):
            return True
        failure = failure.__cause__ or failure.__context__
    return False


def free_memory() -> None:
    """Gives back what a training that is over has left on a GPU: to the next in this process, and to others there."""
    if torch.cuda.is_available():
        gc.collect()  # a model and its optimizer may hold each other
        torch.cuda.empty_cache()
