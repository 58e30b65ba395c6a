"""The store as the service sees it: a pointer that names the champion, and artifacts named by digest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

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


def read_pointer(store: Path) -> str:
    """Read which digest is the champion; raises PointerError."""
    path = store / POINTER
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PointerError(f"{path}: missing; it is written when a model is promoted") from error
    except (OSError, ValueError) as error:
        raise PointerError(f"{path}: cannot be read: {error}") from error
    digest = document.get("digest") if isinstance(document, dict) else None
    # The digest becomes part of a path, so nothing but a digest may pass.
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise PointerError(f'{path}: expected {{"digest": 64 hexadecimal digits}}, got {document!r:.100}')
    return digest


def load_from_store(store: Path, digest: str) -> Artifact:
    """Load and verify an artifact of the store; raises ArtifactError."""
    return load_artifact(store / "artifacts" / digest, digest)
