"""Pictures of what the winner does: drawn by its problem where that is at hand, else those of an earlier report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from mtlsearch.errors import InputError
from mtlsearch.search.report.source import StudyRecord
from mtlsearch.search.study.study import WINNER
from mtlsearch.training.checkpoint import load_weights
from mtlsearch.training.problem import DrawsFigures, Problem, find_problem
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.yaml_files import write_text

#: the test split is scored once, by the confirmation
SPLIT = "val"
_INDEX = "index.json"


def winner_pictures(study: StudyRecord, problem: Problem | None, folder: Path) -> dict[str, Path]:
    """Title -> PNG file in `folder`, in the problem's order; empty where there is no winner or nothing draws it.

    problem: one of the study's, prepared or not; None: only what an earlier call drew of the same weights.
    """
    weights = study.folder / WINNER
    if not weights.exists():
        return {}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if problem is None or not isinstance(problem, DrawsFigures):
        return _earlier(folder, digest)
    stored = load_weights(weights)
    # the winner's own options may differ from those that the given problem was made of
    own = type(problem)(parse_run_config(stored.config, str(weights)))
    own.prepare()
    own.to(torch.device("cpu"))
    model = own.build_model()
    model.load_state_dict(stored.tensors)
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    pictures = own.figures(model, SPLIT, folder)
    files = {title: path.name for title, path in pictures.items()}
    write_text(folder / _INDEX, json.dumps({"weights": digest, "files": files}, indent=1))
    return pictures


def problem_of(folder: Path) -> Problem:
    """The problem that the winner of the study in `folder` solves.

    Raises:
        InputError: there is no winner, or its problem cannot be found.
    """
    weights = folder / WINNER
    if not weights.exists():
        raise InputError(f"{folder} has no {WINNER}: no trial of this study has won yet, so there is nothing to draw")
    config = parse_run_config(load_weights(weights).config, str(weights))
    return find_problem(config.problem)(config)


def _earlier(folder: Path, digest: str) -> dict[str, Path]:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if index["weights"] != digest:
        return {}
    return {title: folder / name for title, name in index["files"].items() if (folder / name).exists()}
