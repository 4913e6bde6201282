"""What every command shares: a clear word where the extra is missing, one line for a user's mistake, exit status 2."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mtlsearch._masking import masked

if TYPE_CHECKING:
    from rich.console import Console

# Read by OpenMP when torch is loaded, which is later. By default its idle threads spin, and on a machine that is shared
# two spinning threads train seven times slower than two that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

#: columns of tables that go to a file or a pipe
_PLAIN_WIDTH = 140
#: modules of the `search` extra that every command needs
_NEEDED = (
    "typer",
    "rich",
    "pydantic",
    "yaml",
    "ray",
    "optuna",
    "mlflow",
    "timm",
    "cv2",
    "numba",
    "safetensors",
    "PIL",
    "jinja2",
    "plotly",
    "matplotlib",
)


def extra_installed() -> bool:
    """Whether the command modules can import what they declare their options with."""
    return not _missing()


def _missing() -> list[str]:
    return [module for module in _NEEDED if find_spec(module) is None]


def run(name: str, main: Callable[..., None], *verbs: Callable[..., None]) -> None:
    """Runs `main` as the command `python -m mtlsearch.<name>`; with verbs, those, under the help that `main` holds."""
    if missing := _missing():
        _fail(
            f"python -m mtlsearch.{name} needs {', '.join(missing)}, which the base install leaves out; "
            "install them with: pip install 'mtlsearch[search]'"
        )
    import typer

    from mtlsearch.errors import InputError

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["-h", "--help"]}
    if verbs:
        app.callback(no_args_is_help=True, context_settings=settings)(main)
    for function in verbs or (main,):
        app.command(context_settings=settings)(function)
    try:
        app(prog_name=f"python -m mtlsearch.{name}")
    except InputError as error:
        _fail(str(error))
    except ImportError as error:
        if ".so" not in str(error):
            raise
        _fail(f"{error}; OpenCV needs system libraries here: apt-get install libgl1 libglib2.0-0")
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; nothing finished is lost, free or choose another place and try again")


def screen() -> Console:
    """The console of a command: as wide as the terminal, and wide enough for a table where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(markup=False, highlight=False, width=width)  # names of folders and reasons are no markup


def python() -> str:
    """How to call this Python from another shell and folder."""
    found = shutil.which("python")
    same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return "python" if same else shlex.quote(sys.executable)


def browse(tracking_uri: str) -> str:
    """How to look at the runs of a store."""
    if not tracking_uri.startswith("sqlite:"):
        return f"open {masked(tracking_uri)} in a browser"
    return f"{python()} -m mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"


def command(name: str, *arguments: object) -> str:
    """A command line of ours that works as printed."""
    return " ".join([python(), "-m", f"mtlsearch.{name}", *(shlex.quote(str(argument)) for argument in arguments)])


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
