"""The store as the service sees it: a pointer that names the champion, and artifacts named by digest."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeGuard

from ml.artifact import Artifact, load_artifact
from ml.serve.settings import ServeSettings

POINTER: Final = "champion.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class PointerError(Exception):
    """The champion pointer is missing or cannot be understood; says which and what to do."""


@dataclass(frozen=True)
class Pointer:
    """The digest of the champion, and of the one before it."""

    digest: str
    previous: str | None


class ArtifactStore(Protocol):
    """Where the pointer and the artifacts come from."""

    def mark(self) -> Hashable:
        """Give what changes whenever the pointer is written anew; None while there is none."""
        ...

    def read_pointer(self) -> Pointer:
        """Read which digest is the champion; raises PointerError."""
        ...

    def load(self, digest: str) -> Artifact:
        """Load and verify an artifact; raises ArtifactError."""
        ...

    def close(self) -> None:
        """Give back what it holds open."""
        ...


def open_store(settings: ServeSettings) -> ArtifactStore:
    """Give the store that the settings name; nothing is read or asked yet."""
    if isinstance(settings.store, Path):
        return FolderStore(settings.store)
    from ml.serve.remote_store import (
        RemoteStore,
        cache_folder,
    )  # brings an HTTP client, which others need not load

    return RemoteStore(settings.store, cache_folder(settings.cache), settings.store_token)


@dataclass(frozen=True)
class FolderStore:
    """A store in a folder, which the blog writes."""

    path: Path

    def mark(self) -> Hashable:
        """Give the pointer file's identity; a stat is all that a look costs while nothing changes."""
        try:
            found = (self.path / POINTER).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read_pointer(self) -> Pointer:
        """Read which digest is the champion; raises PointerError."""
        path = self.path / POINTER
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise PointerError(f"{path}: missing; it is written when a model is promoted") from error
        except OSError as error:
            raise PointerError(f"{path}: cannot be read: {error}") from error
        return parse_pointer(content, str(path))

    def load(self, digest: str) -> Artifact:
        """Load and verify an artifact of the store; raises ArtifactError."""
        return load_artifact(self.path / "artifacts" / digest, digest)

    def close(self) -> None:
        """Do nothing: nothing is held open."""


def parse_pointer(content: bytes, where: str) -> Pointer:
    """Understand a pointer's content; raises PointerError saying `where` it came from."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise PointerError(f"{where}: cannot be read: {error}") from error
    fields = document if isinstance(document, dict) else {}
    digest, previous = fields.get("digest"), fields.get("previous")
    # Both become part of a path, so nothing but a digest may pass.
    if not _is_digest(digest) or not (previous is None or _is_digest(previous)):
        raise PointerError(f'{where}: expected {{"digest": 64 hexadecimal digits}}, got {document!r:.100}')
    return Pointer(digest, previous)


def _is_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
