"""A store behind HTTP: a real server over a folder, which can fail in the ways networks do."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ml.artifact import ArtifactError
from ml.serve.champion import ChampionWatcher
from ml.serve.fleet import Fleet
from ml.serve.metrics import ServiceMetrics
from ml.serve.remote_store import RemoteStore, cache_folder
from ml.serve.settings import ServeSettings
from ml.serve.store import PointerError
from tests.ml.conftest import Store, TinyModel


class FileServer:
    """Serves a folder with Last-Modified, counts what is asked, and misbehaves when told to."""

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.headers: list[dict[str, str]] = []
        self.break_off: dict[str, int] = {}  # how often an answer to a file's request ends halfway
        self.token: str | None = None
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                name = path.rpartition("/")[2]
                outer.asked[name] += 1
                outer.headers.append(dict(self.headers))
                if outer.token and self.headers.get("Authorization") != f"Bearer {outer.token}":
                    self.send_error(403)
                elif outer.break_off.get(name, 0) > 0:
                    outer.break_off[name] -= 1
                    content = (folder / path.lstrip("/")).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                else:
                    super().do_GET()

            def log_request(self, code: Any = "-", size: Any = "-") -> None:
                outer.statuses[int(code)] += 1

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server(store: Store) -> Iterator[FileServer]:
    server = FileServer(store.path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def remote(server: FileServer, tmp_path: Path) -> Iterator[RemoteStore]:
    store = RemoteStore(server.url, tmp_path / "cache")
    yield store
    store.close()


def watcher_over(url: str, cache: Path) -> ChampionWatcher:
    fleet = Fleet()
    settings = ServeSettings(store=url, cache=cache, retry_seconds=0)
    return ChampionWatcher(settings, ServiceMetrics(fleet), fleet)


def test_the_champion_of_a_remote_store_is_fetched_verified_and_served(
    store: Store, server: FileServer, tiny: TinyModel, other_tiny: TinyModel, tmp_path: Path
) -> None:
    store.add(other_tiny.artifact)
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(server.url + "/", tmp_path / "cache")
    watcher.look_once()
    assert watcher.state.model == tiny.artifact.digest
    store.point_at(other_tiny.artifact.digest)
    watcher.look_once()
    assert (watcher.state.model, watcher.state.error) == (other_tiny.artifact.digest, None)
    watcher.stop()


def test_an_unchanged_pointer_is_not_sent_again(
    store: Store, server: FileServer, remote: RemoteStore, tiny: TinyModel
) -> None:
    store.point_at(tiny.artifact.digest)
    os.utime(store.path / "champion.json", (1_000_000_000, 1_000_000_000))
    marks = {remote.mark() for _ in range(5)}
    assert len(marks) == 1
    assert (server.statuses[200], server.statuses[304]) == (1, 4)
    assert remote.read_pointer().digest == tiny.artifact.digest


def test_two_changes_within_a_second_are_both_seen(
    store: Store, remote: RemoteStore, tiny: TinyModel
) -> None:
    """A file server's dates have whole seconds."""
    seen = []
    for digest in ("a" * 64, "b" * 64, "a" * 64):
        store.point_at(digest)
        remote.mark()
        seen.append(remote.read_pointer().digest)
    assert seen == ["a" * 64, "b" * 64, "a" * 64]


def test_an_artifact_is_fetched_once(
    store: Store, server: FileServer, remote: RemoteStore, tiny: TinyModel, tmp_path: Path
) -> None:
    for _ in range(3):
        assert remote.load(tiny.artifact.digest).digest == tiny.artifact.digest
    again = RemoteStore(server.url, tmp_path / "cache")  # another process, another day
    assert again.load(tiny.artifact.digest).digest == tiny.artifact.digest
    again.close()
    assert server.asked["model.onnx"] == server.asked["manifest.json"] == 1


def test_an_answer_that_breaks_off_is_asked_for_again(
    store: Store, server: FileServer, remote: RemoteStore, tiny: TinyModel
) -> None:
    server.break_off = {"model.onnx": 2}
    assert remote.load(tiny.artifact.digest).digest == tiny.artifact.digest
    assert server.asked["model.onnx"] == 3


