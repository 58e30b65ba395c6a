"""The system under test, through the doors its users have: the gateway, `manage.py` in a worker, kubectl."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from typing import Any

import httpx

from blog_site.demo.browser import VisitFailed, Visitor
from tests.e2e.cluster import Cluster, Forward, NotYet, wait_until

BLOG, TRAINING = "huisheng", "huisheng-training"
# What belongs to no namespace, by kind: all that has to be deleted for nothing to be left.
CLUSTER_SCOPED = {"Namespace": (BLOG, TRAINING), "PriorityClass": ("huisheng-training",)}
PATIENCE = float(os.environ.get("E2E_SECONDS", "1"))
TROUBLE = (httpx.HTTPError, VisitFailed)


def name_of(item: dict[str, Any]) -> str:
    name: str = item["metadata"]["name"]
    return name


def label_of(item: dict[str, Any], label: str) -> str:
    return str(item["metadata"].get("labels", {}).get(label, ""))


@dataclass
class System:
    """The blog behind its gateway."""

    cluster: Cluster
    gateway: Forward
    first_comment: int = 0  # written before there was a model

    # -- As an operator ----------------------------------------------------------------------------------------------

    def worker(self) -> str:
        """The newest worker that is ready: `deploy/worker` may mean one that is on its way out."""

        def look() -> str:
            pods = [
                pod
                for pod in self.cluster.running_pods(BLOG, "app.kubernetes.io/name=worker")
                if all(status["ready"] for status in pod["status"].get("containerStatuses", []))
            ]
            if not pods:
                raise NotYet("none is ready")
            return name_of(max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])))

        return wait_until("a worker", look, 300 * PATIENCE)

    def manage(self, *arguments: str, seconds: float = 180) -> str:
        """`manage.py` in a worker's pod, as docs/operations.md has it."""
        return self.cluster.exec(BLOG, self.worker(), "python", "manage.py", *arguments, seconds=seconds)

    def status(self, run: int | None = None) -> dict[str, Any]:
        chosen = [str(run)] if run is not None else []
        told: dict[str, Any] = json.loads(self.manage("training_status", *chosen, "--json"))
        return told

    def trigger(self, *arguments: str) -> int:
        """Start a run; gives its number."""
        told = self.manage("trigger_training", "--noinput", "--json", "--force", *arguments)
        return int(json.loads(told)["run"])

    def wait_for_run(self, run: int, *states: str, seconds: float) -> dict[str, Any]:
        """Wait until a run is in one of these states; one that has ended otherwise fails at once, with its reason."""
        ended = ("promoted", "refused", "failed")

        def look() -> dict[str, Any]:
            told: dict[str, Any] = self.status(run)["run"]
            if told["state"] in states:
                return told
            assert told["state"] not in ended, f"run {run} ended as {told['state']}: {told['reason']}"
            raise NotYet(f"{told['state']}, round {told['rounds']} {told['reason']}".strip())

        return wait_until(f"run {run} to be {' or '.join(states)}", look, seconds * PATIENCE)

    def wait_for_round(self, run: int, number: int, seconds: float) -> int:
        """Wait until a run has closed so many rounds; gives how many."""

        def look() -> int | None:
            told = self.status(run)["run"]
            assert told["state"] not in ("refused", "failed"), told["reason"]
            if told["rounds"] >= number:
                return int(told["rounds"])
            raise NotYet(f"{told['state']}, round {told['rounds']} {told['reason']}".strip())

        return wait_until(f"round {number} of run {run}", look, seconds * PATIENCE)

    def objects_of_run(self, run: int) -> list[str]:
        """All that a run has on the cluster."""
        kinds = "jobs,pods,services,secrets,configmaps,persistentvolumeclaims"
        items = self.cluster.list(kinds, TRAINING, f"huisheng.io/run=run-{run}")
        return sorted(f"{item['kind']}/{name_of(item)}" for item in items)

    def pods_of_run(self, run: int, role: str) -> str:
        """The selector of a run's pods: role is "aggregator" or "trainer"."""
        return f"huisheng.io/run=run-{run},app.kubernetes.io/name={role}"

    def wait_for_deployment(self, name: str, seconds: float) -> dict[str, Any]:
        """Wait until a deployment runs what its latest revision wants, all of it ready; gives it."""

        def look() -> dict[str, Any]:
            found = self.cluster.get("deployment", BLOG, name)
            if found is None:
                raise NotYet("no such deployment")
            status, wanted = found.get("status", {}), found["spec"].get("replicas", 1)
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            if seen and counts == [wanted] * 3:
                return found
            raise NotYet(f"{counts[1]} updated, {counts[2]} available of {wanted}")

        return wait_until(f"deployment {name}", look, seconds * PATIENCE)

    # -- As people ---------------------------------------------------------------------------------------------------

    def visitor(self) -> Visitor:
        return Visitor(self.gateway.url())

    def sign_up(self) -> Reader:
        """A new reader, with an account of their own."""
        reader = Reader(self, f"reader-{secrets.token_hex(4)}", secrets.token_urlsafe(16))
        with self.visitor() as visitor:
            fields = {"username": reader.name, "password1": reader.password, "password2": reader.password}
            visitor.submit("/sign-up/", fields)
            assert reader.name in visitor.open("/").text, (
                "after signing up, the home page does not greet them"
            )
        return reader


@dataclass
class Reader:
    """Somebody with an account. Signs in anew each time: the way to the gateway may have changed."""

    system: System
    name: str
    password: str

    def comment(self, text: str) -> int:
        """Comment on the first article; gives the comment's number."""
        with self.system.visitor() as visitor:
            visitor.sign_in("/sign-in/", self.name, self.password)
            article = visitor.api("GET", "/api/v1/articles/")["results"][0]["slug"]
            posted = visitor.api("POST", f"/api/v1/articles/{article}/comments/", {"text": text})
            return int(posted["id"])

    def read(self, comment: int) -> dict[str, Any]:
        with self.system.visitor() as visitor:
            found: dict[str, Any] = visitor.api("GET", f"/api/v1/comments/{comment}/")
            return found

    def wait_for_prediction(self, comment: int, seconds: float) -> str:
        """Wait until a comment shows its prediction; gives the sentiment."""

        def look() -> str:
            try:
                prediction = self.read(comment)["prediction"]
            except TROUBLE as error:
                raise NotYet(f"{type(error).__name__}: {str(error)[:200]}") from error
            if prediction is None:
                raise NotYet("no prediction yet")
            return str(prediction["label"])

        return wait_until(f"the prediction of comment {comment}", look, seconds * PATIENCE)
