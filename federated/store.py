"""The artifact store: shards and artifacts named by digest, reports, diaries, and the champion pointer. No torch.

    artifacts/<digest>/   one artifact          shards/<digest>.jsonl   samples of one site, or held-out samples
    reports/<digest>/     report.json, *.png    champion.json           {"digest": …, "previous": …}: whom to serve
    runs/<run>/           a run's diary

It is a folder, or the same folder behind an HTTP server (federated/http_store.py). What is named by a digest never
changes; every file appears whole or not at all, under its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

STORE_URL_VARIABLE: Final = "ARTIFACT_STORE_URL"
STORE_TOKEN_VARIABLE: Final = "ARTIFACT_STORE_TOKEN"  # noqa: S105 - the environment variable's name, not a token
POINTER: Final = "champion.json"
MANIFEST: Final = "manifest.json"  # of an artifact: what it holds; the digest of this file is the artifact's
MAX_FILE_BYTES: Final = 512 * 1024**2  # of any file of a store; infra/nginx/store.conf has the same limit
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_RUN_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class StoreError(OSError):
    """The store cannot do what was asked; the text says what, where, and what to do.

    `permanent` is false where the same may succeed later: the store was away, or too busy.
    """

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent


class MissingFile(StoreError):
    """The store answers, and holds no such file."""


class Store(Protocol):
    """What training and the blog ask of a store. Each call may be repeated. All of them raise StoreError."""

    def put_shard(self, samples: Iterable[Mapping[str, Any]]) -> str:
        """Write samples, one JSON object a line, and return the file's sha256 digest."""

    def read_shard(self, digest: str) -> bytes:
        """The content of a shard, verified."""

    def fetch_shard(self, digest: str, into: Path) -> Path:
        """Give a file that holds the shard: the store's own, or one that is fetched into a folder and verified."""

    def delete_shard(self, digest: str) -> None:
        """Remove a shard; one that is not there is no error."""

    def has_artifact(self, digest: str) -> bool:
        """Whether the artifact is there, whole."""

    def fetch_artifact(self, digest: str, into: Path) -> Path:
        """Give a folder that holds the artifact: the store's own, or one fetched as `into`/<digest> and verified."""

    def put_artifact(self, digest: str, folder: Path) -> None:
        """Keep the artifact that a folder holds, after verifying it."""

    def delete_artifact(self, digest: str) -> None:
        """Remove an artifact that nothing serves; one that is not there, or only in part, is no error."""

    def put_report(self, digest: str, name: str, content: bytes) -> None:
        """Keep a file of the report on an artifact, in place of an earlier one."""

    def read_report(self, digest: str, name: str) -> bytes:
        """A file of the report on an artifact; raises MissingFile where there is none."""

    def champion(self) -> str | None:
        """The digest of the model to serve, or None before the first."""

    def point_to_champion(self, digest: str) -> None:
        """Name the model to serve, and the one before it; the inference service watches this file."""

    def put_run_file(self, run: str, name: str, content: bytes) -> None:
        """Keep a file of a run, in place of an earlier one."""

    def read_run_file(self, run: str, name: str) -> bytes:
        """A file of a run; raises MissingFile where there is none."""


