from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from federated.store import FolderStore, StoreError, open_store, write_whole

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = [{"text": "好吃", "label": "positive", "site": "food"}, {"label": "negative", "text": "难吃"}]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_shard_is_named_by_the_digest_of_its_bytes(store: FolderStore) -> None:
    digest = store.put_shard(SAMPLES)
    written = store.shard(digest).read_bytes()
    assert hashlib.sha256(written).hexdigest() == digest
    assert [json.loads(line) for line in written.decode().splitlines()] == SAMPLES
    assert store.put_shard(reversed(SAMPLES)) != digest


def test_the_order_of_keys_does_not_change_a_shards_name(store: FolderStore) -> None:
    turned = [dict(reversed(sample.items())) for sample in SAMPLES]
    assert store.put_shard(turned) == store.put_shard(SAMPLES)


def test_writing_a_shard_twice_leaves_the_first_file(store: FolderStore) -> None:
    digest = store.put_shard(SAMPLES)
    before = store.shard(digest).stat()
    assert store.put_shard(iter(SAMPLES)) == digest
    after = store.shard(digest).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert files_under(store.root) == [f"shards/{digest}.jsonl"]


def test_a_shard_without_samples_is_an_empty_file(store: FolderStore) -> None:
    assert store.shard(store.put_shard([])).read_bytes() == b""


def test_the_inference_service_may_read_what_was_written(store: FolderStore) -> None:
    assert store.shard(store.put_shard(SAMPLES)).stat().st_mode & 0o777 == 0o644


WRITE_UNDER_A_LIMIT = """
import resource, signal, sys
from pathlib import Path
from federated.store import FolderStore, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    FolderStore(Path(sys.argv[1])).put_shard({"text": "满" * 50} for _ in range(100))
except StoreError as error:
    print(error)
    sys.exit(7)
"""


def test_a_file_larger_than_the_disk_allows_leaves_nothing(store: FolderStore) -> None:
    tried = subprocess.run(
        [sys.executable, "-c", WRITE_UNDER_A_LIMIT, store.root],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert tried.returncode == 7, tried.stderr
    assert "cannot write" in tried.stdout
    assert os.strerror(errno.EFBIG) in tried.stdout
    assert files_under(store.root) == []


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new(
    store: FolderStore, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.root / "champion.json"
    write_whole(path, b"old")

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StoreError, match=r"cannot write .*champion\.json: .*No space left"):
        write_whole(path, b"new")
    assert files_under(store.root) == ["champion.json"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_a_store_error(store: FolderStore) -> None:
    store.root.write_text("a file where the store should be")
    with pytest.raises(StoreError, match="cannot write"):
        store.put_shard(SAMPLES)


def test_readers_see_the_old_file_or_the_new_one(store: FolderStore) -> None:
    path = store.root / "champion.json"
    contents = {letter * 200_000 for letter in "ab"}
    write_whole(path, b"a" * 200_000)
    writing = threading.Thread(
        target=lambda: [write_whole(path, letter * 200_000) for letter in (b"b", b"a") * 15]
    )
    writing.start()
    seen = set()
    while writing.is_alive():
        seen.add(path.read_text())
    writing.join()
    assert seen <= contents
    assert files_under(store.root) == ["champion.json"]


def test_there_is_no_champion_before_one_is_named(store: FolderStore) -> None:
    assert store.champion() is None


def test_the_pointer_names_the_champion(store: FolderStore) -> None:
    for digest in ("a" * 64, "b" * 64):
        store.artifact(digest).mkdir(parents=True)
        store.point_to_champion(digest)
        assert store.champion() == digest
    assert json.loads((store.root / "champion.json").read_text()) == {
        "digest": "b" * 64,
        "previous": "a" * 64,
    }


def test_naming_a_champion_mends_a_damaged_pointer(store: FolderStore) -> None:
    store.artifact("a" * 64).mkdir(parents=True)
    (store.root / "champion.json").write_text("{")
    store.point_to_champion("a" * 64)
    assert store.champion() == "a" * 64


def test_the_pointer_refuses_an_artifact_that_is_not_there(store: FolderStore) -> None:
    store.artifact("a" * 64).mkdir(parents=True)
    store.point_to_champion("a" * 64)
    with pytest.raises(StoreError, match=f"artifact {'b' * 64} is not in {store.root}"):
        store.point_to_champion("b" * 64)
    assert store.champion() == "a" * 64


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "7", '{"model": "x"}'])
def test_a_damaged_pointer_says_which_file_is_damaged(store: FolderStore, content: str) -> None:
    store.root.mkdir()
    (store.root / "champion.json").write_text(content)
    with pytest.raises(StoreError, match=r"champion\.json names no model"):
        store.champion()


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:///srv/store", "/srv/store"),
        ("file://localhost/srv/store", "/srv/store"),
        ("file:///srv/%E5%9B%9E%E5%A3%B0%20store", "/srv/回声 store"),
    ],
)
def test_a_file_url_names_a_folder(url: str, folder: str) -> None:
    assert open_store(url).root == Path(folder)


@pytest.mark.parametrize(
    "url", ["", "/srv/store", "srv/store", "s3://bucket/store", "file://host/srv", "file:srv", "file://"]
)
def test_any_other_url_is_refused_with_what_is_wanted(url: str) -> None:
    with pytest.raises(StoreError) as refusal:
        open_store(url)
    assert repr(url) in str(refusal.value)
    assert "file:///absolute/folder" in str(refusal.value)
