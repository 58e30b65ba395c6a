"""A node of one machine: runs the pods of the fake cluster as real processes, with their environment and volumes.

What a container sees is mapped, not isolated: its volumes' mount paths become folders here (in its arguments and
environment), the Services that it names become loopback addresses, one for each Service, and `python` is this one.
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

from tests.cluster.api_server import ApiServer
from tests.cluster.controllers import TERMINAL, Controllers, container_status, ready_conditions
from tests.cluster.objects import Object

ROOT = Path(__file__).resolve().parents[2]
# Nothing else of this process's environment reaches a container.
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH")
EVERYWHERE = "0.0.0.0"


@dataclass
class Sandbox:
    """One pod at work: which of its containers runs, and how those before it ended."""

    pod: Object
    folder: Path
    waiting: list[Object]  # containers still to run, the init containers first
    ended: dict[str, int] = field(default_factory=dict)  # container → exit status
    running: str = ""
    process: subprocess.Popen[bytes] | None = None
    told_to_end: float | None = None  # monotonic


class Kubelet:
    """Runs what pods there are, a step at each `sync`."""

    def __init__(self, api: ApiServer, controllers: Controllers, root: Path) -> None:
        """`root` is where volumes, claims and logs are kept."""
        controllers.node_ends_pods = False
        self.api, self.controllers, self.root = api, controllers, root
        self._sandboxes: dict[str, Sandbox] = {}  # by the pod's uid
        self._addresses: dict[str, str] = {}  # Service → loopback address
        # Of this process alone: several runs of the tests may go on beside each other.
        net = os.getpid() % 60_000
        self._free_addresses = (f"127.{1 + net // 250}.{net % 250}.{host}" for host in itertools.count(2))

    def sync(self) -> None:
        """Let the controllers look around, and every pod get one step further."""
        self.controllers.step()
        for pod in self.api.objects.all("pods"):
            sandbox = self._sandboxes.get(pod["metadata"]["uid"])
            if "deletionTimestamp" in pod["metadata"]:
                self._end(pod, sandbox)
            elif sandbox is None and pod["status"]["phase"] not in TERMINAL:
                self._begin(pod)
            elif sandbox is not None:
                self._advance(sandbox)
        self.controllers.step()

    def kill(self, pod: Object, number: int = signal.SIGKILL) -> None:
        """Kill a pod's running container, as the kernel does when memory is short."""
        process = self._sandboxes[pod["metadata"]["uid"]].process
        assert process is not None, f"{pod['metadata']['name']} runs nothing"
        process.send_signal(number)
        process.wait(timeout=20)

    def is_running(self, pod: Object, container: str) -> bool:
        sandbox = self._sandboxes.get(pod["metadata"]["uid"])
        return sandbox is not None and sandbox.running == container

    def close(self) -> None:
        for sandbox in self._sandboxes.values():
            if sandbox.process is not None and sandbox.process.poll() is None:
                sandbox.process.kill()
                sandbox.process.wait(timeout=20)

    # -- One pod -----------------------------------------------------------------------------------------------------

    def _begin(self, pod: Object) -> None:
        pod = self.controllers._bind(pod, "node-1")
        folder = self.root / "pods" / pod["metadata"]["name"]
        folder.mkdir(parents=True)
        containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        sandbox = self._sandboxes[pod["metadata"]["uid"]] = Sandbox(pod, folder, containers)
        if not self._has_secrets(pod):  # as a kubelet waits for what is not there yet
            del self._sandboxes[pod["metadata"]["uid"]]
            folder.rmdir()
            return
        self._run_next(sandbox)

    def _has_secrets(self, pod: Object) -> bool:
        wanted = {
            volume["secret"]["secretName"] for volume in pod["spec"].get("volumes", []) if "secret" in volume
        }
        for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
            sources = [entry.get("valueFrom", {}) for entry in container.get("env", [])]
            wanted |= {source["secretKeyRef"]["name"] for source in sources if "secretKeyRef" in source}
        namespace = pod["metadata"]["namespace"]
        return all(self.api.objects.find("secrets", namespace, name) for name in wanted)

    def _run_next(self, sandbox: Sandbox) -> None:
        container = sandbox.waiting.pop(0)
        paths = self._mount(sandbox, container)
        environment = {key: os.environ[key] for key in INHERITED if key in os.environ}
        # This machine may have hundreds of fonts, which each new home folder would be searched for anew.
        environment |= {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": matplotlib.get_configdir()}
        for entry in container.get("env", []):
            environment[entry["name"]] = self._map(self._value(sandbox.pod, entry), sandbox, paths)
        words = [*container.get("command", []), *container.get("args", [])]
        command = [self._map(word, sandbox, paths) for word in words]
        command[0] = sys.executable if command[0] == "python" else command[0]
        with self._log_file(sandbox, container["name"]).open("ab") as log:
            sandbox.process = subprocess.Popen(
                command, cwd=sandbox.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        sandbox.running = container["name"]
        self._report(sandbox)

    def _advance(self, sandbox: Sandbox) -> None:
        if sandbox.process is None:
            return
        self._copy_log(sandbox)
        status = sandbox.process.poll()
        if status is None:
            return
        code = status if status >= 0 else 128 - status
        sandbox.ended[sandbox.running], sandbox.running, sandbox.process = code, "", None
        if code == 0 and sandbox.waiting:
            self._run_next(sandbox)
        else:
            self._report(sandbox)

    def _end(self, pod: Object, sandbox: Sandbox | None) -> None:
        """End a deleted pod politely, then at once when its time is up; it is gone when its process is."""
        if sandbox is not None and sandbox.process is not None and sandbox.process.poll() is None:
            if sandbox.told_to_end is None:
                sandbox.told_to_end = time.monotonic()
                sandbox.process.terminate()
            elif time.monotonic() - sandbox.told_to_end > pod["spec"].get(
                "terminationGracePeriodSeconds", 30
            ):
                sandbox.process.kill()
            return
        if sandbox is not None and sandbox.process is not None:
            self._advance(sandbox)  # the Job's controller sees how it ended
            self.controllers.step()
        self.api.objects.forget("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _report(self, sandbox: Sandbox) -> None:
        now, spec = self.api.objects.now(), sandbox.pod["spec"]

        def state(container: Object) -> Object:
            name = container["name"]
            if name == sandbox.running:
                return {"running": {"startedAt": now}}
            if name in sandbox.ended:
                code = sandbox.ended[name]
                return {
                    "terminated": {
                        "exitCode": code,
                        "reason": "Error" if code else "Completed",
                        "finishedAt": now,
                    }
                }
            return {"waiting": {"reason": "PodInitializing"}}

        mains = [container["name"] for container in spec["containers"]]
        failed = any(sandbox.ended.values())
        done = all(name in sandbox.ended for name in mains)
        running = sandbox.running in mains
        phase = "Failed" if failed else "Succeeded" if done else "Running" if running else "Pending"
        status = {
            "phase": phase,
            "startTime": now,
            "conditions": ready_conditions(running, now),
            "initContainerStatuses": [container_status(c, state(c)) for c in spec.get("initContainers", [])],
            "containerStatuses": [container_status(c, state(c), ready=running) for c in spec["containers"]],
        }
        metadata = sandbox.pod["metadata"]
        self.api.objects.set_status("pods", metadata["namespace"], metadata["name"], status)

    # -- What a container sees ---------------------------------------------------------------------------------------

    def _mount(self, sandbox: Sandbox, container: Object) -> dict[str, Path]:
        volumes = {volume["name"]: volume for volume in sandbox.pod["spec"].get("volumes", [])}
        return {
            mount["mountPath"]: self._folder_of(sandbox, volumes[mount["name"]])
            for mount in container.get("volumeMounts", [])
        }

    def _folder_of(self, sandbox: Sandbox, volume: Object) -> Path:
        if "persistentVolumeClaim" in volume:
            folder = self.root / "claims" / volume["persistentVolumeClaim"]["claimName"]
        else:
            folder = sandbox.folder / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        if "secret" in volume:
            secret = self._secret(sandbox.pod, volume["secret"]["secretName"])
            items = volume["secret"].get("items") or [{"key": key, "path": key} for key in secret]
            for item in items:
                (folder / item["path"]).write_bytes(secret[item["key"]])
        return folder

    def _secret(self, pod: Object, name: str) -> dict[str, bytes]:
        found = self.api.objects.get("secrets", pod["metadata"]["namespace"], name)
        return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}

    def _value(self, pod: Object, entry: Object) -> str:
        if "valueFrom" not in entry:
            return str(entry.get("value", ""))
        reference = entry["valueFrom"]["secretKeyRef"]
        return self._secret(pod, reference["name"])[reference["key"]].decode()

    def _map(self, word: str, sandbox: Sandbox, paths: Mapping[str, Path]) -> str:
        if word == EVERYWHERE:
            return self._own_address(sandbox.pod)
        for mount in sorted(paths, key=len, reverse=True):
            if word == mount or word.startswith(f"{mount}/"):
                return str(paths[mount]) + word[len(mount) :]
        for service in self.api.objects.all("services", sandbox.pod["metadata"]["namespace"]):
            name = service["metadata"]["name"]
            word = word.replace(f"//{name}:", f"//{self._address(name)}:")
        return word

    def _own_address(self, pod: Object) -> str:
        """The address of the Service that this pod is behind."""
        labels = pod["metadata"].get("labels", {})
        for service in self.api.objects.all("services", pod["metadata"]["namespace"]):
            if service["spec"]["selector"].items() <= labels.items():
                return self._address(service["metadata"]["name"])
        raise AssertionError(f"no Service selects {pod['metadata']['name']}: nobody would find it")

    def _address(self, service: str) -> str:
        return self._addresses.setdefault(service, next(self._free_addresses))

    def _log_file(self, sandbox: Sandbox, container: str) -> Path:
        return sandbox.folder / f"{container}.log"

    def _copy_log(self, sandbox: Sandbox) -> None:
        metadata = sandbox.pod["metadata"]
        content = self._log_file(sandbox, sandbox.running).read_text(encoding="utf-8", errors="replace")
        self.api.logs[metadata["namespace"], metadata["name"], sandbox.running] = content

    def logs(self) -> str:
        """What every container has written, for the message of a test that fails."""
        files = sorted((self.root / "pods").glob("*/*.log"))
        return "\n".join(f"--- {file.parent.name}/{file.name}\n{file.read_text()[-3000:]}" for file in files)
