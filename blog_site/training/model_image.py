"""A model as an image: the inference base image and one layer that holds the artifact.

Nothing is built. The layer is written here, in the same bytes for the same artifact wherever that is done, and appended
through the registry's API. The same weights on the same base are the same image, by digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from blog_site.training.registry import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    ImageReference,
    Manifest,
    MissingInRegistry,
    RegistryAccess,
    RegistryClient,
    RegistryError,
    parse_reference,
    sha256_digest,
)

MODEL_FOLDER: Final = "srv/model"  # in the image; the service reads it as its store
MODEL_LABEL: Final = "huisheng.io/model"
_MANIFEST: Final = "manifest.json"  # of the artifact
_LAYER_TYPES: Final = {
    True: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    False: "application/vnd.oci.image.layer.v1.tar+gzip",
}
_BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
_READ_BYTES: Final = 256 * 1024


class ModelDamaged(Exception):
    """The files of a model are not what its digest names; says which and why."""


@dataclass(frozen=True)
class Layer:
    """A layer in a file here."""

    path: Path
    digest: str  # of the file, as the registry names it
    diff_id: str  # of what is in it once uncompressed
    size_bytes: int

    def read(self) -> Iterator[bytes]:
        """Give the file from its beginning, in parts."""
        with self.path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                yield part


# -- The layer -------------------------------------------------------------------------------------------------------


def write_layer(folder: Path, digest: str, path: Path) -> Layer:
    """Write the artifact in `folder` as a layer: `srv/model` as the store that the service reads.

    Raises ModelDamaged unless every file is what the artifact's digest names.
    """
    files = _listed_files(folder, digest)
    root = f"{MODEL_FOLDER}/artifacts/{digest}"
    with path.open("wb") as output:
        gzip = _StoredGzip(output)
        # Streaming: a tar of some gigabytes is never in memory.
        with tarfile.open(fileobj=gzip, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for directory in ("srv", MODEL_FOLDER, f"{MODEL_FOLDER}/artifacts", root):
                tar.addfile(_entry(directory, None))
            for name, (size_bytes, expected) in sorted(files.items()):
                with _opened(folder / name) as file:
                    found = os.fstat(file.fileno()).st_size
                    if found != size_bytes:
                        raise ModelDamaged(f"{name}: has {found} bytes, expected {size_bytes}")
                    hashed = _HashedFile(file)
                    tar.addfile(_entry(f"{root}/{name}", size_bytes), hashed)
                    if hashed.sha256() != expected:
                        raise ModelDamaged(f"{name}: its sha256 is {hashed.sha256()}, expected {expected}")
            pointer = json.dumps({"digest": digest}).encode()
            tar.addfile(_entry(f"{MODEL_FOLDER}/champion.json", len(pointer)), io.BytesIO(pointer))
        gzip.finish()
    return Layer(path, f"sha256:{gzip.digest}", f"sha256:{gzip.diff_digest}", gzip.size_bytes)


def _listed_files(folder: Path, digest: str) -> dict[str, tuple[int, str]]:
    """Give size and sha256 of each file of an artifact, its manifest among them."""
    with _opened(folder / _MANIFEST) as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ModelDamaged(f"{_MANIFEST}: its sha256 is {found}, expected {digest}")
    listed: dict[str, dict[str, Any]] = json.loads(content)
    files = {name: (int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    return {**files, _MANIFEST: (len(content), found)}


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelDamaged(f"{path.name}: {error.strerror or error}") from error


def _entry(name: str, size_bytes: int | None) -> tarfile.TarInfo:
    """Describe a file, or a directory, by what is the same everywhere: nobody's, of no date, readable for all."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if size_bytes is None else tarfile.REGTYPE
    entry.mode = 0o755 if size_bytes is None else 0o644
    entry.size = size_bytes or 0
    return entry  # a new TarInfo has uid, gid and mtime 0, and no names


class _HashedFile:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self._hash.update(part)
        return part

    def sha256(self) -> str:
        return self._hash.hexdigest()


