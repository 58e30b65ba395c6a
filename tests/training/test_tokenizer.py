"""A model that reads characters comes after one that reads words, by the command line, and is served."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command

from blog_site.training import terminal
from blog_site.training.models import ModelVersion, Run
from federated.store import FolderStore
from tests.servers import find_free_port, wait_until
from tests.training.doors import answering_model, real_service
from tests.training.rows import import_opinions, make_version

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def tokenizer_of(store: FolderStore, digest: str) -> str:
    config = json.loads((store.artifact(digest) / "config.json").read_text(encoding="utf-8"))
    return str(config["tokenizer"]["kind"])


def test_a_run_for_characters_begins_anew_is_judged_beside_the_champion_and_served(
    settings, monkeypatch, store: FolderStore, stored: list[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(terminal, "LOOK_EVERY_SECONDS", 0.1)
    settings.GATE_MAX_MACRO_F1_DROP = 1.0  # not what this is about
    words = make_version(stored[0], champion=True)
    store.point_to_champion(words.digest)
    import_opinions(120, slugs=("food",))
    with real_service(settings.ARTIFACT_STORE_URL, find_free_port(), tmp_path / "service.log") as url:
        settings.INFERENCE_URL = url
        wait_until(lambda: httpx.get(f"{url}/readyz", trust_env=False).is_success, "the words are served")
        assert answering_model(url) == words.digest

        arguments = ["--noinput", "--wait", "--rounds", "2", "--min-labels", "1", "--tokenizer", "characters"]
        call_command("trigger_training", *arguments)

        run = Run.objects.get()
        assert run.state == Run.State.PROMOTED, run.state_reason
        assert run.model_version is not None
        characters = run.model_version.digest
        assert answering_model(url) == characters
        asked = {"texts": ["味道真好"], "explain": True}
        answer = httpx.post(f"{url}/v1/predict", json=asked, timeout=10, trust_env=False).json()

    assert [tokenizer_of(store, digest) for digest in (words.digest, characters)] == ["jieba", "characters"]
    assert [part["text"] for part in answer["predictions"][0]["explanation"]] == list("味道真好")
    report = run.report
    assert report is not None
    assert (report["champion"], report["start"]) == (words.digest, None)
    assert report["champion_evaluation"]["samples"] == report["candidate_evaluation"]["samples"] > 0
    assert report["tokenizer"] == {"kind": "characters", "hmm": False}
    assert ModelVersion.objects.champion() == run.model_version
