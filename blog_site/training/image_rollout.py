"""Rollouts on a cluster: the model becomes an image, and the inference Deployment is rolled over to it.

A rollout's row gains one fact after the other: `image` (pushed), `previous_image` (to go back to, before anything is
changed), `applied_at` (the Deployment names the image), and its end. Whoever takes it up, after a crash or beside
another worker, goes on at the fact that is missing; each step may be repeated. Nothing here waits.

Only a process that may speak to the cluster does any of it: a web process moves the champion in the database, and the
worker's next beat brings it about.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import httpx
from django.conf import settings
from django.utils import timezone

from blog_site.comments import inference
from blog_site.training.deployment import (
    BASE_ANNOTATION,
    MODEL_ANNOTATION,
    PREVIOUS_ANNOTATION,
    RUN_ANNOTATION,
    ClusterError,
    Conflict,
    DeploymentState,
    InferenceDeployment,
    Trouble,
    has_cluster_access,
)
from blog_site.training.federation import StoreError, artifact_store
from blog_site.training.model_image import (
    Destination,
    ModelDamaged,
    delete_model_image,
    push_model_image,
)
from blog_site.training.models import ModelVersion, Rollout
from blog_site.training.registry import RegistryAccess, RegistryError, parse_reference

log = logging.getLogger(__name__)

STUCK_SECONDS: Final = 60  # that a pod may lack its image or its configuration
ANSWER_SECONDS: Final = 90  # that another model, or nobody, may answer after the last old pod was told to end
BUILD_SECONDS: Final = 300  # that one worker has for an image before another takes it up
REBUILD_SECONDS: Final = 10  # after which an image that could not be made is tried again
_PODS_SHOWN: Final = 5


@dataclass(frozen=True)
class Verdict:
    """What a look at a rollout came to."""

    state: Rollout.State
    reason: str = ""
    blames_model: bool = True  # when it failed


@dataclass(frozen=True)
class Progress:
    """How far a rollout is: the JSON in its row, which its page shows."""

    detail: str = ""
    desired: int | None = None  # replicas
    updated: int = 0
    available: int = 0
    pods: list[dict[str, str]] = field(
        default_factory=list
    )  # name, reason, message of those that do not serve
    condition: str = ""  # the Deployment's Progressing when the image was set: that one says nothing of ours
    stuck_since: float | None = None  # seconds since the epoch
    silent_since: float | None = None
    wrong_since: float | None = None
    replaced: str = ""  # an image that somebody else had set

    @classmethod
    def of(cls, rollout: Rollout) -> Progress:
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in (rollout.progress or {}).items() if name in known})


WAITING = Verdict(Rollout.State.WAITING)


def settings_problem() -> str:
    """Say what is wrong with the settings of rollouts; empty when nothing is."""
    if settings.MODEL_ROLLOUT not in ("pointer", "image"):
        return f"MODEL_ROLLOUT is {settings.MODEL_ROLLOUT!r}: set it to pointer or image."
    if settings.MODEL_ROLLOUT == "pointer":
        return ""
    for name in ("MODEL_IMAGE", "MODEL_IMAGE_PUSH", "INFERENCE_BASE_IMAGE"):
        value = getattr(settings, name)
        if not value:
            return (
                f"{name} is not set, and MODEL_ROLLOUT=image needs it, like registry.example/huisheng-model."
            )
        try:
            reference = parse_reference(value)
        except ValueError as error:
            return f"{name}: {error}."
        if name != "INFERENCE_BASE_IMAGE" and (reference.tag or reference.digest):
            return f"{name} is {value!r}: leave out the version, which every model has its own of."
    if parse_reference(settings.MODEL_IMAGE).name() == parse_reference(settings.INFERENCE_BASE_IMAGE).name():
        # Else nothing would tell an image with a model from one that a release has set.
        return f"MODEL_IMAGE and INFERENCE_BASE_IMAGE are both {settings.MODEL_IMAGE}: choose another for models."
    return ""


def deployment() -> InferenceDeployment:
    """The Deployment that the settings name."""
    return _deployment(settings.INFERENCE_NAMESPACE, settings.INFERENCE_DEPLOYMENT)


@lru_cache(maxsize=4)  # with its connections
def _deployment(namespace: str, name: str) -> InferenceDeployment:
    return InferenceDeployment(namespace, name)


def look_at(rollout: Rollout) -> Verdict:
    """Take a waiting rollout one step further, where this process may, and say how it stands."""
    if not has_cluster_access():
        return WAITING
    try:
        state = deployment().read()
        if not rollout.image:
            return _make_image(rollout, state)
        if rollout.applied_at is None:
            return _apply(rollout, state)
        return _watch(rollout, state)
    except Conflict as error:
        log.info("rollout of %s: %s", rollout.model_version.digest, error)
        return WAITING  # somebody was quicker; the next look reads what he did
    except ClusterError as error:
        return _wait_for_cluster(rollout, error)


def _wait_for_cluster(rollout: Rollout, error: ClusterError) -> Verdict:
    """Wait for a cluster that is away as long as it takes: it may have done by itself what was asked before."""
    problem = f"集群没有照办：{error}"
    _say(rollout, problem)
    if error.permanent and rollout.applied_at is None and _is_overdue(rollout):
        return Verdict(Rollout.State.FAILED, problem, blames_model=False)
    return WAITING


def _is_overdue(rollout: Rollout) -> bool:
    """Whether the Deployment should have been changed by now.

    A renewal has all the time there is: the champion goes on serving, and no run waits for it.
    """
    given = timedelta(seconds=settings.ROLLOUT_DEADLINE_SECONDS)
    return not rollout.renews() and timezone.now() - rollout.created_at > given


def _make_image(rollout: Rollout, state: DeploymentState) -> Verdict:
    """Push the image, if no other worker is at it, and write down its digest."""
    base = rollout.base_image or _base_image(state)
    now = timezone.now()
    mine = Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.WAITING, image="").exclude(
        building_until__gt=now
    )
    if mine.update(building_until=now + timedelta(seconds=BUILD_SECONDS), base_image=base) != 1:
        return WAITING
    rollout.base_image = base
    _say(rollout, "正在制作并推送镜像")
    digest = rollout.model_version.digest
    try:
        with tempfile.TemporaryDirectory(prefix="huisheng-model-") as scratch:
            folder = artifact_store().fetch_artifact(digest, Path(scratch))
            image = push_model_image(
                base=parse_reference(base), destination=_destination(), folder=folder, digest=digest
            )
    except ModelDamaged as error:
        return Verdict(Rollout.State.FAILED, f"模型文件已损坏：{error}")
    except (RegistryError, StoreError, OSError, ValueError) as error:
        later = timezone.now() + timedelta(seconds=REBUILD_SECONDS)
        Rollout.objects.filter(pk=rollout.pk).update(building_until=later)
        return _wait_for_image(rollout, f"镜像还没有推送成功：{error}")
    made = Rollout.objects.filter(pk=rollout.pk, image="", base_image=base)
    made.update(image=str(image), building_until=None)
    rollout.refresh_from_db()
    _say(rollout, "镜像已推送")
    return WAITING


def _wait_for_image(rollout: Rollout, problem: str) -> Verdict:
    _say(rollout, problem)
    log.warning("rollout of %s: %s", rollout.model_version.digest, problem)
    if _is_overdue(rollout):
        return Verdict(Rollout.State.FAILED, problem, blames_model=False)
    return WAITING


def delete_image(image: str) -> bool:
    """Delete an image that no rollout will go back to; False where that is not ours to do. Raises RegistryError."""
    return settings.MODEL_ROLLOUT == "image" and delete_model_image(image, _destination())


def _destination() -> Destination:
    access = RegistryAccess(
        settings.REGISTRY_USERNAME, settings.REGISTRY_PASSWORD, settings.REGISTRY_PLAIN_HTTP
    )
    return Destination(
        parse_reference(settings.MODEL_IMAGE), parse_reference(settings.MODEL_IMAGE_PUSH), access
    )


def _base_image(state: DeploymentState) -> str:
    """The base of the image to make: the one of the release that is there now.

    The Deployment knows it better than this process, which may still be of the release before.
    """
    if is_base_image(state.image):
        return state.image
    return state.annotations.get(BASE_ANNOTATION) or str(settings.INFERENCE_BASE_IMAGE)


def is_base_image(image: str) -> bool:
    """Whether it is a version of the inference image without a model, as a release sets it."""
    try:
        return parse_reference(image).name() == parse_reference(settings.INFERENCE_BASE_IMAGE).name()
    except ValueError:
        return False


def _apply(rollout: Rollout, state: DeploymentState) -> Verdict:
    """Let the Deployment name the image. What it goes back to is written down before."""
    progress = Progress.of(rollout)
    if state.image != rollout.image:
        previous = rollout.previous_image or _way_back(rollout, state)
        if not (is_base_image(state.image) or _is_ours(state.image)):
            progress = replace(progress, replaced=state.image)
            log.warning("rollout of %s replaces %s, set by others", rollout.model_version.digest, state.image)
        recorded = _update(
            rollout,
            previous_image=previous,
            progress=asdict(replace(progress, detail="正在替换镜像", condition=state.progressing)),
        )
        if not recorded:  # ended meanwhile
            return WAITING
        deployment().set_image(state, rollout.image, _annotations(rollout, state.image))
    if not _update(
        rollout, applied_at=timezone.now()
    ):  # ended in this moment, and what was done since is undone
        Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.FAILED).update(reverted_at=None)
    return WAITING


def _way_back(rollout: Rollout, state: DeploymentState) -> str:
    """The image to go back to: the one there is, unless that serves nothing."""
    if is_base_image(state.image):
        served = last_served(rollout.previous) if rollout.previous is not None else None
        return served.image if served is not None else state.image
    bad = Rollout.objects.filter(image=state.image).first()
    if bad is not None and bad.state == Rollout.State.FAILED and bad.previous_image:
        return bad.previous_image
    return state.image


def _annotations(rollout: Rollout, previous: str) -> dict[str, str | None]:
    kind, _, number = rollout.actor.partition(":")
    run = f"run-{number}" if kind == "run" else None  # as Run.key() names it
    return make_annotations(rollout.model_version, base_image=rollout.base_image, previous=previous, run=run)


def make_annotations(
    model_version: ModelVersion | None, *, base_image: str, previous: str, run: str | None = None
) -> dict[str, str | None]:
    """What the Deployment says of the image that it names; None takes an annotation away."""
    return {
        MODEL_ANNOTATION: model_version.digest if model_version is not None else None,
        RUN_ANNOTATION: run,
        PREVIOUS_ANNOTATION: previous,
        BASE_ANNOTATION: base_image or None,
    }


def last_served(model_version: ModelVersion) -> Rollout | None:
    return Rollout.objects.filter(model_version=model_version, served=True).exclude(image="").first()


def _is_ours(image: str) -> bool:
    return Rollout.objects.filter(image=image).exists()


def _watch(rollout: Rollout, state: DeploymentState) -> Verdict:
    """See how far the pods are, and whether they will get there."""
    if state.image != rollout.image:
        return _find_other_image(rollout, state)
    troubles = [] if state.is_complete() else deployment().troubles(state, rollout.image)
    progress = replace(
        Progress.of(rollout),
        detail=_describe(state),
        desired=state.desired,
        updated=state.updated if state.observed else 0,
        available=state.available,
        pods=[
            {"name": one.pod, "reason": one.reason, "message": one.message} for one in troubles[:_PODS_SHOWN]
        ],
    )
    if state.is_complete():
        return _hear_answer(rollout, progress)
    stuck = next((one for one in troubles if one.kind == "stuck"), None)
    now = timezone.now().timestamp()
    progress = replace(progress, stuck_since=(progress.stuck_since or now) if stuck else None)
    _update(rollout, progress=asdict(progress))
    if not state.observed or state.paused:
        return WAITING
    crash = next((one for one in troubles if one.kind == "crash"), None)
    if crash is not None:
        return Verdict(Rollout.State.FAILED, f"新的 Pod 反复退出：{crash}")
    if stuck is not None and progress.stuck_since is not None and now - progress.stuck_since >= STUCK_SECONDS:
        return Verdict(Rollout.State.FAILED, f"新的 Pod 启动不了：{stuck}", blames_model=False)
    return _judge_time(rollout, state, progress, troubles)


def _describe(state: DeploymentState) -> str:
    if state.paused:
        return "Deployment 已被暂停"
    return f"集群不允许新建 Pod：{state.refused_pods}" if state.refused_pods else "正在替换 Pod"


def _judge_time(
    rollout: Rollout, state: DeploymentState, progress: Progress, troubles: list[Trouble]
) -> Verdict:
    """Give up when the Deployment does. It may still say so of the image before, and never again of this one; then
    its time is counted here."""
    assert rollout.applied_at is not None
    unheard = state.progressing == progress.condition
    overdue = timezone.now() - rollout.applied_at > timedelta(seconds=state.deadline_seconds + 60)
    if not (overdue if unheard else state.deadline_exceeded):
        return WAITING
    worst = troubles[0] if troubles else None
    why = (
        f"：{_ask_why(worst)}"
        if worst is not None
        else f"：{state.refused_pods}"
        if state.refused_pods
        else ""
    )
    # Without a pod that runs, the model had no chance to be at fault.
    blames_model = worst is not None and worst.kind in ("crash", "unready")
    seconds = state.deadline_seconds
    return Verdict(
        Rollout.State.FAILED, f"新的 Pod 在 {seconds} 秒内没有就绪{why}", blames_model=blames_model
    )


def _ask_why(trouble: Trouble) -> str:
    """A pod that runs and is not ready says itself what is the matter."""
    if not trouble.address:
        return str(trouble)
    try:
        said = httpx.get(f"http://{trouble.address}/readyz", timeout=2, trust_env=False).json()["error"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return str(trouble)
    return f"{trouble.pod}: {said}" if said else str(trouble)


def _hear_answer(rollout: Rollout, progress: Progress) -> Verdict:
    """All pods are new and ready: the service must answer with the model."""
    digest, now = rollout.model_version.digest, timezone.now().timestamp()
    progress = replace(progress, stuck_since=None)
    try:
        model = inference.readiness().model
    except inference.InferenceError as error:
        log.info("rollout of %s: %s", digest, error)
        since = progress.silent_since or now
        _update(rollout, progress=asdict(replace(progress, silent_since=since, wrong_since=None)))
        silent = now - since >= ANSWER_SECONDS
        return Verdict(Rollout.State.WAITING, "Pod 都已就绪，但推理服务没有应答" if silent else "")
    if model == digest:
        _update(rollout, served=True, progress=asdict(replace(progress, detail="")))
        return Verdict(
            Rollout.State.DONE, f"取代了在别处设置的镜像 {progress.replaced}" if progress.replaced else ""
        )
    # A pod that is about to end may have answered, on a connection that was kept.
    inference.close_clients()
    since = progress.wrong_since or now
    _update(rollout, progress=asdict(replace(progress, silent_since=None, wrong_since=since)))
    if now - since < ANSWER_SECONDS:
        return WAITING
    return Verdict(Rollout.State.FAILED, f"推理服务应答的模型是 {model}，不是 {digest}")


def _find_other_image(rollout: Rollout, state: DeploymentState) -> Verdict:
    """Somebody else changed the image amid the rollout."""
    if is_base_image(state.image):  # a release: begin again, on its base
        image = rollout.image if state.image == rollout.base_image else ""
        _update(rollout, image=image, base_image=state.image, applied_at=None, building_until=None)
        _say(rollout, "发布了新版本，重新制作镜像")
        return WAITING
    if state.image == rollout.previous_image:
        reason = f"镜像在集群上被退回到 {state.image}"
    else:
        reason = f"镜像在集群上被改为 {state.image}"
    return Verdict(Rollout.State.FAILED, reason, blames_model=False)


def _update(rollout: Rollout, **fields: Any) -> bool:
    """Write facts of a rollout that still waits; False when it does not."""
    waiting = Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.WAITING)
    updated = waiting.update(**fields) == 1
    if updated:
        for name, value in fields.items():
            setattr(rollout, name, value)
    return updated


def _say(rollout: Rollout, detail: str) -> None:
    _update(rollout, progress=asdict(replace(Progress.of(rollout), detail=detail[:500])))
