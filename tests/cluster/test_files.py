"""The files under cluster/, each checked by a schema or a linter, and by what all of them promise."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from packaging.version import Version
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHED = ("aws", "gcp")
TWO_DAYS_S = 48 * 3600


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / path).read_text()))


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


def leaves(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every scalar of a YAML tree with the keys that lead to it."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value, path)
    else:
        yield path, tree


def lint(tool: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [shutil.which(tool, path=str(Path(sys.executable).parent)) or tool, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True)


# ray up


@pytest.mark.parametrize("provider", LAUNCHED)
def test_ray_takes_the_cluster_file(provider: str) -> None:
    (config,) = documents(f"{provider}.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config({**config, "idle_timeout": 5}))


@pytest.mark.parametrize("provider", LAUNCHED)
def test_a_launched_cluster_ends_by_itself(provider: str) -> None:
    (config,) = documents(f"{provider}.yaml")
    assert 0 < config["max_workers"] <= 8
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False
    workers = [node for name, node in config["available_node_types"].items() if name != config["head_node_type"]]
    assert all(node["min_workers"] == 0 and node["max_workers"] <= config["max_workers"] for node in workers)
    nodes = [node["node_config"] for node in config["available_node_types"].values()]
    if provider == "aws":
        (minutes,) = re.findall(r"shutdown -h \+(\d+)", "\n".join(config["setup_commands"]))
        assert int(minutes) * 60 == TWO_DAYS_S
        assert {node["InstanceInitiatedShutdownBehavior"] for node in nodes} == {"terminate"}
    else:
        assert {int(node["scheduling"]["maxRunDuration"]["seconds"]) for node in nodes} == {TWO_DAYS_S}
        assert {node["scheduling"]["instanceTerminationAction"] for node in nodes} == {"DELETE"}


@pytest.mark.parametrize("provider", LAUNCHED)
def test_a_launched_cluster_is_closed(provider: str) -> None:
    """Ray asks for the token, the dashboard stays on the head, and the network is the user's own."""
    (config,) = documents(f"{provider}.yaml")
    own = {"aws": "SecurityGroupIds", "gcp": "networkInterfaces"}[provider]
    assert all(node["node_config"][own] for node in config["available_node_types"].values())
    assert "security_group" not in config["provider"]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in config["worker_start_ray_commands"] if "ray start" in line]
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "--dashboard-host=127.0.0.1" in head


@pytest.mark.parametrize("provider", LAUNCHED)
def test_a_launched_node_installs_the_pinned_wheel(provider: str) -> None:
    (config,) = documents(f"{provider}.yaml")
    (install,) = [line for line in config["setup_commands"] if "[search]" in line]
    assert "--constraint ~/mtlsearch/constraints.txt" in install
    assert config["file_mounts"]["~/mtlsearch/constraints.txt"] == "constraints.txt"
    assert config["file_mounts"]["~/mtlsearch/dist"] == "dist"


# Kubernetes

#: of KubeRay's API reference (ray.io/v1, KubeRay 1.6.2), as far as the file has them: no package carries its schema
RAY_JOB = {
    "entrypoint": str,
    "submissionMode": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "submitterPodTemplate": dict,
    "rayClusterSpec": dict,
}
RAY_CLUSTER = {
    "rayVersion": str,
    "authOptions": dict,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
HEAD_GROUP = {"serviceType": str, "rayStartParams": dict, "template": dict}
WORKER_GROUP = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}


