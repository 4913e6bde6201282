"""The winner's faces in the report of a study."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtlsearch.faces.problem import FaceProblem
from mtlsearch.search.report import write_report
from mtlsearch.search.report.pictures import problem_of
from mtlsearch.search.study.study import WINNER
from mtlsearch.training import load_run_config
from mtlsearch.training.checkpoint import save_weights
from mtlsearch.training.problem import DrawsFigures
from mtlsearch.training.seeding import seeded
from tests.search.studies import EPOCHS, Writer

SMALL = ["data={train: 64, val: 48, test: 48, image_size: 32}", "model.backbone=test_resnet"]


def save_winner(folder: Path, seed: int) -> None:
    config = load_run_config("quick", SMALL)
    problem = FaceProblem(config)  # type: ignore[arg-type]
    problem.prepare()
    with seeded(seed):
        save_weights(folder / WINNER, problem.build_model(), config.tree(), {"epoch": 1, "val/nme": 20.0})


@pytest.mark.usefixtures("at_root")
def test_the_winners_faces_are_drawn_kept_and_given_up_with_it(tmp_path: Path) -> None:
    study = Writer(tmp_path / "study", num_samples=1, confirm={"seeds": 0})
    study.trial([(1.0, 1.0)] * EPOCHS)
    save_winner(study.folder, seed=0)
    problem = problem_of(study.folder)
    assert isinstance(problem, DrawsFigures)

    def pictures(given: object = None) -> int:
        page = write_report(study.folder, given).read_text()  # type: ignore[arg-type]
        shown = len(re.findall(r'<img alt="[^"]+"(?: class="sheet")? src="data:image/(?:png|jpeg);base64,', page))
        assert ('id="predictions"' in page) == bool(shown)
        return shown

    assert pictures() == 0, "without the data nothing is drawn"
    assert pictures(problem) == 4
    files = {path.name for path in (study.folder / "figures" / "winner").glob("*.png")}
    assert files == {"ced.png", "worst.png", "median.png", "best.png"}
    assert pictures() == 4, "an earlier report's of the same weights"
    save_winner(study.folder, seed=1)
    assert pictures() == 0, "not those of another winner"
