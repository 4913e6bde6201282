"""Whether two measurements of the same trials put them in the same order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

#: pairs below which a rank correlation is no figure at all
_FEWEST = 4
#: pairs below which it is a figure and hardly evidence: its interval spans most of what is possible
_ENOUGH = 8
#: below this the one order says too little about the other
WEAK = 0.6


def spearman(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> tuple[float, tuple[float, float] | None]:
    """Rank correlation of two samples (n,) and its 95 % interval; NaN below 4 pairs and where all figures of a sample
    are equal, no interval for ±1.

    Fisher's z with the variance of Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall
    and Spearman correlations", Psychometrika 65: (1 + ρ²/2) / (n − 3).
    """
    if len(one) < _FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan, None
    from scipy import stats  # half a second to import, and needed once, at the end

    value = float(stats.spearmanr(one, other).statistic)
    if abs(value) > 1 - 1e-12:
        return value, None
    half = stats.norm.ppf(0.975) * math.sqrt((1 + value**2 / 2) / (len(one) - 3))
    return value, (math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


def caution(pairs: int, value: float) -> str:
    """Why a rank correlation of so many pairs is none or says little, in words; "" where it may be trusted."""
    if pairs < _FEWEST:
        return f"{pairs} are too few for a rank correlation"
    if math.isnan(value):
        return "all figures are equal, so there is no order to compare"
    return f"{pairs} are weak evidence, whatever the rank correlation" if pairs < _ENOUGH else ""
