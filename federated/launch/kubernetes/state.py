"""How a run's pods fare, read from what the API server says of its Jobs, pods and events. Pure functions."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from federated.launch.kubernetes import names
from federated.protocol import PodPhase, PodStatus, tidy_reason

Object = dict[str, Any]

# What a container waits for that does not come by itself, or not soon: images, secrets, a crash again and again.
TROUBLES: Final = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "StartError",
        "CrashLoopBackOff",
    }
)
HOPELESS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})  # no time mends these
EVENT_TROUBLES: Final = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedScheduling", "FailedCreate"}
)
EVENTS_SHOWN = 3
PHASES: Final[Mapping[str, PodPhase]] = {
    "Pending": "pending",
    "Running": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Unknown": "pending",
}


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from its work."""

    what: str  # of which pod or Job, and what: "run-1-food-x: ImagePullBackOff: …"
    since: float  # in seconds since the epoch
    hopeless: bool


def is_finished(job: Object) -> bool:
    return end_of(job) is not None


def end_of(job: Object) -> Object | None:
    """The condition that ended a Job: Complete or Failed.

    SuccessCriteriaMet and FailureTarget come before them, while pods are still being ended.
    """
    return next(
        (c for c in conditions(job) if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None
    )


def has_failed(job: Object) -> bool:
    """Whether it has, or is about to: FailureTarget says so while its last pod is still being ended."""
    return any(c["type"] in ("Failed", "FailureTarget") and c["status"] == "True" for c in conditions(job))


def conditions(value: Object) -> list[Object]:
    return list(value.get("status", {}).get("conditions") or [])


def site_of(value: Object) -> str:
    """The site's name in full, as the trainer's Job has it; "" for the aggregator."""
    return str(value["metadata"].get("annotations", {}).get(names.SITE_ANNOTATION, ""))


def owner_of(pod: Object) -> str:
    """The uid of the Job that has made a pod."""
    return next(
        (str(o["uid"]) for o in pod["metadata"].get("ownerReferences", []) if o.get("controller")), ""
    )


def uid_of(value: Object) -> str:
    return str(value["metadata"]["uid"])


def name_of(value: Object) -> str:
    return str(value["metadata"]["name"])


def time_of(text: str | None) -> float:
    return datetime.datetime.fromisoformat(text).timestamp() if text else 0.0


# -- Pods --------------------------------------------------------------------------------------------------------


def describe_run(
    jobs: Sequence[Object],
    pods: Sequence[Object],
    events: Sequence[Object],
    logs: Mapping[str, tuple[str, ...]],
) -> tuple[PodStatus, ...]:
    """Every pod of the run, and every Job without one; the aggregator's first, then by site, the newest first."""
    warnings = group_warnings(events)
    by_job: dict[str, list[Object]] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True):
        by_job.setdefault(owner_of(pod), []).append(pod)
    found: list[PodStatus] = []
    for job in sorted(jobs, key=lambda job: (bool(site_of(job)), site_of(job))):
        mine = by_job.get(uid_of(job), [])
        found += [
            describe_pod(pod, job, warnings.get(uid_of(pod), ()), logs.get(name_of(pod), ())) for pod in mine
        ]
        if not mine or is_kept_from_another(job, mine, warnings.get(uid_of(job), ())):
            found.append(describe_job(job, mine, warnings.get(uid_of(job), ())))
    return tuple(found)


def describe_pod(pod: Object, job: Object, events: tuple[str, ...], log: tuple[str, ...]) -> PodStatus:
    ended = terminated(pod)
    phase = PHASES[pod.get("status", {}).get("phase", "Pending")]
    said = waiting_reason(pod) or (blocking(events) if phase == "pending" else "")
    return PodStatus(
        name=name_of(pod),
        site=site_of(job),
        phase=phase,
        since=begin_of(pod, ended),
        reason=tidy_reason(said or failure_reason(pod, ended)),
        node=str(pod["spec"].get("nodeName", "")),
        exit_code=None if ended is None else int(ended.get("exitCode", 0)),
        failures=int(job.get("status", {}).get("failed") or 0),
        log=log,
        events=events[-EVENTS_SHOWN:],
    )


def is_kept_from_another(job: Object, pods: Collection[Object], events: tuple[str, ...]) -> bool:
    """Whether a Job should make another pod for those that have ended, and is warned that it may not."""
    at_work = any(pod.get("status", {}).get("phase") not in ("Succeeded", "Failed") for pod in pods)
    return not at_work and not is_finished(job) and bool(blocking(events))


