"""The aggregator's journal: what it needs to go on, bit for bit, after it was killed at any instruction.

    checkpoint.safetensors    the optimizer's whole state after some round, and the plan; replaced when the journal
                              has grown to CHECKPOINT_RATIO times its size
    rounds.journal            each round since: the averaged gradient as it was applied, and the round's record

A round is in the journal, and applied, before anybody hears of the next one. Replaying it makes the same arithmetic on
the same numbers, so nobody can tell that there was an interruption. Writing survives the death of the process, not of
the machine: after a power cut the last rounds may be gone, and are trained again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import xxhash

from federated.protocol import DIARY, MessageError, Tensors, decode_message, encode_pieces, size_of
from federated.store import write_whole

CHECKPOINT, ROUNDS = "checkpoint.safetensors", "rounds.journal"
LOCK = "aggregator.lock"
CHECKPOINT_RATIO: Final = 4  # so all checkpoints together cost a quarter of what the rounds' own records do
_FRAME: Final = struct.Struct("<4sQQ")  # magic, XXH3 (64 bits) of the message, its length in bytes
_MAGIC: Final = b"HSJ2"


log = logging.getLogger(__name__)


class JournalError(Exception):
    """The journal cannot be gone on from; the text names the file and what is wrong."""


@dataclass(frozen=True)
class Entry:
    """A round that was closed: its record and the averaged gradient."""

    record: dict[str, Any]
    gradient: Tensors


class Journal:
    """The journal in a run's work folder."""

    def __init__(self, work_dir: Path) -> None:
        self.folder = work_dir
        self._checkpoint = work_dir / CHECKPOINT
        self._rounds = work_dir / ROUNDS
        self._file: BinaryIO | None = None

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self._checkpoint.exists()

    def write_checkpoint(self, header: Mapping[str, Any], state: Tensors) -> None:
        """Keep a whole state; rounds written before it are no longer needed. Raises OSError (StoreError)."""
        write_whole(self._checkpoint, *encode_pieces(header, state))
        # Later rounds are written over the earlier ones, which is cheaper than into a new file. What is left behind
        # them, whole or not, the checkpoint holds already: whoever reads passes over it, by the rounds' numbers.
        if self._file is None:
            self._rounds.unlink(missing_ok=True)
        else:
            self._file.seek(0)

    def is_long(self) -> bool:
        """Whether a checkpoint should be written: what is read after a death stays bounded, and so does the disk."""
        if self._file is None:
            return False
        return self._file.tell() > CHECKPOINT_RATIO * self._checkpoint.stat().st_size

    def append(self, record: Mapping[str, Any], gradient: Tensors) -> None:
        """Write a round down before anybody hears of the next one. Raises OSError."""
        pieces = encode_pieces({"record": record}, gradient)
        checksum = xxhash.xxh3_64()
        for piece in pieces:
            checksum.update(piece)
        if self._file is None:
            self._rounds.touch()
            self._file = self._rounds.open("r+b", buffering=0)
            self._file.seek(0, os.SEEK_END)
        self._file.write(_FRAME.pack(_MAGIC, checksum.intdigest(), size_of(pieces)))
        for piece in pieces:
            self._file.write(piece)

    def read_checkpoint(self) -> tuple[dict[str, Any], Tensors]:
        """Give the last whole state. Raises JournalError."""
        try:
            return decode_message(bytearray(self._checkpoint.read_bytes()))
        except (OSError, MessageError) as error:
            raise JournalError(f"{self._checkpoint}: {error}; start another run") from error

    def read_rounds(self) -> Iterator[Entry]:
        """Give the rounds since, in order, and perhaps some that the checkpoint holds already.

        A last one that was being written when the process died is cut off.
        """
        self.close()
        if not self._rounds.exists():
            return
        with self._rounds.open("r+b") as file:
            whole = 0
            while (message := _read_message(file)) is not None:
                whole = file.tell()
                header, gradient = decode_message(message)
                yield Entry(header["record"], gradient)
            file.truncate(whole)

    def close(self) -> None:
        """Close the file that rounds are written to."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read_message(file: BinaryIO) -> bytearray | None:
    """The next message, or None at the end and where it is not whole."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    magic, checksum, size = _FRAME.unpack(frame)
    message = bytearray(file.read(size)) if magic == _MAGIC else bytearray()
    whole = len(message) == size and xxhash.xxh3_64_intdigest(message) == checksum
    return message if whole else None


class WorkDirTaken(Exception):
    """Another aggregator works in this folder."""


@contextlib.contextmanager
def held_work_dir(work_dir: Path, patience_seconds: float) -> Iterator[None]:
    """Keep a second aggregator out of the run's folder: on a cluster the one before may not have ended yet.

    Raises WorkDirTaken when it is still there after so long.
    """
    deadline = time.monotonic() + patience_seconds
    with (work_dir / LOCK).open("w") as lock:
        while not _lock(lock.fileno()):
            if time.monotonic() >= deadline:
                raise WorkDirTaken(
                    f"another aggregator has worked in {work_dir} for {patience_seconds:.0f} s more: end it first"
                )
            time.sleep(0.2)
        yield


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("this volume has no locks (%s); nobody keeps a second aggregator out", error)
    return True


def prune_work_dirs(parent: Path, keep: Path, older_than_seconds: float) -> None:
    """Remove the folders of runs in `parent` in which nothing was written for so long, and nobody works."""
    until = time.time() - older_than_seconds
    for folder in sorted(parent.iterdir()):
        try:
            if folder == keep or not (folder / DIARY).is_file() or _last_written(folder) > until:
                continue
            with (folder / LOCK).open("w") as lock:
                if _lock(lock.fileno()):
                    shutil.rmtree(folder)
                    log.info("removed %s: nothing was written there for %.0f s", folder, older_than_seconds)
        except OSError as error:  # is being removed by another run's aggregator, or belongs to somebody else
            log.warning("%s was not looked after: %s", folder, error)


def _last_written(folder: Path) -> float:
    return max(file.stat().st_mtime for file in folder.iterdir() if file.name != LOCK)
