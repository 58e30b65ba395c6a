"""The only door to federated/: shards and artifacts in the store, and the launcher that runs training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from federated.launch import Launcher
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
    "launcher_problem",
    "partition",
    "put_shard",
    "read_report",
    "tabulate",
]


LAUNCHERS = ("local",)


def artifact_store() -> Store:
    return open_store(settings.ARTIFACT_STORE_URL, token=settings.ARTIFACT_STORE_TOKEN)


def launcher_problem() -> str:
    """Say what is wrong with TRAINING_LAUNCHER; empty when nothing is."""
    if settings.TRAINING_LAUNCHER in LAUNCHERS:
        return ""
    return f"TRAINING_LAUNCHER is {settings.TRAINING_LAUNCHER!r}: set it to one of {', '.join(LAUNCHERS)}."


def launcher() -> Launcher:
    """The launcher that TRAINING_LAUNCHER names; raises ImproperlyConfigured for one that is not known."""
    if problem := launcher_problem():
        raise ImproperlyConfigured(problem)
    return LocalLauncher(
        Path(settings.TRAINING_RUNS_DIR),
        secret=settings.SECRET_KEY,
        store_token=settings.ARTIFACT_STORE_RUN_TOKEN or settings.ARTIFACT_STORE_TOKEN,
    )


def put_shard(samples: Iterable[Mapping[str, Any]]) -> str:
    return artifact_store().put_shard(samples)


def read_report(digest: str, name: str) -> bytes:
    return artifact_store().read_report(digest, name)
