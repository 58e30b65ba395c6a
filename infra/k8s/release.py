"""Renders an overlay with the images of one release, and brings it to a cluster: `make manifests`, `make deploy`.

`kubectl apply -k infra/k8s/overlays/…` needs none of this; here the registry and the tag are said on the command line,
what would hinder is found before anything is applied, and the waiting tells what it waits for. Python alone is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
WORK = REPOSITORY / "var" / "k8s"
NAMESPACE = "huisheng"
IMAGES = ("huisheng-web", "huisheng-gateway", "huisheng-inference", "huisheng-trainer")
# A tag is a part of the name of the Job that migrates, and must be one of an object's.
TAG = re.compile(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?")
HTTPS_PORT = 443
LOOK_EVERY_SECONDS = 3.0
STUCK_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
}


class ReleaseError(Exception):
    """Nothing can be rendered or deployed so; the message says what to do."""


@dataclass(frozen=True)
class Release:
    """What is rendered: an overlay, more components, and images."""

    overlay: str = "local"
    registry: str = ""
    tag: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)  # by image, like sha256:…
    components: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)  # others, such as mysql, by name
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tag and not TAG.fullmatch(self.tag):
            raise ReleaseError(
                f"TAG={self.tag}: it names an object of the cluster too, so small letters, digits, '.' and '-' are "
                "wanted, 42 at the most"
            )

    def folder(self) -> Path:
        """Find the overlay. Raises ReleaseError when there is none."""
        if "/" in self.overlay:
            folder = Path(self.overlay).resolve()
        else:
            # With a registry to push to, models are images too.
            name = "local-registry" if self.overlay == "local" and self.registry else self.overlay
            folder = HERE / "overlays" / name
        if not (folder / "kustomization.yaml").is_file():
            there = ", ".join(sorted(path.parent.name for path in HERE.glob("overlays/*/kustomization.yaml")))
            raise ReleaseError(
                f"OVERLAY={self.overlay}: {folder} holds no kustomization.yaml. There are {there}; a path will do too"
            )
        return folder


def kustomization(release: Release, folder: Path) -> dict[str, Any]:
    """Make what is put on top of the overlay, for a kustomization.yaml in `folder`; JSON is YAML."""
    document: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(release.folder(), folder)],
        "components": [os.path.relpath(component_folder(name), folder) for name in release.components],
        "images": [image_entry(release, name) for name in IMAGES]
        + [{"name": name, **split_reference(reference)} for name, reference in release.images.items()],
        "transformers": [os.path.relpath(HERE / "transformers" / "release", folder)],
    }
    settings = dict(release.settings)
    if release.registry:
        settings.setdefault("MODEL_IMAGE", f"{release.registry}/huisheng-model")
        document["resources"].append("registry.json")
    if settings:
        document["configMapGenerator"] = [
            {
                "name": "huisheng-web",
                "namespace": NAMESPACE,
                "behavior": "merge",
                "literals": [f"{name}={value}" for name, value in settings.items()],
            }
        ]
    return document


def component_folder(name: str) -> Path:
    folder = HERE / "components" / name
    if not (folder / "kustomization.yaml").is_file():
        there = ", ".join(sorted(path.parent.name for path in HERE.glob("components/*/kustomization.yaml")))
        raise ReleaseError(f"COMPONENTS={name}: there are {there}")
    return folder


def image_entry(release: Release, name: str) -> dict[str, str]:
    entry = {"name": name}
    if release.registry:
        entry["newName"] = f"{release.registry}/{name}"
    if release.tag:
        entry["newTag"] = release.tag
    if name in release.digests:
        entry["digest"] = release.digests[name]
    return entry


def split_reference(reference: str) -> dict[str, str]:
    """Split an image's name like registry:5000/mysql:8.4@sha256:… into what kustomize calls its parts."""
    rest, _, digest = reference.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    parts = {"newName": name, "newTag": tag, "digest": digest}
    return {key: value for key, value in parts.items() if value}


def registry_policy(release: Release) -> dict[str, Any]:
    """The arrow from the worker to the registry: HTTPS elsewhere is open to it already, another port is not."""
    pushed_to = release.settings.get("MODEL_IMAGE_PUSH") or f"{release.registry}/huisheng-model"
    plain = release.settings.get("REGISTRY_PLAIN_HTTP", "").lower() in ("1", "true", "yes")
    _, _, port = pushed_to.partition("/")[0].partition(":")
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "worker-to-registry",
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "huisheng"},
        },
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "worker"}},
            "policyTypes": ["Egress"],
            "egress": [{"ports": [{"protocol": "TCP", "port": int(port or (80 if plain else HTTPS_PORT))}]}],
        },
    }