class FolderStore:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"

    def artifact(self, digest: str) -> Path:
        return self.root / artifact_path(digest)

    def shard(self, digest: str) -> Path:
        return self.root / shard_path(digest)

    def report(self, digest: str) -> Path:
        return self.root / report_path(digest)

    def put_shard(self, samples: Iterable[Mapping[str, Any]]) -> str:
        digest, content = lay_out_shard(samples)
        if not self.shard(digest).exists():
            write_whole(self.shard(digest), content)
        return digest

    def read_shard(self, digest: str) -> bytes:
        content = self._read(shard_path(digest))
        verify_bytes(content, digest, str(self.shard(digest)))
        return content

    def fetch_shard(self, digest: str, into: Path) -> Path:
        return self.shard(digest)  # verified by nobody: on this machine it was written whole

    def delete_shard(self, digest: str) -> None:
        try:
            self.shard(digest).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {self.shard(digest)}: {error}") from error

    def has_artifact(self, digest: str) -> bool:
        return self.artifact(digest).is_dir()

    def fetch_artifact(self, digest: str, into: Path) -> Path:
        return self.artifact(digest)  # whoever loads it verifies it

    def put_artifact(self, digest: str, folder: Path) -> None:
        manifest = verify_artifact(folder, digest)
        if self.has_artifact(digest):
            verify_artifact(self.artifact(digest), digest)
            return
        try:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            self._copy_artifact(folder, digest, [*manifest, MANIFEST])
        except OSError as error:
            if not self.has_artifact(digest):  # else somebody else has written it meanwhile
                raise StoreError(f"cannot write {self.artifact(digest)}: {error}") from error

    def _copy_artifact(self, folder: Path, digest: str, names: Iterable[str]) -> None:
        partial = Path(tempfile.mkdtemp(prefix=f".{digest[:12]}.", suffix=".partial", dir=self.artifacts))
        try:
            for name in names:
                with (folder / name).open("rb") as source, (partial / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
                    target.flush()
                    os.fsync(target.fileno())
            partial.chmod(0o755)  # the service that reads it may run as another user
            os.replace(partial, self.artifact(digest))
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def delete_artifact(self, digest: str) -> None:
        folder, going = self.artifact(digest), self.artifacts / f".{digest}.going"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, going)  # gone at once for whoever looks, whatever happens next
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(going)
        except OSError as error:
            raise StoreError(f"cannot remove {folder}: {error}") from error

    def put_report(self, digest: str, name: str, content: bytes) -> None:
        write_whole(self.root / report_path(digest, name), content)

    def read_report(self, digest: str, name: str) -> bytes:
        return self._read(report_path(digest, name))

    def champion(self) -> str | None:
        try:
            content = self._read(POINTER)
        except MissingFile:
            return None
        return read_pointer(content, str(self.root / POINTER))

    def point_to_champion(self, digest: str) -> None:
        if not self.has_artifact(digest):
            raise StoreError(f"artifact {digest} is not in {self.root}: nothing to serve")
        write_whole(self.root / POINTER, make_pointer(digest, instead_of=self))

    def put_run_file(self, run: str, name: str, content: bytes) -> None:
        write_whole(self.root / run_path(run, name), content)

    def read_run_file(self, run: str, name: str) -> bytes:
        return self._read(run_path(run, name))

    def _read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFile(f"{self.root / path}: missing") from error
        except OSError as error:
            raise StoreError(f"cannot read {self.root / path}: {error}") from error


