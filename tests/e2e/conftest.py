"""The whole system on the cluster that KUBECONFIG names, deployed once for all tests and taken away afterwards.

Settings, from the environment: OVERLAY (local), REGISTRY and TAG of images that the nodes can pull or have, E2E_SECONDS
(a factor for all waits, 1), E2E_KEEP=1 to leave the system standing, E2E_REUSE=1 to use one that stands, E2E_NEXT_TAG
of another release to upgrade to (else the same one with another setting), E2E_ROUNDS of the run in which pods are
killed (200), E2E_NETWORK_POLICIES=0 where the cluster is known not to enforce them. COMPONENTS, OTHER_IMAGES and
SETTINGS reach `make deploy` as they are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.k8s.kubectl import ReleaseError, kubectl_program
from tests.e2e.cluster import Cluster, ClusterError, say
from tests.e2e.system import BLOG, CLUSTER_SCOPED, PATIENCE, TRAINING, System

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(7200 * PATIENCE))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure, how the cluster stands at that moment: nothing of it is left later."""
    report = yield
    if (
        report.failed
        and call.when == "call"
        and os.environ.get("E2E") == "1"
        and Path(__file__).parent in item.path.parents
    ):
        for namespace in (BLOG, TRAINING):
            report.sections.append((f"pods and events of {namespace}", describe_namespace(namespace)))
    return report


def describe_namespace(namespace: str) -> str:
    cluster, told = Cluster(), []
    for what in (["pods", "-o", "wide"], ["events", "--sort-by=.lastTimestamp"]):
        try:
            told.append(cluster.kubectl("get", "-n", namespace, *what, seconds=20)[-6000:])
        except ClusterError as error:
            told.append(str(error))
    return "\n".join(told)


@dataclass
class Story:
    """What has held so far: a test that needs what failed before says so instead of failing for another reason."""

    held: set[str] = field(default_factory=set)

    def tells(self, chapter: str) -> None:
        self.held.add(chapter)

    def needs(self, *chapters: str) -> None:
        missing = [chapter for chapter in chapters if chapter not in self.held]
        if missing:
            pytest.skip(f"needs what failed or was not run: {', '.join(missing)}")


@pytest.fixture(scope="session")
def story() -> Story:
    return Story()


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    if os.environ.get("E2E") != "1":
        pytest.skip("needs a cluster; run `make e2e` with KUBECONFIG set")
    try:
        kubectl_program()
    except ReleaseError as error:
        pytest.fail(str(error))
    cluster = Cluster()
    try:
        say(
            f"cluster: {cluster.kubectl('version', '-o', 'yaml', seconds=20).count('gitVersion')} versions told"
        )
    except ClusterError as error:
        pytest.fail(f"no cluster answers: {error}\nSet KUBECONFIG to one that may be filled and emptied.")
    return cluster


def make(target: str, *arguments: str) -> str:
    """A make target with the settings of this test run; gives its standard output.

    COMPONENTS, OTHER_IMAGES and SETTINGS are in the environment of what make runs, when they are in ours.
    """
    settings = [
        f"{name}={os.environ[name]}" for name in ("OVERLAY", "REGISTRY", "TAG") if os.environ.get(name)
    ]
    done = subprocess.run(
        ["make", "--no-print-directory", "-s", target, *settings, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"KUBECTL": kubectl_program(), "TIMEOUT": f"{900 * PATIENCE:.0f}"},
        check=False,
        timeout=1800 * PATIENCE,
    )
    if done.returncode != 0:
        pytest.fail(
            f"make {target} {' '.join(settings)} ended with {done.returncode}; what it said stands above"
        )
    return done.stdout


@pytest.fixture(scope="session")
def system(cluster: Cluster) -> Iterator[System]:
    """Deploy everything; afterwards nothing of it is left."""
    standing = [name for name in (BLOG, TRAINING) if cluster.kubectl("get", "ns", name, "--ignore-not-found")]
    if standing and os.environ.get("E2E_REUSE") != "1":
        pytest.fail(
            f"the cluster has {', '.join(standing)} already. These tests delete everything in them when they are "
            "done: remove them first, or set E2E_REUSE=1 to test what stands."
        )
    try:
        if not standing:
            deploy_everything(cluster)
        with cluster.forward(BLOG, "service/gateway", 80) as gateway:
            yield System(cluster, gateway)
    finally:
        if os.environ.get("E2E_KEEP") != "1":
            remove_everything(cluster)


def deploy_everything(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "infra/k8s/base/namespaces.yaml")
    make("secrets")
    try:
        make("deploy")
    except pytest.fail.Exception:
        say(describe_namespace(BLOG))
        raise


def remove_everything(cluster: Cluster) -> None:
    """Namespaces go with all that is in them, volumes and runs included."""
    say("removing everything")
    for kind, names in CLUSTER_SCOPED.items():
        wait = ["--ignore-not-found", "--wait=true", "--timeout=900s"]
        cluster.kubectl("delete", kind.lower(), *names, *wait, seconds=920)
