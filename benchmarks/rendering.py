"""Rendering speed on one core, stage by stage: python benchmarks/rendering.py [--size 120] [--images 600]

Times are CPU seconds of this process (time.process_time), so that other work on the machine counts little. The stages
are timed in a second pass over the same images, on average over all of them: an effect that one image in two has
counts by half.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cv2

from mtlsearch.faces.rendering import head_picture, renderer, strokes, synthetic
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe, render_sample

STAGES = (
    (head_picture, "draw_look", "look"),
    (head_picture, "draw_surroundings", "background and occluders"),
    (strokes, "paint_shapes", "shapes behind the head"),
    (renderer, "render_head", "head: deform, z-buffer, shade"),
    (strokes, "draw_over", "hair, glasses, hands, visibility"),
    (renderer, "finish", "tone and noise"),
    (cv2, "GaussianBlur", "blur"),
    (cv2, "imencode", "JPEG encoding"),
    (cv2, "imdecode", "JPEG decoding"),
)


def timed(function: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.process_time() - start

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=120)
    parser.add_argument("--images", type=int, default=600)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    recipe = SyntheticRecipe(train=options.images, image_size=options.size)

    start = time.process_time()
    render_sample(recipe, "train", 0)
    first = time.process_time() - start
    for i in range(min(20, options.images)):
        render_sample(recipe, "train", i)

    start = time.process_time()
    for i in range(options.images):
        render_sample(recipe, "train", i)
    total = time.process_time() - start

    seconds: dict[str, float] = defaultdict(float)
    for module, attribute, name in STAGES:
        setattr(module, attribute, timed(getattr(module, attribute), seconds, name))
    for i in range(options.images):
        render_sample(recipe, "train", i)

    stored = recipe.stored_size
    print(
        f"generator {synthetic.GENERATOR_VERSION}, {options.size}² crops stored as {stored}², effects at their defaults"
    )
    print(f"{options.images / total:8.0f} images/s on one core ({1e3 * total / options.images:.2f} ms each)")
    for _, _, name in STAGES:
        print(f"{1e3 * seconds[name] / options.images:8.3f} ms  {name}")
    rest = total - sum(seconds.values())
    print(f"{1e3 * rest / options.images:8.3f} ms  the rest: random numbers, landmarks, projections")
    print(f"{first:8.1f} s   the first image: masks, hair and shadows drawn, kernels loaded or compiled")


if __name__ == "__main__":
    main()
