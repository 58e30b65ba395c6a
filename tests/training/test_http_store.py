"""Training over a store behind HTTP, and while that store is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.urls import reverse

from blog_site.training import federation
from blog_site.training.models import ModelVersion, Run
from blog_site.training.rollout import RolloutRefused, promote_model, rollback_model
from blog_site.training.services import advance_run, start_run
from federated.store import FolderStore, open_store
from tests.infra.nginx.servers import BLOG_TOKEN, RUN_TOKEN, running_store
from tests.servers import find_free_port
from tests.training.rows import import_opinions, make_report, make_run, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def port(settings, monkeypatch) -> int:
    """Where the store will be, or has been; whoever asks meanwhile does not wait for it."""
    free = find_free_port()
    settings.ARTIFACT_STORE_URL = f"http://127.0.0.1:{free}"
    settings.ARTIFACT_STORE_TOKEN = BLOG_TOKEN
    monkeypatch.setattr(
        federation, "open_store", lambda url, token: open_store(url, token=token, patience_seconds=0)
    )
    return free


@pytest.fixture
def behind_http(port: int, tmp_path: Path) -> Iterator[FolderStore]:
    """The store, running; seen as the folder behind the server."""
    with running_store(tmp_path / "nginx", port=port):
        yield FolderStore(tmp_path / "nginx" / "store")


def test_a_run_waits_for_a_store_that_is_away_and_goes_on_when_it_is_back(
    port: int, tmp_path: Path, launcher
) -> None:
    import_opinions(120)
    run = advance_run(start_run(trigger="command", min_labels=1))
    assert run.state == Run.State.CUTTING
    assert "制品仓库暂时没有应答" in run.state_reason
    assert "cannot be reached" in run.state_reason
    with running_store(tmp_path / "nginx", port=port):
        run = advance_run(run)
        assert run.state == Run.State.TRAINING
    folder = FolderStore(tmp_path / "nginx" / "store")
    for part in run.sites.all():
        assert len(folder.read_shard(part.shard_digest).splitlines()) == part.samples


def test_a_store_that_refuses_ends_the_run_and_says_what_to_do(
    settings, behind_http: FolderStore, launcher
) -> None:
    settings.ARTIFACT_STORE_TOKEN = RUN_TOKEN  # which may not write shards
    import_opinions(120)
    run = advance_run(start_run(trigger="command", min_labels=1))
    assert run.state == Run.State.FAILED
    assert "this token may not do that" in run.state_reason
    assert RUN_TOKEN not in run.state_reason


def test_promoting_and_rolling_back_move_the_pointer_behind_http(behind_http: FolderStore, exported) -> None:
    store = federation.artifact_store()
    versions = [make_version(artifact.digest) for artifact in exported[:2]]
    for version, artifact in zip(versions, exported, strict=False):
        with pytest.raises(RolloutRefused, match="文件已不在仓库中"):
            promote_model(model_version=version, actor="test")
        store.put_artifact(artifact.digest, artifact.path)
        promote_model(model_version=version, actor="test")
        assert behind_http.champion() == version.digest
    rollback_model(to=None, actor="test")
    assert behind_http.champion() == versions[0].digest
    pointer = json.loads((behind_http.root / "champion.json").read_text())
    assert pointer == {"digest": versions[0].digest, "previous": versions[1].digest}


def test_nothing_is_rolled_back_while_nobody_can_say_whether_the_model_is_there(port: int) -> None:
    old = make_version("a" * 64, state=ModelVersion.State.RETIRED)
    make_version("b" * 64, champion=True)
    with pytest.raises(RolloutRefused, match=r"制品仓库没有应答.*cannot be reached"):
        rollback_model(to=old, actor="test")
    champion = ModelVersion.objects.champion()
    assert champion is not None
    assert champion.digest == "b" * 64


def test_the_run_s_pictures_come_through_the_blog_which_says_so_when_the_store_is_away(
    settings, behind_http: FolderStore, people
) -> None:
    version = make_version("c" * 64, champion=True)
    run = make_run(state=Run.State.PROMOTED, model_version=version, report=make_report(version.digest))
    behind_http.put_report(version.digest, "curves.png", b"\x89PNG and so on")
    picture = reverse("admin:training_run_file", args=[run.pk, "curves.png"])
    answer = people["admin"].get(picture)
    assert (answer.content, answer.headers["Content-Type"]) == (b"\x89PNG and so on", "image/png")
    missing = reverse("admin:training_run_file", args=[run.pk, "sites.png"])
    assert people["admin"].get(missing).status_code == 404

    settings.ARTIFACT_STORE_URL = f"http://127.0.0.1:{find_free_port()}"
    answer = people["admin"].get(picture)
    assert answer.status_code == 503
    assert "制品仓库暂时没有应答" in answer.content.decode()
