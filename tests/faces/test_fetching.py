"""Packs at a URI: a machine fetches its copy once, and trains on it as on the folder itself."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtlsearch.errors import InputError
from mtlsearch.faces.packs.fetching import local_pack
from mtlsearch.faces.packs.pack import ensure_pack, open_pack
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
from mtlsearch.training import load_run_config, run_training
from mtlsearch.training.storage import RemoteFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = SyntheticRecipe(train=24, val=24, test=24, image_size=48, margin=1.25, seed=3)
    return ensure_pack(recipe, folder=tmp_path_factory.mktemp("fetched") / "faces", workers=1).folder


@pytest.fixture
def remote(folder: Path, object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteFolder:
    """The pack in an object store, on a machine that has none yet."""
    remote = RemoteFolder(object_store).join(f"packs/{tmp_path.name}")
    for file in folder.iterdir():
        remote.upload(file, file.name)
    monkeypatch.setenv("MTLSEARCH_CACHE", str(tmp_path / "cache"))
    return remote


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were fetched, in order."""
    names: list[str] = []
    download = RemoteFolder.download

    def noting(self: RemoteFolder, name: str, local: Path) -> None:
        names.append(name)
        download(self, name, local)

    monkeypatch.setattr(RemoteFolder, "download", noting)
    return names


def test_a_training_on_it_is_that_on_the_folder_and_it_is_fetched_once(
    folder: Path, remote: RemoteFolder, fetched: list[str]
) -> None:
    with ThreadPoolExecutor(4) as processes:
        packs = list(processes.map(lambda _: local_pack(remote.uri), range(4)))
    assert {pack.digest for pack in packs} == {open_pack(folder).digest}
    assert sorted(fetched) == sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    few = ["training.epochs=1", "training.batch_size=8", "data={name: packed, train: '%s'}"]
    histories = []
    for place in (remote.uri, str(folder)):
        config = load_run_config("quick", [*few[:2], few[2] % place])
        assert config.tree()["data"]["train"] == place
        (row,) = run_training(config, threads=1).result.history
        histories.append({name: value for name, value in row.items() if not name.startswith("time/")})
    assert histories[0] == histories[1]


def test_a_fetch_that_was_cut_off_goes_on(
    folder: Path, remote: RemoteFolder, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json"), []

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_pack(remote.uri, killed)
    first = list(fetched)
    assert len(first) == 1
    pack = local_pack(remote.uri, lambda done, total: seen.append((done, total)))
    assert fetched.count(first[0]) == 1
    assert seen[-1] == (whole, whole)
    assert open_pack(pack.folder, verify=True).digest == open_pack(folder).digest


def test_a_byte_that_changed_on_the_way_is_found(remote: RemoteFolder) -> None:
    name = "val.images.npy"
    content = bytearray(remote.read(name))
    content[-1] ^= 1
    remote.write(name, bytes(content))
    with pytest.raises(InputError, match=r"val\.images\.npy in s3://.* has the checksum .* copy the pack there again"):
        local_pack(remote.uri)


def test_what_is_no_pack_leads_nowhere(remote: RemoteFolder, tmp_path: Path) -> None:
    manifest = json.loads(remote.read("manifest.json"))
    manifest["files"]["../../evil.npz"] = {"bytes": 1, "sha256": "0"}
    remote.write("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(InputError, match="lists unexpected files"):
        local_pack(remote.uri)
    assert not list(tmp_path.rglob("evil*"))
    with pytest.raises(InputError, match=r"there is no manifest\.json in s3://"):
        local_pack(remote.join("elsewhere").uri)
