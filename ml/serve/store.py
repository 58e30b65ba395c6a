"""The store as the service sees it: a pointer that names the champion, and artifacts named by digest."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

from ml.artifact import Artifact, load_artifact

POINTER: Final = "champion.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")

PointerMark = tuple[int, int, int]


class PointerError(Exception):
    """The champion pointer is missing or cannot be understood; says which and what to do."""


def pointer_mark(store: Path) -> PointerMark | None:
    """Give what changes whenever the pointer file is replaced, None while there is no such file."""
    try:
        found = (store / POINTER).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class Pointer:
    """The digest of the champion, and of the one before it."""

    digest: str
    previous: str | None


def read_pointer(store: Path) -> Pointer:
    """Read which digest is the champion; raises PointerError."""
    path = store / POINTER
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PointerError(f"{path}: missing; it is written when a model is promoted") from error
    except (OSError, ValueError) as error:
        raise PointerError(f"{path}: cannot be read: {error}") from error
    fields = document if isinstance(document, dict) else {}
    digest, previous = fields.get("digest"), fields.get("previous")
    # Both become part of a path, so nothing but a digest may pass.
    if not _is_digest(digest) or not (previous is None or _is_digest(previous)):
        raise PointerError(f'{path}: expected {{"digest": 64 hexadecimal digits}}, got {document!r:.100}')
    return Pointer(digest, previous)


def _is_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def load_from_store(store: Path, digest: str) -> Artifact:
    """Load and verify an artifact of the store; raises ArtifactError."""
    return load_artifact(store / "artifacts" / digest, digest)