def ray_job() -> dict[str, Any]:
    (job,) = [document for document in documents("kuberay.yaml") if document["kind"] == "RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    return job["spec"]


def pod_templates() -> dict[str, dict[str, Any]]:
    cluster = ray_job()["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}
    templates = {name: group["template"] for name, group in groups.items()}
    return {"submitter": ray_job()["submitterPodTemplate"], **templates}


def test_kubernetes_takes_every_object() -> None:
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in pod_templates().values()]
    others = [document for document in documents("kuberay.yaml") if document["kind"] != "RayJob"]
    assert {document["kind"] for document in others} == {"PersistentVolumeClaim", "NetworkPolicy"}
    for document in [*pods, *others]:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(kubernetes_validate.ValidationError, match="contianers"):
        kubernetes_validate.validate({**pods[0], "spec": {"contianers": []}}, "1.33", strict=True)


def test_kuberay_knows_every_field() -> None:
    job = ray_job()
    cluster = job["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    fields = [(job, RAY_JOB), (cluster, RAY_CLUSTER), (cluster["headGroupSpec"], HEAD_GROUP), (workers, WORKER_GROUP)]
    for tree, known in fields:
        assert {key: type(value) for key, value in tree.items()} == known
    # KubeRay hands these to `ray start`, as words
    assert all(isinstance(value, str) for _, value in leaves(cluster["headGroupSpec"]["rayStartParams"]))
    assert cluster["rayVersion"] == pinned("ray")
    assert {template["spec"]["containers"][0]["image"] for template in pod_templates().values()} == {
        "registry.example.com/mtlsearch:0.1.0"
    }


def test_kuberay_offers_tokens_for_the_pinned_ray() -> None:
    assert Version(pinned("ray")) >= Version("2.52"), "authOptions needs Ray 2.52"


def test_a_job_on_kubernetes_ends_and_is_closed() -> None:
    job = ray_job()
    assert job["shutdownAfterJobFinishes"] is True
    assert 0 < job["ttlSecondsAfterFinished"] <= 3600
    assert job["activeDeadlineSeconds"] == TWO_DAYS_S
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert job["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    for template in pod_templates().values():
        assert template["metadata"]["labels"] == {"app": "mtlsearch"}, "the network policy chooses pods by this"
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert set(container["resources"]) == {"requests", "limits"}
    (policy,) = [document for document in documents("kuberay.yaml") if document["kind"] == "NetworkPolicy"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app": "mtlsearch"}}
    assert all(rule["from"] for rule in policy["spec"]["ingress"])


# the MLflow server


def interpolated(text: str) -> str:
    """As docker compose reads it, each variable without a default being "value"."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda match: match[1] or "value", text)


def test_compose_takes_the_server() -> None:
    text = (CLUSTER / "mlflow" / "compose.yaml").read_text()
    PyCompose.from_yaml(interpolated(text)).validate()
    with pytest.raises(ValueError, match="healthchek"):
        PyCompose.from_yaml(interpolated(text).replace("healthcheck:", "healthchek:", 1))
    server = yaml.safe_load(text)
    services = server["services"]
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(server["volumes"])
    assert [name for name, service in services.items() if "ports" in service] == ["mlflow"]
    (port,) = services["mlflow"]["ports"]
    assert port.startswith("${MLFLOW_BIND:-127.0.0.1}:")
    assert "--app-name=basic-auth" in services["mlflow"]["command"]


def test_the_server_is_of_the_version_that_the_tests_ran_with() -> None:
    assert f"'mlflow[auth]=={pinned('mlflow')}'" in (CLUSTER / "mlflow" / "Dockerfile").read_text()


# all of them


def test_shell_scripts_have_no_findings(tmp_path: Path) -> None:
    scripts = sorted([*CLUSTER.glob("*.sh"), ROOT / "install.sh", ROOT / ".ci" / "run"])
    assert {script.name for script in scripts} == {"local.sh", "slurm.sh", "study.sh", "install.sh", "run"}
    result = lint("shellcheck", *scripts)
    assert result.returncode == 0, result.stdout
    (tmp_path / "bad.sh").write_text("#!/bin/sh\nrm $1\n")
    assert "SC2086" in lint("shellcheck", tmp_path / "bad.sh").stdout


def test_dockerfiles_have_no_findings(tmp_path: Path) -> None:
    dockerfiles = sorted(CLUSTER.rglob("Dockerfile"))
    assert len(dockerfiles) == 2
    result = lint("hadolint", *dockerfiles)
    assert result.returncode == 0, result.stdout
    (tmp_path / "Dockerfile").write_text("FROM python:latest\n")
    assert "DL3007" in lint("hadolint", tmp_path / "Dockerfile").stdout
    for dockerfile in dockerfiles:
        assert dockerfile.read_text().count("\nUSER 1000\n") == 1


def test_the_image_is_built_from_what_it_copies() -> None:
    """Nothing but these reaches the builder, and nothing that it needs is left out."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules[1:]} == sources


def files() -> list[Path]:
    found = [path for path in CLUSTER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(found) >= 11
    return found


def test_no_file_holds_a_secret() -> None:
    looks_like_one = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|\b[0-9a-f]{32,}\b|gh[pousr]_\w{30,}")
    names = re.compile(r"password|secret|token|access.?key", re.IGNORECASE)
    for path in files():
        assert not looks_like_one.search(path.read_text()), path
    compose = documents("mlflow/compose.yaml")[0]["services"]
    for keys, value in leaves(compose):
        if names.search(keys[-1]):
            assert re.fullmatch(r"\$\{\w+(:\?[^}]+)?\}", str(value)), keys
    for template in pod_templates().values():
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                if names.search(variable["name"]):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]


def test_nothing_listens_beyond_loopback_or_its_own_network() -> None:
    within_the_container = "--host=0.0.0.0 # within the container; `ports` says who reaches it"
    for path in files():
        text = path.read_text().replace(within_the_container, "")
        assert not re.search(r"0\.0\.0\.0|\bLoadBalancer\b|\bNodePort\b|hostPort|hostNetwork", text), path


def test_the_guide_names_every_file() -> None:
    guide = (CLUSTER / "README.md").read_text()
    for path in files():
        assert f"`{path.relative_to(CLUSTER)}`" in guide or path.name == "README.md", path
    for link in re.findall(r"\]\(([^)#:]+)\)", guide):
        assert (CLUSTER / link).exists(), link
