"""Folders at a URI: what is written is read, whole or not at all, on this disk, in an S3 server and by fsspec."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from pathlib import Path
from urllib.parse import unquote

import pytest

from mtlsearch import _command
from mtlsearch._masking import masked, without_secrets
from mtlsearch.errors import InputError
from mtlsearch.tracking.uri import store_error
from mtlsearch.training import storage
from mtlsearch.training.storage import FileStat, NotThereError, RemoteFolder, StorageError, each


@pytest.fixture(params=["file", "s3", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    if request.param == "s3":
        return RemoteFolder(request.getfixturevalue("object_store")).join("some folder")
    uri = str(tmp_path / "a place") if request.param == "file" else f"memory://{uuid.uuid4()}"
    return RemoteFolder(uri).join("some folder")


def test_what_is_put_there_is_listed_read_replaced_and_removed(
    folder: RemoteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.name == "some folder"
    folder.check()
    assert folder.files() == {}, "a check leaves nothing"
    large, back = tmp_path / "large", tmp_path / "new" / "back"
    large.write_bytes(os.urandom(17 * 2**20))
    folder.upload(large, "trials/0001/best.safetensors")
    folder.write("journal.jsonl", b"one\n")
    folder.write("journal.jsonl", b"one\ntwo\n")
    found = folder.files()
    assert {name: stat.size for name, stat in found.items()} == {
        "journal.jsonl": 8,
        "trials/0001/best.safetensors": 17 * 2**20,
    }
    assert folder.join("trials").files().keys() == {"0001/best.safetensors"}
    assert folder.read("journal.jsonl") == b"one\ntwo\n"
    folder.download("trials/0001/best.safetensors", back)
    assert back.read_bytes() == large.read_bytes()
    assert [path.name for path in back.parent.iterdir()] == ["back"]
    stat = found["trials/0001/best.safetensors"]
    assert not stat.is_of(back), "it is new, and may change again within its second"
    monkeypatch.setattr(storage, "_SETTLED_NS", -(10**12))
    folder.download("trials/0001/best.safetensors", back)
    assert stat.is_of(back) == (stat.modified is not None), "its time tells that it need not be brought again"
    folder.delete("journal.jsonl")
    folder.delete("journal.jsonl")
    assert not folder.exists("journal.jsonl") and folder.exists("trials/0001/best.safetensors")
    folder.remove()
    folder.remove()
    assert folder.files() == {}


def test_a_file_that_is_not_there(folder: RemoteFolder, tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"there is no last\.pt in "):
        folder.download("last.pt", tmp_path / "last.pt")
    assert list(tmp_path.glob("*.pt")) == list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("folder", ["file", "s3"], indirect=True)
def test_a_reader_sees_the_old_file_or_the_new_one(folder: RemoteFolder) -> None:
    contents = [letter * 3_000_000 for letter in (b"a", b"b")]
    folder.write("file", contents[0])
    ended = threading.Event()

    def write() -> None:
        for step in range(8):
            folder.write("file", contents[step % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not ended.is_set():
        try:
            seen.append(folder.read("file"))
        except StorageError as error:
            assert "changed each of the" in str(error)
    writer.join()
    assert all(content in contents for content in seen)
    assert folder.files().keys() == {"file"}, "and nothing half written stays"


def test_options_stay_where_they_are() -> None:
    folder = RemoteFolder("s3://bucket/a/?scheme=http&endpoint_override=127.0.0.1:1").join("b c")
    assert folder.uri == "s3://bucket/a/b%20c?scheme=http&endpoint_override=127.0.0.1:1"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:very%2FSECRET@bucket/a", "s3://key:***@bucket/a"),
        ("abfs://:SECRET@acct/x", "abfs://:***@acct/x"),
        ("abfs://container@acct/x", "abfs://container@acct/x"),
        ("s3://b/x?client_secret=SECRET", "s3://b/x?client_secret=***"),
        ("s3://k:SEC/RET@b", "s3://k:***@b"),
        ("s3://k:SEC@RET@b", "s3://k:***@b"),
        ("s3://k:SEC?RET@b", "s3://k:***?***"),
        ("s3://b/a@c?endpoint_override=[::1]:9&scheme=http", "s3://b/a@c?endpoint_override=[::1]:9&scheme=http"),
        ("http://user:SECRET@host:5000", "http://***@host:5000"),
        ("https://SECRET@host", "https://***@host"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("http://[::1]:5000/a", "http://[::1]:5000/a"),
        ("sqlite:////a:b@c/d.db", "sqlite:////a:b@c/d.db"),
    ],
)
def test_a_secret_is_not_shown(uri: str, shown: str) -> None:
    assert masked(uri) == shown
    said = without_secrets(f"Cannot parse {uri!r}, nor {unquote(uri)!r}", uri)
    assert not any(piece in said for piece in ("SECRET", "SEC", "RET"))


@pytest.mark.parametrize(
    "uri", ["abfs://:SECRET@acct/x", "s3://b/x?client_secret=SECRET", "s3://k:SEC/RET@b", "s3://k:SEC@RET@b"]
)
def test_a_reason_shows_no_secret(uri: str) -> None:
    with pytest.raises(StorageError, match="cannot be opened") as raised:
        RemoteFolder(uri).check()
    assert "SEC" not in str(raised.value) and "RET" not in str(raised.value)


def test_an_mlflow_store_that_cannot_be_opened_shows_no_secret() -> None:
    uri = "http://user:SECRET@host:5000"
    assert "SECRET" not in str(store_error(uri, f"API request to {uri}/api failed: Basic SECRET"))
    assert "SECRET" not in _command.browse(uri)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("results", "neither a URI, such as s3://bucket/folder, nor an absolute path"),
        ("/", "is a whole store or disk; give a folder"),
        ("file:///", "is a whole store or disk"),
        ("s3://?region=x", "is a whole store or disk"),
        ("nothing://a/b", "cannot be opened .*nothing.*check the address"),
        ("adl://a/b", "pip install adlfs"),
        ("s3://bucket/a?region=x&typo=1", "Unexpected query parameter in S3 URI: 'typo'"),
        ("/dev/null/a", "storage file:///dev/null/a cannot be written .*Not a directory"),
    ],
)
def test_what_cannot_be_used_is_said(uri: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        RemoteFolder(uri).check()


def test_a_name_that_no_disk_has_is_left_alone(object_store: str) -> None:
    import boto3

    folder = RemoteFolder(object_store).join("slashes")
    folder.write("one", b"")
    server = object_store.partition("endpoint_override=")[2].partition("&")[0]
    client = boto3.client("s3", endpoint_url=f"http://{server}", region_name="us-east-1")
    client.put_object(Bucket="studies", Key="of/tests/slashes//two", Body=b"2")
    client.put_object(Bucket="studies", Key="of/tests/slashes/a//three", Body=b"3")
    client.close()
    assert folder.files().keys() == {"one"}


def test_a_bucket_that_is_not_there(object_store: str) -> None:
    uri = object_store.replace("s3://studies", "s3://typo").replace("&allow_bucket_creation=true", "")
    with pytest.raises(StorageError, match=r"storage s3://typo.* cannot be written .*bucket does not exist"):
        RemoteFolder(uri).check()


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_REQUEST_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(StorageError, match=r"s3://k:.*@bucket.* cannot be written"):
            RemoteFolder(
                f"s3://k:secret@bucket?scheme=http&endpoint_override=127.0.0.1:{silent.getsockname()[1]}"
            ).write("file", b"content")
    assert time.monotonic() - begun < 20, "an S3 client waits for minutes by itself"


def test_times_are_compared_as_far_as_both_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    os.utime(path, ns=(5_700_000_000, 5_700_000_000))
    assert FileStat(4, 5_000_000_000).is_of(path)
    assert not FileStat(5, 5_000_000_000).is_of(path) and not FileStat(4, 6_000_000_000).is_of(path)
    assert not FileStat(4, None).is_of(path)
    assert FileStat(4, 5_700_000_000).is_of(path) and not FileStat(4, 5_700_000_001).is_of(path)


def test_what_killed_processes_left_goes_after_a_day(tmp_path: Path) -> None:
    for name in (".new.part", ".old.part", "trials/.old.part", "own.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        if "new" not in name:
            os.utime(tmp_path / name, (0, 0))
    RemoteFolder(tmp_path).sweep()
    assert {path.name for path in tmp_path.rglob("*.part")} == {".new.part", "own.part"}


def test_the_first_error_ends_what_is_left() -> None:
    done = []

    def action(item: int) -> None:
        if item == 0:
            raise StorageError("away")
        done.append(item)

    with pytest.raises(StorageError, match="away"):
        each(action, range(1_000))
    assert len(done) < 1_000
