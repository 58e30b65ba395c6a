"""The manifests of a run's objects: pure functions of the run's specification and the cluster's settings.

    Job run-12-aggregator     made first, suspended: it owns all the rest, so that deleting it deletes the run
    Secret run-12             the specification, the sites' tokens, the store's token, the held-out samples' address
    Service run-12-aggregator headless: the name that trainers find the aggregator by
    Secret, Job run-12-<site> one site's token and the addresses of its shard, and its trainer

How a container's end is taken (podFailurePolicy; the codes are those of federated/protocol.py):

    the node was drained, or the pod preempted or evicted   not counted, another pod follows
    2 wrong usage or a bad shard, 10 refused for good       the Job has failed: the same would come of it again
    1 of the aggregator                                     the run has failed, and its diary says why
    anything else (11 unreachable, 137 killed, 143 ended)   another pod follows, up to backoffLimit
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from federated.launch.kubernetes import names
from federated.launch.kubernetes.cluster import Resources, TrainingCluster
from federated.launch.local import AGGREGATOR_MEMORY
from federated.presign import presign
from federated.protocol import EXIT_REFUSED, EXIT_USAGE, TOKEN_VARIABLE, TOKENS_VARIABLE, RunSpec
from federated.store import STORE_TOKEN_VARIABLE, STORE_URL_VARIABLE, shard_path

Object = dict[str, Any]

PORT: Final = 9000
PYTHON: Final = (
    "python",
    "-m",
)  # after the image's entry point, which hands signals on and takes exit statuses
USER_ID: Final = 10001  # of our images
EXIT_RUN_FAILED: Final = 1
EVALUATION_SECONDS: Final = 900  # after the rounds' own deadline: evaluation, export, keeping the model
KEEP_SECONDS: Final = (
    7 * 86_400
)  # of ended Jobs that nobody has removed, as of a blog that was taken away meanwhile
AGGREGATOR_RETRIES, TRAINER_RETRIES = 20, 10
# Of the aggregator with a store whose pod is replaced, and of trainers with an aggregator whose pod is: on another
# node, perhaps, with the image to be loaded first.
STORE_PATIENCE_SECONDS, PATIENCE_SECONDS = 300, 900
JOURNAL_DAYS: Final = 14  # of other runs, after something was written there
GRACE_SECONDS: Final = 20
FETCH_RESOURCES: Final = Resources("250m", "192Mi")
FETCH_URL_VARIABLE: Final = "FETCH_URL"
SPEC_KEY, TOKENS_KEY, STORE_TOKEN_KEY, HELDOUT_KEY = "spec.json", "tokens", "store-token", "heldout-url"
TOKEN_KEY, SHARD_KEY, VALIDATION_KEY = "token", "shard-url", "validation-url"
GPU: Final = "nvidia.com/gpu"


def active_seconds(spec: RunSpec) -> int:
    """How long a run's pods may be at work: its rounds, what comes before them, and what comes after."""
    return int(spec.join_deadline_seconds + spec.deadline_seconds + EVALUATION_SECONDS)


def address(spec: RunSpec, digest: str, cluster: TrainingCluster, now: float) -> str:
    """A pre-signed address of a shard, good for as long as a pod of the run may have to fetch it."""
    expires = now + active_seconds(spec) + cluster.pending_seconds
    return presign(spec.store_url, shard_path(digest), cluster.signing_key, expires, now=now)


# -- The run -----------------------------------------------------------------------------------------------------


def make_aggregator_job(spec: RunSpec, cluster: TrainingCluster, *, has_failed: bool = False) -> Object:
    """The aggregator's Job, suspended until all the rest is there; of a run that `has_failed` it goes on."""
    digest = names.spec_digest(spec)
    metadata = {
        "name": names.aggregator_name(spec.run),
        "labels": names.aggregator_labels(spec.run),
        "annotations": {names.DIGEST_ANNOTATION: digest, names.SPEC_ANNOTATION: spec.to_json()},
    }
    pod = make_pod(
        cluster,
        account=names.AGGREGATOR,
        containers=[make_aggregator_container(spec, cluster, has_failed)],
        init_containers=[
            make_fetch_container("fetch-heldout", cluster, spec.run, HELDOUT_KEY, spec.heldout_digest)
        ],
        volumes=[
            {
                "name": "spec",
                "secret": {"secretName": spec.run, "items": [{"key": SPEC_KEY, "path": SPEC_KEY}]},
            },
            {"name": "journals", "persistentVolumeClaim": {"claimName": cluster.journal_claim}},
        ],
    )
    pod["securityContext"] |= {"fsGroup": USER_ID, "fsGroupChangePolicy": "OnRootMismatch"}
    rules = [
        never_count_disruptions(),
        fail_job(EXIT_USAGE, EXIT_REFUSED),
        fail_job(EXIT_RUN_FAILED, of=names.AGGREGATOR),
    ]
    job = make_job(spec, metadata, pod, rules, AGGREGATOR_RETRIES)
    job["spec"]["suspend"] = True
    return job


