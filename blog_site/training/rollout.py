"""Making a model version the champion everywhere, or putting the previous one back.

The database says who the champion is; the pointer in the store repeats it for the inference service, which loads,
checks and swaps by itself. A rollout is done when the service answers with the new digest, and undone when the
service refuses it. On a cluster (MODEL_ROLLOUT=image) the model becomes an image instead: see image_rollout.py.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from blog_site.comments import inference
from blog_site.training.federation import StoreError, artifact_store
from blog_site.training.image_rollout import look_at
from blog_site.training.models import ONLY, ModelVersion, Rollout
from blog_site.training.releases import renew_image

log = logging.getLogger(__name__)


class RolloutRefused(Exception):
    """The champion was not changed; the text says why."""


class ChampionChanged(RolloutRefused):
    """The model that was to be replaced is no longer the champion."""


ANY: Final = object()


def promote_model(*, model_version: ModelVersion, actor: str, instead_of: object = ANY) -> Rollout:
    """Make a model version the champion. Raises RolloutRefused when it is already, or its artifact is gone, and
    StoreError when nobody can say whether it is.

    `instead_of`: the champion that the caller compared it with (None: there was none); ChampionChanged when it is
    another one by now.
    """
    if model_version.let_go_at or not artifact_store().has_artifact(model_version.digest):
        raise RolloutRefused(f"模型 {model_version.short_digest()} 的文件已不在仓库中，无法上线")
    try:
        with transaction.atomic():
            rollout = _move_champion(to=model_version, actor=actor, instead_of=instead_of)
    except IntegrityError as error:  # another process was quicker: the database holds one champion
        raise RolloutRefused("在用模型刚刚被别处更换，请刷新后再试") from error
    repeat_pointer()
    return rollout


def rollback_model(*, to: ModelVersion | None, actor: str) -> Rollout:
    """Put an earlier champion back: the one before the present one, or the one given."""
    champion = ModelVersion.objects.champion()
    if champion is None:
        raise RolloutRefused("还没有在用的模型，无从回滚")
    target = to if to is not None else previous_champion(champion)
    if target is None:
        raise RolloutRefused(f"在用模型 {champion.short_digest()} 之前没有别的模型，无从回滚")
    if target.state not in (ModelVersion.State.RETIRED, ModelVersion.State.CHAMPION):
        raise RolloutRefused(
            f"模型 {target.short_digest()} 从未在用（{target.get_state_display()}），不能回滚到它"
        )
    if target == champion and settings.MODEL_ROLLOUT == "image":
        return _renew(champion, actor)
    try:
        return promote_model(model_version=target, actor=actor)
    except StoreError as error:
        raise RolloutRefused(f"制品仓库没有应答，无法确认模型文件还在：{error}") from error


def _renew(champion: ModelVersion, actor: str) -> Rollout:
    """Put the champion's image back, whatever the Deployment runs."""
    rollout = renew_image(champion, actor=actor)
    if rollout is None:
        raise RolloutRefused("另一次上线正在进行，等它结束再试")
    return rollout


def previous_champion(champion: ModelVersion) -> ModelVersion | None:
    """The older model that the present champion last took the place of.

    Older: after a rollback the champion stands where a newer one was, and going back once more must not bring that
    one again.
    """
    taken = champion.rollouts.exclude(state=Rollout.State.FAILED).filter(previous__lt=champion.pk)
    last = taken.select_related("previous").first()
    return last.previous if last else None


def _move_champion(*, to: ModelVersion, actor: str, instead_of: object) -> Rollout:
    previous = ModelVersion.objects.champion()
    if previous == to:
        raise RolloutRefused(f"模型 {to.short_digest()} 已经在用")
    if instead_of is not ANY and previous != instead_of:
        raise ChampionChanged("训练期间在用模型已被更换")
    if previous is not None:
        moved = ModelVersion.objects.filter(pk=previous.pk, champion_slot=ONLY)
        if moved.update(champion_slot=None, state=ModelVersion.State.RETIRED) != 1:
            raise RolloutRefused("在用模型刚刚被别处更换，请刷新后再试")
    # Conditional: on MySQL, somebody who promoted the same model meanwhile would only make this one wait for a row
    # that already is the champion.
    free = ModelVersion.objects.filter(pk=to.pk, champion_slot__isnull=True, let_go_at=None)
    if free.update(champion_slot=ONLY, state=ModelVersion.State.CHAMPION, state_reason="") != 1:
        raise RolloutRefused(f"模型 {to.short_digest()} 已经在用，或者它的文件刚被清理")
    to.refresh_from_db()
    # A rollout that is still waiting is overtaken: nobody will see its model any more.
    Rollout.objects.filter(state=Rollout.State.WAITING).update(
        state=Rollout.State.DONE, reason="被后一次上线取代", ended_at=timezone.now()
    )
    return Rollout.objects.create(model_version=to, previous=previous, actor=actor)


