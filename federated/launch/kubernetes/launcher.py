"""The launcher of a cluster: what is wanted is compared with what is there, and what lacks is made, call by call.

Nothing is remembered between calls and nothing is waited for: after a crash at any point, or beside another worker,
the next call finds in the cluster how far things are. It asks for lists rather than watching: a beat looks every other
second anyway, and a list cannot miss what happened while nobody watched.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Set
from dataclasses import replace
from typing import Final

from federated.launch import LauncherError
from federated.launch.kubernetes import names, state
from federated.launch.kubernetes.api import AlreadyExists, ClusterApi, Missing, Object, connect, describe
from federated.launch.kubernetes.cluster import TrainingCluster
from federated.launch.kubernetes.objects import (
    make_aggregator_job,
    make_run_secret,
    make_service,
    make_site_secret,
    make_trainer_job,
)
from federated.protocol import DIARY, RunSpec, RunStatus, parse_progress
from federated.store import MissingFile, Store

log = logging.getLogger(__name__)

STARTING: Final = b'{"kind": "phase", "phase": "starting"}\n'
LOG_LINES = 5
LOGS_READ = 24  # at most so many pods' logs a look: those in trouble first
KINDS_OF_A_RUN: Final = (
    "Job",
    "Service",
    "Secret",
    "Pod",
)  # in this order: nothing makes anew what is gone already


class KubernetesLauncher:
    """Runs are Jobs of one namespace; their journals are on a volume, their diaries in the store."""

    def __init__(
        self, cluster: TrainingCluster, store: Store, secret: str, api: ClusterApi | None = None
    ) -> None:
        """Tokens are made of the run's and the site's name with `secret`; `api` is connected to when first needed."""
        self._cluster = cluster
        self._store = store
        self._secret = secret.encode()
        self._connected = api

    @property
    def _api(self) -> ClusterApi:
        if self._connected is None:
            self._connected = connect(self._cluster.namespace)
        return self._connected

    # -- Starting ------------------------------------------------------------------------------------------------

    def start(self, spec: RunSpec) -> None:
        """Make the run's objects, or those that lack; the aggregator's Job is let go last, and marks a whole run."""
        names.check_run(spec.run)
        owner = self._api.get("Job", names.aggregator_name(spec.run))
        if owner is None:
            has_failed = parse_progress(self._read_diary(spec)).phase == "failed"
            owner = self._create(make_aggregator_job(spec, self._cluster, has_failed=has_failed), spec)
        else:
            check_ours(owner, spec)
        self._complete(spec, owner)
        if owner["spec"].get("suspend"):
            self._reopen_diary(spec)
            self._let_go(owner)

    def _let_go(self, owner: Object) -> None:
        name = state.name_of(owner)
        try:
            self._api.patch("Job", name, {"spec": {"suspend": False}})
        except Missing as error:  # deleted by hand just now: the next call begins anew
            raise LauncherError(f"Job {name} is gone while it was being started", permanent=False) from error
        log.info("%s: started in namespace %s", name, self._api.namespace)

    def _complete(self, spec: RunSpec, owner: Object) -> None:
        """Make what the run lacks, the aggregator's Job being there."""
        cluster, now = self._cluster, time.time()
        present = {
            (kind, state.name_of(found))
            for kind in ("Secret", "Service", "Job")
            for found in self._api.list(kind, labels=names.run_selector(spec.run))
            if is_owned_by(found, owner)
        }
        tokens = {site: self._token(spec.run, site) for site in spec.sites}
        wanted = [make_run_secret(spec, cluster, tokens, owner, now), make_service(spec, owner)]
        for site in spec.sites:
            wanted.append(make_site_secret(spec, site, cluster, tokens[site], owner, now))
            wanted.append(make_trainer_job(spec, site, cluster, owner))
        for manifest in wanted:
            if (manifest["kind"], state.name_of(manifest)) not in present:
                self._create(manifest, spec, owner)

    def _create(self, manifest: Object, spec: RunSpec, owner: Object | None = None) -> Object:
        """Create an object, or find that another worker has; what has its name and is not of this run is an error."""
        try:
            return self._api.create(manifest)
        except AlreadyExists:
            found = self._api.get(manifest["kind"], state.name_of(manifest))
        if found is None or (owner is not None and not is_owned_by(found, owner) and is_of(found, spec)):
            # Left of the same run before it was stopped, or its Jobs deleted: the cluster removes it by and by.
            raise LauncherError(f"an earlier {describe(manifest)} is still being removed", permanent=False)
        check_ours(found, spec)
        return found

    def _reopen_diary(self, spec: RunSpec) -> None:
        """Let a run that failed, and is started again, not be taken for failed by what its diary ends with.

        The aggregator does the same with its own, and copies that to the store from then on.
        """
        diary = self._read_diary(spec)
        if parse_progress(diary).phase == "failed":
            whole = diary[: diary.rfind(b"\n") + 1]
            self._store.put_run_file(folder_of(spec), DIARY, whole + STARTING)

    def _read_diary(self, spec: RunSpec) -> bytes:
        try:
            return self._store.read_run_file(folder_of(spec), DIARY)
        except MissingFile:
            return b""

    def _token(self, run: str, site: str) -> str:
        return hmac.new(self._secret, f"{run}/{site}".encode(), hashlib.sha256).hexdigest()

    def heal(self, run: str) -> None:
        """Make anew what somebody has deleted of a run under way; pods that die are the Jobs' own concern."""
        owner = self._api.get("Job", names.aggregator_name(run))
        if owner is None or is_going(owner) or owner["spec"].get("suspend") or state.is_finished(owner):
            return  # "absent" to whoever asks for its status, who then starts it; or over
        spec = read_spec(owner)
        if self._diary(run, owner).phase in ("evaluating", "done", "failed"):
            return  # trainers have done their work
        self._complete(spec, owner)

    def resume(self, run: str) -> bool:
        """Remove what is left of a run that has ended, so that it can be started again on the same journal."""
        owner = self._api.get("Job", names.aggregator_name(run))
        if (
            owner is not None
            and not is_going(owner)
            and not state.has_failed(owner)
            and not state.is_finished(owner)
        ):
            return self._diary(run, owner).phase != "failed" or self.stop(run)
        return self.stop(run)

    # -- Ending --------------------------------------------------------------------------------------------------

    def stop(self, run: str) -> bool:
        """Delete everything of a run; says whether nothing was left of it already."""
        left = self._left_of(run)
        for found in left:
            if not is_going(found):
                self._api.delete(found)
        if left:
            log.info("%s: %d objects are being removed", run, len(left))
        return not left

    def _left_of(self, run: str) -> list[Object]:
        selector = names.run_selector(run)
        return [found for kind in KINDS_OF_A_RUN for found in self._api.list(kind, labels=selector)]

    def runs(self) -> Set[str]:
        """The runs that objects are left of, orphans among them."""
        return {
            str(found["metadata"]["labels"][names.RUN_LABEL])
            for kind in KINDS_OF_A_RUN
            for found in self._api.list(kind, labels=names.ANY_RUN)
        }

    # -- Looking -------------------------------------------------------------------------------------------------

    def status(self, run: str) -> RunStatus:
        """Where a run stands, by its diary and its Jobs: the diary tells of the run, the Jobs of its death."""
        selector = names.run_selector(run)
        jobs = self._api.list("Job", labels=selector)
        owner = next((job for job in jobs if state.name_of(job) == names.aggregator_name(run)), None)
        if owner is None or is_going(owner) or owner["spec"].get("suspend"):
            return RunStatus("absent")
        pods = state.describe_run(jobs, *self._look(selector))
        # After the Jobs: what the aggregator said before it ended is in the diary by now.
        status = replace(self._diary(run, owner), pods=pods)
        troubles = state.find_troubles(pods)
        if status.phase == "done":
            return status
        if status.phase == "failed":
            return replace(
                status, reason="; ".join([status.reason, *(trouble.what for trouble in troubles[:3])])
            )
        if state.is_finished(owner):
            return replace(status, phase="failed", reason=state.explain_end(owner, pods))
        if reason := self._given_up(status, troubles):
            return replace(status, phase="failed", reason=reason)
        return replace(
            status, reason="; ".join(filter(None, [status.reason, *(t.what for t in troubles[:3])]))
        )

    def _look(self, selector: str) -> tuple[list[Object], list[Object], dict[str, tuple[str, ...]]]:
        pods = self._api.list("Pod", labels=selector)
        events = self._api.list("Event", fields="type=Warning")
        by_urgency = sorted(pods, key=lambda pod: pod.get("status", {}).get("phase") != "Failed")
        logs = {}
        for pod in by_urgency[:LOGS_READ]:
            container = next((name for name in started_containers(pod)), "")
            if container:
                logs[state.name_of(pod)] = self._api.read_log(state.name_of(pod), container, LOG_LINES)
        return pods, events, logs

    def _given_up(self, status: RunStatus, troubles: list[state.Trouble]) -> str:
        """Why the run is not waited for any longer: the aggregator, or every site, cannot begin. Else empty."""
        stuck = [
            trouble
            for trouble in troubles
            if trouble.hopeless or time.time() - trouble.since > self._cluster.pending_seconds
        ]
        in_trouble = {trouble.what.partition(":")[0] for trouble in stuck}
        aggregator = any(pod.name in in_trouble for pod in status.pods if not pod.site)
        sites = {pod.site for pod in status.pods if pod.site}
        idle = {pod.site for pod in status.pods if pod.site and pod.name in in_trouble}
        if not stuck or not (aggregator or idle == sites):
            return ""
        waited = "" if stuck[0].hopeless else f" (waited {self._cluster.pending_seconds:.0f} s)"
        return f"pods that cannot begin{waited}: " + "; ".join(trouble.what for trouble in stuck[:3])

    def _diary(self, run: str, owner: Object) -> RunStatus:
        folder = names.folder_name(run, owner["metadata"]["annotations"][names.DIGEST_ANNOTATION])
        try:
            return parse_progress(self._store.read_run_file(folder, DIARY))
        except MissingFile:
            return RunStatus("starting")


