"""cluster/local.sh, really: two nodes on this machine, a job with and without the token, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local.sh"
#: says whether what was uploaded is there while the job runs, and how many nodes see it
JOB = """
import os, time, ray
ray.init()
there = []
for _ in range(10):
    there.append(os.path.exists("mtlsearch/tune.py"))
    time.sleep(0.1)
print(len(ray.nodes()), "nodes; the upload stays:", all(there))
"""

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
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.dashboard_port = free_ports(2)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {**kept, "MTLSEARCH_CLUSTER_DIR": str(folder), "PYTHON": sys.executable}

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPT), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=180)

    def start(self) -> subprocess.CompletedProcess[str]:
        ports = ["--port", str(self.port), "--dashboard-port", str(self.dashboard_port)]
        return self.call("start", "--cpus", "1", *ports)

    def submit(self, screen: str | None, *command: str) -> subprocess.CompletedProcess[str]:
        """With the exports that `start` printed on `screen`, or without."""
        printed = (screen or "").split("export ")[1:]
        exports = dict(pair.split("=", 1) for line in printed for pair in line.splitlines()[0].split())
        environment = {**self.environment, "RAY_AUTH_MODE": "disabled", **exports}
        ray = str(Path(sys.executable).with_name("ray"))
        address = ["--address", f"http://127.0.0.1:{self.dashboard_port}"]
        submit = [ray, "job", "submit", *address, *command]
        return subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=180)

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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path / "state")
    yield cluster
    cluster.call("stop")


def test_a_job_runs_with_the_token_only_and_the_cluster_goes(cluster: LocalCluster, tmp_path: Path) -> None:
    assert cluster.call("stop").stdout == "not running\n"
    started = cluster.start()
    assert started.returncode == 0, started.stderr
    assert (cluster.folder / "auth_token").stat().st_mode & 0o777 == 0o600
    assert cluster.folder.stat().st_mode & 0o777 == 0o700

    again = cluster.start()
    assert again.returncode == 2
    assert "running already" in again.stderr
    cluster.environment["MTLSEARCH_CLUSTER_DIR"] = str(tmp_path / "another")
    another = cluster.start()
    assert another.returncode == 2
    assert f"Something listens on port {cluster.port} already" in another.stderr
    cluster.environment["MTLSEARCH_CLUSTER_DIR"] = str(cluster.folder)

    refused = cluster.submit(None, "--", "true")
    assert refused.returncode != 0
    assert "Missing authentication token" in refused.stderr
    job = cluster.submit(started.stdout, "--working-dir", str(ROOT), "--", "python", "-c", JOB)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "\n2 nodes; the upload stays: True\n" in job.stdout

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