def test_a_file_that_never_comes_whole_is_reported_and_leaves_nothing(
    store: Store, server: FileServer, remote: RemoteStore, tiny: TinyModel, tmp_path: Path
) -> None:
    server.break_off = {"model.onnx": 99}
    with pytest.raises(ArtifactError, match=r"model\.onnx: cannot be fetched"):
        remote.load(tiny.artifact.digest)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_changed_bytes_are_refused_and_fetched_anew_when_the_store_is_mended(
    store: Store, remote: RemoteStore, tiny: TinyModel
) -> None:
    path = store.path / "artifacts" / tiny.artifact.digest / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"model\.onnx: its sha256 is"):
        remote.load(tiny.artifact.digest)
    path.write_bytes(content)
    assert remote.load(tiny.artifact.digest).digest == tiny.artifact.digest


def test_a_damaged_cache_is_fetched_anew(
    store: Store, remote: RemoteStore, tiny: TinyModel, tmp_path: Path
) -> None:
    remote.load(tiny.artifact.digest)
    (tmp_path / "cache" / tiny.artifact.digest / "model.onnx").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="model.onnx: has 1 bytes"):
        remote.load(tiny.artifact.digest)
    assert remote.load(tiny.artifact.digest).digest == tiny.artifact.digest


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"../escape": {"size_bytes": 1}}, "which is no name of a file"),
        ({".hidden": {"size_bytes": 1}}, "which is no name of a file"),
        ({"model.onnx": {"size_bytes": 10**15}}, "is larger than"),
        ({"model.onnx": {"size_bytes": -1}}, "which is no name of a file"),
        (["model.onnx"], "cannot be understood"),
        ({"model.onnx": 5}, "cannot be understood"),
    ],
)
def test_a_manifest_that_could_do_harm_is_refused(
    store: Store, remote: RemoteStore, tmp_path: Path, manifest: object, message: str
) -> None:
    content = json.dumps(manifest).encode()
    digest = hashlib.sha256(content).hexdigest()
    folder = store.path / "artifacts" / digest
    folder.mkdir()
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        remote.load(digest)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_store_that_is_away_leaves_the_model_serving_and_is_said_to_be(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    server = FileServer(store.path)
    server.start()
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(server.url, tmp_path / "cache")
    watcher.look_once()
    server.stop()
    watcher.look_once()
    assert watcher.state.model == tiny.artifact.digest
    assert "champion.json: cannot be fetched" in str(watcher.state.error)
    watcher.stop()


def test_a_store_without_a_pointer_says_what_is_missing(remote: RemoteStore) -> None:
    assert remote.mark() is None
    with pytest.raises(PointerError, match="champion.json: missing"):
        remote.read_pointer()


def test_token_and_query_go_with_every_request_and_into_no_message(
    store: Store, server: FileServer, tiny: TinyModel, tmp_path: Path
) -> None:
    server.token = "store-secret"
    address = f"{server.url}/?signature=query-secret"
    allowed = RemoteStore(address, tmp_path / "cache", "store-secret")
    assert allowed.load(tiny.artifact.digest).digest == tiny.artifact.digest
    allowed.close()
    refused = RemoteStore(address, tmp_path / "other", "wrong-secret")
    with pytest.raises(ArtifactError, match="manifest.json: answered 403") as caught:
        refused.load(tiny.artifact.digest)
    refused.close()
    assert "secret" not in str(caught.value)


def test_of_old_artifacts_only_some_are_kept(
    store: Store, server: FileServer, remote: RemoteStore, tiny: TinyModel, tmp_path: Path
) -> None:
    remote.load(tiny.artifact.digest)
    for age in range(5):
        old = tmp_path / "cache" / (f"{age}" * 64)
        old.mkdir()
        os.utime(old, (age, age))
    remote.load(tiny.artifact.digest)
    kept = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert kept == {tiny.artifact.digest, "4" * 64, "3" * 64}


def test_the_cache_is_a_folder_of_this_user_unless_told(tmp_path: Path) -> None:
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder(None).name.startswith("huisheng-artifacts-")
