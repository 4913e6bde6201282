"""The Gramian: accuracy where a single float32 product fails, and immunity to reduced precision."""

from __future__ import annotations

import pytest
import torch

from mtlsearch.gradients.gramian import cosines, gramian, norms, weighted_rows


@pytest.mark.parametrize("width", [1, 5, 1023, 1024, 1025, 1_000_003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_is_accurate(width: int, dtype: torch.dtype) -> None:
    first = torch.rand(width, dtype=torch.float64) + 0.5
    rows = torch.stack([first, -first * (1 + 1e-4 * torch.randn(width, dtype=torch.float64))]).to(dtype)
    exact = rows.double() @ rows.double().T
    limit = 1e-6 if dtype == torch.float32 else 1e-13
    assert float(((gramian(rows) - exact) / exact).abs().max()) < limit


def test_ignores_autocast_and_matmul_precision() -> None:
    rows = torch.randn(3, 10_000)
    exact = rows.double() @ rows.double().T
    weights = torch.rand(3, dtype=torch.float64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got, combined = gramian(rows), weighted_rows(rows, range(3), weights)
    finally:
        torch.set_float32_matmul_precision(before)
    assert got.dtype == torch.float64 and combined.dtype == torch.float32
    assert float((got - exact).abs().max() / exact.max()) < 1e-6
    assert float((combined - weights @ rows.double()).abs().max()) < 1e-5


def test_cosines_and_norms() -> None:
    matrix = gramian(torch.tensor([[3.0, 4.0], [-4.0, 3.0], [-3.0, -4.0], [0.0, 0.0]]))
    assert norms(matrix).tolist() == [5, 5, 5, 0]
    expected = torch.tensor([[1, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 0]]).double()
    torch.testing.assert_close(cosines(matrix), expected)