def describe_job(job: Object, pods: Collection[Object], events: tuple[str, ...]) -> PodStatus:
    """A Job in the place of its pod: what keeps it from making one, or how it ended."""
    end = end_of(job)
    reason = f"{end.get('reason', '')}: {end.get('message', '')}" if end else blocking(events)
    if end is None and job["spec"].get("suspend"):
        reason = reason or "suspended"
    phase: PodPhase = "missing" if end is None else "succeeded" if end["type"] == "Complete" else "failed"
    return PodStatus(
        name=name_of(job),
        site=site_of(job),
        phase=phase,
        since=max(
            [time_of((end or {}).get("lastTransitionTime") or started_at(job))]
            + [begin_of(pod, terminated(pod)) for pod in pods]
        ),
        reason=tidy_reason("" if phase == "succeeded" else reason),
        failures=int(job.get("status", {}).get("failed") or 0),
        events=events[-EVENTS_SHOWN:],
    )


def started_at(job: Object) -> str:
    return str(job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"])


def container_statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def terminated(pod: Object) -> Object | None:
    """How the container ended that decides over its pod: the first that failed, else the last."""
    ends = [
        (entry["name"], entry["state"]["terminated"])
        for entry in container_statuses(pod)
        if (entry.get("state") or {}).get("terminated")
    ]
    failed = next(({**end, "container": name} for name, end in ends if end.get("exitCode")), None)
    if failed is not None or pod.get("status", {}).get("phase") != "Succeeded":
        return failed
    return ends[-1][1] if ends else None


def waiting_reason(pod: Object) -> str:
    """What a container or the scheduler waits for, where that is more than a moment of its start."""
    for entry in container_statuses(pod):
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in TROUBLES:
            return f"{waiting['reason']}: {waiting.get('message') or entry['name']}"
    for condition in conditions(pod):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}"
    return ""


def failure_reason(pod: Object, ended: Object | None) -> str:
    status = pod.get("status", {})
    if status.get("phase") != "Failed":
        return ""
    disruption = next(
        (c for c in conditions(pod) if c["type"] == "DisruptionTarget" and c["status"] == "True"), None
    )
    if disruption is not None:
        said = disruption.get("message") or "its node had to let it go"
        return f"{disruption.get('reason', 'DisruptionTarget')}: {said}"
    if ended is not None:
        return f"{ended['container']} ended with {ended.get('exitCode')} ({ended.get('reason') or 'Error'})"
    return f"{status.get('reason', 'Failed')}: {status.get('message', '')}"


def begin_of(pod: Object, ended: Object | None) -> float:
    status = pod.get("status", {})
    finished = (ended or {}).get("finishedAt")
    return time_of(finished or status.get("startTime") or pod["metadata"]["creationTimestamp"])


# -- Events ------------------------------------------------------------------------------------------------------


def group_warnings(events: Iterable[Object]) -> dict[str, tuple[str, ...]]:
    """What was warned of, by the uid of whom it is about, the latest last: "Reason: message"."""
    grouped: dict[str, list[str]] = {}
    for event in sorted(events, key=event_time):
        said = tidy_reason(f"{event.get('reason', '')}: {event.get('message', '')}")
        about = grouped.setdefault(str(event["involvedObject"].get("uid", "")), [])
        if said in about:
            about.remove(said)
        about.append(said)
    return {uid: tuple(said) for uid, said in grouped.items()}


def event_time(event: Object) -> float:
    series = event.get("series") or {}
    return time_of(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )


def blocking(events: Sequence[str]) -> str:
    """The latest warning that says why a pod does not begin."""
    return next((said for said in reversed(events) if said.partition(":")[0] in EVENT_TROUBLES), "")


# -- What it comes to --------------------------------------------------------------------------------------------


def find_troubles(pods: Collection[PodStatus]) -> list[Trouble]:
    """The pods that do not begin, the aggregator's first."""
    return [
        Trouble(f"{pod.name}: {pod.reason}", pod.since, pod.reason.partition(":")[0] in HOPELESS)
        for pod in pods
        if pod.phase in ("pending", "missing") and pod.reason and pod.reason != "suspended"
    ]


def explain_end(job: Object, pods: Collection[PodStatus]) -> str:
    """Why the aggregator's Job has failed, where its diary does not say: by the Job, its pod and its last words."""
    end = next(
        (c for c in conditions(job) if c["type"] in ("Failed", "FailureTarget") and c["status"] == "True"), {}
    )
    parts = [
        f"the aggregator ended without a result: {end.get('reason', 'Failed')}: {end.get('message', '')}".rstrip(
            ": "
        )
    ]
    last = next((pod for pod in pods if not pod.site and pod.phase == "failed"), None)
    if last is not None:
        parts += [
            part for part in (f"{last.name}: {last.reason}" if last.reason else "", *last.log[-1:]) if part
        ]
    return "; ".join(parts)
