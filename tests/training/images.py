"""Small images to append a model to, pushed by the product's client, and images read back as a kubelet would."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from blog_site.training.registry import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageReference,
    Manifest,
    RegistryClient,
    sha256_digest,
)

CONFIG_TYPES = {
    OCI_MANIFEST: "application/vnd.oci.image.config.v1+json",
    DOCKER_MANIFEST: "application/vnd.docker.container.image.v1+json",
}
LAYER_TYPES = {
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def push_base(
    client: RegistryClient,
    repository: str,
    tag: str,
    *,
    media_type: str = OCI_MANIFEST,
    platform: str = "amd64",
) -> Manifest:
    """Push an image with one file in it."""
    layer, diff_id = _layer({"etc/base": f"made for {platform}".encode()})
    config = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": platform,
        "os": "linux",
        "config": {"User": "10001:10001", "Env": ["PATH=/opt/venv/bin:/usr/bin"], "Labels": {"kept": "yes"}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "COPY base"}],
    }
    written = json.dumps(config).encode()
    for content in (layer, written):
        client.put_blob(
            repository, sha256_digest(content), len(content), lambda content=content: iter([content])
        )
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(CONFIG_TYPES[media_type], written),
        "layers": [_descriptor(LAYER_TYPES[media_type], layer)],
    }
    manifest = Manifest(json.dumps(document).encode(), media_type)
    client.put_manifest(repository, tag or manifest.digest(), manifest)
    return manifest


def push_index(client: RegistryClient, repository: str, tag: str, *, media_type: str = OCI_INDEX) -> Manifest:
    """Push an index of two platforms, with an attestation as buildkit adds one."""
    kind = DOCKER_MANIFEST if media_type == DOCKER_INDEX else OCI_MANIFEST
    entries: list[dict[str, Any]] = []
    for platform in ("amd64", "arm64"):
        image = push_base(client, repository, "", media_type=kind, platform=platform)
        entry = _descriptor(kind, image.content)
        entries.append({**entry, "platform": {"os": "linux", "architecture": platform}})
    if kind == OCI_MANIFEST:
        attestation = {
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            "platform": {"os": "unknown", "architecture": "unknown"},
        }
        entries.append({**entries[0], **attestation})
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    index = Manifest(json.dumps(document).encode(), media_type)
    client.put_manifest(repository, tag, index)
    return index


def read_image(client: RegistryClient, image: ImageReference, *, platform: str = "amd64") -> dict[str, Any]:
    """Read an image's manifest and configuration, every digest and size checked on the way."""
    assert image.digest is not None
    manifest = client.get_manifest(image.repository, image.digest)
    document = json.loads(manifest.content)
    if "manifests" in document:
        entry = next(one for one in document["manifests"] if one["platform"]["architecture"] == platform)
        found = client.get_manifest(image.repository, entry["digest"])
        assert len(found.content) == entry["size"]
        manifest, document = found, json.loads(found.content)
    config = client.read_document(image.repository, document["config"]["digest"])
    assert len(config) == document["config"]["size"]
    return {"media_type": manifest.media_type, "manifest": document, "config": json.loads(config)}


def extract_image(
    client: RegistryClient, image: ImageReference, folder: Path, *, platform: str = "amd64"
) -> None:
    """Lay an image's layers over each other in a folder, checking digests, sizes and diff ids as a kubelet does."""
    read = read_image(client, image, platform=platform)
    diff_ids = read["config"]["rootfs"]["diff_ids"]
    for entry, diff_id in zip(read["manifest"]["layers"], diff_ids, strict=True):
        content = b"".join(client.stream_blob(image.repository, entry["digest"]))
        assert (sha256_digest(content), len(content)) == (entry["digest"], entry["size"])
        uncompressed = gzip.decompress(content)
        assert sha256_digest(uncompressed) == diff_id
        with tarfile.open(fileobj=io.BytesIO(uncompressed)) as tar:
            tar.extractall(folder, filter="tar")


def _layer(files: dict[str, bytes]) -> tuple[bytes, str]:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(
        output.getvalue(), mtime=0
    ), f"sha256:{hashlib.sha256(output.getvalue()).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256_digest(content), "size": len(content)}
