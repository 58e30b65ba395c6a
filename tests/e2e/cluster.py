"""A cluster as an operator reaches it: kubectl, with progress shown while something is waited for."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from infra.k8s.kubectl import REPOSITORY, kubectl_program

LOOK_EVERY_SECONDS = 2.0
T = TypeVar("T")


class ClusterError(Exception):
    """kubectl failed; the text holds the command and what it said."""


class WaitedInVain(AssertionError):
    """Something did not come true in time; the text says what, and what was seen last."""


def say(text: str) -> None:
    """Tell whoever watches; `make e2e` does not capture what tests print."""
    print(f"    {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def wait_until(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """Look until there is something to see; says how it stands whenever that changes.

    `look` gives what was waited for, or None; or raises NotYet with what it saw instead. An API server or a port that
    is away for a moment counts as nothing seen.
    """
    began, said, seen = time.monotonic(), "", ""
    while True:
        try:
            found = look()
        except (NotYet, ClusterError) as error:
            found, seen = None, str(error)
        if found is not None:
            return found
        spent = time.monotonic() - began
        if spent > seconds:
            raise WaitedInVain(f"waited {seconds:.0f} s in vain for {what}; seen last: {seen or 'nothing'}")
        if seen != said or not said:
            say(f"waiting for {what}{f': {seen}' if seen else ''} ({spent:.0f} s)")
            said = seen or "nothing"
        time.sleep(LOOK_EVERY_SECONDS)


class NotYet(Exception):
    """What is there instead of what is waited for."""


@dataclass
class Cluster:
    """The cluster that KUBECONFIG names."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def kubectl(self, *arguments: str, given: str | None = None, seconds: float = 120) -> str:
        """Run kubectl; gives its output, raises ClusterError with its complaint."""
        command = [kubectl_program(), f"--request-timeout={seconds:.0f}s", *arguments]
        try:
            done = subprocess.run(
                command,
                input=given,
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=seconds + 10,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{' '.join(command)}: no end after {seconds + 10:.0f} s") from error
        if done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()[-1500:]}")
        return done.stdout

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, or None when there is no such one."""
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects that a label selector picks."""
        chosen = ["-l", selector] if selector else []
        text = self.kubectl("get", kind, "-n", namespace, "-o", "json", *chosen)
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def running_pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Pods that run and are not on their way out."""
        return [
            pod
            for pod in self.list("pods", namespace, selector)
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def kill_pod(self, namespace: str, selector: str) -> str:
        """Delete one pod that runs, without grace; gives the uid of it."""
        pod = wait_until(
            f"a running pod {selector}",
            lambda: next(iter(self.running_pods(namespace, selector)), None),
            180,
        )
        name = pod["metadata"]["name"]
        say(f"killing {name}")
        self.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force", "--wait=false")
        uid: str = pod["metadata"]["uid"]
        return uid

    def exec(self, namespace: str, target: str, *command: str, given: str = "", seconds: float = 120) -> str:
        """Run a command in a pod, or in one of a deployment's ("deploy/worker")."""
        return self.kubectl(
            "exec", "-i", "-n", namespace, target, "--", *command, given=given, seconds=seconds
        )

    @contextlib.contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[Forward]:
        """A port of this machine that leads to a port of a service; it is opened anew when it breaks."""
        forward = Forward(namespace, target, port)
        try:
            yield forward
        finally:
            forward.close()


class Forward:
    """A `kubectl port-forward` that is started again whenever it has ended, such as when its pod was killed."""

    def __init__(self, namespace: str, target: str, port: int) -> None:
        self._command = [
            kubectl_program(),
            "port-forward",
            "-n",
            namespace,
            target,
            f":{port}",
            "--address",
            "127.0.0.1",
        ]
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self._lock = threading.Lock()

    def url(self) -> str:
        """The address at present; it changes when the way had to be opened anew."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._open()
            return f"http://127.0.0.1:{self._port}"

    def _open(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # "Forwarding from 127.0.0.1:40123 -> 8080", or the end
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found is None:
            assert self._process.stderr is not None
            self._process.kill()
            raise ClusterError(f"{' '.join(self._command)}: {self._process.stderr.read()[-500:]}")
        self._port = int(found[1])
        # What it says of every connection would fill the pipes and stop it.
        for stream in (self._process.stdout, self._process.stderr):
            threading.Thread(target=stream.read, daemon=True).start()

    def close(self) -> None:
        """End it."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                self._process.wait(10)