def make_aggregator_container(spec: RunSpec, cluster: TrainingCluster, has_failed: bool) -> Object:
    folder = names.folder_name(spec.run, names.spec_digest(spec))
    alive = {"httpGet": {"path": "/livez", "port": "http"}, "timeoutSeconds": 5}
    return {
        "name": names.AGGREGATOR,
        "image": cluster.image,
        "args": [
            *PYTHON,
            "federated.aggregator",
            *("--spec", f"/run/huisheng/{SPEC_KEY}"),
            *("--work-dir", f"/journals/{folder}"),
            *("--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104 - its pod's own addresses
            *("--heldout", "/data/heldout.jsonl"),
            "--mirror",
            *("--resumable", *(["--resume-failed"] if has_failed else [])),
            *("--prune-days", str(JOURNAL_DAYS)),
            *("--patience-seconds", str(STORE_PATIENCE_SECONDS)),
        ],
        "env": [
            *make_environment(cluster.aggregator),
            *({"name": name, "value": value} for name, value in AGGREGATOR_MEMORY.items()),
            {"name": STORE_URL_VARIABLE, "value": spec.store_url},
            from_secret(STORE_TOKEN_VARIABLE, spec.run, STORE_TOKEN_KEY),
            from_secret(TOKENS_VARIABLE, spec.run, TOKENS_KEY),
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        # Importing torch and replaying a journal take their time on a slow disk.
        "startupProbe": {**alive, "periodSeconds": 2, "failureThreshold": 300},
        "readinessProbe": {**alive, "periodSeconds": 5},
        "livenessProbe": {**alive, "periodSeconds": 20, "failureThreshold": 6},
        "resources": limit(cluster.aggregator),
        "securityContext": locked_down(),
        "volumeMounts": [
            {"name": "spec", "mountPath": "/run/huisheng", "readOnly": True},
            {"name": "journals", "mountPath": "/journals"},
            {"name": "data", "mountPath": "/data", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def make_run_secret(
    spec: RunSpec, cluster: TrainingCluster, tokens: Mapping[str, str], owner: Object, now: float
) -> Object:
    """What the aggregator knows: of shards only the held-out samples' address."""
    folder = names.folder_name(spec.run, names.spec_digest(spec))
    values = {
        SPEC_KEY: replace(spec, run=folder).to_json(),
        TOKENS_KEY: json.dumps(dict(tokens)),
        STORE_TOKEN_KEY: cluster.store_token,
        HELDOUT_KEY: address(spec, spec.heldout_digest, cluster, now),
    }
    return make_secret(spec, spec.run, names.aggregator_labels(spec.run), values, owner)


def make_service(spec: RunSpec, owner: Object) -> Object:
    """The aggregator's name; there before its pod is ready, since trainers wait for it by their own clock."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned(spec, names.aggregator_name(spec.run), names.aggregator_labels(spec.run), owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.NAME_LABEL: names.AGGREGATOR, names.RUN_LABEL: spec.run},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }


# -- A site ------------------------------------------------------------------------------------------------------


def make_site_secret(
    spec: RunSpec, site: str, cluster: TrainingCluster, token: str, owner: Object, now: float
) -> Object:
    """What a site's trainer knows: its own token, and where its own shard is."""
    part = spec.sites[site]
    values = {
        TOKEN_KEY: token,
        SHARD_KEY: address(spec, part.shard_digest, cluster, now),
        VALIDATION_KEY: address(spec, part.validation_digest, cluster, now),
    }
    return make_secret(
        spec, names.trainer_name(spec.run, site), names.trainer_labels(spec.run, site), values, owner
    )


def make_trainer_job(spec: RunSpec, site: str, cluster: TrainingCluster, owner: Object) -> Object:
    name, labels, part = (
        names.trainer_name(spec.run, site),
        names.trainer_labels(spec.run, site),
        spec.sites[site],
    )
    pod = make_pod(
        cluster,
        account=names.TRAINER,
        containers=[make_trainer_container(spec, site, cluster)],
        init_containers=[
            make_fetch_container("fetch-shard", cluster, name, SHARD_KEY, part.shard_digest),
            make_fetch_container("fetch-validation", cluster, name, VALIDATION_KEY, part.validation_digest),
        ],
        volumes=[],
    )
    others = {names.NAME_LABEL: names.TRAINER, names.RUN_LABEL: spec.run}
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",  # a single node runs everything too
            "labelSelector": {"matchLabels": others},
        }
    ]
    metadata = owned(spec, name, labels, owner)
    metadata["annotations"][names.SITE_ANNOTATION] = site
    rules = [never_count_disruptions(), fail_job(EXIT_USAGE, EXIT_REFUSED)]
    return make_job(spec, metadata, pod, rules, TRAINER_RETRIES)


def make_trainer_container(spec: RunSpec, site: str, cluster: TrainingCluster) -> Object:
    resources = limit(cluster.trainer)
    if cluster.gpus:
        resources["limits"][GPU] = str(cluster.gpus)
    return {
        "name": names.TRAINER,
        "image": cluster.image,
        "args": [
            *PYTHON,
            "federated.trainer",
            *("--aggregator", f"http://{names.aggregator_name(spec.run)}:{PORT}"),
            *("--site", site),
            *("--shard", f"/data/{SHARD_FILE}", "--validation", f"/data/{VALIDATION_FILE}"),
            *("--patience-seconds", str(PATIENCE_SECONDS)),
        ],
        "env": [
            *make_environment(cluster.trainer),
            from_secret(TOKEN_VARIABLE, names.trainer_name(spec.run, site), TOKEN_KEY),
        ],
        "resources": resources,
        "securityContext": locked_down(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


SHARD_FILE, VALIDATION_FILE, HELDOUT_FILE = "shard.jsonl", "validation.jsonl", "heldout.jsonl"
_FILES: Final = {SHARD_KEY: SHARD_FILE, VALIDATION_KEY: VALIDATION_FILE, HELDOUT_KEY: HELDOUT_FILE}


def make_fetch_container(name: str, cluster: TrainingCluster, secret: str, key: str, digest: str) -> Object:
    """What fetches a file to where the pod's own container can only read it."""
    return {
        "name": name,
        "image": cluster.image,
        "args": [*PYTHON, "federated.fetch", "--digest", digest, "--to", f"/data/{_FILES[key]}"],
        "env": [*make_environment(FETCH_RESOURCES), from_secret(FETCH_URL_VARIABLE, secret, key)],
        "resources": limit(FETCH_RESOURCES),
        "securityContext": locked_down(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


# -- Parts -------------------------------------------------------------------------------------------------------


def make_job(spec: RunSpec, metadata: Object, pod: Object, rules: Sequence[Object], retries: int) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": retries,
            "activeDeadlineSeconds": active_seconds(spec),
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "podFailurePolicy": {"rules": list(rules)},
            "template": {"metadata": {"labels": dict(metadata["labels"])}, "spec": pod},
        },
    }


def make_pod(
    cluster: TrainingCluster,
    *,
    account: str,
    containers: Sequence[Object],
    init_containers: Sequence[Object],
    volumes: Sequence[Object],
) -> Object:
    pod: Object = {
        "restartPolicy": "Never",  # podFailurePolicy wants it: the Job makes another pod, perhaps on another node
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": list(init_containers),
        "containers": list(containers),
        "volumes": [
            *volumes,
            {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    if cluster.priority_class:
        pod["priorityClassName"] = cluster.priority_class
    if cluster.node_selector:
        pod["nodeSelector"] = dict(cluster.node_selector)
    if cluster.gpus and (account == names.TRAINER or cluster.node_selector):
        # The aggregator as well: where only nodes with GPUs are selected, it has no other to go to.
        pod["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if cluster.pull_secret:
        pod["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    return pod


def make_secret(
    spec: RunSpec, name: str, labels: Mapping[str, str], values: Mapping[str, str], owner: Object
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned(spec, name, labels, owner),
        "type": "Opaque",
        "immutable": True,
        "stringData": dict(values),
    }


def owned(spec: RunSpec, name: str, labels: Mapping[str, str], owner: Object) -> Object:
    """The metadata of an object that goes when the aggregator's Job goes."""
    return {
        "name": name,
        "labels": dict(labels),
        "annotations": {names.DIGEST_ANNOTATION: names.spec_digest(spec)},
        "ownerReferences": [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
            }
        ],
    }


def never_count_disruptions() -> Object:
    return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def fail_job(*exit_codes: int, of: str = "") -> Object:
    """Of one container, or of any: those that fetch end with the same codes."""
    container = {"containerName": of} if of else {}
    return {"action": "FailJob", "onExitCodes": {**container, "operator": "In", "values": sorted(exit_codes)}}


def locked_down() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def limit(resources: Resources) -> Object:
    return {
        "requests": {"cpu": resources.cpu, "memory": resources.memory},
        "limits": {"cpu": resources.cpu, "memory": resources.memory},
    }


def make_environment(resources: Resources) -> list[Object]:
    """As many threads as processors, and the same number in a pod that follows another: for the same sums."""
    values = {
        "OMP_NUM_THREADS": str(resources.threads()),
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",  # noqa: S108 - a volume of the pod's own; nothing else may be written to
        "TMPDIR": "/tmp",  # noqa: S108
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def from_secret(variable: str, secret: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
