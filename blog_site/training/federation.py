"""The only door to federated/: shards and artifacts in the store, and the launcher that runs training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from federated.launch import Launcher, LauncherError
from federated.launch.kubernetes.cluster import Resources, TrainingCluster, is_within_reach, problem_of
from federated.launch.local import LocalLauncher
from federated.partition import WAYS, draw_partition, partition, tabulate
from federated.protocol import (
    TOKENIZERS,
    TRAINING_CHOICES,
    RoundRecord,
    RunSpec,
    RunStatus,
    SiteSpec,
    configure_training,
)
from federated.store import MissingFile, Store, StoreError, open_store

__all__ = [
    "TOKENIZERS",
    "TRAINING_CHOICES",
    "WAYS",
    "Launcher",
    "LauncherError",
    "MissingFile",
    "RoundRecord",
    "RunSpec",
    "RunStatus",
    "SiteSpec",
    "StoreError",
    "artifact_store",
    "configure_training",
    "draw_partition",
    "launcher",
    "launcher_in_reach",
    "launcher_problem",
    "partition",
    "put_shard",
    "read_report",
    "tabulate",
]


LAUNCHERS = ("local", "kubernetes")


def artifact_store() -> Store:
    return open_store(settings.ARTIFACT_STORE_URL, token=settings.ARTIFACT_STORE_TOKEN)


def launcher_problem() -> str:
    """Say what is wrong with TRAINING_LAUNCHER; empty when nothing is."""
    if settings.TRAINING_LAUNCHER not in LAUNCHERS:
        return (
            f"TRAINING_LAUNCHER is {settings.TRAINING_LAUNCHER!r}: set it to one of {', '.join(LAUNCHERS)}."
        )
    if settings.TRAINING_LAUNCHER == "kubernetes":
        return problem_of(training_cluster(), settings.ARTIFACT_STORE_URL)
    return ""


def launcher_in_reach() -> bool:
    """Whether this process may start and stop what trains: on a cluster only a worker's may."""
    return settings.TRAINING_LAUNCHER != "kubernetes" or is_within_reach()


def training_cluster() -> TrainingCluster:
    """Where and how a cluster runs training, by the settings."""
    return TrainingCluster(
        namespace=settings.TRAINING_NAMESPACE,
        image=settings.TRAINER_IMAGE,
        store_token=settings.ARTIFACT_STORE_RUN_TOKEN,
        signing_key=settings.ARTIFACT_STORE_SIGNING_KEY,
        journal_claim=settings.TRAINING_JOURNAL_CLAIM,
        priority_class=settings.TRAINING_PRIORITY_CLASS,
        node_selector=settings.TRAINING_NODE_SELECTOR,
        gpus=settings.TRAINING_GPUS,
        pull_secret=settings.TRAINING_IMAGE_PULL_SECRET,
        trainer=Resources(settings.TRAINER_CPU, settings.TRAINER_MEMORY),
        aggregator=Resources(settings.AGGREGATOR_CPU, settings.AGGREGATOR_MEMORY),
        pending_seconds=settings.TRAINING_PENDING_SECONDS,
    )


def launcher() -> Launcher:
    """The launcher that TRAINING_LAUNCHER names; raises ImproperlyConfigured for one that is not known."""
    if problem := launcher_problem():
        raise ImproperlyConfigured(problem)
    if settings.TRAINING_LAUNCHER == "kubernetes":
        # Here and not above: the client takes a second to import, which only a worker needs to spend.
        from federated.launch.kubernetes.launcher import KubernetesLauncher

        return KubernetesLauncher(training_cluster(), artifact_store(), secret=settings.SECRET_KEY)
    return LocalLauncher(
        Path(settings.TRAINING_RUNS_DIR),
        secret=settings.SECRET_KEY,
        store_token=settings.ARTIFACT_STORE_RUN_TOKEN or settings.ARTIFACT_STORE_TOKEN,
    )


def put_shard(samples: Iterable[Mapping[str, Any]]) -> str:
    return artifact_store().put_shard(samples)


def read_report(digest: str, name: str) -> bytes:
    return artifact_store().read_report(digest, name)
