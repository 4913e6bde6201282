"""cluster/study.sh and cluster/slurm.sh, with stand-ins for Slurm, Ray and Python that write down their calls."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "cluster" / "study.sh"
SLURM = ROOT / "cluster" / "slurm.sh"


def stand_in(folder: Path, name: str, body: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$CALLS"\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def environment(tmp_path: Path, calls: Path) -> dict[str, str]:
    """What Slurm sets for a job of two nodes; `srun` runs the command that follows `--` on the head."""
    venv = tmp_path / "submitted from" / ".venv" / "bin"
    stand_in(venv, "ray", "")
    stand_in(venv, "python", 'case "$1" in -c) printf 0123 ;; esac')
    tools = tmp_path / "tools"
    stand_in(tools, "scontrol", "")
    stand_in(tools, "hostname", 'echo "10.1.2.3 10.9.9.9 "')
    stand_in(
        tools, "srun", 'ls -l "$RAY_AUTH_TOKEN_PATH" >>"$CALLS"\nwhile [[ $1 != -- ]]; do shift; done\nshift\n"$@"'
    )
    (venv.parents[1] / "cluster").symlink_to(ROOT / "cluster")
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NAME": "mtlsearch",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_SUBMIT_DIR": str(venv.parents[1]),
        "MTLSEARCH_STORAGE": str(tmp_path / "shared" / "studies"),
    }


def run(script: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(script), *arguments], env=environment, capture_output=True, text=True)


def test_a_study_begins_and_then_goes_on(tmp_path: Path, environment: dict[str, str], calls: Path) -> None:
    stand_in(tmp_path / "tools", "python", "")
    folder = tmp_path / "shared" / "studies" / "one"
    arguments = [str(folder), "--executor", "ray_train", "--", "--space", "full", "--set", "strategy={name: pcgrad}"]
    assert run(STUDY, environment, *arguments).returncode == 0
    folder.mkdir(parents=True)
    (folder / "space.yaml").touch()
    assert run(STUDY, environment, *arguments).returncode == 0
    begun, continued = calls.read_text().splitlines()
    where = f"--results {folder.parent} --name one --executor ray_train"
    assert begun == f"python -m mtlsearch.tune {where} --space full --set strategy={{name: pcgrad}}"
    assert continued == f"python -m mtlsearch.tune --resume {folder} --executor ray_train"


def test_a_study_in_an_object_store_begins_and_then_goes_on(
    tmp_path: Path, environment: dict[str, str], calls: Path
) -> None:
    place = "s3://bucket/studies/one?region=here&scheme=http"
    storage = "--storage-path s3://bucket/studies?region=here&scheme=http"
    environment |= {"MTLSEARCH_RESULTS": str(tmp_path / "own")}
    arguments = [place, "--executor", "ray_train", "--", "--space", "full"]
    stand_in(tmp_path / "tools", "python", "[[ $2 != mtlsearch.study ]]")  # none is there
    assert run(STUDY, environment, *arguments).returncode == 0
    found = f"{tmp_path}/own/one"
    stand_in(tmp_path / "tools", "python", f"mkdir -p {found} && touch {found}/space.yaml")
    for _ in range(2):
        assert run(STUDY, environment, *arguments).returncode == 0
    asked, begun, asked_again, continued, again = calls.read_text().splitlines()
    assert asked == asked_again == f"python -m mtlsearch.study fetch {place} --to {tmp_path}/own --no-weights"
    own = f"--results {tmp_path}/own --name one"
    assert begun == f"python -m mtlsearch.tune {own} --executor ray_train {storage} --space full"
    assert continued == again == f"python -m mtlsearch.tune --resume {found} --executor ray_train {storage}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("studies/one", "--", "--space", "full"), "storage that every node sees, not 'studies/one'"),
        (("/studies/one", "--space", "full"), "A -- is needed"),
        ((), "a URI, or an absolute path"),
    ],
)
def test_a_study_needs_a_folder_and_options(
    environment: dict[str, str], arguments: tuple[str, ...], message: str
) -> None:
    result = run(STUDY, environment, *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_slurm_starts_ray_on_every_node(environment: dict[str, str], calls: Path) -> None:
    result = run(SLURM, environment, "--space", "full")
    assert result.returncode == 0, result.stderr
    storage = environment["MTLSEARCH_STORAGE"]
    called = calls.read_text()
    assert "srun --nodes=2 --ntasks=2 --kill-on-bad-exit=1 ray symmetric-run --address 10.1.2.3:23456" in called
    assert "--min-nodes 2 --num-cpus=16 --num-gpus=4 -- " in called
    assert f"python -m mtlsearch.tune --results {storage} --name mtlsearch-123456 --executor ray_train" in called
    assert called.rstrip().endswith("--gpus-per-worker 1 --space full")
    assert "\n-rw------- " in called, "the token is the user's alone"
    assert not list(Path(storage).glob(".ray-token*")), "and goes with the job"


def test_slurm_hands_on_how_the_search_ended(tmp_path: Path, environment: dict[str, str]) -> None:
    stand_in(tmp_path / "tools", "srun", "exit 3")
    assert run(SLURM, environment, "--space", "full").returncode == 3


def test_slurm_queues_the_job_again_at_its_time_limit(tmp_path: Path, environment: dict[str, str], calls: Path) -> None:
    stand_in(tmp_path / "tools", "srun", "sleep 2")
    command = ["bash", str(SLURM), "--space", "full"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
        while not calls.exists() or "srun" not in calls.read_text():
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        screen, _ = job.communicate(timeout=30)
    assert "scontrol requeue 123456" in calls.read_text()
    assert "mtlsearch-123456 goes on then" in screen
    assert job.returncode == 0, "and waits for the search, which Slurm ends"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SLURM_JOB_ID": ""}, "sbatch cluster/slurm.sh"),
        ({"MTLSEARCH_STORAGE": ""}, "a folder on the shared file system"),
        ({"MTLSEARCH_STORAGE": "studies"}, "must be an absolute path"),
        ({"MTLSEARCH_VENV": "/nowhere"}, "/nowhere has no Ray"),
    ],
)
def test_slurm_says_what_is_missing(environment: dict[str, str], change: dict[str, str], message: str) -> None:
    result = run(SLURM, {**environment, **change}, "--space", "full")
    assert result.returncode != 0
    assert message in result.stderr


def test_scripts_can_be_run() -> None:
    for script in (ROOT / "cluster").glob("*.sh"):
        assert script.stat().st_mode & stat.S_IXUSR, script