def point_inference_to_champion() -> None:
    """Make the store's pointer say what the database says; repeating it is harmless."""
    champion = ModelVersion.objects.champion()
    store = artifact_store()
    if champion is not None and store.champion() != champion.digest:
        store.point_to_champion(champion.digest)


def repeat_pointer() -> None:
    """Point, and leave a store that cannot be written to the next beat: the database has decided already."""
    try:
        point_inference_to_champion()
    except StoreError as error:
        log.warning("the champion pointer could not be written and will be tried again: %s", error)


def advance_rollout(rollout: Rollout) -> Rollout:
    """See whether the inference service followed; undo the rollout when it refuses. Never waits for it."""
    if rollout.state != Rollout.State.WAITING:
        return rollout
    if settings.MODEL_ROLLOUT == "image":
        return _follow_deployment(rollout)
    digest = rollout.model_version.digest
    overdue = timezone.now() - rollout.created_at > timedelta(seconds=settings.ROLLOUT_DEADLINE_SECONDS)
    try:
        point_inference_to_champion()
        readiness = inference.readiness()
    except StoreError as error:
        if overdue:
            undo_rollout(rollout, f"在用模型的指针写不进仓库：{error}")
        return rollout
    except inference.InferenceError as error:
        # A service that is away reads the pointer when it comes back; that is no reason to undo anything.
        log.info("rollout of %s: %s", digest, error)
        _note(rollout, "推理服务没有应答，启动后会自动载入")
        return rollout
    if readiness.model == digest:
        _end(rollout, Rollout.State.DONE, "")
    elif readiness.wanted == digest and readiness.error and (readiness.ready or overdue):
        # One that serves nothing yet may still show an older error while it loads; it has until the deadline.
        undo_rollout(rollout, f"推理服务拒绝了新模型：{readiness.error}")
    elif overdue and readiness.ready:
        undo_rollout(rollout, f"推理服务在 {settings.ROLLOUT_DEADLINE_SECONDS} 秒内没有换上新模型")
    elif overdue:
        # It was away until a moment ago and is still loading: not the model's fault either.
        _note(rollout, "推理服务正在启动，还没有载入模型")
    return rollout


def _follow_deployment(rollout: Rollout) -> Rollout:
    """The same on a cluster; in a process that may not speak to it, only see what others have written down."""
    verdict = look_at(rollout)
    rollout.refresh_from_db()
    if rollout.state != Rollout.State.WAITING:
        return rollout
    if verdict.state == Rollout.State.FAILED:
        undo_rollout(rollout, verdict.reason, blames_model=verdict.blames_model)
    elif verdict.state == Rollout.State.DONE:
        _end(rollout, Rollout.State.DONE, verdict.reason)
    elif verdict.reason:
        _note(rollout, verdict.reason)
    return rollout


def _note(rollout: Rollout, reason: str) -> None:
    """Say why a rollout still waits."""
    rollout.reason = reason[:500]
    Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.WAITING).update(reason=rollout.reason)


def undo_rollout(rollout: Rollout, reason: str, *, blames_model: bool = True) -> None:
    """Mark the model as refused and put the previous one back; after a first model there is none.

    One that has served before and is not to blame may be rolled back to again.
    """
    served_before = rollout.model_version.rollouts.filter(state=Rollout.State.DONE).exists()
    state = ModelVersion.State.REFUSED if blames_model or not served_before else ModelVersion.State.RETIRED
    with transaction.atomic():
        was_champion = 0
        if not rollout.renews():
            # The champion first, as in _move_champion: whoever moves it at the same time waits for us or we for them.
            refused = ModelVersion.objects.filter(pk=rollout.model_version_id, champion_slot=ONLY)
            was_champion = refused.update(champion_slot=None, state=state, state_reason=reason[:500])
        if not _end(rollout, Rollout.State.FAILED, reason):
            transaction.set_rollback(True)  # done or overtaken meanwhile: there is nothing left to undo
            return
        if was_champion and rollout.previous is not None:
            ModelVersion.objects.filter(pk=rollout.previous_id).update(
                champion_slot=ONLY, state=ModelVersion.State.CHAMPION
            )
    log.warning("rollout of %s undone: %s", rollout.model_version.digest, reason)
    repeat_pointer()


def _end(rollout: Rollout, state: Rollout.State, reason: str) -> bool:
    """End a waiting rollout; False when somebody else has ended it."""
    waiting = Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.WAITING)
    ended = waiting.update(state=state, reason=reason[:500], ended_at=timezone.now()) == 1
    rollout.refresh_from_db()
    return ended