def folder_of(spec: RunSpec) -> str:
    return names.folder_name(spec.run, names.spec_digest(spec))


def is_going(found: Object) -> bool:
    """Whether it is deleted already, and only its pods are still being ended."""
    return "deletionTimestamp" in found["metadata"]


def is_owned_by(found: Object, owner: Object) -> bool:
    owners = found["metadata"].get("ownerReferences", [])
    return state.uid_of(found) == state.uid_of(owner) or any(o["uid"] == state.uid_of(owner) for o in owners)


def is_of(found: Object, spec: RunSpec) -> bool:
    annotations = found["metadata"].get("annotations", {})
    return bool(annotations.get(names.DIGEST_ANNOTATION) == names.spec_digest(spec))


def check_ours(found: Object, spec: RunSpec) -> None:
    """Raise LauncherError unless the object was made for this very run."""
    if is_going(found):
        raise LauncherError(f"an earlier {describe(found)} is still being removed", permanent=False)
    if not is_of(found, spec):
        raise LauncherError(
            f"{describe(found)} was made for another run of that name, such as one of a database that was restored or "
            f"made anew since: delete it (kubectl delete jobs,secrets,services -l {names.RUN_LABEL}={spec.run}) and "
            "start the run again",
            permanent=True,
        )


def read_spec(owner: Object) -> RunSpec:
    """The specification that the aggregator's Job was made by."""
    return RunSpec.from_json(owner["metadata"]["annotations"][names.SPEC_ANNOTATION])


def started_containers(pod: Object) -> list[str]:
    """The containers that have written a log, the one to look at first: a failed one, else the latest to begin."""
    begun = [
        (entry["name"], entry.get("state") or {})
        for entry in state.container_statuses(pod)
        if {"running", "terminated"} & set(entry.get("state") or {})
    ]
    failed = [name for name, said in begun if (said.get("terminated") or {}).get("exitCode")]
    return failed + [name for name, _said in reversed(begun) if name not in failed]
