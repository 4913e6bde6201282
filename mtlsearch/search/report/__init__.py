"""The report of a study: one HTML file that opens anywhere, and its charts as PNG files.

results/<study>/report.html       nothing in it is loaded from elsewhere
results/<study>/figures/*.png     the charts
results/<study>/figures/winner/   what the problem draws of the winner
results/<study>/optuna.log        the same study for optuna-dashboard
"""

from __future__ import annotations

from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.search.report.optuna_storage import write_storage
from mtlsearch.search.report.page import FIGURES, REPORT, write_page
from mtlsearch.search.report.pictures import SPLIT, winner_pictures
from mtlsearch.search.report.sections import SECTIONS, predictions
from mtlsearch.search.report.source import read_study
from mtlsearch.training.problem import Problem
from mtlsearch.training.yaml_files import write_text


def write_report(folder: Path, problem: Problem | None = None) -> Path:
    """Writes the report of the study in `folder`, finished, killed or running, and returns its path.

    problem: one of the study's; if it is a `DrawsFigures`, the winner's pictures are drawn. None needs no data: the
    pictures of an earlier report of the same winner are shown.

    Raises:
        InputError: the folder holds no study, or cannot be written.
    """
    study = read_study(folder)
    figures = folder / FIGURES
    try:
        figures.mkdir(exist_ok=True)
        write_storage(study)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror})") from None
    sections = [section(study) for section in SECTIONS]
    shown = predictions.section(winner_pictures(study, problem, figures / "winner"), SPLIT)
    page = write_page(study, [*sections, *([shown] if shown else [])], figures)
    write_text(folder / REPORT, page)
    return folder / REPORT


__all__ = ["FIGURES", "REPORT", "write_report"]
