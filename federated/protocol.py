"""What travels between trainers and aggregator, and between a run and whoever started it. No torch.

A message is one safetensors file: named tensors, and a JSON header under the metadata key `header`. safetensors holds
raw little-endian numbers and no code, so reading a message from a stranger runs nothing (unlike pickle).
"""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ml.training_config import CHOICES, FIRST_TRAINING, RETRAINING, TrainingConfig

Tensors = dict[str, np.ndarray]
Message = list[memoryview]  # a message to be sent, as a few buffers, one after another

TOKEN_VARIABLE = "HUISHENG_SITE_TOKEN"  # noqa: S105 - the environment variable's name, not a token
TOKENS_VARIABLE = "HUISHENG_SITE_TOKENS"  # the aggregator's: JSON {site: token}

# How the processes of a run end, for whoever starts them: 0 done, 1 failed and not to be repeated, and
EXIT_USAGE = 2  # wrong arguments, a bad shard, specification or certificate: the same would come of it again
EXIT_REFUSED = 10  # the other side refused for good, or is not to be trusted
EXIT_UNREACHABLE = 11  # the other side could not be reached: may be tried again
EXIT_MOVED = 143  # ended by SIGTERM amid a run that another process is to go on with, as shells count signals

MESSAGE_TYPE = "application/vnd.huisheng.safetensors"
NOT_COUNTED_HEADER = "X-Update-Not-Counted"  # of an answer to an update: why it had no part in its round
REASON_MAX_CHARS = 400
LARGE_PART_BYTES = 2**16  # of a message: is not copied to be sent
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class MessageError(ValueError):
    """A message that does not say what it must; the text says why."""


def encode_message(header: Mapping[str, Any], tensors: Tensors) -> bytes:
    """Lay a header and tensors into one safetensors file (github.com/huggingface/safetensors)."""
    return b"".join(_encode_parts(header, tensors))


