"""Artifacts: a model as a directory of plain files, named by the digest of its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from ml.model_config import ModelConfig
from ml.tokenizer import TokenizerSettings
from ml.vocabulary import Vocabulary

Weights = dict[str, npt.NDArray[np.float32]]

MANIFEST: Final = "manifest.json"
FILES: Final = (
    "config.json",
    "golden.json",
    "model.onnx",
    "parity.json",
    "vocabulary.json",
    "weights.safetensors",
)


class ArtifactError(Exception):
    """An artifact cannot be written, read or trusted; names the file and the reason."""


@dataclass(frozen=True)
class Parity:
    """How far the exported graph and the trained network are apart on the same texts."""

    max_abs_difference: float  # of probabilities
    same_labels: bool
    samples: int


@dataclass(frozen=True)
class GoldenCase:
    """A text and the probabilities this model must give it wherever it is served."""

    text: str
    probabilities: tuple[float, ...]  # in the order of the artifact's labels


@dataclass(frozen=True)
class ArtifactContents:
    """Everything an artifact holds."""

    weights: Weights
    onnx: bytes
    vocabulary: Vocabulary
    network: ModelConfig
    tokenizer: TokenizerSettings
    labels: tuple[str, ...]
    max_length: int
    golden: tuple[GoldenCase, ...]
    parity: Parity


@dataclass(frozen=True)
class WrittenArtifact:
    """Where an artifact was written."""

    digest: str
    path: Path


@dataclass(frozen=True)
class Artifact(ArtifactContents):
    """An artifact as read from disk, every byte of it verified."""

    digest: str
    path: Path


def canonical_json(document: Any) -> bytes:
    """Write a document as JSON in the one form that gives the same bytes for the same content."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def write_artifact(parent_dir: Path, contents: ArtifactContents) -> WrittenArtifact:
    """Write an artifact to `parent_dir`/<digest>, whole or not at all; same contents, same digest.

    Writing what is there already does nothing. Raises ArtifactError when the disk refuses (nothing is left
    behind), and when the directory of that digest exists and is damaged.
    """
    files = _render_files(contents)
    manifest = canonical_json({name: _fingerprint(content) for name, content in files.items()})
    digest = hashlib.sha256(manifest).hexdigest()
    target = parent_dir / digest
    if target.exists():
        load_artifact(target, digest)
        return WrittenArtifact(digest, target)
    try:
        parent_dir.mkdir(parents=True, exist_ok=True)
        _write_directory(target, {**files, MANIFEST: manifest})
    except OSError as error:
        if target.exists():  # someone else wrote the same artifact meanwhile
            load_artifact(target, digest)
        else:
            reason = f"{error.strerror or error}; free disk space or fix permissions and write it again"
            raise ArtifactError(f"{target}: cannot be written: {reason}") from error
    return WrittenArtifact(digest, target)


def load_artifact(path: Path, expected_digest: str) -> Artifact:
    """Read an artifact, verifying that it is exactly what its digest names.

    Raises ArtifactError naming the file and the reason when one is missing, extra, truncated or changed.
    """
    manifest = _read_manifest(path, expected_digest)
    _refuse_other_files(path)
    files = {name: _read_verified(path / name, manifest[name]) for name in FILES}
    try:
        contents = _parse_files(files)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"{path}: whole, but cannot be understood: {error!r}") from error
    return Artifact(**vars(contents), digest=expected_digest, path=path)


def _render_files(contents: ArtifactContents) -> dict[str, bytes]:
    config = {
        "network": contents.network.to_json(),
        "tokenizer": contents.tokenizer.to_json(),
        "labels": list(contents.labels),
        "max_length": contents.max_length,
    }
    golden = [{"text": case.text, "probabilities": list(case.probabilities)} for case in contents.golden]
    weights = {name: np.ascontiguousarray(contents.weights[name]) for name in sorted(contents.weights)}
    return {
        "config.json": canonical_json(config),
        "golden.json": canonical_json(golden),
        "model.onnx": contents.onnx,
        "parity.json": canonical_json(vars(contents.parity)),
        "vocabulary.json": canonical_json(contents.vocabulary.to_json()),
        "weights.safetensors": safetensors.numpy.save(weights),
    }


def _parse_files(files: Mapping[str, bytes]) -> ArtifactContents:
    config = json.loads(files["config.json"])
    golden = json.loads(files["golden.json"])
    return ArtifactContents(
        weights=safetensors.numpy.load(files["weights.safetensors"]),
        onnx=files["model.onnx"],
        vocabulary=Vocabulary.from_json(json.loads(files["vocabulary.json"])),
        network=ModelConfig.from_json(config["network"]),
        tokenizer=TokenizerSettings.from_json(config["tokenizer"]),
        labels=tuple(config["labels"]),
        max_length=int(config["max_length"]),
        golden=tuple(GoldenCase(case["text"], tuple(case["probabilities"])) for case in golden),
        parity=Parity(**json.loads(files["parity.json"])),
    )


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def _write_directory(target: Path, files: Mapping[str, bytes]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:12]}.", suffix=".partial", dir=target.parent))
    try:
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)  # mkdtemp makes it private, but the service may run as another user
        _sync_directory(temporary)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_directory(target.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(path: Path, expected_digest: str) -> dict[str, Any]:
    content = _read_bytes(path / MANIFEST)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected_digest:
        raise ArtifactError(f"{path / MANIFEST}: its sha256 is {digest}, expected {expected_digest}")
    manifest = json.loads(content)
    if not isinstance(manifest, dict) or set(manifest) != set(FILES):
        raise ArtifactError(f"{path / MANIFEST}: lists {sorted(manifest)}, expected {list(FILES)}")
    return manifest


def _refuse_other_files(path: Path) -> None:
    extra = sorted({entry.name for entry in path.iterdir()} - {*FILES, MANIFEST})
    if extra:
        raise ArtifactError(f"{path / extra[0]}: not part of the artifact; remove it")


def _read_verified(path: Path, expected: Mapping[str, Any]) -> bytes:
    content = _read_bytes(path)
    if len(content) != expected["size_bytes"]:
        raise ArtifactError(f"{path}: has {len(content)} bytes, expected {expected['size_bytes']}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected["sha256"]:
        raise ArtifactError(f"{path}: its sha256 is {digest}, expected {expected['sha256']}")
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing") from error
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
