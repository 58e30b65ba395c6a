"""Pods of the tests' own beside the system: what they ask goes the way of every other pod, through Services."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import NotYet, wait_until
from tests.e2e.system import BLOG, PATIENCE, System, name_of

INSIDE = Path(__file__).parent / "inside"
Object = dict[str, Any]


@contextlib.contextmanager
def client_pods(system: System, names: Sequence[str], command: Sequence[str]) -> Iterator[list[str]]:
    """Pods that run a command and may ask everything; gives their names when they run."""
    deployment = system.cluster.get("deployment", BLOG, "inference")
    assert deployment is not None
    objects = [*allow_clients(), *(make_client(name, deployment, command) for name in names)]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    try:
        system.cluster.kubectl("apply", "-f", "-", given=document)

        def look() -> list[str]:
            pods = system.cluster.running_pods(BLOG, "huisheng.io/test=client")
            running = {name_of(pod) for pod in pods}
            if missing := set(names) - running:
                raise NotYet(f"{', '.join(sorted(missing))} does not run")
            return list(names)

        yield wait_until("the tests' own pods", look, 300 * PATIENCE)
    finally:
        system.cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--grace-period=1", given=document)


def allow_clients() -> list[Object]:
    """Both ways of the client pods to the service, beside the policies that the system has."""
    client = {"matchLabels": {"huisheng.io/test": "client"}}
    service = {"matchLabels": {"app.kubernetes.io/name": "inference"}}
    return [
        make_policy("test-client", {"podSelector": client, "policyTypes": ["Egress"], "egress": [{}]}),
        make_policy(
            "test-service",
            {
                "podSelector": service,
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": client}]}],
            },
        ),
    ]


def make_policy(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": BLOG},
        "spec": spec,
    }


def make_client(name: str, deployment: Object, command: Sequence[str]) -> Object:
    """A pod of the inference image, which the nodes have, with the token that the service wants."""
    template = deployment["spec"]["template"]["spec"]
    container = template["containers"][0]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": BLOG,
            "labels": {"huisheng.io/test": "client", "app.kubernetes.io/name": "test-client"},
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": template[
                "serviceAccountName"
            ],  # which brings a private registry's credentials
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": template["securityContext"],
            "containers": [
                {
                    "name": "client",
                    "image": container["image"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(command),
                    "envFrom": container["envFrom"],
                    "securityContext": container["securityContext"],
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "64Mi"},
                        "limits": {"memory": "256Mi"},
                    },
                }
            ],
        },
    }


@dataclass
class Traffic:
    """A pod that opens a page and asks the inference service all the while."""

    system: System
    pod: str

    def told(self) -> list[dict[str, Any]]:
        text = self.system.cluster.kubectl("logs", self.pod, "-n", BLOG)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def visits(self) -> int:
        """How many requests were answered well until now."""
        counts = [line["answered"] for line in self.told() if "answered" in line]
        return int(counts[-1]) if counts else 0

    def failures(self) -> list[str]:
        """What went wrong; waits until the counts say that the pod still asks."""
        before = self.visits()

        def look() -> bool:
            if self.visits() <= before:
                raise NotYet("nothing was answered since")
            return True

        wait_until("the traffic to go on", look, 60 * PATIENCE)
        return [line["failed"] for line in self.told() if "failed" in line]


@contextlib.contextmanager
def steady_traffic(system: System) -> Iterator[Traffic]:
    program = (INSIDE / "visit_steadily.py").read_text(encoding="utf-8")
    asked = [f"http://gateway.{BLOG}.svc/"]
    if system.status()["champion"]:
        asked.append(f"http://inference.{BLOG}.svc:8100/v1/predict")
    with client_pods(system, ["traffic"], ["python", "-c", program, *asked]) as (pod,):
        traffic = Traffic(system, pod)

        def look() -> bool:
            if not traffic.visits():
                raise NotYet("nothing was answered yet")
            return True

        wait_until("the first answers", look, 60 * PATIENCE)
        yield traffic