class _StoredGzip(io.RawIOBase):
    """Writes gzip without compressing (RFC 1951, 3.2.4: stored blocks).

    What a deflating library writes depends on its version, and with it the digest would; weights hardly shrink
    anyway. A gzip layer is what every registry, containerd and Docker take, which cannot be said of a plain tar.
    """

    _BLOCK_BYTES: Final = 0xFFFF

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._pending = bytearray()
        self._crc = 0
        self._length = 0
        self._hash = hashlib.sha256()
        self._diff_hash = hashlib.sha256()
        self.size_bytes = 0
        self._emit(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")  # deflate, no name, no date, unknown system

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def diff_digest(self) -> str:
        return self._diff_hash.hexdigest()

    def write(self, content: Any) -> int:  # bytes or a view of some, as tarfile has them
        self._diff_hash.update(content)
        self._crc = zlib.crc32(content, self._crc)
        self._length += len(content)
        self._pending += content
        while len(self._pending) > self._BLOCK_BYTES:
            self._block(bytes(self._pending[: self._BLOCK_BYTES]), last=False)
            del self._pending[: self._BLOCK_BYTES]
        return len(content)

    def finish(self) -> None:
        """Write what is still pending and the end."""
        self._block(bytes(self._pending), last=True)
        self._emit(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))

    def _block(self, content: bytes, *, last: bool) -> None:
        self._emit(struct.pack("<BHH", last, len(content), len(content) ^ 0xFFFF) + content)

    def _emit(self, content: bytes) -> None:
        self._output.write(content)
        self._hash.update(content)
        self.size_bytes += len(content)


# -- The image -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Destination:
    """Where a model's image goes: the repository as the nodes pull it, and as it is reached from here."""

    repository: ImageReference
    push: ImageReference
    access: RegistryAccess


def push_model_image(
    *, base: ImageReference, destination: Destination, folder: Path, digest: str
) -> ImageReference:
    """Append the artifact in `folder` to the base image, and give the image as the nodes pull it, by its digest.

    What is there already is not sent again, so that repeating this is cheap and harmless. Raises RegistryError, and
    ModelDamaged for an artifact that is not what its digest names.
    """
    with tempfile.TemporaryDirectory(prefix="huisheng-layer-") as scratch:
        layer = write_layer(folder, digest, Path(scratch) / "layer")
        with _Appender(base, destination, layer, digest) as appender:
            image = appender.append()
    return destination.repository.at(image)


def delete_model_image(image: str, destination: Destination) -> bool:
    """Delete a model's image, and those of its platforms; False where the registry deletes nothing, or it is not ours.

    `image` is named as the nodes pull it. Its layers are the registry's to collect. Raises RegistryError.
    """
    reference, ours = parse_reference(image), destination.repository
    if not reference.digest or reference.name() != ours.name():
        return False
    repository = destination.push.repository
    with RegistryClient(destination.push.registry, destination.access) as client:
        try:
            manifest = client.get_manifest(repository, reference.digest)
            listed = _parse(manifest.content, image).get("manifests", [])
            return all(
                client.delete_manifest(repository, digest)
                for digest in (reference.digest, *(entry["digest"] for entry in listed))
            )
        except MissingInRegistry:
            return True


