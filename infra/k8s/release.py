"""Renders an overlay with the images of one release, and brings it to a cluster: `make manifests`, `make deploy`.

`kubectl apply -k infra/k8s/overlays/…` needs none of this; here the registry and the tag are said on the command line.
Python alone is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.k8s.deployment import deploy
from infra.k8s.kubectl import ReleaseError
from infra.k8s.rendering import WORK, Release, render, split_reference


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
            print(render(release, WORK), end="")
        else:
            deploy(release, timeout_seconds=options.timeout, work=WORK)
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
