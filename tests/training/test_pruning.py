"""What old runs and models leave behind goes, what anybody may need again stays, and nothing is lost on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django_celery_beat.models import PeriodicTask

from blog_site.training import federation
from blog_site.training.models import ModelVersion, Rollout, Run, RunSite, Site
from blog_site.training.pruning import plan_pruning, prune
from blog_site.training.registry import RegistryAccess, RegistryClient, RegistryError, parse_reference
from blog_site.training.rollout import RolloutRefused, promote_model, rollback_model
from blog_site.training.services import register_model
from federated.store import FolderStore, StoreError, open_store
from tests.infra.nginx.servers import BLOG_TOKEN, running_store
from tests.servers import find_free_port
from tests.training.images import push_base
from tests.training.registry_server import running_registry
from tests.training.rows import (
    make_artifact,
    make_report,
    make_run,
    make_sites,
    make_version,
)

pytestmark = pytest.mark.django_db
QUICK = RegistryAccess(plain_http=True)


def cut(store: FolderStore, run: Run, *texts: str) -> list[str]:
    """Give a run a shard, a validation shard and held-out samples; their digests."""
    make_sites(("food",))
    site, _ = Site.objects.get_or_create(slug="food", defaults={"name": "food"})
    shard, validation, heldout = (store.put_shard([{"text": text}]) for text in texts)
    RunSite.objects.create(
        run=run,
        site=site,
        shard_digest=shard,
        validation_digest=validation,
        samples=1,
        validation_samples=1,
        class_counts={},
    )
    Run.objects.filter(pk=run.pk).update(heldout_digest=heldout)
    return [shard, validation, heldout]


def shards_left(store: FolderStore) -> set[str]:
    return {path.stem for path in (store.root / "shards").iterdir()}


def test_shards_of_old_runs_go_and_those_that_a_kept_run_shares_stay(store: FolderStore) -> None:
    old, new = (make_run(state=Run.State.FAILED) for _ in range(2))
    gone = cut(store, old, "甲", "共有", "乙")
    kept = cut(store, new, "丙", "共有", "丁")

    assert prune(keep_runs=1).shards == 2
    assert shards_left(store) == set(kept)
    assert gone[1] in kept
    assert prune(keep_runs=1).runs == 0  # once is enough


def test_a_failed_run_without_its_shards_cannot_go_on(store: FolderStore) -> None:
    run = make_run(state=Run.State.FAILED)
    cut(store, run, "甲", "乙", "丙")
    run.refresh_from_db()
    assert run.may_resume()
    prune(keep_runs=0)
    run.refresh_from_db()
    assert not run.may_resume()


def test_nothing_goes_while_a_run_is_under_way(store: FolderStore) -> None:
    old = make_run(state=Run.State.FAILED)
    cut(store, old, "甲", "乙", "丙")
    make_run(state=Run.State.TRAINING)
    assert prune(keep_runs=0, keep_models=0).runs == 0
    assert len(shards_left(store)) == 3


def test_the_champion_the_one_before_and_what_a_rollout_waits_for_stay(store: FolderStore) -> None:
    names = ("oldest", "before", "champion", "refused", "waiting")
    versions = {name: make_version(make_artifact(store.root)) for name in names}
    promote_model(model_version=versions["before"], actor="test")
    promote_model(model_version=versions["champion"], actor="test")
    Rollout.objects.create(model_version=versions["waiting"], actor="test")

    assert {v.digest for v in plan_pruning(keep_models=0).versions} == {
        versions[name].digest for name in ("oldest", "refused")
    }
    assert prune(keep_models=0).versions == 2
    left = {path.name for path in store.artifacts.iterdir()}
    assert left == {versions[name].digest for name in ("before", "champion", "waiting")}
    with pytest.raises(RolloutRefused, match="文件已不在仓库中"):
        promote_model(model_version=ModelVersion.objects.get(pk=versions["oldest"].pk), actor="test")
    rollback_model(to=None, actor="test")
    assert store.champion() == versions["before"].digest


def test_weights_that_a_run_finds_again_after_their_files_went_can_be_promoted(store: FolderStore) -> None:
    old = make_version(make_artifact(store.root))
    make_version(make_artifact(store.root))
    assert prune(keep_models=1).versions == 1
    assert not store.has_artifact(old.digest)

    make_artifact(store.root, old.digest)
    result = {"artifact": old.digest, "report": make_report(old.digest)}
    again = register_model(run=make_run(), result=result)
    promote_model(model_version=again, actor="run:2")

    assert again == old == ModelVersion.objects.champion()
    assert prune(keep_models=1).versions == 0


@pytest.fixture
def behind_http(settings, tmp_path: Path, monkeypatch) -> Callable[[], object]:
    """The store's server, to be started by the test; whoever asks before does not wait for it."""
    port = find_free_port()
    settings.ARTIFACT_STORE_URL = f"http://127.0.0.1:{port}"
    settings.ARTIFACT_STORE_TOKEN = BLOG_TOKEN
    monkeypatch.setattr(
        federation, "open_store", lambda url, token: open_store(url, token=token, patience_seconds=0)
    )
    return lambda: running_store(tmp_path / "nginx", port=port)