def _encode_parts(header: Mapping[str, Any], tensors: Tensors) -> list[Any]:
    """Give a message as the buffers that make it up, one after another: the tensors themselves are among them."""
    table: dict[str, Any] = {"__metadata__": {"header": json.dumps(header, ensure_ascii=False)}}
    # Those of larger numbers first, so that each begins at a multiple of its numbers' size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    parts: list[Any] = []
    end = 0
    for name, value in ordered:
        if value.dtype not in _NAMES:
            raise MessageError(f"{name} is {value.dtype}, a message holds {', '.join(map(str, _NAMES))}")
        # The memory behind an array is sent as it lies, so a transposed one must be laid out first.
        parts.append(np.asarray(value, order="C"))
        begin, end = end, end + value.nbytes
        table[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(table, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little"), head, *(part.reshape(-1).view(np.uint8) for part in parts)]


def encode_pieces(header: Mapping[str, Any], tensors: Tensors) -> Message:
    """Give a message as a few buffers: large tensors as they lie, the rest joined."""
    pieces: Message = []
    small: list[Any] = []
    for part in _encode_parts(header, tensors):
        if len(part) < LARGE_PART_BYTES:
            small.append(part)
            continue
        pieces += [memoryview(b"".join(small)), memoryview(part)]
        small = []
    return [*pieces, memoryview(b"".join(small))]


def size_of(message: Message) -> int:
    """Give how many bytes a message has."""
    return sum(piece.nbytes for piece in message)


def decode_message(data: bytes | bytearray | memoryview) -> tuple[dict[str, Any], Tensors]:
    """Give a message's header and its tensors, which lie in `data` itself.

    Raises MessageError for anything that is not a message of ours.
    """
    view = memoryview(data)
    size = int.from_bytes(view[:8], "little")
    if len(view) < 8 or size > len(view) - 8:
        raise MessageError(f"not a safetensors message with a JSON header: {len(view)} bytes are too few")
    try:
        table = json.loads(bytes(view[8 : 8 + size]))
        header = json.loads(table.pop("__metadata__")["header"])
        body = view[8 + size :]
        tensors = {str(name): _read_tensor(entry, body) for name, entry in table.items()}
        if sum(tensor.nbytes for tensor in tensors.values()) != len(body):
            raise ValueError("the tensors do not fill the message")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MessageError(f"not a safetensors message with a JSON header: {error!r}") from error
    if not isinstance(header, dict):
        raise MessageError(f"the header is a {type(header).__name__}, an object is wanted")
    return header, tensors


def _read_tensor(entry: Mapping[str, Any], body: memoryview) -> np.ndarray:
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    begin, end = entry["data_offsets"]
    for number in (begin, end, *shape):
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"shape {shape} and place {begin}–{end} must be whole numbers")
    if not begin <= end <= len(body) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{dtype}{shape} does not fill bytes {begin} to {end} of {len(body)}")
    tensor = np.ndarray(shape, dtype, body, begin)
    return tensor if tensor.flags.aligned else tensor.copy()


def read_token_counts(value: object) -> dict[str, int]:
    """Check what a site says of how often each token stands in its texts. Raises MessageError."""
    if not isinstance(value, dict) or not all(
        isinstance(count, int) and count > 0 for count in value.values()
    ):
        raise MessageError("token_counts is not an object of positive counts")
    try:
        "".join(value).encode()
    except UnicodeEncodeError as error:  # a lone surrogate: the vocabulary could never be written
        raise MessageError(f"token_counts holds a token that is not text: {error}") from error
    return value


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
    champion_digest: (
        str | None
    )  # the artifact to go on from, and to be judged beside; None trains from scratch
    rounds: int | None  # None takes what the training configuration says
    deadline_seconds: float  # of all rounds together
    seed: int = 0
    # What differs from the usual training configuration, by the names of its fields, e.g. {"strategy": "fedavg"}.
    training: Mapping[str, Any] = field(default_factory=dict)
    # The same for a first training's network, and for its vocabulary: {"max_size", "min_count"}.
    network: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    # The same for its tokenizer, e.g. {"kind": "characters"}. Where the champion has another one, its weights are of
    # no use: the run trains from scratch, and is judged beside the champion all the same.
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    join_deadline_seconds: float = 180  # a site that has not joined by then is left out
    round_deadline_seconds: float = 60  # a site that has not answered by then is left out of the round
    planned_at: str = (
        ""  # ISO 8601; tells the run from an earlier one of its name, as after a database was restored
    )

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @staticmethod
    def from_json(text: str) -> RunSpec:
        fields = json.loads(text)
        fields["sites"] = {name: SiteSpec(**site) for name, site in fields["sites"].items()}
        return RunSpec(**fields)


# What an operator may choose for tokens → the specification's tokenizer.
TOKENIZERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "words": {"kind": "jieba"},
    "characters": {"kind": "characters"},
}
TRAINING_CHOICES: Final = (
    CHOICES  # of a training's settings that are names: setting → the names that it may be
)

# What a strategy changes of the usual training where nobody says otherwise. Plain SGD at the sites wants large steps;
# twice these were best where sites are alike, and ran away where they are not (docs/experiments/noniid.md).
LOCAL_TRAINING: Final[Mapping[str, Mapping[str, Any]]] = {
    "fedsgd": {},
    "fedopt": {"local_steps": 5, "local_learning_rate": 1.0, "learning_rate": 2e-2},
    "fedavg": {"local_steps": 5, "local_learning_rate": 2.0},
    "scaffold": {"local_steps": 5, "local_learning_rate": 1.0},
}


def configure_training(changes: Mapping[str, Any], *, first: bool, rounds: int | None) -> TrainingConfig:
    """Give the training that a run is to be: the usual first one or retraining, but for some changes.

    Raises ValueError naming what does not fit.
    """
    usual = FIRST_TRAINING if first else RETRAINING
    wrong = sorted(changes.keys() - usual.to_json().keys())
    if wrong:
        raise ValueError(f"no such settings of a training: {', '.join(wrong)}")
    config = replace(usual, **{**LOCAL_TRAINING.get(changes.get("strategy", ""), {}), **changes})
    return config if rounds is None else config.with_rounds(rounds)


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
class Refusal:
    """What the aggregator did not take, and from whom: a site, or an address when the token was no site's."""

    site: str  # "" for a stranger
    address: str  # "" for a site, and for many strangers together
    round: int  # the run's at that time, the latest; 0 before the first
    status: int  # HTTP's; 0 where there was no request yet, as TLS was not agreed on
    reason: str  # as the site was told
    at: float  # the latest, in seconds since the epoch
    count: int = 1  # so often at least

    def kind(self) -> tuple[str, str, int, str]:
        """What refusals that are counted together have in common."""
        return self.site, self.address, self.status, self.reason


