"""What travels between trainers and aggregator, and between a run and whoever started it. No torch.

A message is one safetensors file: named tensors, and a JSON header under the metadata key `header`. safetensors holds
raw little-endian numbers and no code, so reading a message from a stranger runs nothing (unlike pickle).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

Tensors = dict[str, np.ndarray]

TOKEN_VARIABLE = "HUISHENG_SITE_TOKEN"  # noqa: S105 - the environment variable's name, not a token
TOKENS_VARIABLE = "HUISHENG_SITE_TOKENS"  # the aggregator's: JSON {site: token}


class MessageError(ValueError):
    """A message that does not say what it must; the text says why."""


def encode_message(header: Mapping[str, Any], tensors: Tensors) -> bytes:
    # safetensors writes the memory behind an array as it lies, so a transposed one would arrive scrambled.
    contiguous = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    return save(contiguous, metadata={"header": json.dumps(header, ensure_ascii=False)})


def decode_message(data: bytes) -> tuple[dict[str, Any], Tensors]:
    """Raises MessageError for anything that is not a message of ours."""
    try:
        tensors = load(data)
        header_size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + header_size])["__metadata__"]["header"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MessageError(f"not a safetensors message with a JSON header: {error}") from error
    if not isinstance(header, dict):
        raise MessageError(f"the header is a {type(header).__name__}, an object is wanted")
    return header, tensors


@dataclass(frozen=True)
class Metrics:
    """Sums over samples, so that adding two of them is exact."""

    samples: int
    loss_sum: float
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.samples or not 0 <= self.loss_sum < np.inf:
            raise MessageError(
                f"impossible metrics: {self.samples} samples, {self.correct} correct, loss {self.loss_sum}"
            )

    @property
    def loss(self) -> float:
        return self.loss_sum / self.samples if self.samples else 0.0

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples if self.samples else 0.0

    def __add__(self, other: Metrics) -> Metrics:
        return Metrics(
            self.samples + other.samples, self.loss_sum + other.loss_sum, self.correct + other.correct
        )


NO_METRICS = Metrics(0, 0.0, 0)


def read_metrics(value: object) -> Metrics:
    try:
        fields = dict(value)  # type: ignore[call-overload]
        return Metrics(int(fields["samples"]), float(fields["loss_sum"]), int(fields["correct"]))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise MessageError(f"metrics want samples, loss_sum and correct: {error}") from error


@dataclass(frozen=True)
class Update:
    """What a site uploads in a round: the gradient SUM over its batch, and what it saw on the way."""

    site: str
    round: int
    gradients: Tensors
    batch: Metrics
    validation: Metrics | None = (
        None  # of the parameters that the round began with, on the site's own validation samples
    )


def batch_share(global_batch_size: int, samples: int, all_samples: int) -> int:
    """How many samples of a round's batch a site draws: its share of all samples, at least one."""
    return max(1, round(global_batch_size * samples / all_samples))


def site_seed(run_seed: int, site: str) -> int:
    """What a site's batches and dropout are drawn from: its own, and the same whenever the run is repeated."""
    return zlib.crc32(f"{run_seed}/{site}".encode())


# -- A run, seen from outside ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SiteSpec:
    shard_digest: str
    samples: int
    validation_digest: str  # the site's own samples that no gradient is taken of
    validation_samples: int


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run needs, fixed when its shards are cut."""

    run: str  # the run's name outside the database, e.g. "run-3"
    store_url: str
    sites: Mapping[str, SiteSpec]
    heldout_digest: str  # the held-out samples that candidate and champion are compared on
    champion_digest: str | None  # the artifact to go on from; None trains from scratch
    rounds: int | None  # None takes what the training configuration says
    deadline_seconds: float  # of all rounds together
    seed: int = 0
    join_deadline_seconds: float = 180  # a site that has not joined by then is left out
    round_deadline_seconds: float = 60  # a site that has not answered by then is left out of the round

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @staticmethod
    def from_json(text: str) -> RunSpec:
        fields = json.loads(text)
        fields["sites"] = {name: SiteSpec(**site) for name, site in fields["sites"].items()}
        return RunSpec(**fields)


@dataclass(frozen=True)
class RoundRecord:
    number: int
    loss: float  # mean over the round's batches
    accuracy: float  # of the round's batches, 0..1
    seconds: float
    bytes_up: int
    bytes_down: int
    sites: Mapping[
        str, Mapping[str, float]
    ]  # {site: {"samples", "loss", "accuracy"[, "validation_accuracy"]}}
    validation_accuracy: float | None = None  # over all sites' validation samples, in rounds that measured it


Phase = Literal["absent", "starting", "training", "paused", "evaluating", "done", "failed"]


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands. `done` carries the result, `failed` and `paused` the reason; there is no "unknown"."""

    phase: Phase
    reason: str = ""
    rounds_planned: int | None = None
    rounds: tuple[RoundRecord, ...] = ()
    result: Mapping[str, Any] | None = None  # {"artifact", "report"}: the digest, and what report.py wrote
    missing_sites: tuple[str, ...] = field(default=())


class ProgressLog:
    """The aggregator's diary: one JSON object a line, appended and flushed, readable while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def complete(self, rounds: Sequence[RoundRecord]) -> None:
        """Write the rounds that a death kept from being written."""
        for record in rounds[len(read_progress(self._path).rounds) :]:
            self.write("round", asdict(record))

    def write(self, kind: str, value: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **value}, ensure_ascii=False) + "\n")


def read_progress(path: Path) -> RunStatus:
    """The status that the diary tells; a last line that is still being written is left for the next look."""
    if not path.exists():
        return RunStatus("starting")
    phase: Phase = "starting"
    reason, planned, result, rounds, missing = "", None, None, [], ()
    # Only "\n" ends a line: a site's name or a reason may hold what splitlines() also takes for an end. The last
    # line may stop amid a character.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        kind = entry.pop("kind")
        if kind == "phase":
            phase, reason = entry["phase"], entry.get("reason", "")
            planned = entry.get("rounds", planned)
        elif kind == "round":
            rounds.append(RoundRecord(**entry))
        elif kind == "missing":
            missing = tuple(entry["sites"])
        elif kind == "done":
            phase, result = "done", entry
        elif kind == "failed":
            phase, reason = "failed", entry["reason"]
    return RunStatus(phase, reason, planned, tuple(rounds), result, missing)