def test_what_a_store_that_is_away_kept_goes_when_it_is_back(
    behind_http: Callable, tmp_path: Path, exported
) -> None:
    folder = FolderStore(tmp_path / "nginx" / "store")
    with behind_http():
        store = federation.artifact_store()
        store.put_artifact(exported[0].digest, exported[0].path)
        run = make_run(state=Run.State.REFUSED)
        cut(store, run, "甲", "乙", "丙")
    make_version(exported[0].digest)

    away = prune(keep_runs=0, keep_models=0)
    assert (away.runs, away.versions, len(away.problems)) == (0, 0, 2)
    with behind_http():
        back = prune(keep_runs=0, keep_models=0)
    assert (back.runs, back.shards, back.versions, back.problems) == (1, 3, 1, [])
    assert not shards_left(folder)
    assert not any(folder.artifact(exported[0].digest).iterdir())


def test_an_artifact_that_was_removed_in_part_can_be_removed_again_and_kept_anew(
    behind_http: Callable, tmp_path: Path, exported
) -> None:
    with behind_http():
        store = federation.artifact_store()
        store.put_artifact(exported[0].digest, exported[0].path)
        (tmp_path / "nginx/store/artifacts" / exported[0].digest / "model.onnx").unlink()
        store.delete_artifact(exported[0].digest)
        store.delete_artifact(exported[0].digest)
        assert not store.has_artifact(exported[0].digest)
        store.put_artifact(exported[0].digest, exported[0].path)
        fetched = store.fetch_artifact(exported[0].digest, tmp_path / "fetched")
    assert (fetched / "model.onnx").read_bytes() == (exported[0].path / "model.onnx").read_bytes()


def test_a_folder_that_cannot_be_removed_is_named(store: FolderStore, monkeypatch) -> None:
    version = make_version(make_artifact(store.root))

    def refuse(path: Path) -> None:
        raise PermissionError(f"not allowed: {path}")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        with pytest.raises(StoreError, match="cannot remove .*not allowed"):
            store.delete_artifact(version.digest)
    assert not store.has_artifact(version.digest)
    store.delete_artifact(version.digest)
    assert not any(store.artifacts.iterdir())


@pytest.fixture
def registry(settings, tmp_path: Path) -> Iterator[str]:
    with running_registry(tmp_path / "registry") as host:
        settings.MODEL_ROLLOUT = "image"
        settings.MODEL_IMAGE = settings.MODEL_IMAGE_PUSH = f"{host}/huisheng-model"
        settings.REGISTRY_PLAIN_HTTP = True
        yield host


def test_the_images_of_old_models_go_too_unless_another_model_shares_them(
    store: FolderStore, registry: str
) -> None:
    with RegistryClient(registry, QUICK) as client:
        images = [
            f"{registry}/huisheng-model@{push_base(client, 'huisheng-model', tag, platform=tag).digest()}"
            for tag in ("own", "shared")
        ]
        old, champion = (make_version(make_artifact(store.root)) for _ in range(2))
        done = {"actor": "test", "state": Rollout.State.DONE}
        for image in images:
            Rollout.objects.create(model_version=old, image=image, **done)
        promote_model(model_version=champion, actor="test")
        Rollout.objects.update(state=Rollout.State.DONE)
        Rollout.objects.filter(model_version=champion).update(image=images[1])

        assert prune(keep_models=0).images == 1
        with pytest.raises(RegistryError, match="404"):
            client.get_manifest("huisheng-model", str(parse_reference(images[0]).digest))
        client.get_manifest("huisheng-model", str(parse_reference(images[1]).digest))


def test_the_command_says_what_would_go_and_what_went(store: FolderStore, capsys) -> None:
    version = make_version(make_artifact(store.root))
    run = make_run(state=Run.State.FAILED)
    cut(store, run, "甲", "乙", "丙")
    keep = ["--keep-runs=0", "--keep-models=0"]

    call_command("prune_store", *keep, "--dry-run")
    said = capsys.readouterr().out
    assert f"训练 {run} 的分片" in said
    assert f"模型 {version.short_digest()} 的文件和镜像" in said
    assert store.has_artifact(version.digest)

    call_command("prune_store", *keep)
    assert "1 次训练（3 个分片），1 个模型（0 个镜像）" in capsys.readouterr().out
    assert not store.has_artifact(version.digest)
    with pytest.raises(CommandError, match="--keep-runs 不能小于 0"):
        call_command("prune_store", "--keep-runs=-1")


def test_it_runs_every_night() -> None:
    assert PeriodicTask.objects.get(name="prune").task == "training.prune"
