"""Figures in words, on the screen and in the report."""

from __future__ import annotations

import math


def number(value: float, signed: bool = False) -> str:
    """Three decimals; integers, large and whole numbers without them; three digits where decimals would be nothing or
    endless; a dash for what is no number."""
    if not math.isfinite(value):
        return "–"
    plus = "+" if signed else ""
    if isinstance(value, int):
        return format(value, f"{plus},d")
    if 1e5 <= abs(value) < 1e15 or (abs(value) >= 1e3 and float(value).is_integer()):
        return format(value, f"{plus},.0f")
    decimals = value == 0 or 5e-4 <= abs(value) < 1e5
    return format(value, f"{plus}.3f" if decimals else f"{plus}.3g")


def duration(seconds: float) -> str:
    """`75` -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
