"""Artifacts: a model as a directory of plain files, named by the digest of its manifest."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ml.model_config import ModelConfig
from ml.tokenizer import TokenizerSettings
from ml.vocabulary import Vocabulary

Weights = Mapping[str, npt.NDArray[np.float32]]
Precision = Literal["fp32", "int8"]

FORMAT: Final = 3  # of the files of an artifact, to be raised when they change; the first one had no number
_READABLE: Final = (2, FORMAT)  # in 2 the graph held the wide part, and read text by text
MANIFEST: Final = "manifest.json"
FILES: Final = (
    "config.json",
    "golden.json",
    "model.onnx",
    "parity.json",
    "vocabulary.json",
    "weights.safetensors",
)
QUANTIZED: Final = "model.int8.onnx"  # only where the gate at export let it pass
_WEIGHTS: Final = "weights.safetensors"


class ArtifactError(Exception):
    """An artifact cannot be written, read or trusted; names the file and the reason."""


@dataclass(frozen=True)
class QuantizationFigures:
    """How far the graph in 8-bit integers and the one in floating point are apart on the same samples."""

    macro_f1_fp32: float
    macro_f1_int8: float
    same_labels: float  # share of the samples
    max_abs_difference: float  # of probabilities
    max_batch_difference: float  # of probabilities in 8 bits, of a text alone and among others


@dataclass(frozen=True)
class Quantization:
    """What the gate at export decided of the graph in 8-bit integers."""

    served: Precision
    reason: str
    samples: int  # labelled ones it was judged on
    figures: QuantizationFigures | None  # None where there were too few samples to judge


@dataclass(frozen=True)
class Parity:
    """How far the exported graph and the trained network are apart on the same texts."""

    max_abs_difference: float  # of probabilities
    same_labels: bool
    samples: int


@dataclass(frozen=True)
class GoldenCase:
    """A text and the probabilities this model must give it wherever it is served, in the order of its labels."""

    text: str
    probabilities: tuple[float, ...]
    int8: tuple[float, ...] | None = None  # of the graph in 8-bit integers, where there is one


@dataclass(frozen=True)
class ArtifactContents:
    """Everything an artifact holds."""

    weights: Weights
    onnx: bytes
    onnx_int8: bytes | None  # the same in 8-bit integers; served on processors where there is one
    vocabulary: Vocabulary
    network: ModelConfig
    tokenizer: TokenizerSettings
    labels: tuple[str, ...]
    max_length: int
    golden: tuple[GoldenCase, ...]
    parity: Parity
    quantization: Quantization


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


class StoredWeights(Weights):
    """The weights of an artifact on the disk, each read when it is looked at: serving needs the wide part's alone.

    Looking at them raises ArtifactError when the file has changed since, or holds no weights.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        self._path = path
        self._fingerprint = fingerprint

    @functools.cached_property
    def _file(self) -> Any:
        from safetensors import SafetensorError, safe_open

        _verify(self._path, self._fingerprint)
        try:
            return safe_open(self._path, framework="numpy")
        except (ValueError, SafetensorError) as error:
            raise ArtifactError(f"{self._path}: whole, but cannot be understood: {error!r}") from error

    def __contains__(self, name: object) -> bool:
        return name in self._file.keys()  # noqa: SIM118  # it is no mapping

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        if name not in self:
            raise KeyError(name)
        array: npt.NDArray[np.float32] = self._file.get_tensor(name)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


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
    _refuse_other_files(path, manifest)
    weights = StoredWeights(path / _WEIGHTS, manifest[_WEIGHTS])
    _verify(path / _WEIGHTS, manifest[_WEIGHTS])
    files = {name: _read_verified(path / name, manifest[name]) for name in manifest if name != _WEIGHTS}
    try:
        config = json.loads(files["config.json"])
        if config.get("format") not in _READABLE:
            raise ArtifactError(
                f"{path}: an artifact of format {config.get('format', 1)!r}, and this version reads formats "
                f"{' and '.join(map(str, _READABLE))}: train or export the model again, or use the version that "
                "wrote it"
            )
        contents = _parse_files(files, config, weights)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: whole, but cannot be understood: {error!r}") from error
    return Artifact(**vars(contents), digest=expected_digest, path=path)


