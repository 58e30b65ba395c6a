"""A store behind HTTP(S): a static file server, or a bucket of an object store that can be read over HTTP.

The address is that of the folder that holds champion.json and artifacts/<digest>/. A query in it, like that of a
shared-access signature, goes with every request. S3's own request signing is not spoken: give the bucket a public or
internal read-only address, or put a signing proxy before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Hashable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from ml.artifact import MANIFEST, Artifact, ArtifactError, load_artifact
from ml.serve.store import POINTER, Pointer, PointerError, parse_pointer

_TIMEOUT: Final = httpx.Timeout(10, read=30)
_SETTLED_SECONDS: Final = 2  # after which a second write within the same second is over
_ATTEMPTS: Final = 3  # at a file; what comes over a network may break for a moment
_MAX_POINTER_BYTES: Final = 64 * 1024
_MAX_MANIFEST_BYTES: Final = 256 * 1024
_MAX_ARTIFACT_BYTES: Final = 4 * 1024**3
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_KEPT_ARTIFACTS: Final = 3  # in the cache: the one served, the one before it, the one to come


class RemoteStore:
    """Asks for the pointer with ETag or Last-Modified, and fetches an artifact once into a folder here.

    What was fetched is verified by its digest whenever it is loaded, so neither the network nor the cache need be
    trusted. Processes that share a cache take turns to fetch. Used by one thread at a time.
    """

    def __init__(self, address: str, cache: Path, token: str | None = None) -> None:
        """Prepare; nothing is asked yet. `token` goes along as a bearer token."""
        parts = urlsplit(address)
        self._parts = parts._replace(path=parts.path.rstrip("/"))
        self._cache = cache
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=_TIMEOUT, follow_redirects=True, headers=headers)
        self._validators: dict[str, str] = {}
        self._content: bytes | None = None
        self._failure = "it was not asked for yet"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def mark(self) -> Hashable:
        """Ask for the pointer, in a few bytes while it has not changed; None when it cannot be had."""
        try:
            response = self._http.get(self._url(POINTER), headers=self._validators)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._without_pointer(f"cannot be fetched: {error or type(error).__name__}")
        if response.status_code == 304 and self._content is not None:
            return self._content
        if response.status_code == 404:
            return self._without_pointer("missing; it is written when a model is promoted")
        if response.status_code != 200:
            return self._without_pointer(f"answered {response.status_code}")
        if len(response.content) > _MAX_POINTER_BYTES:
            return self._without_pointer(f"has {len(response.content)} bytes, which is no pointer")
        self._content = response.content
        self._validators = _validators(response.headers)
        return self._content

    def read_pointer(self) -> Pointer:
        """Read the pointer that `mark` fetched last; raises PointerError."""
        where = self._name(POINTER)
        if self._content is None:
            raise PointerError(f"{where}: {self._failure}")
        return parse_pointer(self._content, where)

    def load(self, digest: str) -> Artifact:
        """Load an artifact, fetching it where it is not here yet; raises ArtifactError."""
        target = self._cache / digest
        try:
            with self._turn():
                if not target.is_dir():
                    self._fetch(digest, target)
            artifact = self._load_cached(target, digest)
            self._evict(keep=digest)
        except OSError as error:
            raise ArtifactError(
                f"{self._cache}: {error.strerror or error}; choose another --cache"
            ) from error
        return artifact

    def _load_cached(self, target: Path, digest: str) -> Artifact:
        try:
            artifact = load_artifact(target, digest)
        except ArtifactError:
            shutil.rmtree(target, ignore_errors=True)  # fetched anew at the next attempt
            raise
        os.utime(target)  # says when it was used last
        return artifact

    def _fetch(self, digest: str, target: Path) -> None:
        prefix = f"artifacts/{digest}"
        manifest = self._fetch_small(f"{prefix}/{MANIFEST}")
        found = hashlib.sha256(manifest).hexdigest()
        if found != digest:
            name = self._name(f"{prefix}/{MANIFEST}")
            raise ArtifactError(f"{name}: its sha256 is {found}, expected {digest}")
        partial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=self._cache))
        try:
            (partial / MANIFEST).write_bytes(manifest)
            for file_name, size_bytes in _listed_files(manifest, self._name(prefix)):
                self._fetch_file(f"{prefix}/{file_name}", partial / file_name, size_bytes)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _fetch_small(self, path: str) -> bytes:
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            self._fetch_file(path, Path(folder) / "file", None)
            return (Path(folder) / "file").read_bytes()

    def _fetch_file(self, path: str, target: Path, size_bytes: int | None) -> None:
        """Fetch one file, of just that size where it is known; raises ArtifactError after some attempts."""
        limit = _MAX_MANIFEST_BYTES if size_bytes is None else size_bytes
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                received = self._stream(path, target, limit)
                if size_bytes is None or received == size_bytes:
                    return
                reason = f"ended after {received} of {size_bytes} bytes"
            except httpx.HTTPError as error:
                reason = f"cannot be fetched: {error or type(error).__name__}"
            if attempt < _ATTEMPTS:
                time.sleep(0.2 * attempt)
        raise ArtifactError(f"{self._name(path)}: {reason}")

    def _stream(self, path: str, target: Path, limit: int) -> int:
        received = 0
        with self._http.stream("GET", self._url(path)) as response, target.open("wb") as file:
            if 400 <= response.status_code < 500:  # asking again would not help
                reason = "missing" if response.status_code == 404 else f"answered {response.status_code}"
                raise ArtifactError(f"{self._name(path)}: {reason}")
            response.raise_for_status()
            for part in response.iter_bytes():
                received += len(part)
                if received > limit:
                    raise ArtifactError(f"{self._name(path)}: is larger than {limit} bytes")
                file.write(part)
        return received

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _evict(self, keep: str) -> None:
        """Remove the artifacts used longest ago; nothing reads one after it was loaded."""
        kept = [entry for entry in self._cache.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        kept.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in kept[_KEPT_ARTIFACTS:]:
            if entry.name != keep:
                shutil.rmtree(entry, ignore_errors=True)

    def _without_pointer(self, failure: str) -> Hashable:
        self._content, self._validators, self._failure = None, {}, failure
        return None

    def _url(self, path: str) -> str:
        return urlunsplit(self._parts._replace(path=f"{self._parts.path}/{path}"))

    def _name(self, path: str) -> str:
        """Name a file in a message, without a signature or a password that its address may hold."""
        host = self._parts.netloc.rpartition("@")[2]
        return f"{self._parts.scheme}://{host}{self._parts.path}/{path}"


def _validators(headers: httpx.Headers) -> dict[str, str]:
    """Give the headers that ask for the pointer only if it is another one.

    None while it is so new that it may be written again within the same second: servers make dates, and some make
    ETags, of whole seconds.
    """
    asked = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
    try:
        age = parsedate_to_datetime(headers["date"]) - parsedate_to_datetime(headers["last-modified"])
    except (KeyError, ValueError, TypeError):
        asked.pop("If-Modified-Since")  # without dates only an ETag of content can be relied on
    else:
        if age.total_seconds() < _SETTLED_SECONDS:
            return {}
    return {name: headers[header] for name, header in asked.items() if header in headers}


def cache_folder(wanted: Path | None) -> Path:
    """Give the folder for fetched artifacts: the wanted one, or one of this user among the temporary files."""
    return wanted or Path(tempfile.gettempdir()) / f"huisheng-artifacts-{os.getuid()}"


def _listed_files(manifest: bytes, where: str) -> list[tuple[str, int]]:
    """Give name and size of each file that a manifest lists; raises ArtifactError for what could do harm here."""
    try:
        listed: dict[str, Any] = json.loads(manifest)
        files = [(name, int(entry["size_bytes"])) for name, entry in listed.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{where}: its manifest cannot be understood: {error!r}") from error
    for name, size_bytes in files:
        if not _FILE_NAME.fullmatch(name) or size_bytes < 0:
            raise ArtifactError(f"{where}: its manifest lists {name!r:.100}, which is no name of a file")
    if sum(size_bytes for _, size_bytes in files) > _MAX_ARTIFACT_BYTES:
        raise ArtifactError(f"{where}: is larger than {_MAX_ARTIFACT_BYTES} bytes")
    return files
