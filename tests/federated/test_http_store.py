"""The store behind HTTP, against a real nginx; where a server must misbehave, against one that is told to."""

from __future__ import annotations

import hashlib
import http.server
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from federated.http_store import HttpStore
from federated.store import FolderStore, MissingFile, StoreError, open_store
from tests.infra.nginx.servers import BLOG_TOKEN, READ_TOKEN, RUN_TOKEN, Nginx, running_store
from tests.servers import find_free_port

SAMPLES = [{"text": "好吃", "label": "positive", "site": "food"}, {"label": "negative", "text": "难吃"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http-store")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Nginx]:
    with running_store(root) as nginx:
        yield nginx


@pytest.fixture
def folder(root: Path, server: Nginx) -> FolderStore:
    """The same store, seen as the folder that it is; empty."""
    for name in ("artifacts", "shards", "reports", "runs", "champion.json"):
        path = root / "store" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return FolderStore(root / "store")


@pytest.fixture
def store(server: Nginx, folder: FolderStore) -> HttpStore:
    return HttpStore(server.url, BLOG_TOKEN, patience_seconds=0)


def make_artifact(parent: Path, content: bytes = b"weights") -> tuple[str, Path]:
    """A folder with a manifest and two files, as an artifact is laid out; its digest."""
    made = parent / "made"
    made.mkdir(parents=True)
    files = {"model.onnx": content, "config.json": b"{}"}
    for name, value in files.items():
        (made / name).write_bytes(value)
    manifest = {
        name: {"sha256": hashlib.sha256(value).hexdigest(), "size_bytes": len(value)}
        for name, value in files.items()
    }
    (made / "manifest.json").write_text(json.dumps(manifest))
    return hashlib.sha256((made / "manifest.json").read_bytes()).hexdigest(), made


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_shards_are_the_same_through_either_door(
    store: HttpStore, folder: FolderStore, tmp_path: Path
) -> None:
    digest = store.put_shard(SAMPLES)
    assert folder.put_shard(SAMPLES) == digest == store.put_shard(iter(SAMPLES))
    assert store.read_shard(digest) == folder.read_shard(digest)
    fetched = store.fetch_shard(digest, tmp_path)
    assert fetched.read_bytes() == folder.read_shard(digest)
    empty = store.put_shard([])
    assert store.read_shard(empty) == b""


def test_an_artifact_goes_there_and_comes_back_as_it_was(
    store: HttpStore, folder: FolderStore, tmp_path: Path
) -> None:
    digest, made = make_artifact(tmp_path, b"x" * 3_000_000)
    assert not store.has_artifact(digest)
    for _ in range(2):
        store.put_artifact(digest, made)
    assert store.has_artifact(digest)
    assert folder.has_artifact(digest)
    got = store.fetch_artifact(digest, tmp_path / "here")
    assert {path.name: path.read_bytes() for path in got.iterdir()} == {
        path.name: path.read_bytes() for path in made.iterdir()
    }
    (got / "config.json").write_bytes(b"[]")  # what is damaged here is fetched anew
    assert store.fetch_artifact(digest, tmp_path / "here") == got
    assert (got / "config.json").read_bytes() == b"{}"
    assert [path.name for path in (tmp_path / "here").iterdir()] == [digest]


def test_a_run_s_token_keeps_an_artifact_once_and_again(
    server: Nginx, folder: FolderStore, tmp_path: Path
) -> None:
    digest, made = make_artifact(tmp_path)
    store = HttpStore(server.url, RUN_TOKEN, patience_seconds=0)
    for _ in range(2):
        store.put_artifact(digest, made)
    # Written amid, by an upload whose answer got lost: what is there is looked at before it counts.
    (folder.artifact(digest) / "config.json").write_bytes(b"{ }")
    with pytest.raises(StoreError, match=r"config\.json: its sha256 is .* damaged"):
        store.put_artifact(digest, made)


def test_of_an_artifact_the_manifest_goes_last_so_half_of_one_is_none(tmp_path: Path) -> None:
    digest, made = make_artifact(tmp_path)
    with answering(lambda method, path: 404 if method == "HEAD" else 507 if "model" in path else 201) as (
        url,
        asked,
    ):
        with pytest.raises(StoreError, match="disk is full: make room"):
            HttpStore(url, patience_seconds=0).put_artifact(digest, made)
        assert not [line for line in asked if line.startswith("PUT") and "manifest" in line]
    with answering(lambda method, path: 404 if method == "HEAD" else 201) as (url, asked):
        HttpStore(url, patience_seconds=0).put_artifact(digest, made)
        puts = [line.rpartition("/")[2] for line in asked if line.startswith("PUT")]
        assert puts == ["model.onnx", "config.json", "manifest.json"]


def test_a_damaged_artifact_is_neither_sent_nor_kept(
    store: HttpStore, folder: FolderStore, tmp_path: Path
) -> None:
    digest, made = make_artifact(tmp_path)
    (made / "model.onnx").write_bytes(b"others")
    for either in (store, folder):
        with pytest.raises(StoreError, match=r"model\.onnx: its sha256 is"):
            either.put_artifact(digest, made)
    assert not files_under(folder.root)


@pytest.mark.parametrize("name", ["../../escaped", "a/b", ".hidden", "", "manifest.json"])
def test_a_manifest_that_lists_what_could_do_harm_is_refused(
    store: HttpStore, folder: FolderStore, tmp_path: Path, name: str
) -> None:
    manifest = json.dumps({name: {"sha256": "a" * 64, "size_bytes": 1}}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    folder.artifact(digest).mkdir(parents=True)
    (folder.artifact(digest) / "manifest.json").write_bytes(manifest)
    with pytest.raises(StoreError, match=r"no name of a file|lists itself"):
        store.fetch_artifact(digest, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_not_what_its_digest_says_is_not_read(
    store: HttpStore, folder: FolderStore, tmp_path: Path
) -> None:
    digest = store.put_shard(SAMPLES)
    folder.shard(digest).write_bytes(b"others")
    for read in (store.read_shard, folder.read_shard, lambda found: store.fetch_shard(found, tmp_path)):
        with pytest.raises(StoreError, match=f"sha256 is .*, expected {digest}; it is damaged") as failure:
            read(digest)
        assert failure.value.permanent
    assert not list(tmp_path.iterdir())


def test_the_pointer_is_the_same_through_either_door(
    store: HttpStore, folder: FolderStore, server: Nginx, tmp_path: Path
) -> None:
    assert store.champion() is None
    first, made = make_artifact(tmp_path / "1", b"1")
    second, other = make_artifact(tmp_path / "2", b"2")
    with pytest.raises(StoreError, match=f"artifact {first} is not in {server.url}"):
        store.point_to_champion(first)
    for digest, built in ((first, made), (second, other)):
        store.put_artifact(digest, built)
        store.point_to_champion(digest)
        assert store.champion() == folder.champion() == digest
    assert json.loads((folder.root / "champion.json").read_text()) == {"digest": second, "previous": first}
    (folder.root / "champion.json").write_text("{")
    with pytest.raises(StoreError, match=r"champion\.json names no model"):
        store.champion()
    store.point_to_champion(first)
    assert HttpStore(server.url, READ_TOKEN).champion() == first


def test_reports_and_diaries_may_be_written_anew(store: HttpStore, folder: FolderStore) -> None:
    for either in (store, folder):
        with pytest.raises(MissingFile, match=r"curves\.png: missing"):
            either.read_report("a" * 64, "curves.png")
        with pytest.raises(MissingFile):
            either.read_run_file("run-1", "progress.jsonl")
    for content in (b"first", b"second"):
        store.put_report("a" * 64, "curves.png", content)
        store.put_run_file("run-1", "progress.jsonl", content)
    for either in (store, folder):
        assert either.read_report("a" * 64, "curves.png") == b"second"
        assert either.read_run_file("run-1", "progress.jsonl") == b"second"


def test_names_from_elsewhere_do_not_become_paths(
    store: HttpStore, folder: FolderStore, tmp_path: Path
) -> None:
    for either in (store, folder):
        for wrong in ("../champion", "A" * 64, "a" * 63, "", "a" * 64 + "\n"):
            with pytest.raises(StoreError, match="no digest"):
                either.read_shard(wrong)
            with pytest.raises(StoreError, match="no digest"):
                either.fetch_artifact(wrong, tmp_path)
        for wrong in ("../report.json", ".hidden", "a/b", "n" * 101):
            with pytest.raises(StoreError, match="no name of a file"):
                either.put_report("a" * 64, wrong, b"")
            with pytest.raises(StoreError, match="no name of a file"):
                either.put_run_file("run-1", wrong, b"")
        for run in ("../runs", "Run", "-1", ""):
            with pytest.raises(StoreError, match="no name of a run"):
                either.read_run_file(run, "progress.jsonl")


# -- Refused, away, breaking off -----------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[str, str], int]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers what it is told; gives its address and what it was asked. 0 breaks the connection off."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(f"{self.command} {self.path}")
            status = answer(self.command, self.path)
            if not status:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                return
            self.send_response(status)
            self.send_header("content-length", "4")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"body")

        do_GET = do_HEAD = do_PUT = answer

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            serving.join()


def test_a_refusal_says_what_to_do_and_is_not_repeated(server: Nginx, folder: FolderStore) -> None:
    digest = folder.put_shard(SAMPLES)
    cases = {"": "set ARTIFACT_STORE_TOKEN", "unknown-token-0123456789": "set ARTIFACT_STORE_TOKEN"}
    cases |= {READ_TOKEN: "this token may not do that"}
    for token, said in cases.items():
        with pytest.raises(StoreError, match=said) as failure:
            HttpStore(server.url, token, patience_seconds=60).read_shard(digest)
        assert failure.value.permanent
        assert not token or token not in str(failure.value)


@pytest.mark.parametrize("failure", [503, 500, 429, 0])
def test_what_may_pass_is_tried_again(failure: int, tmp_path: Path) -> None:
    answers = iter([failure, failure, 200])
    with answering(lambda method, path: next(answers)) as (url, asked):
        assert HttpStore(url, patience_seconds=30).read_report("a" * 64, "report.json") == b"body"
    assert len(asked) == 3


def test_patience_ends(tmp_path: Path) -> None:
    with answering(lambda method, path: 503) as (url, asked):
        with pytest.raises(StoreError, match="GET was answered 503") as failure:
            HttpStore(url, patience_seconds=0.5).champion()
        assert not failure.value.permanent
    assert len(asked) >= 2


def test_a_store_that_is_away_is_named_without_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = find_free_port()
    url = f"http://user:password@127.0.0.1:{port}/base?signature=secret"
    with pytest.raises(StoreError) as failure:
        open_store(url, token="token-of-somebody", patience_seconds=0).has_artifact("a" * 64)
    said = f"http://127.0.0.1:{port}/base/artifacts/{'a' * 64}/manifest.json cannot be reached: ConnectError"
    assert str(failure.value).startswith(said)
    assert not failure.value.permanent
    for secret in ("password", "secret", "token-of-somebody"):
        assert secret not in str(failure.value) + caplog.text


def test_a_store_that_starts_late_is_waited_for(root: Path, tmp_path: Path) -> None:
    port = find_free_port()
    store = HttpStore(f"http://127.0.0.1:{port}", BLOG_TOKEN, patience_seconds=60)
    kept: list[str] = []
    asking = threading.Thread(target=lambda: kept.append(store.put_shard(SAMPLES)))
    asking.start()
    with running_store(tmp_path, port=port):
        asking.join(60)
    assert kept == [FolderStore(tmp_path / "store").put_shard(SAMPLES)]


def test_a_query_of_the_store_s_address_goes_with_every_request() -> None:
    with answering(lambda method, path: 200) as (url, asked):
        HttpStore(f"{url}/bucket/?sig=x", patience_seconds=0).read_report("a" * 64, "report.json")
    assert asked == [f"GET /bucket/reports/{'a' * 64}/report.json?sig=x"]


def test_what_the_inference_service_reads_is_what_was_written(
    store: HttpStore, server: Nginx, tmp_path: Path
) -> None:
    """The service has a reader of its own (ml/serve/remote_store.py), with a token that reads models alone."""
    from ml.serve.remote_store import RemoteStore

    digest, made = make_artifact(tmp_path)
    store.put_artifact(digest, made)
    store.point_to_champion(digest)
    remote = RemoteStore(server.url, tmp_path / "cache", READ_TOKEN)
    try:
        assert remote.mark() is not None
        assert remote.read_pointer().digest == digest
    finally:
        remote.close()