def _render_files(contents: ArtifactContents) -> dict[str, bytes]:
    import safetensors.numpy

    config = {
        "format": FORMAT,
        "network": contents.network.to_json(),
        "tokenizer": contents.tokenizer.to_json(),
        "labels": list(contents.labels),
        "max_length": contents.max_length,
    }
    golden = [asdict(case) for case in contents.golden]
    parity = {**asdict(contents.parity), "quantization": asdict(contents.quantization)}
    weights = {name: np.ascontiguousarray(contents.weights[name]) for name in sorted(contents.weights)}
    files = {
        "config.json": canonical_json(config),
        "golden.json": canonical_json(golden),
        "model.onnx": contents.onnx,
        "parity.json": canonical_json(parity),
        "vocabulary.json": canonical_json(contents.vocabulary.to_json()),
        _WEIGHTS: safetensors.numpy.save(weights),
    }
    return files if contents.onnx_int8 is None else {**files, QUANTIZED: contents.onnx_int8}


def _parse_files(files: Mapping[str, bytes], config: Mapping[str, Any], weights: Weights) -> ArtifactContents:
    parity = json.loads(files["parity.json"])
    return ArtifactContents(
        weights=weights,
        onnx=files["model.onnx"],
        onnx_int8=files.get(QUANTIZED),
        vocabulary=Vocabulary.from_json(json.loads(files["vocabulary.json"])),
        network=ModelConfig.from_json(config["network"]),
        tokenizer=TokenizerSettings.from_json(config["tokenizer"]),
        labels=tuple(config["labels"]),
        max_length=int(config["max_length"]),
        golden=tuple(_parse_golden(case) for case in json.loads(files["golden.json"])),
        quantization=_parse_quantization(parity.pop("quantization")),
        parity=Parity(**parity),
    )


def _parse_golden(case: Mapping[str, Any]) -> GoldenCase:
    int8 = case["int8"]
    return GoldenCase(case["text"], tuple(case["probabilities"]), None if int8 is None else tuple(int8))


def _parse_quantization(document: Mapping[str, Any]) -> Quantization:
    figures = document["figures"]
    parsed = None if figures is None else QuantizationFigures(**figures)
    return Quantization(**{**document, "figures": parsed})


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
    if not isinstance(manifest, dict) or set(manifest) - {QUANTIZED} != set(FILES):
        raise ArtifactError(f"{path / MANIFEST}: lists {sorted(manifest)}, expected {list(FILES)}")
    return manifest


def _refuse_other_files(path: Path, manifest: Mapping[str, Any]) -> None:
    extra = sorted({entry.name for entry in path.iterdir()} - {*manifest, MANIFEST})
    if extra:
        raise ArtifactError(f"{path / extra[0]}: not part of the artifact; remove it")


def _verify(path: Path, expected: Mapping[str, Any]) -> None:
    """Check a file without keeping it in memory."""
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing") from error
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    _compare(path, size_bytes, digest, expected)


def _read_verified(path: Path, expected: Mapping[str, Any]) -> bytes:
    content = _read_bytes(path)
    _compare(path, len(content), hashlib.sha256(content).hexdigest(), expected)
    return content


def _compare(path: Path, size_bytes: int, digest: str, expected: Mapping[str, Any]) -> None:
    if size_bytes != expected["size_bytes"]:
        raise ArtifactError(f"{path}: has {size_bytes} bytes, expected {expected['size_bytes']}")
    if digest != expected["sha256"]:
        raise ArtifactError(f"{path}: its sha256 is {digest}, expected {expected['sha256']}")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing") from error
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
