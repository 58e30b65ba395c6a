"""A cluster of the tests' own, a store in a folder, and a run of three sites for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from federated.launch.kubernetes import names
from federated.launch.kubernetes.api import ClusterApi
from federated.launch.kubernetes.cluster import Resources, TrainingCluster
from federated.launch.kubernetes.launcher import KubernetesLauncher
from federated.protocol import DIARY, RunSpec, RunStatus, SiteSpec
from federated.store import FolderStore
from tests.cluster.api_server import ApiServer
from tests.cluster.controllers import Controllers
from tests.cluster.objects import Object

NAMESPACE = "huisheng-training"
STORE_URL = "http://store.huisheng.svc:8080"
SITES = ("food", "旅行", "books-and-a-name-that-is-longer-than-any-object-may-have-in-it")


def make_cluster(**changes: Any) -> TrainingCluster:
    fields: dict[str, Any] = {
        "namespace": NAMESPACE,
        "image": "registry:5000/huisheng-trainer:1",
        "store_token": "only-for-runs",
        "signing_key": "signs-addresses",
        "trainer": Resources("500m", "1Gi"),
        "aggregator": Resources("2", "1Gi"),
    }
    return TrainingCluster(**(fields | changes))


def make_spec(run: str = "run-12", **changes: Any) -> RunSpec:
    sites = {
        site: SiteSpec(f"{number:x}" * 64, 60, f"{number + 3:x}" * 64, 12)
        for number, site in enumerate(SITES, start=1)
    }
    fields: dict[str, Any] = {
        "run": run,
        "store_url": STORE_URL,
        "sites": sites,
        "heldout_digest": "e" * 64,
        "champion_digest": None,
        "rounds": 30,
        "deadline_seconds": 600,
        "planned_at": "2026-01-02T03:04:05+00:00",
    }
    return RunSpec(**(fields | changes))


@dataclass
class Training:
    """A launcher, the cluster it speaks to, and what that cluster's controllers do when a test says so."""

    api: ApiServer
    controllers: Controllers
    store: FolderStore
    spec: RunSpec = field(default_factory=make_spec)
    cluster: TrainingCluster = field(default_factory=make_cluster)

    @property
    def launcher(self) -> KubernetesLauncher:
        """Another one at each look, as another worker's: nothing is remembered between calls."""
        return KubernetesLauncher(
            self.cluster, self.store, "secret", ClusterApi(self.api.client(), self.cluster.namespace)
        )

    def start(self) -> None:
        self.launcher.start(self.spec)
        self.controllers.step()

    def run_pods(self) -> None:
        """Let every pod that waits begin."""
        for pod in self.api.objects.all("pods"):
            if pod["status"]["phase"] == "Pending":
                self.controllers.start_pod(pod)
        self.controllers.step()

    def status(self) -> RunStatus:
        return self.launcher.status(self.spec.run)

    def aggregator_pod(self) -> Object:
        return self.controllers.pod(names.aggregator_name(self.spec.run))

    def trainer_pod(self, site: str) -> Object:
        return self.controllers.pod(names.trainer_name(self.spec.run, site))

    def write_diary(self, *lines: str) -> None:
        folder = names.folder_name(self.spec.run, names.spec_digest(self.spec))
        self.store.put_run_file(folder, DIARY, "".join(line + "\n" for line in lines).encode())

    def objects(self) -> list[str]:
        """Everything there is in the namespace but pods, whose names nobody chooses."""
        return [name for name in self.api.objects.names(NAMESPACE) if not name.startswith("pods/")]

    def whole(self) -> list[str]:
        """What the run's objects are called when it is whole."""
        run, sites = self.spec.run, [names.trainer_name(self.spec.run, site) for site in self.spec.sites]
        jobs = [f"jobs/{name}" for name in (names.aggregator_name(run), *sites)]
        secrets = [f"secrets/{name}" for name in (run, *sites)]
        return sorted([*jobs, *secrets, f"services/{names.aggregator_name(run)}"])


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    with ApiServer() as api:
        yield Training(api, Controllers(api), FolderStore(tmp_path / "store"))
