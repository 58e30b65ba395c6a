"""Training over folders of the test's own, with doors that lead nowhere unless a test opens them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from django.test import Client

from blog_site.comments.inference import close_clients
from blog_site.training import federation
from blog_site.users.models import User
from blog_site.users.services import grant_moderators
from federated.store import FolderStore
from ml.artifact import WrittenArtifact
from ml.export import export_artifact
from ml.model import ModelConfig, initial_parameters
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.vocabulary import build_vocabulary, count_tokens
from tests.comments.rows import make_user
from tests.servers import find_free_port
from tests.training.doors import SayingService, ScriptedLauncher
from tests.training.rows import opinions


@pytest.fixture(autouse=True)
def store(settings, tmp_path: Path) -> Iterator[FolderStore]:
    """The artifact store, empty; and no inference service anywhere."""
    folder = tmp_path / "store"
    settings.ARTIFACT_STORE_URL = folder.as_uri()
    settings.TRAINING_RUNS_DIR = tmp_path / "runs"
    settings.INFERENCE_URL = f"http://127.0.0.1:{find_free_port()}"
    settings.INFERENCE_TIMEOUT_SECONDS = 2.0
    yield FolderStore(folder)
    close_clients()


@pytest.fixture
def launcher(monkeypatch) -> ScriptedLauncher:
    """A launcher without processes; a test gives it its script."""
    scripted = ScriptedLauncher()
    monkeypatch.setattr(federation, "launcher", lambda: scripted)
    return scripted


@pytest.fixture
def service(settings) -> Iterator[SayingService]:
    """An inference service that says what the test tells it to."""
    saying = SayingService()
    saying.start()
    settings.INFERENCE_URL = saying.url
    yield saying
    saying.stop()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[WrittenArtifact, ...]:
    """Three real artifacts, small and untrained, which the real service loads and checks like any other."""
    tokenizer = TokenizerSettings()
    texts = [text for text, _label in opinions(60)]
    vocabulary = build_vocabulary(count_tokens(texts, make_tokenizer(tokenizer)), max_size=200, min_count=1)
    config = ModelConfig(len(vocabulary), embedding_dim=8, hidden_dim=8)
    folder = tmp_path_factory.mktemp("exported")
    torch.set_num_threads(1)
    return tuple(
        export_artifact(
            folder,
            weights={
                name: value.detach().numpy() for name, value in initial_parameters(config, seed).items()
            },
            config=config,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            max_length=32,
        )
        for seed in (1, 2, 3)
    )


@pytest.fixture
def stored(store: FolderStore, exported: tuple[WrittenArtifact, ...]) -> list[str]:
    """The digests of the real artifacts, copied into the test's store."""
    for artifact in exported:
        shutil.copytree(artifact.path, store.artifact(artifact.digest))
    return [artifact.digest for artifact in exported]


@pytest.fixture
def people(db) -> dict[str, Client]:
    """A browser for each kind of visitor, signed in, which checks CSRF tokens as the real site does."""
    moderator = make_user("moderator-wang", is_staff=True)
    moderator.groups.add(grant_moderators())
    accounts: dict[str, User | None] = {
        "anonymous": None,
        "reader": make_user("reader-li"),
        "staff": make_user("staff-zhao", is_staff=True),
        "moderator": moderator,
        "admin": make_user("admin-chen", is_staff=True, is_superuser=True),
    }
    browsers = {}
    for kind, account in accounts.items():
        browsers[kind] = Client()
        if account is not None:
            browsers[kind].force_login(account)
    return browsers
