"""Bringing a release to a cluster.

What would hinder is found before anything is applied, and the waiting tells what it waits for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.k8s.kubectl import ReleaseError, get_json, run_kubectl
from infra.k8s.rendering import NAMESPACE, Release, render

LOOK_EVERY_SECONDS = 3.0
STUCK_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
}


def deploy(release: Release, *, timeout_seconds: float, work: Path) -> None:
    """Apply the release and wait until everything runs. Raises ReleaseError naming what does not."""
    answer = run_kubectl("get", "--raw", "/readyz", "--request-timeout=15s")
    if answer.returncode:
        raise ReleaseError(f"the cluster that KUBECONFIG names does not answer: {answer.stderr.strip()}")
    manifests = render(release, work)
    if missing := missing_secrets(manifests):
        raise ReleaseError(
            f"Secrets are missing in the namespace {NAMESPACE}: {', '.join(missing)}. Their keys are those of "
            "infra/k8s/overlays/local/secrets/*.env, which make secrets writes"
        )
    forget_migration(job_of(manifests), image_of_job(manifests))
    applied = run_kubectl("apply", "-f", "-", given=manifests)
    print(applied.stdout, end="", flush=True)
    if applied.returncode:
        raise ReleaseError(applied.stderr.strip())
    wait_until_it_runs(job_of(manifests), timeout_seconds)


def forget_migration(job: str, image: str) -> None:
    """Delete the Job of an earlier attempt at this release where it is in the way.

    One that failed would not run again by being applied again, and one that has run with another image (the same tag of
    another registry, or pinned to another digest) would refuse to be changed.
    """
    there = get_json("-n", NAMESPACE, "get", "job", job, "--ignore-not-found")
    if not there:
        return
    ends = true_conditions(there.get("status", {}))
    ran = {container["image"] for container in there["spec"]["template"]["spec"]["containers"]}
    if "Failed" in ends:
        print(f"job {job} failed before; it is made anew")
    elif "Complete" in ends and ran != {image}:
        print(f"job {job} has run with {', '.join(sorted(ran))}; it is made anew for {image}")
    else:
        return
    deleted = run_kubectl("-n", NAMESPACE, "delete", "job", job, "--wait", "--timeout=120s")
    if deleted.returncode:
        raise ReleaseError(deleted.stderr.strip())


def true_conditions(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["type"]: entry for entry in status.get("conditions", []) if entry["status"] == "True"}


def missing_secrets(manifests: str) -> list[str]:
    """Name the Secrets that pods want, and that neither the manifests nor the cluster have."""
    wanted = set(re.findall(r"secret(?:Ref|KeyRef):\n(?:\s+key: \S+\n)?\s+name: (\S+)", manifests))
    for document in manifests.split("\n---\n"):
        if re.search(r"^kind: Secret$", document, re.M) and (
            name := re.search(r"^  name: (\S+)$", document, re.M)
        ):
            wanted.discard(name[1])
    there = get_json("-n", NAMESPACE, "get", "secrets") if wanted else None
    return sorted(wanted - {item["metadata"]["name"] for item in (there or {}).get("items", [])})


def job_of(manifests: str) -> str:
    return find_in_job(manifests, r"^  name: (\S+)$")


def image_of_job(manifests: str) -> str:
    return find_in_job(manifests, r"^\s+image: (\S+)$")


def find_in_job(manifests: str, line: str) -> str:
    for document in manifests.split("\n---\n"):
        if re.search(r"^kind: Job$", document, re.M) and (found := re.search(line, document, re.M)):
            return found[1]
    raise ReleaseError("the manifests hold no Job that migrates")


def wait_until_it_runs(job: str, timeout_seconds: float) -> None:
    """Wait for the Job that migrates and for every workload, and say whatever changes."""
    deadline, said = time.monotonic() + timeout_seconds, set[str]()
    while True:
        try:
            objects = get_json("-n", NAMESPACE, "get", "deployments,statefulsets,jobs,pods") or {"items": []}
            items = objects["items"]
            waiting = list(unfinished(items, job)) if items else ["nothing is there yet"]
        except ReleaseError as error:  # an API server may be away for a moment
            items, waiting = [], [f"the cluster does not answer: {error}"]
        lines = [*waiting, *stuck_pods(items)]
        for line in lines:
            if line not in said:
                print(f"  {line}", flush=True)
                said.add(line)
        if failed := next((line for line in waiting if line.startswith("failed:")), None):
            raise ReleaseError(f"{failed}; see kubectl -n {NAMESPACE} logs job/{job}")
        if not waiting:
            print(f"everything runs{without_model(items)}")
            return
        if time.monotonic() > deadline:
            raise ReleaseError("\n  ".join([f"after {timeout_seconds:.0f} s not everything runs:", *lines]))
        time.sleep(LOOK_EVERY_SECONDS)


def unfinished(items: Sequence[Mapping[str, Any]], job: str) -> Iterator[str]:
    """Say what is not as it should be; inference may be without a model, so it is not among these."""
    for item in items:
        kind, name, status = item["kind"], item["metadata"]["name"], item.get("status", {})
        if kind == "Job" and name == job:
            conditions = true_conditions(status)
            if "Failed" in conditions:
                yield f"failed: job {name}: {conditions['Failed'].get('message', '')}"
            elif "Complete" not in conditions:
                yield f"job {name} has not migrated yet"
        elif kind in ("Deployment", "StatefulSet") and name != "inference":
            wanted = item["spec"].get("replicas", 1)
            ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
            seen = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
            if not seen or ready < wanted or status.get("replicas", 0) > wanted:
                yield f"{kind.lower()} {name}: {ready} of {wanted} ready"


def stuck_pods(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name the pods that something keeps from starting, and what."""
    for item in items:
        if item["kind"] != "Pod":
            continue
        status = item.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield f"pod {item['metadata']['name']} is not scheduled: {condition.get('message', '')}"
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("reason") in STUCK_REASONS:
                yield f"pod {item['metadata']['name']}: {waiting['reason']}: {waiting.get('message', '')}"


def without_model(items: Sequence[Mapping[str, Any]]) -> str:
    for item in items:
        named = (item["kind"], item["metadata"]["name"])
        if named == ("Deployment", "inference") and not item.get("status", {}).get("readyReplicas"):
            return "; inference waits for the first model, which a training run brings"
    return ""
