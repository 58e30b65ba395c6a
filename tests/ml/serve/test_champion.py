"""The watcher, look by look, without its thread."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from ml.artifact import Artifact
from ml.device import DeviceChoice
from ml.serve import champion
from ml.serve.champion import ChampionWatcher
from ml.serve.fleet import Fleet
from ml.serve.metrics import ServiceMetrics
from ml.serve.settings import ServeSettings, parse_store
from ml.serve.store import FolderStore
from tests.ml.conftest import Store, TinyModel
from tests.servers import wait_until


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests the watcher tried to load, in order."""
    tried: list[str] = []
    real = FolderStore.load

    def load(opened: FolderStore, digest: str) -> Artifact:
        tried.append(digest)
        return real(opened, digest)

    monkeypatch.setattr(FolderStore, "load", load)
    return tried


def watcher_over(store: Store, retry_seconds: float = 30, device: DeviceChoice = "auto") -> ChampionWatcher:
    fleet = Fleet()
    settings = ServeSettings(store=store.path, retry_seconds=retry_seconds, device=device)
    return ChampionWatcher(settings, ServiceMetrics(fleet), fleet)


def test_the_named_artifact_is_served_and_loaded_once(
    store: Store, tiny: TinyModel, loads: list[str]
) -> None:
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    for _ in range(5):
        watcher.look_once()
    assert watcher.state.model == watcher.state.wanted == tiny.artifact.digest
    assert watcher.state.error is None
    assert loads == [tiny.artifact.digest]


def test_a_request_keeps_the_predictor_it_took(store: Store, tiny: TinyModel, other_tiny: TinyModel) -> None:
    store.add(other_tiny.artifact)
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    taken = watcher.state.predictor
    assert taken is not None
    before = taken.predict(["很好看"])
    store.point_at(other_tiny.artifact.digest)
    watcher.look_once()
    assert watcher.state.model == other_tiny.artifact.digest
    assert taken.digest == tiny.artifact.digest
    assert taken.predict(["很好看"]) == before


def test_a_corrupted_artifact_leaves_the_old_one_serving_and_says_why(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, loads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = store.add(other_tiny.artifact)
    (path / "model.onnx").write_bytes((path / "model.onnx").read_bytes()[:-100])
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    store.point_at(other_tiny.artifact.digest)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            watcher.look_once()
    assert watcher.state.model == tiny.artifact.digest
    assert watcher.state.wanted == other_tiny.artifact.digest
    assert watcher.state.error is not None
    assert "model.onnx: has" in watcher.state.error
    assert loads == [tiny.artifact.digest, other_tiny.artifact.digest]  # not in a hot loop
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        f"still serving {tiny.artifact.digest}: {watcher.state.error}"
    ]


def test_a_failed_digest_is_tried_again_after_a_while(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, loads: list[str]
) -> None:
    store.point_at(other_tiny.artifact.digest)
    watcher = watcher_over(store, retry_seconds=0.05)
    watcher.look_once()
    assert "manifest.json: missing" in str(watcher.state.error)
    store.add(other_tiny.artifact)
    watcher.look_once()
    assert len(loads) == 1
    time.sleep(0.06)
    watcher.look_once()
    assert watcher.state.model == other_tiny.artifact.digest
    assert watcher.state.error is None


def test_a_failed_digest_is_tried_again_at_once_when_the_pointer_is_written_anew(
    store: Store, other_tiny: TinyModel
) -> None:
    store.point_at(other_tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    store.add(other_tiny.artifact)
    store.point_at(other_tiny.artifact.digest)
    watcher.look_once()
    assert watcher.state.model == other_tiny.artifact.digest


def test_pointing_back_after_a_failure_clears_the_error_without_loading(
    store: Store, tiny: TinyModel, loads: list[str]
) -> None:
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    store.point_at("f" * 64)
    watcher.look_once()
    assert watcher.state.error is not None
    store.point_at(tiny.artifact.digest)
    watcher.look_once()
    assert watcher.state.error is None
    assert watcher.state.wanted == tiny.artifact.digest
    assert loads == [tiny.artifact.digest, "f" * 64]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"digest": 5}',
        '{"digest": "../../../etc"}',
        json.dumps({"digest": "A" * 64}),
        '{"digest": null}',
    ],
)
def test_a_pointer_that_names_no_digest_is_refused_and_the_model_stays(
    store: Store, tiny: TinyModel, loads: list[str], content: str
) -> None:
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    store.write_pointer(content)
    watcher.look_once()
    assert watcher.state.model == tiny.artifact.digest
    assert "champion.json" in str(watcher.state.error)
    assert loads == [tiny.artifact.digest]


