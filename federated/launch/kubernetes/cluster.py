"""Where and how a cluster runs training, as an operator sets it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
KUBECONFIG_VARIABLE: Final = "KUBECONFIG"
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True)
class Resources:
    """What a container asks for and may use at most, as Kubernetes quantities."""

    cpu: str  # e.g. "1", "500m"
    memory: str  # e.g. "1Gi"

    def threads(self) -> int:
        """As many threads as there are whole processors, at least one."""
        millis = float(self.cpu[:-1]) if self.cpu.endswith("m") else float(self.cpu) * 1000
        return max(1, int(millis / 1000))


@dataclass(frozen=True)
class TrainingCluster:
    """Everything about training that belongs to the cluster, not to the run."""

    namespace: str
    image: str  # holds aggregator, trainer and fetch
    store_token: str = field(repr=False)  # the aggregators' own, which reads no shard
    signing_key: str = field(repr=False)  # of addresses to single shards
    journal_claim: str = "journals"
    priority_class: str = "huisheng-training"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0  # of each trainer
    pull_secret: str = ""
    trainer: Resources = Resources("1", "1Gi")
    aggregator: Resources = Resources("1", "1Gi")
    pending_seconds: float = 600  # so long may a pod not get an image or a node, before the run is given up


def problem_of(cluster: TrainingCluster, store_url: str) -> str:
    """Say what is missing or wrong, by the names of the settings; empty when nothing is."""
    wanted = {
        "TRAINER_IMAGE": cluster.image,
        "TRAINING_NAMESPACE": cluster.namespace,
        "TRAINING_JOURNAL_CLAIM": cluster.journal_claim,
        "ARTIFACT_STORE_RUN_TOKEN": cluster.store_token,
        "ARTIFACT_STORE_SIGNING_KEY": cluster.signing_key,
    }
    if missing := [name for name, value in wanted.items() if not value]:
        return f"TRAINING_LAUNCHER is 'kubernetes', which needs {', '.join(missing)}: set what is missing."
    if urlsplit(store_url).scheme not in ("http", "https"):
        return (
            f"ARTIFACT_STORE_URL is {store_url!r}: pods reach a store over HTTP only, set it to one such as "
            "http://store.huisheng.svc:8080."
        )
    quantities = {
        "TRAINER_CPU": cluster.trainer.cpu,
        "TRAINER_MEMORY": cluster.trainer.memory,
        "AGGREGATOR_CPU": cluster.aggregator.cpu,
        "AGGREGATOR_MEMORY": cluster.aggregator.memory,
    }
    for name, value in quantities.items():
        if not _QUANTITY.fullmatch(value) or (name.endswith("CPU") and not re.fullmatch(r"[0-9.]+m?", value)):
            return f"{name} is {value!r}: set it to a quantity such as {'500m' if name.endswith('CPU') else '1Gi'}."
    for key, value in cluster.node_selector.items():
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            return f"TRAINING_NODE_SELECTOR wants {key!r} to be {value!r}: set it to a label's value."
    return ""


def is_within_reach() -> bool:
    """Whether this process may speak to a cluster: its pod has a token, or KUBECONFIG names a file.

    Pods that serve pages have neither, so that whoever breaks into one finds no way on.
    """
    return SERVICE_ACCOUNT_TOKEN.exists() or any(
        Path(path).exists() for path in os.environ.get(KUBECONFIG_VARIABLE, "").split(os.pathsep) if path
    )
