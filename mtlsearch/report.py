"""python -m mtlsearch.report: write the report of a study again, from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Option


def main(
    study: Annotated[Path, Argument(help="folder of a study, finished, killed or still running")],
    pictures: Annotated[
        bool, Option("--pictures", help="draw the winner's predictions anew, which needs the data and its problem")
    ] = False,
) -> None:
    """Write report.html and figures/ of a study from what its folder holds.

    \b
    Examples:
      python -m mtlsearch.report results/STUDY
      python -m mtlsearch.report results/STUDY --pictures
    """
    from mtlsearch.search.report import write_report
    from mtlsearch.search.report.pictures import problem_of

    path = write_report(study, problem_of(study) if pictures else None)
    _command.screen().print(f"report: {path.absolute()}", soft_wrap=True)


if __name__ == "__main__":
    _command.run("report", main)
