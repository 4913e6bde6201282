from __future__ import annotations

import pytest
import torch

from mtlsearch.training.memory import ran_out_of_memory


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:73] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_ran_out_is_told_by_its_exception_or_one_behind_it(failure: Exception) -> None:
    assert ran_out_of_memory(failure)
    try:
        raise ValueError("the step failed") from failure
    except ValueError as wrapped:
        assert ran_out_of_memory(wrapped)


def test_other_failures_are_not() -> None:
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out_of_memory(ValueError("out of memory"))


def test_torch_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**62, dtype=torch.uint8)
    assert ran_out_of_memory(refused.value)
