"""Letting go of what nobody needs again: the shards of old runs, the files and images of old models.

Shards hold people's words, so keeping them for ever would also keep what their writers have deleted since. A row says
twice what became of its files: `let_go_at`, from when on nothing may use them, and `gone_at`, when they were removed.
One that has the first and lacks the second is tried again, so that a store or registry that is away loses nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from django.conf import settings
from django.utils import timezone

from blog_site.training.federation import StoreError, artifact_store
from blog_site.training.image_rollout import delete_image
from blog_site.training.models import ModelVersion, Rollout, Run, RunQuerySet, RunSite
from blog_site.training.registry import RegistryError
from blog_site.training.rollout import previous_champion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruning:
    """What may go: runs and model versions, the oldest first."""

    runs: tuple[Run, ...] = ()
    versions: tuple[ModelVersion, ...] = ()


@dataclass
class Pruned:
    """What has gone, and what could not and will be tried again."""

    runs: int = 0
    shards: int = 0
    versions: int = 0
    images: int = 0
    problems: list[str] = field(default_factory=list)


def plan_pruning(*, keep_runs: int | None = None, keep_models: int | None = None) -> Pruning:
    """Say what may go beyond the newest runs and models (by default as the settings say).

    The champion, the one before it and whatever a rollout waits for stay in any case; during a run everything does.
    """
    if Run.objects.active() is not None:
        return Pruning()
    runs = Run.objects.order_by("-pk")[settings.STORE_KEEP_RUNS if keep_runs is None else keep_runs :]
    versions = ModelVersion.objects.order_by("-pk")[
        settings.STORE_KEEP_MODELS if keep_models is None else keep_models :
    ]
    in_use = _versions_in_use()
    return Pruning(
        tuple(run for run in reversed(runs) if run.gone_at is None),
        tuple(v for v in reversed(versions) if v.gone_at is None and v.pk not in in_use),
    )


def _versions_in_use() -> set[int]:
    used: set[int | None] = set()
    if champion := ModelVersion.objects.champion():
        previous = previous_champion(champion)
        used |= {champion.pk, previous.pk if previous else None}
    for rollout in Rollout.objects.filter(state=Rollout.State.WAITING):
        used |= {rollout.model_version_id, rollout.previous_id}
    return {pk for pk in used if pk is not None}


def prune(*, keep_runs: int | None = None, keep_models: int | None = None) -> Pruned:
    """Remove what may go. Repeating is harmless; what cannot be removed now is tried again by the next call."""
    plan, pruned = plan_pruning(keep_runs=keep_runs, keep_models=keep_models), Pruned()
    for row in (*plan.runs, *plan.versions):
        try:
            _prune_run(row, pruned) if isinstance(row, Run) else _prune_version(row, pruned)
        except (StoreError, RegistryError) as error:
            log.warning("what belongs to %s is removed later: %s", row, error)
            pruned.problems.append(str(error))
    if pruned.runs or pruned.versions:
        log.info("pruned: %s", pruned)
    return pruned


def _prune_run(run: Run, pruned: Pruned) -> None:
    free = Run.objects.filter(pk=run.pk, active_slot=None)
    if not free.update(let_go_at=run.let_go_at or timezone.now()):
        return  # it was resumed meanwhile
    # What a later run shares stays: the same samples are the same shard. A run that begins at this very moment with
    # samples like those of one so old would miss them, say so, and the next night's would be cut anew.
    shards = _shards_of(Run.objects.filter(pk=run.pk)) - _shards_of(Run.objects.filter(let_go_at=None))
    for digest in sorted(shards):
        artifact_store().delete_shard(digest)
    Run.objects.filter(pk=run.pk).update(gone_at=timezone.now())
    pruned.runs += 1
    pruned.shards += len(shards)


def _shards_of(runs: RunQuerySet) -> set[str]:
    parts = RunSite.objects.filter(run__in=runs).values_list("shard_digest", "validation_digest")
    heldout = runs.values_list("heldout_digest", flat=True)
    return {digest for part in parts for digest in part if digest} | {digest for digest in heldout if digest}


def _prune_version(version: ModelVersion, pruned: Pruned) -> None:
    free = ModelVersion.objects.filter(pk=version.pk, champion_slot=None)
    if not free.update(let_go_at=version.let_go_at or timezone.now()):
        return  # it was promoted meanwhile
    artifact_store().delete_artifact(version.digest)
    images = [image for image in sorted(_images_of(version)) if delete_image(image)]
    ModelVersion.objects.filter(pk=version.pk).update(gone_at=timezone.now())
    pruned.versions += 1
    pruned.images += len(images)


def _images_of(version: ModelVersion) -> set[str]:
    """The images with this model alone: equal weights on an equal base are one image, whoever rolled it out."""
    kept = Rollout.objects.exclude(model_version=version).values_list("image", "previous_image")
    others = {image for pair in kept for image in pair}
    return set(version.rollouts.exclude(image="").values_list("image", flat=True)) - others