def open_store(url: str, *, token: str = "", patience_seconds: float | None = None) -> Store:
    """The store at a URL like file:///srv/huisheng/store, or http://store.huisheng.svc:8080.

    `token` goes to an HTTP store as a bearer token; `patience_seconds` is how long such a store may be away before a
    call gives up. Nothing is asked yet. Raises StoreError for another kind of URL.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname:
        from federated.http_store import HttpStore  # brings an HTTP client, which a folder does not need

        return HttpStore(url, token) if patience_seconds is None else HttpStore(url, token, patience_seconds)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise StoreError(
            f"ARTIFACT_STORE_URL is {url!r}: file:///absolute/folder or http(s)://host/path is wanted"
        )
    return FolderStore(Path(unquote(parts.path)))


# -- Where things lie --------------------------------------------------------------------------------------------
# Digests and names come from elsewhere and become parts of paths, so nothing else may pass.


def artifact_path(digest: str, name: str = "") -> str:
    """Where an artifact, or a file of it, lies in a store."""
    return _below(f"artifacts/{checked_digest(digest)}", name)


def shard_path(digest: str) -> str:
    """Where a shard lies in a store."""
    return f"shards/{checked_digest(digest)}.jsonl"


def report_path(digest: str, name: str = "") -> str:
    """Where the report on an artifact, or a file of it, lies in a store."""
    return _below(f"reports/{checked_digest(digest)}", name)


def run_path(run: str, name: str) -> str:
    """Where a file of a run lies in a store."""
    if not _RUN_NAME.fullmatch(run):
        raise StoreError(f"{run!r:.100} is no name of a run: run-12 is one")
    return _below(f"runs/{run}", name)


def _below(folder: str, name: str) -> str:
    return f"{folder}/{checked_name(name)}" if name else folder


def checked_digest(digest: str) -> str:
    """The digest itself. Raises StoreError for what is none."""
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest!r:.100} is no digest: 64 hexadecimal digits are wanted")
    return digest


def checked_name(name: str) -> str:
    """The name itself. Raises StoreError for what is no plain name of a file."""
    if not _FILE_NAME.fullmatch(name):
        raise StoreError(f"{name!r:.100} is no name of a file in a store")
    return name


# -- What things are ---------------------------------------------------------------------------------------------


def lay_out_shard(samples: Iterable[Mapping[str, Any]]) -> tuple[str, bytes]:
    """A shard's digest and its bytes; the same samples give the same."""
    lines = [
        json.dumps(sample, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for sample in samples
    ]
    content = "".join(line + "\n" for line in lines).encode()
    return hashlib.sha256(content).hexdigest(), content


def make_pointer(digest: str, *, instead_of: Store) -> bytes:
    """The pointer to a model, and to the one before it."""
    try:
        previous = instead_of.champion()
    except StoreError as error:
        if not error.permanent:
            raise
        previous = None  # a damaged pointer is about to be mended
    return json.dumps({"digest": digest, "previous": previous} if previous else {"digest": digest}).encode()


def read_pointer(content: bytes, where: str) -> str:
    """The digest that a pointer names. Raises StoreError for a damaged one."""
    try:
        return str(json.loads(content)["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{where} names no model ({error!r}): promote one again") from error


def read_manifest(content: bytes, digest: str, where: str) -> dict[str, tuple[int, str]]:
    """The files of an artifact, each with its size in bytes and its sha256. Raises StoreError for another manifest."""
    verify_bytes(content, digest, where)
    try:
        listed: dict[str, Any] = json.loads(content)
        files = {
            checked_name(name): (int(entry["size_bytes"]), checked_digest(entry["sha256"]))
            for name, entry in listed.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where}: whole, and yet no manifest of an artifact: {error!r}") from error
    if MANIFEST in files or not all(0 <= size <= MAX_FILE_BYTES for size, _ in files.values()):
        raise StoreError(f"{where}: lists itself, or a file of more than {MAX_FILE_BYTES} bytes")
    return files


def verify_artifact(folder: Path, digest: str) -> dict[str, tuple[int, str]]:
    """Check that a folder holds the artifact of this digest, and give its files. Raises StoreError."""
    try:
        files = read_manifest((folder / MANIFEST).read_bytes(), digest, str(folder / MANIFEST))
        for name, (_, expected) in files.items():
            verify_file(folder / name, expected)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{folder}: not a whole artifact: {error}; remove it and make it again") from error
    return files


def verify_bytes(content: bytes, digest: str, where: str) -> None:
    """Raise StoreError where the content is not what its digest says."""
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise damaged(where, found, digest)


def verify_file(path: Path, digest: str) -> None:
    """The same of a file, without keeping it in memory. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise damaged(str(path), found, digest)


def damaged(where: str, found: str, digest: str) -> StoreError:
    """The error about content that is not what its digest says."""
    return StoreError(
        f"{where}: its sha256 is {found}, expected {digest}; it is damaged: restore or remove it"
    )


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write these parts as a file: a reader sees the old one or the new one, and a full disk leaves no half of it."""
    try:
        with made_whole_file(path) as file:
            file.writelines(parts)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error


@contextlib.contextmanager
def made_whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the block ends well and is gone otherwise. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        except BaseException:  # also a signal's
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise
