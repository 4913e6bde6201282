"""A trained system as an ONNX file that gives landmarks and angles, checked against PyTorch before it appears.

The graph takes `images` (N, 3, S, S) float32, normalised, with any N, and gives `landmarks` (N, K, 2 or 3) in pixels of
the crop, `angles` (N, 3) in degrees and, of systems that have them, `dense` (N, D, 3): decoding is part of it. How to
make its input and read its outputs stands as JSON in the file's metadata, under `mtlsearch`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mtlsearch.errors import InputError
from mtlsearch.faces.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mtlsearch.faces.metrics import geodesic_error, point_errors
from mtlsearch.faces.prediction.predicting import normalize
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe, render_sample
from mtlsearch.faces.systems import System
from mtlsearch.training.costs import seconds_per_call

#: read by ONNX Runtime since 1.14
OPSET = 18
METADATA_KEY = "mtlsearch"
#: the most that the two may differ: pixels of the crop, degrees of rotation
PIXEL_TOLERANCE, DEGREE_TOLERANCE = 0.01, 0.01
BATCHES = (1, 3, 8)

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Difference:
    """The largest differences between ONNX Runtime and PyTorch over one batch: of any point in pixels, of any head's
    rotation in degrees."""

    images: str
    batch: int
    pixels: float
    degrees: float


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written: its size, its differences from PyTorch, and the median seconds of one image."""

    path: Path
    bytes: int
    differences: tuple[Difference, ...]
    seconds_onnx: float
    seconds_torch: float
    threads: int


class _Decoded(nn.Module):
    """Images to what a user reads, as a tuple of tensors."""

    def __init__(self, model: System) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        prediction = self.model.decode(self.model(images))
        dense = () if prediction.dense is None else (prediction.dense,)
        return (prediction.landmarks, prediction.angles, *dense)


def export_onnx(model: System, image_size: int, path: Path, facts: dict[str, Any], threads: int = 1) -> Exported:
    """Writes the system at `path`, whole or not at all, once ONNX Runtime agrees with PyTorch on it.

    model: a `System` on the CPU, in eval mode; image_size: S; facts: what else the metadata is to say; threads: of ONNX
    Runtime, for its latency beside PyTorch's. Raises InputError where a package is missing, the folder cannot be
    written, or the two differ by more than the tolerances.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise InputError(f"exporting needs {', '.join(missing)}; install with: pip install 'mtlsearch[search,export]'")
    if not path.parent.is_dir():
        raise InputError(f"--output: there is no folder {path.parent}")
    decoded = _Decoded(model).eval()
    images = torch.zeros(2, 3, image_size, image_size)
    with torch.no_grad():
        outputs = decoded(images)
        program = torch.onnx.export(
            decoded,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["landmarks", "angles", "dense"][: len(outputs)],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's traces: lines and folders of this machine
    program.model.metadata_props[METADATA_KEY] = json.dumps(_metadata(image_size, outputs, facts), ensure_ascii=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        program.save(temporary, external_data=False)
        session = _open(temporary, threads)
        differences = tuple(_compare(decoded, session, image_size))
        for found in differences:
            # written so that a difference that is no number fails too
            if not (found.pixels <= PIXEL_TOLERANCE and found.degrees <= DEGREE_TOLERANCE):
                raise InputError(
                    f"{path} was not written: on {found.images}, {found.batch} at a time, ONNX Runtime differs from "
                    f"PyTorch by {found.pixels:.3g} pixels and {found.degrees:.3g}°; at most {PIXEL_TOLERANCE:g} and "
                    f"{DEGREE_TOLERANCE:g}° are allowed"
                )
        one = images[:1]
        feed = {"images": one.numpy()}
        seconds_onnx = seconds_per_call(lambda: session.run(None, feed))
        with torch.inference_mode():
            seconds_torch = seconds_per_call(lambda: decoded(one))
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, path.stat().st_size, differences, seconds_onnx, seconds_torch, threads)


def _open(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _compare(decoded: nn.Module, session: Any, image_size: int) -> Iterator[Difference]:
    """On rendered faces and on noise, at every batch size."""
    count = max(BATCHES)
    recipe = SyntheticRecipe(image_size=image_size, margin=1.0, train=0, val=0, test=count)
    faces = np.stack([render_sample(recipe, "test", index).image for index in range(count)])
    noise = torch.randn(count, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    for name, images in (("rendered faces", normalize(torch.from_numpy(faces))), ("noise", noise)):
        for batch in BATCHES:
            part = images[:batch].contiguous()
            with torch.inference_mode():
                expected = [output.double() for output in decoded(part)]
            got = [torch.from_numpy(output).double() for output in session.run(None, {"images": part.numpy()})]
            pixels = [
                point_errors(ours, theirs, ours.shape[2]).max().item()
                for ours, theirs in zip(got[:1] + got[2:], expected[:1] + expected[2:])
            ]
            # as rotations: near profile, where pitch and roll turn about one axis, rounding moves both far
            degrees = geodesic_error(got[1], expected[1]).max().item()
            yield Difference(name, batch, max(pixels), degrees)


def read_metadata(path: Path) -> dict[str, Any]:
    """What an exported file says of its input and outputs. InputError for a file that is not ours."""
    import onnx

    try:
        stored = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
        return dict(json.loads(stored[METADATA_KEY]))
    except Exception as error:  # protobuf's own errors derive from Exception alone
        raise InputError(f"{path} is no ONNX file that mtlsearch wrote ({type(error).__name__})") from None


def _metadata(image_size: int, outputs: tuple[torch.Tensor, ...], facts: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "landmarks": {
            "unit": "pixels of the input image, origin at the centre of pixel (0, 0), y down",
            "scheme": f"{outputs[0].shape[1]} points" + (", iBUG's order" if outputs[0].shape[1] == 68 else ""),
            "coordinates": ["x", "y", "z"][: outputs[0].shape[2]],
        },
        "angles": {
            "unit": "degrees",
            "order": ["pitch", "yaw", "roll"],
            "convention": "R = Rx(pitch)·Ry(yaw)·Rz(roll), as AFLW2000-3D",
        },
    }
    if len(outputs) > 2:
        described["dense"] = {"unit": "as landmarks", "points": outputs[2].shape[1]}
    return {
        **facts,
        "input": {
            "size": image_size,
            "layout": "N, channel, row, column; float32",
            "colour": "RGB",
            "scale": "(byte / 255 - mean) / std, per channel",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "crop": {
                "shape": "a square, black beyond the photograph",
                "from_box": "side 1.58·(w + h)/2 of a detector's box, its centre 0.14·(w + h)/2 below the box's",
                "from_landmarks": "side √2·max(w, h) of the landmarks' box, about its centre",
            },
        },
        "outputs": described,
        "opset": OPSET,
    }