def render(release: Release, work: Path = WORK) -> str:
    """Give the YAML of everything. Raises ReleaseError with what kustomize says."""
    folder = work / re.sub(r"[^A-Za-z0-9.-]+", "-", release.overlay).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization(release, folder), indent=2) + "\n")
    (folder / "registry.json").write_text(json.dumps(registry_policy(release), indent=2) + "\n")
    found = run_kubectl("kustomize", str(folder))
    if found.returncode:
        hint = "\nmake secrets writes the files of the overlay local." if ".env" in found.stderr else ""
        raise ReleaseError(f"{found.stderr.strip()}{hint}")
    return found.stdout


def kubectl_program() -> str:
    """Find kubectl: KUBECTL, the one of this machine, or the one that the tests brought."""
    ours = REPOSITORY / ".venv" / "bin" / "kubectl"
    found = os.environ.get("KUBECTL") or shutil.which("kubectl") or (str(ours) if ours.exists() else None)
    if not found:
        raise ReleaseError("kubectl is not installed: see kubernetes.io/docs/tasks/tools, 1.28 or newer")
    return found


def run_kubectl(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [kubectl_program(), *arguments], input=given, capture_output=True, text=True, check=False
    )


# -- To a cluster ------------------------------------------------------------------------------------------------------


def deploy(release: Release, *, timeout_seconds: float, work: Path = WORK) -> None:
    """Apply the release and wait until everything runs. Raises ReleaseError naming what does not."""
    answer = run_kubectl("get", "--raw", "/readyz", "--request-timeout=15s")
    if answer.returncode:
        raise ReleaseError(f"the cluster that KUBECONFIG names does not answer: {answer.stderr.strip()}")
    manifests = render(release, work)
    if missing := missing_secrets(manifests):
        raise ReleaseError(
            f"Secrets are missing in the namespace {NAMESPACE}: {', '.join(missing)}. Their keys are those of "
            "infra/k8s/overlays/local/secrets/*.env, which make secrets writes"
        )
    forget_failed_migration(job_of(manifests))
    applied = run_kubectl("apply", "-f", "-", given=manifests)
    print(applied.stdout, end="", flush=True)
    if applied.returncode:
        raise ReleaseError(applied.stderr.strip())
    wait_until_it_runs(job_of(manifests), timeout_seconds)


def forget_failed_migration(job: str) -> None:
    """Delete the Job of an earlier attempt at this release that failed: applied again as it is, it would not run."""
    there = get_json("-n", NAMESPACE, "get", "job", job, "--ignore-not-found")
    if there and "Failed" in true_conditions(there.get("status", {})):
        print(f"job {job} failed before; it is made anew")
        deleted = run_kubectl("-n", NAMESPACE, "delete", "job", job, "--wait", "--timeout=120s")
        if deleted.returncode:
            raise ReleaseError(deleted.stderr.strip())


def true_conditions(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["type"]: entry for entry in status.get("conditions", []) if entry["status"] == "True"}


def missing_secrets(manifests: str) -> list[str]:
    """Name the Secrets that pods want, and that neither the manifests nor the cluster have."""
    wanted = set(re.findall(r"secret(?:Ref|KeyRef):\n(?:\s+key: \S+\n)?\s+name: (\S+)", manifests))
    for document in manifests.split("\n---\n"):
        if re.search(r"^kind: Secret$", document, re.M) and (
            name := re.search(r"^  name: (\S+)$", document, re.M)
        ):
            wanted.discard(name[1])
    there = get_json("-n", NAMESPACE, "get", "secrets") if wanted else None
    return sorted(wanted - {item["metadata"]["name"] for item in (there or {}).get("items", [])})


def job_of(manifests: str) -> str:
    for document in manifests.split("\n---\n"):
        if re.search(r"^kind: Job$", document, re.M) and (
            name := re.search(r"^  name: (\S+)$", document, re.M)
        ):
            return name[1]
    raise ReleaseError("the manifests hold no Job that migrates")


def get_json(*arguments: str) -> dict[str, Any] | None:
    found = run_kubectl(*arguments, "-o", "json", "--request-timeout=30s")
    if found.returncode:
        raise ReleaseError(found.stderr.strip())
    return dict(json.loads(found.stdout)) if found.stdout.strip() else None


