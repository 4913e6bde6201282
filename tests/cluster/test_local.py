"""cluster/local.sh, really: two nodes on this machine, searches as jobs, nobody without the token, nothing left."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import psutil
import pytest

from mtlsearch.search import read_trials

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local.sh"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        sys.platform != "linux" or not shutil.which("pgrep"), reason="cluster/local.sh needs Linux and procps"
    ),
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class LocalCluster:
    """The script, with a folder for its state and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "state", folder / "home"
        self.home.mkdir()
        self.port, self.dashboard_port = free_ports(2)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        own = {"MTLSEARCH_CLUSTER_DIR": str(self.folder), "PYTHON": sys.executable, "HOME": str(self.home)}
        self.environment = {**kept, **own}

    def call(self, *arguments: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "MTLSEARCH_CLUSTER_DIR": str(state or self.folder)}
        command = [str(SCRIPT), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)

    def start(self, state: Path | None = None) -> subprocess.CompletedProcess[str]:
        ports = ["--port", str(self.port), "--dashboard-port", str(self.dashboard_port)]
        return self.call("start", "--cpus", "1", *ports, state=state)

    @cached_property
    def exports(self) -> dict[str, str]:
        """The variables that `start` says to export; starts the cluster."""
        started = self.start()
        assert started.returncode == 0, started.stderr
        printed = started.stdout.split("export ")[1:]
        return dict(pair.split("=", 1) for line in printed for pair in line.splitlines()[0].split())

    def submit(self, exports: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "RAY_AUTH_MODE": "disabled", **exports}
        ray = str(Path(sys.executable).with_name("ray"))
        address = ["--address", f"http://127.0.0.1:{self.dashboard_port}"]
        submit = [ray, "job", "submit", *address, *command]
        return subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=240, cwd=self.home)

    def processes(self) -> list[psutil.Process]:
        """All of the cluster: what it started keeps its session, or names its temporary folder."""
        state = dict(line.split("=", 1) for line in (self.folder / "state").read_text().splitlines())
        found = []
        for process in psutil.process_iter():
            try:
                of_it = os.getsid(process.pid) == int(state["pid"]) or state["temp"] in " ".join(process.cmdline())
                if of_it and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, ProcessLookupError):
                continue
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster"))
    assert cluster.call("stop").stdout == "not running\n"
    assert cluster.exports["RAY_AUTH_MODE"] == "token"
    yield cluster
    cluster.call("stop")


def test_it_starts_once_and_is_its_users_alone(cluster: LocalCluster, tmp_path: Path) -> None:
    assert (cluster.folder / "auth_token").stat().st_mode & 0o777 == 0o600
    assert cluster.folder.stat().st_mode & 0o777 == 0o700
    again = cluster.start()
    assert again.returncode == 2
    assert "running already" in again.stderr
    another = cluster.start(state=tmp_path / "another")
    assert another.returncode == 2
    assert f"Something listens on port {cluster.port} already" in another.stderr


def test_without_the_token_a_job_is_refused(cluster: LocalCluster) -> None:
    refused = cluster.submit({}, "--", "true")
    assert refused.returncode != 0
    assert "Missing authentication token" in refused.stderr


#: two trials of an epoch, of rendered faces and of the example that comes with the repository
FACES = ["--space", "quick", "--set", "data.train=64", "--set", "data.val=32", "--set", "data.test=32"]
WAVES = ["--space", "examples/own_space.yaml", "--storage-path", "{store}"]


@pytest.mark.parametrize(
    ("options", "search"),
    [(["--working-dir", str(ROOT)], WAVES), ([], FACES)],
    ids=["repository uploaded", "package installed"],
)
def test_a_search_by_job_finishes_and_its_results_come_back(
    cluster: LocalCluster, tmp_path: Path, options: list[str], search: list[str]
) -> None:
    few = ["--set", "training.epochs=1", "--num-samples", "2", "--confirm-seeds", "0", "--name", tmp_path.name]
    command = ["python", "-m", "mtlsearch.tune", *(part.format(store=tmp_path / "store") for part in search), *few]
    job = cluster.submit(cluster.exports, *options, "--", *command)
    assert job.returncode == 0, job.stdout + job.stderr

    place = f"file://{tmp_path}/store" if search is WAVES else f"{cluster.home}/mtlsearch-results"
    assert f"The study lies in {place}/{tmp_path.name}\n" in job.stdout
    fetch = next(line for line in job.stdout.splitlines() if "mtlsearch.study fetch" in line).partition(" -m ")[2]
    fetched = subprocess.run(
        [sys.executable, "-m", *fetch.split()], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert fetched.returncode == 0, fetched.stderr
    back = tmp_path / "results" / tmp_path.name
    assert [trial.status for trial in read_trials(back)] == ["finished", "finished"]
    assert {"best.yaml", "winner.safetensors", "report.html"} <= {path.name for path in back.iterdir()}


def test_nothing_listens_beyond_this_machine_and_all_of_it_goes(cluster: LocalCluster) -> None:
    processes = cluster.processes()
    assert len(processes) > 4
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

    assert cluster.call("stop").stdout == "stopped\n"
    psutil.wait_procs(processes, timeout=5)
    assert [process for process in processes if process.is_running()] == []
    assert sorted(path.name for path in cluster.folder.iterdir()) == ["nodes.log"]
