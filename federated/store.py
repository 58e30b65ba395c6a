"""The artifact store: shards and artifacts named by digest, reports, and the champion pointer. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class StoreError(OSError):
    """The store cannot do what was asked; the text says what and where."""


class FolderStore:
    """A store in a folder. Every file appears whole or not at all, under its final name.

    artifacts/<digest>/   one artifact          shards/<digest>.jsonl   samples of one site, or held-out samples
    reports/<digest>/     report.json, *.png    champion.json           {"digest": …, "previous": …}: whom to serve
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"

    def artifact(self, digest: str) -> Path:
        return self.artifacts / digest

    def shard(self, digest: str) -> Path:
        return self.root / "shards" / f"{digest}.jsonl"

    def report(self, digest: str) -> Path:
        return self.root / "reports" / digest

    def put_shard(self, samples: Iterable[Mapping[str, Any]]) -> str:
        """Write samples, one JSON object a line, and return the file's sha256 digest."""
        lines = [
            json.dumps(sample, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            for sample in samples
        ]
        data = "".join(line + "\n" for line in lines).encode()
        digest = hashlib.sha256(data).hexdigest()
        if not self.shard(digest).exists():
            write_whole(self.shard(digest), data)
        return digest

    def champion(self) -> str | None:
        """The digest of the model to serve, or None before the first. Raises StoreError for a damaged pointer."""
        path = self.root / "champion.json"
        try:
            return str(json.loads(path.read_text())["digest"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} names no model ({error!r}): promote one again") from error

    def point_to_champion(self, digest: str) -> None:
        """Name the model to serve, and the one before it; the inference service watches this file."""
        if not self.artifact(digest).is_dir():
            raise StoreError(f"artifact {digest} is not in {self.root}: nothing to serve")
        try:
            previous = self.champion()
        except StoreError:  # a damaged pointer is about to be mended
            previous = None
        pointer = {"digest": digest, "previous": previous} if previous else {"digest": digest}
        write_whole(self.root / "champion.json", json.dumps(pointer).encode())


def open_store(url: str) -> FolderStore:
    """The store at a URL like file:///srv/huisheng/store."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise StoreError(f"ARTIFACT_STORE_URL is {url!r}: file:///absolute/folder is wanted")
    return FolderStore(Path(unquote(parts.path)))


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write these parts as a file: a reader sees the old one or the new one, and a full disk leaves no half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise StoreError(f"cannot write {path}: {error}") from error
