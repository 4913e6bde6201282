"""Which of timm's architectures serve as backbones: the smallest model of every module, forward and backward.

    python benchmarks/backbones.py --write docs/backbones.md

Each model is built without weights by the library's adapter, at the input size it was made for, with an MBConv head on
its map; two random images go forward, and the sum of the outputs backward. A model passes when the map is (2, C, H, W),
the outputs are finite and the gradient reaches its first parameters. Takes about half an hour on one core.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from rich.progress import track

from mtlsearch.errors import InputError
from mtlsearch.faces.backbones import Backbone
from mtlsearch.faces.regressors import MBConvRegressor


@dataclass(frozen=True)
class Row:
    """What came of one module's smallest model; `map` is C×H×W, `error` is empty where it passed."""

    module: str
    model: str
    millions: float
    size: int
    map: str
    seconds: float
    error: str = ""


def parameters_of(name: str) -> float:
    """Without allocating them; infinite where a constructor cannot do without real tensors."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
    except Exception:  # any: such a model is passed over in favour of a sibling
        return math.inf
    return sum(parameter.numel() for parameter in model.parameters())


def smallest_of(module: str) -> str:
    names = timm.list_models(module=module)
    return min(names, key=parameters_of)


def attempt(module: str) -> Row:
    name = smallest_of(module)
    size = timm.get_pretrained_cfg(name).input_size[-1] if timm.get_pretrained_cfg(name) else 224
    started = time.perf_counter()
    millions = parameters_of(name) / 1e6
    try:
        backbone = Backbone(name, pretrained=False, image_size=size)
        head = MBConvRegressor(backbone.channels, 62, expansion=0.25, channels=64)
        features = backbone(torch.randn(2, 3, size, size))
        outputs = head(features)
        outputs.sum().backward()
        first = next(p for p in backbone.parameters() if p.requires_grad and p.ndim > 1)
        if features.ndim != 4 or not torch.isfinite(outputs).all() or first.grad is None:
            raise InputError(f"a map {tuple(features.shape)}, or no finite outputs, or no gradient")
        where = "×".join(map(str, features.shape[1:]))
        return Row(module, name, millions, size, where, time.perf_counter() - started)
    except InputError as error:
        return Row(module, name, millions, size, "", time.perf_counter() - started, str(error).split(";")[0])


def page(rows: list[Row]) -> str:
    passed = [row for row in rows if not row.error]
    lines = [
        "# Backbones",
        "",
        f"Any model of timm is a backbone by its name (`model.backbone`). This table is the smallest model of each of "
        f"timm {timm.__version__}'s {len(rows)} architecture modules, forward and backward through the adapter and an "
        f"MBConv head: **{len(passed)} of {len(rows)} pass** ({len(passed) / len(rows):.1%}). Made by "
        "`python benchmarks/backbones.py --write docs/backbones.md`.",
        "",
        "Maps of channels last and tokens become (C, H, W); class and register tokens are dropped. Models of a fixed "
        "input size are built for `data.image_size` where timm can, and say so where it cannot.",
        "",
        "| module | model | M parameters | input | map C×H×W |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    lines += [f"| {r.module} | {r.model} | {r.millions:.2f} | {r.size} | {r.map} |" for r in passed]
    lines += ["", "What the others say:", ""]
    lines += [f"- {row.module} (`{row.model}`): {row.error}" for row in rows if row.error]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the table to this page")
    parser.add_argument("--modules", nargs="*", help="only these modules of timm")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    rows = []
    for module in track(arguments.modules or timm.list_modules(), description="timm modules"):
        rows.append(attempt(module))
        last = rows[-1]
        print(f"{last.module:<24} {last.model:<40} {last.millions:7.2f} M {last.map or last.error}", flush=True)
    text = page(rows)
    if arguments.write:
        arguments.write.write_text(text)
    passed = sum(not row.error for row in rows)
    print(f"{passed} of {len(rows)} pass ({passed / len(rows):.1%})")


if __name__ == "__main__":
    main()