def tidy_reason(text: str) -> str:
    """Make a reason fit for a log line, a page and an answer, whatever a stranger has put into it."""
    shown = "".join(
        character if character.isprintable() else " " if character.isspace() else "\ufffd"
        for character in text[: REASON_MAX_CHARS + 1]
    )
    return shown if len(shown) <= REASON_MAX_CHARS else shown[: REASON_MAX_CHARS - 1] + "…"


PodPhase = Literal["pending", "running", "succeeded", "failed", "missing"]


@dataclass(frozen=True)
class PodStatus:
    """How a pod of a run fares; or a Job that has none, which is then named in its place ("missing")."""

    name: str
    site: str  # "" for the aggregator
    phase: PodPhase
    since: float  # in seconds since the epoch: when it was made, began or ended
    reason: str = ""  # what is wrong with it, or what it waits for, e.g. "ImagePullBackOff: …"
    node: str = ""
    exit_code: int | None = None
    failures: int = 0  # pods of the same Job that have failed
    log: tuple[str, ...] = ()  # the last lines
    events: tuple[str, ...] = ()  # warnings, the latest last


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands. `done` carries the result, `failed` and `paused` the reason; there is no "unknown"."""

    phase: Phase
    reason: str = ""
    rounds_planned: int | None = None
    rounds: tuple[RoundRecord, ...] = ()
    result: Mapping[str, Any] | None = None  # {"artifact", "report"}: the digest, and what report.py wrote
    missing_sites: tuple[str, ...] = field(default=())
    refusals: tuple[Refusal, ...] = field(default=())  # the latest first
    pods: tuple[PodStatus, ...] = field(default=())  # where it runs on a cluster; the aggregator's first


DIARY: Final = "progress.jsonl"  # its name in the aggregator's folder, and in the store


class ProgressLog:
    """The aggregator's diary: one JSON object a line, appended and flushed, readable while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # long lines are written in parts

    def refusals(self) -> tuple[Refusal, ...]:
        """What was refused so far, as it was last written."""
        return read_progress(self._path).refusals

    def complete(self, rounds: Sequence[RoundRecord]) -> None:
        """Write the rounds that a death kept from being written."""
        for record in rounds[len(read_progress(self._path).rounds) :]:
            self.write("round", asdict(record))

    def write(self, kind: str, value: Mapping[str, Any]) -> None:
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **value}, ensure_ascii=False) + "\n")


def mend_last_line(path: Path) -> None:
    """Cut off a last line that was being written when the process died: what is appended next begins a line."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        with path.open("r+b") as file:
            file.truncate(end)


def read_progress(path: Path) -> RunStatus:
    """The status that the diary tells; a last line that is still being written is left for the next look."""
    return parse_progress(path.read_bytes()) if path.exists() else RunStatus("starting")


def parse_progress(diary: bytes) -> RunStatus:
    """The same of a diary's content, wherever it was kept."""
    phase: Phase = "starting"
    reason, planned, result, rounds, missing = "", None, None, [], ()
    refusals: dict[tuple[str, str, int, str], Refusal] = {}
    # Only "\n" ends a line: a site's name or a reason may hold what splitlines() also takes for an end. The last
    # line may stop amid a character.
    for line in diary.decode("utf-8", "replace").split("\n")[:-1]:
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
        elif kind == "refused":
            refusal = Refusal(**entry)
            refusals.pop(refusal.kind(), None)  # so that the latest stands last
            refusals[refusal.kind()] = refusal
        elif kind == "done":
            phase, result = "done", entry
        elif kind == "failed":
            phase, reason = "failed", entry["reason"]
    return RunStatus(
        phase, reason, planned, tuple(rounds), result, missing, tuple(reversed(refusals.values()))
    )
