"""What an inference pod does before it starts where models come through the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml.artifact import load_artifact
from ml.serve.fetch import NoChampion, fetch_champion, main
from ml.serve.remote_store import RemoteStore
from tests.ml.conftest import Store, TinyModel
from tests.ml.serve.test_remote_store import FileServer
from tests.servers import wait_until


@pytest.fixture
def server(store: Store) -> Iterator[FileServer]:
    server = FileServer(store.path)
    server.start()
    yield server
    server.stop()


def test_the_champion_is_fetched_with_the_token_and_verified(
    store: Store, server: FileServer, tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.point_at(tiny.artifact.digest)
    server.token = "read"
    monkeypatch.setenv("ARTIFACT_STORE_TOKEN", "read")
    cache = tmp_path / "cache"

    assert main(["--store", server.url, "--cache", str(cache)]) == 0

    assert load_artifact(cache / tiny.artifact.digest, tiny.artifact.digest).digest == tiny.artifact.digest


def test_a_store_without_a_champion_is_waited_for_until_there_is_one(
    store: Store, server: FileServer, tiny: TinyModel, tmp_path: Path
) -> None:
    found: list[str] = []
    remote = RemoteStore(server.url, tmp_path / "cache")
    waiting = threading.Thread(
        target=lambda: found.append(fetch_champion(remote, seconds=60, look_every_seconds=0.02))
    )
    waiting.start()
    wait_until(lambda: server.asked["champion.json"] > 2, "it has looked in vain")
    assert not found

    store.point_at(tiny.artifact.digest)
    waiting.join()
    remote.close()

    assert found == [tiny.artifact.digest]


def test_a_damaged_artifact_is_never_given_and_a_mended_one_is(
    store: Store, server: FileServer, tiny: TinyModel, tmp_path: Path
) -> None:
    store.point_at(tiny.artifact.digest)
    folder = store.path / "artifacts" / tiny.artifact.digest
    largest = max(folder.iterdir(), key=lambda file: file.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    remote = RemoteStore(server.url, tmp_path / "cache")

    with pytest.raises(NoChampion, match=largest.name):
        fetch_champion(remote, seconds=0)

    largest.write_bytes(whole)
    assert fetch_champion(remote, seconds=0) == tiny.artifact.digest
    remote.close()


def test_the_command_says_why_there_is_no_champion_and_fails(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert main(["--store", server.url, "--cache", str(tmp_path), "--timeout", "0"]) == 1

    assert "champion.json: missing; it is written when a model is promoted" in caplog.text


@pytest.mark.parametrize("store", ["", "file:///srv/store", "ftp://store"])
def test_what_is_no_store_behind_http_is_refused(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--store", store, "--cache", str(tmp_path)])

    assert refused.value.code == 2
    assert "http(s)" in capsys.readouterr().err