def wait_until_it_runs(job: str, timeout_seconds: float) -> None:
    """Wait for the Job that migrates and for every workload, and say whatever changes."""
    deadline, said = time.monotonic() + timeout_seconds, set[str]()
    while True:
        try:
            objects = get_json("-n", NAMESPACE, "get", "deployments,statefulsets,jobs,pods") or {"items": []}
            items = objects["items"]
            waiting = list(unfinished(items, job)) if items else ["nothing is there yet"]
        except ReleaseError as error:  # an API server may be away for a moment
            items, waiting = [], [f"the cluster does not answer: {error}"]
        lines = [*waiting, *stuck_pods(items)]
        for line in lines:
            if line not in said:
                print(f"  {line}", flush=True)
                said.add(line)
        if failed := next((line for line in waiting if line.startswith("failed:")), None):
            raise ReleaseError(f"{failed}; see kubectl -n {NAMESPACE} logs job/{job}")
        if not waiting:
            print(f"everything runs{without_model(items)}")
            return
        if time.monotonic() > deadline:
            raise ReleaseError("\n  ".join([f"after {timeout_seconds:.0f} s not everything runs:", *lines]))
        time.sleep(LOOK_EVERY_SECONDS)


def unfinished(items: Sequence[Mapping[str, Any]], job: str) -> Iterator[str]:
    """Say what is not as it should be; inference may be without a model, so it is not among these."""
    for item in items:
        kind, name, status = item["kind"], item["metadata"]["name"], item.get("status", {})
        if kind == "Job" and name == job:
            conditions = true_conditions(status)
            if "Failed" in conditions:
                yield f"failed: job {name}: {conditions['Failed'].get('message', '')}"
            elif "Complete" not in conditions:
                yield f"job {name} has not migrated yet"
        elif kind in ("Deployment", "StatefulSet") and name != "inference":
            wanted = item["spec"].get("replicas", 1)
            ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
            seen = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
            if not seen or ready < wanted or status.get("replicas", 0) > wanted:
                yield f"{kind.lower()} {name}: {ready} of {wanted} ready"


def stuck_pods(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name the pods that something keeps from starting, and what."""
    for item in items:
        if item["kind"] != "Pod":
            continue
        status = item.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield f"pod {item['metadata']['name']} is not scheduled: {condition.get('message', '')}"
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("reason") in STUCK_REASONS:
                yield f"pod {item['metadata']['name']}: {waiting['reason']}: {waiting.get('message', '')}"


def without_model(items: Sequence[Mapping[str, Any]]) -> str:
    for item in items:
        named = (item["kind"], item["metadata"]["name"])
        if named == ("Deployment", "inference") and not item.get("status", {}).get("readyReplicas"):
            return "; inference waits for the first model, which a training run brings"
    return ""


# -- The command -------------------------------------------------------------------------------------------------------


def read_digests(path: Path) -> dict[str, str]:
    """Read lines like huisheng-web=REGISTRY/huisheng-web:TAG@sha256:…, as make images writes them."""
    digests = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, reference = line.strip().partition("=")
        if reference:
            digests[name] = split_reference(reference)["digest"]
    return digests


def read_pairs(words: str, variable: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in words.split()]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise ReleaseError(f"{variable}: {wrong[0]!r} is no NAME=VALUE")
    return {name: value for name, _, value in pairs}


def release_of(options: argparse.Namespace, environment: Mapping[str, str]) -> Release:
    settings = {
        name: environment[name]
        for name in ("MODEL_IMAGE_PUSH", "REGISTRY_PLAIN_HTTP")
        if environment.get(name)
    }
    registry = options.registry.rstrip("/")
    if options.overlay == "local":
        settings.setdefault("REGISTRY_PLAIN_HTTP", "1")
    return Release(
        overlay=options.overlay,
        registry=registry,
        tag=options.tag,
        digests=read_digests(options.digests) if options.digests else {},
        components=tuple(options.components.split()),
        images=read_pairs(options.images, "OTHER_IMAGES"),
        settings=settings | read_pairs(options.settings, "SETTINGS"),
    )


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["manifests", "deploy"])
    add = parser.add_argument
    add("--overlay", default=environment.get("OVERLAY") or "local", help="a name or a path (OVERLAY)")
    add("--registry", default=environment.get("REGISTRY", ""), help="before the images' names (REGISTRY)")
    add("--tag", default=environment.get("TAG", ""), help="of our images (TAG); the overlay's by default")
    digests = environment.get("DIGESTS")
    add("--digests", type=Path, default=Path(digests) if digests else None, help="file of digests (DIGESTS)")
    add("--components", default=environment.get("COMPONENTS", ""), help="more, by name (COMPONENTS)")
    add(
        "--images",
        default=environment.get("OTHER_IMAGES", ""),
        help="mysql=registry:5000/mysql:8.4 … (OTHER_IMAGES)",
    )
    add("--settings", default=environment.get("SETTINGS", ""), help="of the blog, NAME=VALUE … (SETTINGS)")
    add("--timeout", type=float, default=float(environment.get("TIMEOUT") or 900), help="seconds (TIMEOUT)")
    options = parser.parse_args(arguments)
    try:
        release = release_of(options, environment)
        if options.command == "manifests":
            print(render(release), end="")
        else:
            deploy(release, timeout_seconds=options.timeout)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