class _Appender:
    """Puts one layer on one base image, be that of one platform or of several."""

    def __init__(self, base: ImageReference, destination: Destination, layer: Layer, model: str) -> None:
        # The base is named as the nodes pull it; where it lies in the models' registry, that is reached the same way.
        same = base.registry in (destination.repository.registry, destination.push.registry)
        host = destination.push.registry if same else base.registry
        access = destination.access
        if not same:  # a password is for the registry that it was given for
            access = RegistryAccess(
                plain_http=access.plain_http,
                first_pause_seconds=access.first_pause_seconds,
                timeout_seconds=access.timeout_seconds,
                deadline_seconds=access.deadline_seconds,
            )
        self._base = base
        self._layer = layer
        self._model = model
        self._repository = destination.push.repository
        self._target = RegistryClient(destination.push.registry, destination.access)
        self._source = self._target if same else RegistryClient(host, access)

    def __enter__(self) -> _Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()
        self._source.close()

    def append(self) -> str:
        """Write the image and give its digest."""
        manifest = self._source.get_manifest(
            self._base.repository, self._base.digest or self._base.tag or "latest"
        )
        self._target.put_blob(self._repository, self._layer.digest, self._layer.size_bytes, self._layer.read)
        is_index = manifest.media_type in (OCI_INDEX, DOCKER_INDEX)
        image = self._index(manifest) if is_index else self._image(manifest)
        digest = image.digest()
        # Registries that collect garbage keep what has a tag; this one names nothing but this image.
        tag = f"model-{self._model[:12]}-{digest.removeprefix('sha256:')[:12]}"
        self._target.put_manifest(self._repository, tag, image)
        return digest

    def _index(self, base: Manifest) -> Manifest:
        """Append to the image of every platform; what was said of the base's images (attestations) is left out."""
        index = _parse(base.content, str(self._base))
        entries = []
        for entry in index.get("manifests", []):
            if not _is_platform(entry):
                continue
            found = self._source.get_manifest(self._base.repository, entry["digest"])
            image = self._image(found)
            self._target.put_manifest(self._repository, image.digest(), image)
            entries.append({**entry, "digest": image.digest(), "size": len(image.content)})
        if not entries:
            raise RegistryError(f"{self._base} is an index without an image for Linux", permanent=True)
        return Manifest(_render({**index, "manifests": entries}), base.media_type)

    def _image(self, base: Manifest) -> Manifest:
        """Append to the image of one platform; all but its manifest is in the target when this returns."""
        manifest = _parse(base.content, str(self._base))
        docker = base.media_type == DOCKER_MANIFEST
        try:
            config = self._source.read_document(self._base.repository, manifest["config"]["digest"])
            layers = list(manifest["layers"])
            changed = _render(self._configure(_parse(config, str(self._base)), len(layers)))
        except (KeyError, TypeError, AttributeError) as error:
            raise RegistryError(f"{self._base} is no image of layers: {error!r}", permanent=True) from error
        for entry in layers:
            self._bring(entry)
        config_digest = sha256_digest(changed)
        self._target.put_blob(self._repository, config_digest, len(changed), lambda: iter([changed]))
        appended = {
            **manifest,
            "config": {**manifest["config"], "digest": config_digest, "size": len(changed)},
            "layers": [*layers, self._descriptor(docker)],
        }
        appended.get("config", {}).pop(
            "data", None
        )  # an embedded copy of what is no longer the configuration
        if not docker:  # Docker's schema has no place for them
            said = manifest.get("annotations") or {}
            appended["annotations"] = {**said, MODEL_LABEL: self._model, _BASE_DIGEST: base.digest()}
        return Manifest(_render(appended), base.media_type)

    def _configure(self, config: dict[str, Any], layers: int) -> dict[str, Any]:
        """Say in the configuration of an image what was appended. Nothing of when or in which run: the same model is
        the same image."""
        diff_ids = config["rootfs"]["diff_ids"]
        if len(diff_ids) != layers:
            raise RegistryError(
                f"{self._base} names {layers} layers and {len(diff_ids)} diff ids", permanent=True
            )
        settings = config.get("config") or {}
        labels = settings.get("Labels") or {}
        if MODEL_LABEL in labels:
            raise RegistryError(
                f"{self._base} holds the model {labels[MODEL_LABEL]} already: INFERENCE_BASE_IMAGE must name the image "
                "without one",
                permanent=True,
            )
        step = {"created_by": f"model {self._model}", "comment": "huisheng"}
        if "created" in config:
            step = {"created": config["created"], **step}
        return {
            **config,
            "config": {**settings, "Labels": {**labels, MODEL_LABEL: self._model}},
            "rootfs": {**config["rootfs"], "diff_ids": [*diff_ids, self._layer.diff_id]},
            "history": [*(config.get("history") or []), step],
        }

    def _descriptor(self, docker: bool) -> dict[str, Any]:
        return {
            "mediaType": _LAYER_TYPES[docker],
            "digest": self._layer.digest,
            "size": self._layer.size_bytes,
        }

    def _bring(self, entry: Mapping[str, Any]) -> None:
        """See that a layer of the base is in the models' repository: shared where it can be, copied otherwise."""
        digest, source = str(entry["digest"]), self._base.repository
        here = self._source is self._target
        if entry.get("urls") or (here and source == self._repository):
            return
        if self._target.has_blob(self._repository, digest):
            return
        if here and self._target.mount_blob(self._repository, digest, source):
            return
        content: Callable[[], Iterator[bytes]] = partial(self._source.stream_blob, source, digest)
        self._target.put_blob(self._repository, digest, int(entry["size"]), content)


def _is_platform(entry: Mapping[str, Any]) -> bool:
    platform = entry.get("platform") or {}
    kind = (entry.get("annotations") or {}).get("vnd.docker.reference.type")
    return kind is None and platform.get("os", "linux") == "linux"


def _parse(content: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise RegistryError(f"{what} cannot be understood: {error}", permanent=True) from error
    if not isinstance(document, dict):
        raise RegistryError(f"{what} cannot be understood: it is no object", permanent=True)
    return document


def _render(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
