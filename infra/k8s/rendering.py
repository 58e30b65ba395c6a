"""What an overlay renders to with the images and the settings of one release."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.k8s.kubectl import REPOSITORY, ReleaseError, run_kubectl

HERE = Path(__file__).resolve().parent
WORK = REPOSITORY / "var" / "k8s"
NAMESPACE = "huisheng"
IMAGES = ("huisheng-web", "huisheng-gateway", "huisheng-inference", "huisheng-trainer")
# A tag is a part of the name of the Job that migrates, and must be one of an object's.
TAG = re.compile(r"[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?")
HTTPS_PORT, HTTP_PORT = 443, 80
REGISTRY_PORT = 5000  # where a registry listens, whatever port its Service has


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
        if self.tag == "latest":
            raise ReleaseError(
                "TAG=latest: it names no release, and nodes that have it would not pull another"
            )
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
    """The arrow from the worker to the registry: HTTPS elsewhere is open to it already, another port is not.

    A policy sees the port that a Service leads to, so the usual one of registries is open as well.
    """
    pushed_to = release.settings.get("MODEL_IMAGE_PUSH") or f"{release.registry}/huisheng-model"
    plain = release.settings.get("REGISTRY_PLAIN_HTTP", "").lower() in ("1", "true", "yes")
    _, _, named = pushed_to.partition("/")[0].partition(":")
    port = int(named or (HTTP_PORT if plain else HTTPS_PORT))
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
            "egress": [
                {"ports": [{"protocol": "TCP", "port": each} for each in sorted({port, REGISTRY_PORT})]}
            ],
        },
    }


def render(release: Release, work: Path) -> str:
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