def test_a_pointer_that_vanishes_leaves_the_model_serving(store: Store, tiny: TinyModel) -> None:
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    (store.path / "champion.json").unlink()
    watcher.look_once()
    assert watcher.state.model == tiny.artifact.digest
    assert "champion.json: missing" in str(watcher.state.error)


def test_an_artifact_whose_golden_texts_get_other_answers_is_not_served(
    store: Store, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from ml.artifact import load_artifact, write_artifact

    artifact = load_artifact(tiny.artifact.path, tiny.artifact.digest)
    wrong = replace(artifact.golden[0], probabilities=(0.0, 1.0, 0.0))
    lying = write_artifact(store.path / "artifacts", replace(artifact, golden=(wrong, *artifact.golden[1:])))
    store.point_at(lying.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    assert watcher.state.model is None
    assert "golden.json" in str(watcher.state.error)


def test_even_an_unforeseen_failure_does_not_end_the_watch(
    store: Store, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    with monkeypatch.context() as patched:
        patched.setattr(champion, "open_predictor", lambda *_: 1 / 0)
        watcher.look_once()
    assert "ZeroDivisionError" in str(watcher.state.error)
    store.point_at(tiny.artifact.digest)
    watcher.look_once()
    assert watcher.state.model == tiny.artifact.digest


def test_a_store_is_named_by_a_url_of_a_folder_here_or_behind_http() -> None:
    assert parse_store("file:///srv/a%20store") == Path("/srv/a store")
    assert parse_store("https://models.example/store") == "https://models.example/store"
    for url in ("/srv/store", "s3://bucket/store", "file://host/store", "file:relative", "http:///store", ""):
        with pytest.raises(ValueError, match="expected file:///absolute/path"):
            parse_store(url)


def test_an_older_models_error_is_not_said_of_one_that_is_being_loaded(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the new model would take it for refused and put the old one back."""
    store.point_at(tiny.artifact.digest)
    watcher = watcher_over(store)
    watcher.look_once()
    store.point_at("0" * 64)
    watcher.look_once()
    assert watcher.state.error is not None
    seen: list[tuple[str | None, str | None]] = []
    real = FolderStore.load

    def load(opened: FolderStore, digest: str) -> Artifact:
        seen.append((watcher.state.wanted, watcher.state.error))
        return real(opened, digest)

    monkeypatch.setattr(FolderStore, "load", load)
    store.add(other_tiny.artifact)
    store.point_at(other_tiny.artifact.digest)
    watcher.look_once()
    assert seen == [(other_tiny.artifact.digest, None)]


def test_with_a_damaged_champion_and_nothing_to_serve_the_one_before_it_answers(
    store: Store, tiny: TinyModel, other_tiny: TinyModel, loads: list[str]
) -> None:
    damaged = store.add(other_tiny.artifact) / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    store.point_at(other_tiny.artifact.digest, previous=tiny.artifact.digest)
    watcher = watcher_over(store, retry_seconds=0)
    watcher.look_once()
    watcher.look_once()
    assert (watcher.state.model, watcher.state.wanted) == (tiny.artifact.digest, other_tiny.artifact.digest)
    assert "model.onnx" in str(watcher.state.error)
    assert loads == [other_tiny.artifact.digest, tiny.artifact.digest, other_tiny.artifact.digest]


def test_an_address_that_is_none_is_reported_and_does_not_end_the_watch(store: Store) -> None:
    fleet = Fleet()
    settings = ServeSettings(store="http://store:no-port/x", cache=store.path / "cache")
    watcher = ChampionWatcher(settings, ServiceMetrics(fleet), fleet)
    watcher.start()
    wait_until(lambda: "Invalid port" in str(watcher.state.error), "the mistake is reported")
    assert watcher.wait_for_first_look(1)
    watcher.stop()


def test_a_state_that_cannot_be_published_does_not_end_the_watch(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    folder = tmp_path / "fleet"
    fleet = Fleet(folder)  # which is not there, like one on a full disk
    settings = ServeSettings(store=store.path, poll_seconds=0.01, retry_seconds=0.01)
    watcher = ChampionWatcher(settings, ServiceMetrics(fleet), fleet)
    store.point_at(tiny.artifact.digest)
    watcher.start()
    assert watcher.wait_for_first_look(10)
    folder.mkdir()
    wait_until(lambda: fleet.state().model == tiny.artifact.digest, "what is served is published after all")
    watcher.stop()
