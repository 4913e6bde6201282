"""Systems of one feature map learn 32 faces by heart in 300 steps: NME below 1 % and pose error below 1°.

The cascade has its own such test. A minute and a half is what each may take on two cores.
"""

from __future__ import annotations

import time

import pytest
import torch

from mtlsearch.faces.augmentation import Augmentation
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.training import load_run_config, train

COMMON = [
    "model.backbone=test_resnet",
    "data={name: synthetic, image_size: 48, train: 32, val: 24, test: 24}",
    f"augmentation={Augmentation.off().model_dump()}",
    "strategy={name: weighted_sum}",
    "optimizer={name: adamw, lr: 0.005, weight_decay: 0.0}",
    "schedule={name: onecycle}",
    "training={epochs: 300, batch_size: 32}",
]


@pytest.mark.parametrize(
    "system",
    [
        ("kim2023", "model.head={kind: linear}"),
        ("basak2023", "model.pose_head={kind: rotation_6d}"),
        ("composed", "model.heads.pose={kind: binned_pose}"),
    ],
    ids=lambda system: system[0],
)
def test_it_learns_32_faces_by_heart(system: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, override = system
    config = load_run_config(recipe, [*COMMON, override])
    problem = FaceProblem(config)  # type: ignore[arg-type]
    problem.prepare()
    evaluate = problem.evaluate
    # 300 epochs of one step each: what the faces of validation say is of no interest
    monkeypatch.setattr(problem, "evaluate", lambda model, split: {"nme": 0.0})
    started = time.perf_counter()
    model = train(problem, config).model.eval()
    assert time.perf_counter() - started < 90
    with torch.inference_mode():
        scores = evaluate(model, "train")
    assert scores["nme"] < 1.0
    assert scores["mae"] < 1.0
