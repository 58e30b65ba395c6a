"""A store behind HTTP(S) that takes GET, HEAD and PUT, like the one of infra/nginx/store.conf. No torch.

What is named by a digest is verified when it is read. A file is uploaded whole or not at all, which the server sees to;
of an artifact the manifest comes last, so that no reader finds half of one. Whatever may succeed later is tried again
for a while: the server may be starting anew, at another address.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import logging
import os
import random
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from federated.store import (
    MANIFEST,
    MAX_FILE_BYTES,
    POINTER,
    MissingFile,
    StoreError,
    artifact_path,
    damaged,
    lay_out_shard,
    made_whole_file,
    make_pointer,
    read_manifest,
    read_pointer,
    report_path,
    run_path,
    shard_path,
    verify_artifact,
    verify_bytes,
    verify_file,
)

PATIENCE_SECONDS: Final = 10.0  # a page or a beat may wait for it
TIMEOUT: Final = httpx.Timeout(5, read=30, write=30)
CHUNK_BYTES: Final = 2**18
MAX_SMALL_BYTES: Final = 64 * 1024**2  # of what is read into memory: shards, reports, diaries
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be others a little later
ADVICE: Final = {
    401: "it does not know this token: set ARTIFACT_STORE_TOKEN to one of the store's own",
    403: "this token may not do that, or the address is not signed for this file with the store's key",
    405: "that is no store for writing",
    410: "the address is not good any more: sign another",
    413: "the file is too large for the store",
    507: "the store's disk is full: make room there",
}

T = TypeVar("T")


class AlreadyThere(StoreError):
    """The server keeps what is there: with this token a file is written once."""


class HttpStore:
    """A store behind HTTP(S). Holds no connection between calls, so that threads and forks may share it."""

    def __init__(self, url: str, token: str = "", patience_seconds: float = PATIENCE_SECONDS) -> None:
        """`token` goes along as a bearer token. A query in `url`, as of a shared signature, goes with every request."""
        parts = urlsplit(url)
        self._parts = parts._replace(path=parts.path.rstrip("/"), fragment="")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._patience_seconds = patience_seconds

    def put_shard(self, samples: Iterable[Mapping[str, Any]]) -> str:
        digest, content = lay_out_shard(samples)
        self._keep(shard_path(digest), content, digest)
        return digest

    def read_shard(self, digest: str) -> bytes:
        content = self._read(shard_path(digest))
        verify_bytes(content, digest, self._name(shard_path(digest)))
        return content

    def fetch_shard(self, digest: str, into: Path) -> Path:
        target = into / f"{digest}.jsonl"
        self._fetch(shard_path(digest), target, digest)
        return target

    def delete_shard(self, digest: str) -> None:
        self._delete(shard_path(digest))

    def has_artifact(self, digest: str) -> bool:
        return self._size(artifact_path(digest, MANIFEST)) is not None

    def fetch_artifact(self, digest: str, into: Path) -> Path:
        target = into / digest
        if target.is_dir():
            with contextlib.suppress(StoreError):
                verify_artifact(target, digest)
                return target
            shutil.rmtree(target)
        path = artifact_path(digest, MANIFEST)
        manifest = self._read(path)
        files = read_manifest(manifest, digest, self._name(path))
        with made_whole(target) as partial:
            (partial / MANIFEST).write_bytes(manifest)
            for name, (_, expected) in files.items():
                self._fetch(artifact_path(digest, name), partial / name, expected)
        return target

    def put_artifact(self, digest: str, folder: Path) -> None:
        for name, (_, expected) in verify_artifact(folder, digest).items():
            self._keep(artifact_path(digest, name), folder / name, expected)
        self._keep(artifact_path(digest, MANIFEST), folder / MANIFEST, digest)

    def delete_artifact(self, digest: str) -> None:
        path = artifact_path(digest, MANIFEST)
        try:
            files = read_manifest(self._read(path), digest, self._name(path))
        except MissingFile:
            return
        # The manifest last: where this breaks off, the next call still knows what is left.
        for name in [*files, MANIFEST]:
            self._delete(artifact_path(digest, name))

    def put_report(self, digest: str, name: str, content: bytes) -> None:
        self._put(report_path(digest, name), content)

    def read_report(self, digest: str, name: str) -> bytes:
        return self._read(report_path(digest, name))

    def champion(self) -> str | None:
        try:
            return read_pointer(self._read(POINTER), self._name(POINTER))
        except MissingFile:
            return None

    def point_to_champion(self, digest: str) -> None:
        if not self.has_artifact(digest):
            raise StoreError(f"artifact {digest} is not in {self._name('')}: nothing to serve")
        content = make_pointer(digest, instead_of=self)
        self._put(POINTER, content)

    def put_run_file(self, run: str, name: str, content: bytes) -> None:
        self._put(run_path(run, name), content)

    def read_run_file(self, run: str, name: str) -> bytes:
        return self._read(run_path(run, name))

    # -- Files -------------------------------------------------------------------------------------------------------

    def _size(self, path: str) -> int | None:
        """The size of a file in bytes; None where there is none."""
        url = self._url(path)

        def ask(http: httpx.Client) -> int:
            response = http.head(url)
            check(response)
            return int(response.headers.get("content-length", -1))

        try:
            return self._patiently(ask, url)
        except MissingFile:
            return None

    def _read(self, path: str) -> bytes:
        url = self._url(path)

        def get(http: httpx.Client) -> bytes:
            content = io.BytesIO()
            receive(http, url, content, MAX_SMALL_BYTES)
            return content.getvalue()

        return self._patiently(get, url)

    def _fetch(self, path: str, target: Path, digest: str) -> None:
        try:
            fetch_file(self._url(path), target, digest, self._patience_seconds, self._headers)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error}") from error

    def _keep(self, path: str, body: bytes | Path, digest: str) -> None:
        """Upload what is named by its digest, unless it is there."""
        if self._size(path) == size_of(body):
            return
        try:
            self._put(path, body)
        except AlreadyThere:
            # By somebody else, or by us: the answer to an upload may get lost. Or it was damaged since.
            with tempfile.TemporaryDirectory() as folder:
                self._fetch(path, Path(folder) / "file", digest)

    def _put(self, path: str, body: bytes | Path) -> None:
        url, size = self._url(path), size_of(body)
        if size > MAX_FILE_BYTES:
            raise StoreError(
                f"{shown_address(url)}: has {size} bytes, a store takes files of {MAX_FILE_BYTES} at most"
            )

        def put(http: httpx.Client) -> None:
            with open_body(body) as file:
                chunks = iter(functools.partial(file.read, CHUNK_BYTES), b"")
                check(http.put(url, content=chunks, headers={"Content-Length": str(size)}))

        self._patiently(put, url)

    def _delete(self, path: str) -> None:
        url = self._url(path)

        def delete(http: httpx.Client) -> None:
            with contextlib.suppress(MissingFile):  # the answer to an earlier attempt may have been lost
                check(http.delete(url))

        self._patiently(delete, url)

    def _patiently(self, ask: Callable[[httpx.Client], T], url: str) -> T:
        return ask_patiently(ask, url, self._patience_seconds, self._headers)

    def _url(self, path: str) -> str:
        return urlunsplit(self._parts._replace(path=f"{self._parts.path}/{path}"))

    def _name(self, path: str) -> str:
        return shown_address(self._url(path))


def fetch_file(
    url: str, target: Path, digest: str, patience_seconds: float, headers: Mapping[str, str] | None = None
) -> None:
    """Fetch a file, unless it is here already; it appears whole and verified, or not at all.

    Raises StoreError for what the server says and sends, other OSErrors for what the disk here says.
    """
    with contextlib.suppress(OSError):
        verify_file(target, digest)
        return

    def get(http: httpx.Client) -> None:
        with made_whole_file(target) as file:
            found = receive(http, url, file, MAX_FILE_BYTES)
            if found != digest:
                raise damaged(shown_address(url), found, digest)

    ask_patiently(get, url, patience_seconds, headers or {})


def ask_patiently(
    ask: Callable[[httpx.Client], T], url: str, patience_seconds: float, headers: Mapping[str, str]
) -> T:
    """Ask until there is an answer that will not be another one later, or patience ends. Raises StoreError."""
    began = time.monotonic()
    for pause in pauses():
        try:
            with open_client(url, headers) as http:
                return ask(http)
        except httpx.HTTPError as error:
            failure = StoreError(
                f"{shown_address(url)} cannot be reached: {explain(error)}; is the store running?",
                permanent=False,
            )
        except StoreError as error:
            if error.permanent:
                raise
            failure = error
        if time.monotonic() - began + pause > patience_seconds:
            raise failure
        time.sleep(pause)
    raise AssertionError("pauses never end")


def open_client(url: str, headers: Mapping[str, str]) -> httpx.Client:
    """A client for one call: its name is looked up anew, and nothing is held open until the next."""
    logging.getLogger("httpx").setLevel(
        logging.WARNING
    )  # it would write whole addresses, with their signatures
    return httpx.Client(headers=headers, timeout=TIMEOUT, verify=trusted(urlsplit(url).scheme))


def check(response: httpx.Response) -> None:
    """Raise StoreError for an answer that is no success."""
    if response.is_success:
        return
    status, name = response.status_code, shown_address(str(response.request.url))
    if status == 404:
        raise MissingFile(f"{name}: missing")
    if status == 409:
        raise AlreadyThere(f"{name}: is there already, and may not be written again with this token")
    advice = ADVICE.get(status, "see the store's log")
    raise StoreError(
        f"{name}: {response.request.method} was answered {status}; {advice}", permanent=status not in PASSING
    )


def receive(http: httpx.Client, url: str, file: IO[bytes], limit: int) -> str:
    """Write what the server sends to a file, at most so many bytes; gives its sha256. Raises StoreError."""
    sha256, size = hashlib.sha256(), 0
    with http.stream("GET", url) as response:
        check(response)
        for chunk in response.iter_bytes(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise StoreError(f"{shown_address(url)}: is larger than {limit} bytes")
            sha256.update(chunk)
            file.write(chunk)
    return sha256.hexdigest()


def size_of(body: bytes | Path) -> int:
    """The size of what is uploaded, in bytes."""
    return len(body) if isinstance(body, bytes) else body.stat().st_size


def open_body(body: bytes | Path) -> IO[bytes]:
    """What is uploaded, to be read from its beginning."""
    return io.BytesIO(body) if isinstance(body, bytes) else body.open("rb")


def pauses() -> Iterator[float]:
    """Seconds between attempts: doubling to five, and never two callers' the same."""
    for attempt in itertools.count():
        yield min(5.0, 0.1 * 2 ** min(attempt, 10)) * (0.5 + random.random())


def explain(error: httpx.HTTPError) -> str:
    """What went wrong in an exchange, without an address that stands in its text."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(error).__name__} ({cause})" if isinstance(cause, OSError) else type(error).__name__


def shown_address(url: str) -> str:
    """An address as it may stand in a log: without password, signature or other query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@functools.cache
def trusted(scheme: str) -> ssl.SSLContext:
    """What a server must prove. To read what the system trusts takes a while, and http:// does not need it."""
    return ssl.create_default_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends well and is gone otherwise."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name[:12]}.", suffix=".partial", dir=target.parent))
        try:
            yield partial
            partial.chmod(0o755)
            with contextlib.suppress(OSError):  # somebody else has fetched it meanwhile
                os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():
            raise StoreError(f"cannot write {target}: make room for it, or choose another folder")
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}") from error
