"""The inference Deployment between rollouts: releases, failures that are to be put back, and what operators change.

A release applies the manifests, which name the base image without a model. The Deployment's new pods are not ready
then, and since it lets no old pod go before a new one is available, the old ones go on answering; `settle` sees the
base image and rolls the champion out on it. Applied again without a change, that is the image from before, whose pods
still run. An image that is neither a base image nor ours was set by an operator: that is said, and left alone.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone

from blog_site.training.deployment import (
    ClusterError,
    Conflict,
    DeploymentState,
    has_cluster_access,
)
from blog_site.training.image_rollout import deployment, is_base_image, last_served, make_annotations
from blog_site.training.models import ModelVersion, Rollout

log = logging.getLogger(__name__)

RELEASE: Final = "release"  # the actor of a rollout that puts the champion on another base image
RETRY_RELEASE_SECONDS: Final = 600  # within which a base that the champion failed on is not tried again
_FOREIGN: Final = "集群上运行的镜像被改为"


def tend_deployment() -> None:
    """Put back the image of rollouts that failed; see that the Deployment runs the champion. Repeating is harmless."""
    if not has_cluster_access():
        return
    try:
        for rollout in Rollout.objects.filter(state=Rollout.State.FAILED, reverted_at=None).exclude(
            previous_image=""
        ):
            _put_back(rollout)
        settle()
    except Conflict as error:
        log.info("the Deployment was changed by others meanwhile: %s", error)
    except ClusterError as error:
        log.warning("the Deployment cannot be tended: %s", error)


def _put_back(rollout: Rollout) -> None:
    """Go back to the recorded image, unless the Deployment names another one by now."""
    state = deployment().read()
    if state.image == rollout.image:
        previous = None if is_base_image(rollout.previous_image) else rollout.previous
        _set_known_image(state, rollout.previous_image, previous)
        log.warning("the Deployment is back at %s: %s", rollout.previous_image, rollout.reason)
    Rollout.objects.filter(pk=rollout.pk).update(reverted_at=timezone.now())


def _set_known_image(state: DeploymentState, image: str, model_version: ModelVersion | None) -> None:
    known = Rollout.objects.filter(image=image).first()
    base_image = known.base_image if known is not None else ""
    annotations = make_annotations(model_version, base_image=base_image, previous=state.image)
    deployment().set_image(state, image, annotations)


def settle() -> None:
    """See that the Deployment runs the champion; called while no rollout is under way. Raises ClusterError."""
    champion = ModelVersion.objects.champion()
    if champion is None or Rollout.objects.filter(state=Rollout.State.WAITING).exists():
        return
    state = deployment().read()
    served = last_served(champion)
    if served is not None and state.image == served.image:
        _forget_foreign(served)
        return
    newest = Rollout.objects.filter(image=state.image).first()
    if is_base_image(state.image) and not _failed_lately(champion, state.image):
        renew_image(champion, actor=RELEASE)
    elif is_base_image(state.image) or (newest is not None and newest.state == Rollout.State.FAILED):
        # Applied once more though the champion has just failed on it, or set by a worker that had not heard of that.
        if served is not None:
            _set_known_image(state, served.image, champion)
    elif served is not None:
        _report_foreign(served, state.image)


def renew_image(champion: ModelVersion, *, actor: str) -> Rollout | None:
    """Begin to roll out the champion once more, on the base image there is now; None where another rollout is."""
    with transaction.atomic():
        # The champion's row is what whoever promotes, or renews, at the same time waits for.
        locked = ModelVersion.objects.select_for_update().filter(pk=champion.pk, champion_slot__isnull=False)
        if not locked.exists() or Rollout.objects.filter(state=Rollout.State.WAITING).exists():
            return None
        return Rollout.objects.create(model_version=champion, previous=champion, actor=actor)


def _failed_lately(champion: ModelVersion, base_image: str) -> bool:
    return Rollout.objects.filter(
        model_version=champion,
        previous=champion,
        base_image=base_image,
        state=Rollout.State.FAILED,
        ended_at__gt=timezone.now() - timedelta(seconds=RETRY_RELEASE_SECONDS),
    ).exists()


def _report_foreign(served: Rollout, image: str) -> None:
    """Say, once, that somebody else decided what is served."""
    reason = f"{_FOREIGN} {image}，不是这里上线的；要换回来，请回滚到在用的模型"[:500]
    if Rollout.objects.filter(pk=served.pk).exclude(reason=reason).update(reason=reason):
        log.warning("the Deployment runs %s, set by others; the champion's image is %s", image, served.image)


def _forget_foreign(served: Rollout) -> None:
    if served.reason.startswith(_FOREIGN):
        Rollout.objects.filter(pk=served.pk).update(reason="")
