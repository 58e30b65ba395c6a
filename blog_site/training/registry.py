"""The only door to an image registry: the OCI distribution API over HTTP.

Written out since the `oras` package cannot do what a model's image needs: it mounts no blob from another repository,
sends every manifest as an OCI image manifest in bytes of its own choosing (a digest must be known, an index and
Docker's schema 2 kept), reads a whole blob into memory, has no timeouts, and keeps one token for every scope.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit

import httpx

log = logging.getLogger(__name__)

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)

_MAX_DOCUMENT_BYTES: Final = (
    4 * 1024**2
)  # the least that a registry must take of a manifest is also the most we read
_PART_BYTES: Final = 256 * 1024  # read and sent at a time
_CHUNK_BYTES: Final = 8 * 1024**2  # of an upload that may not come in one request
_ATTEMPTS: Final = 3  # at anything that may fare better the next time
_WORTH_ANOTHER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_LARGE: Final = 413
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

Content = Callable[[], Iterator[bytes]]
"""Gives a blob from its beginning, as often as it has to be sent."""


class RegistryError(Exception):
    """A registry did not do what was asked; `permanent` when asking again would fail again."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class MissingInRegistry(RegistryError):
    """The registry answers, and holds no such thing."""


@dataclass(frozen=True)
class ImageReference:
    """The name of an image, like registry.example:5000/huisheng-inference:1.2 or …@sha256:…"""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None  # outranks the tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name()}{tag}{'@' + self.digest if self.digest else ''}"

    def name(self) -> str:
        """Registry and repository, which all versions of an image share."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> ImageReference:
        """The same image, in the version of that digest."""
        return replace(self, tag=None, digest=digest)


def parse_reference(text: str) -> ImageReference:
    """Understand the name of an image; raises ValueError naming what is wrong with it."""
    rest, _, digest = text.partition("@")
    registry, slash, path = rest.partition("/")
    named = "." in registry or ":" in registry or registry == "localhost"
    if not slash or not named or not _HOST.fullmatch(registry):
        raise ValueError(f"{text!r} does not name its registry, like registry.example:5000/{rest or 'image'}")
    repository, colon, tag = path.partition(":")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"{text!r}: {repository!r} is no name of a repository")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{text!r}: {tag!r} is no tag")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{text!r}: {digest!r} is no digest like sha256:<64 hexadecimal digits>")
    return ImageReference(registry, repository, tag or None, digest or None)


@dataclass(frozen=True)
class RegistryAccess:
    """How a registry is spoken to."""

    username: str = ""
    password: str = ""
    plain_http: bool = False
    first_pause_seconds: float = 0.5  # before another attempt; doubles
    timeout_seconds: float = 30.0  # without a byte
    deadline_seconds: float = 240.0  # for all that is asked together


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index, in the very bytes that its digest names."""

    content: bytes
    media_type: str

    def digest(self) -> str:
        return sha256_digest(self.content)


def sha256_digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class RegistryClient:
    """Speaks to one registry. Every method raises RegistryError."""

    def __init__(self, host: str, access: RegistryAccess) -> None:
        """Prepare; nothing is asked yet."""
        self.host = host
        self._access = access
        self._base = f"{'http' if access.plain_http else 'https'}://{host}"
        self._ends_at = time.monotonic() + access.deadline_seconds
        self._authorizations: dict[tuple[str, ...], str] = {}
        # The system's certificates (or SSL_CERT_FILE), where an operator puts the authority of an own registry.
        verify: ssl.SSLContext | Literal[False] = False if access.plain_http else ssl.create_default_context()
        timeout = httpx.Timeout(access.timeout_seconds, connect=min(10.0, access.timeout_seconds))
        # Never compressed on the way: digests are of the bytes as stored.
        self._http = httpx.Client(verify=verify, timeout=timeout, headers={"Accept-Encoding": "identity"})

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- Manifests ---------------------------------------------------------------------------------------------------

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """Read a manifest or an index by tag or digest."""
        url = self._url(repository, f"manifests/{reference}")
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        content, found = self._read(url, _pull(repository), headers, what=f"{repository}:{reference}")
        media_type = _media_type(content, found.get("content-type", ""))
        if media_type not in MANIFEST_TYPES:
            raise RegistryError(
                f"{self.host}/{repository}:{reference} is a {media_type!r}, which is no image", permanent=True
            )
        if reference.startswith("sha256:") and sha256_digest(content) != reference:
            raise RegistryError(f"{self.host}/{repository}@{reference} came damaged", permanent=False)
        return Manifest(content, media_type)

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Write a manifest under a tag or its digest; what it names must be there."""
        response = self._ask(
            "PUT",
            self._url(repository, f"manifests/{reference}"),
            _push(repository),
            headers={"Content-Type": manifest.media_type},
            content=manifest.content,
        )
        self._expect(response, (201,), f"to take the manifest {repository}:{reference}")
        stored = response.headers.get("docker-content-digest", manifest.digest())
        if stored != manifest.digest():
            raise RegistryError(
                f"{self.host} stored {manifest.digest()} as {stored}: it changes what it is given",
                permanent=True,
            )

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Delete a manifest by its digest, if it is there; False where the registry deletes nothing (405)."""
        url = self._url(repository, f"manifests/{digest}")
        response = self._ask("DELETE", url, (f"repository:{repository}:delete",))
        self._expect(response, (200, 202, 404, 405), f"to delete {repository}@{digest}")
        return response.status_code != 405

    # -- Blobs -------------------------------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository holds that blob."""
        return self._has(self._url(repository, f"blobs/{digest}"), _push(repository), {})

    def read_document(self, repository: str, digest: str) -> bytes:
        """Read a small blob, such as the configuration of an image."""
        url = self._url(repository, f"blobs/{digest}")
        content, _ = self._read(url, _pull(repository), {}, what=f"{repository}@{digest}")
        if sha256_digest(content) != digest:
            raise RegistryError(f"{self.host}/{repository}@{digest} came damaged", permanent=False)
        return content

    def stream_blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """Read a blob of any size, in parts; the reader checks what came."""
        url = self._url(repository, f"blobs/{digest}")
        with self._open(url, _pull(repository)) as response:
            self._expect_streamed(response, f"{repository}@{digest}")
            yield from self._parts_of(response)

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Let a repository share a blob of another one of this registry; False where the registry does not."""
        response = self._ask(
            "POST",
            self._url(repository, "blobs/uploads/"),
            (*_push(repository), *_pull(source)),
            params={"mount": digest, "from": source},
        )
        self._expect(response, (201, 202), f"to share {digest} with {repository}")
        if response.status_code == 202:  # an upload was begun instead
            self._cancel(response)
        return response.status_code == 201

    def put_blob(self, repository: str, digest: str, size_bytes: int, content: Content) -> None:
        """Upload a blob that is not there yet; from its beginning again when that breaks off."""
        if self.has_blob(repository, digest):
            return
        upload, failure = self._upload_whole, RegistryError("not tried", permanent=False)
        for attempt in range(_ATTEMPTS):
            self._pause(attempt)
            try:
                upload(repository, digest, size_bytes, content)
                return
            except _BodyTooLarge:  # something before the registry takes no body of that size
                upload = self._upload_in_chunks
            except httpx.HTTPError as error:
                failure = self._lost(error, f"while {digest} was sent")
            except RegistryError as error:
                if error.permanent:
                    raise
                failure = error
            log.info("%s", failure)
            if self.has_blob(repository, digest):  # it was taken, and only the answer was lost
                return
        raise failure

    def _upload_whole(self, repository: str, digest: str, size_bytes: int, content: Content) -> None:
        headers = {"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
        location = self._begin_upload(repository)
        response = self._send_once(
            "PUT", _with_digest(location, digest), _push(repository), headers, self._hurry(content())
        )
        self._expect(response, (201,), f"to take the blob {digest}")

    def _upload_in_chunks(self, repository: str, digest: str, size_bytes: int, content: Content) -> None:
        location, start = self._begin_upload(repository), 0
        for chunk in _chunks(content()):
            headers = {
                "Content-Range": f"{start}-{start + len(chunk) - 1}",
                "Content-Length": str(len(chunk)),
                "Content-Type": "application/octet-stream",
            }
            response = self._send_once("PATCH", location, _push(repository), headers, chunk)
            self._expect(response, (202,), f"to take a part of the blob {digest}")
            location, start = self._location(response), start + len(chunk)
        headers = {"Content-Length": "0"}
        response = self._send_once("PUT", _with_digest(location, digest), _push(repository), headers, b"")
        self._expect(response, (201,), f"to take the blob {digest}")

    def _begin_upload(self, repository: str) -> str:
        response = self._ask("POST", self._url(repository, "blobs/uploads/"), _push(repository))
        self._expect(response, (202,), f"to begin an upload to {repository}")
        return self._location(response)

    def _cancel(self, response: httpx.Response) -> None:
        try:
            self._http.delete(self._location(response), headers=self._headers(()))
        except (httpx.HTTPError, RegistryError):
            log.debug("an upload that was begun is left to the registry to forget")

    def _location(self, response: httpx.Response) -> str:
        location = response.headers.get("location")
        if not location:
            raise RegistryError(f"{self.host} did not say where to upload to", permanent=False)
        joined: str = urljoin(str(response.request.url), location)
        parts = urlsplit(joined)
        if parts.netloc == self.host:  # one behind a proxy may take its own address for http
            joined = parts._replace(scheme=urlsplit(self._base).scheme).geturl()
        return joined

    # -- Asking ------------------------------------------------------------------------------------------------------

    def _url(self, repository: str, path: str) -> str:
        return f"{self._base}/v2/{repository}/{path}"

    def _has(self, url: str, scopes: tuple[str, ...], headers: Mapping[str, str]) -> bool:
        response = self._ask("HEAD", url, scopes, headers=headers)
        if response.status_code == 404:
            return False
        self._expect(response, (200,), f"whether it has {urlsplit(url).path}")
        return True

    def _ask(
        self,
        method: str,
        url: str,
        scopes: tuple[str, ...],
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> httpx.Response:
        """Send a small request, again where that may help; gives the last answer whatever it says."""
        full = str(httpx.URL(url, params=params)) if params else url
        failure: RegistryError | None = None
        for attempt in range(_ATTEMPTS):
            self._pause(attempt)
            try:
                response = self._send_once(method, full, scopes, headers or {}, content)
            except httpx.HTTPError as error:
                failure = self._lost(error, f"at {method} {urlsplit(url).path}")
                continue
            failure = None
            if response.status_code not in _WORTH_ANOTHER:
                break
        if failure is not None:
            raise failure
        return response

    def _send_once(
        self,
        method: str,
        url: str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes],
    ) -> httpx.Response:
        """Send a request, and once more with an authorization where the registry asks for one."""
        self._check_time()
        ours = urlsplit(url).netloc == self.host
        authorization = self._headers(scopes) if ours else {}
        response = self._http.request(method, url, headers={**headers, **authorization}, content=content)
        if response.status_code != 401 or not ours:
            return response
        self._authorize(response, scopes)
        if not isinstance(content, bytes):  # an upload's body is spent; whoever sends it begins again
            raise RegistryError(
                f"{self.host} asked for a new authorization in the midst of an upload", permanent=False
            )
        response = self._http.request(
            method, url, headers={**headers, **self._headers(scopes)}, content=content
        )
        if response.status_code == 401:
            raise self._refused()
        return response

    def _read(
        self, url: str, scopes: tuple[str, ...], headers: Mapping[str, str], *, what: str
    ) -> tuple[bytes, Mapping[str, str]]:
        failure = RegistryError("not tried", permanent=False)
        for attempt in range(_ATTEMPTS):
            self._pause(attempt)
            try:
                with self._open(url, scopes, headers) as response:
                    self._expect_streamed(response, what)
                    content = b""
                    for part in self._parts_of(response):
                        content += part
                        if len(content) > _MAX_DOCUMENT_BYTES:
                            raise RegistryError(
                                f"{self.host}/{what} is larger than {_MAX_DOCUMENT_BYTES} bytes",
                                permanent=True,
                            )
                    return content, response.headers
            except httpx.HTTPError as error:
                failure = self._lost(error, f"while {what} was read")
            except RegistryError as error:
                if error.permanent:
                    raise
                failure = error
        raise failure

    def _open(self, url: str, scopes: tuple[str, ...], headers: Mapping[str, str] | None = None) -> _Opened:
        return _Opened(self._begin_reading(url, scopes, headers or {}))

    def _begin_reading(self, url: str, scopes: tuple[str, ...], headers: Mapping[str, str]) -> httpx.Response:
        self._check_time()
        for attempt in (1, 2):
            request = self._http.build_request("GET", url, headers={**headers, **self._headers(scopes)})
            # Blobs may lie elsewhere (a bucket); the authorization does not go there.
            response = self._http.send(request, stream=True, follow_redirects=True)
            if response.status_code != 401:
                return response
            response.close()
            if attempt == 1:
                self._authorize(response, scopes)
        raise self._refused()

    def _parts_of(self, response: httpx.Response) -> Iterator[bytes]:
        for part in response.iter_raw(_PART_BYTES):
            self._check_time()
            yield part

    def _hurry(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for part in parts:
            self._check_time()
            yield part

    # -- Who asks ----------------------------------------------------------------------------------------------------

    def _headers(self, scopes: tuple[str, ...]) -> dict[str, str]:
        known = self._authorizations.get(scopes) or self._authorizations.get(())
        return {"Authorization": known} if known else {}

    def _authorize(self, response: httpx.Response, scopes: tuple[str, ...]) -> None:
        """Answer a challenge: with name and password, or with a token that these get (anonymous without them)."""
        challenges = {
            scheme.lower(): dict(_CHALLENGE.findall(parameters))
            for header in response.headers.get_list("www-authenticate")
            for scheme, _, parameters in [header.strip().partition(" ")]
        }
        if "bearer" in challenges:
            self._authorizations[scopes] = f"Bearer {self._fetch_token(challenges['bearer'], scopes)}"
        elif "basic" in challenges and self._access.username:
            known = httpx.BasicAuth(self._access.username, self._access.password)
            request = next(known.auth_flow(httpx.Request("GET", self._base)))
            if self._authorizations.get(()) == request.headers["Authorization"]:
                raise self._refused()
            self._authorizations[()] = request.headers["Authorization"]
        else:
            raise self._refused()

    def _fetch_token(self, challenge: Mapping[str, str], scopes: tuple[str, ...]) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self._access.plain_http:
            raise RegistryError(
                f"{self.host} sends for a token to {realm!r}, which is not https", permanent=True
            )
        asked: dict[str, str | Sequence[str]] = {"scope": scopes}
        if "service" in challenge:
            asked["service"] = challenge["service"]
        name = self._access.username
        auth = httpx.BasicAuth(name, self._access.password) if name else None
        try:
            response = self._http.get(realm, params=asked, auth=auth)
        except httpx.HTTPError as error:
            raise self._lost(error, f"for a token from {realm}") from error
        if response.status_code in (401, 403):
            raise self._refused()
        self._expect(response, (200,), f"for a token from {realm}")
        try:
            document = response.json()
            return str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise RegistryError(f"{realm} gave no token: {error!r}", permanent=False) from error

    def _refused(self) -> RegistryError:
        who = f"the user {self._access.username!r}" if self._access.username else "one without a name"
        return RegistryError(
            f"{self.host} refuses {who}: check REGISTRY_USERNAME and REGISTRY_PASSWORD", permanent=True
        )

    # -- What went wrong -----------------------------------------------------------------------------------------------

    def _pause(self, attempt: int) -> None:
        if attempt:
            time.sleep(self._access.first_pause_seconds * 2 ** (attempt - 1))

    def _check_time(self) -> None:
        if time.monotonic() > self._ends_at:
            raise RegistryError(
                f"{self.host} took longer than {self._access.deadline_seconds:.0f} s", permanent=False
            )

    def _lost(self, error: httpx.HTTPError, when: str) -> RegistryError:
        return RegistryError(f"{self.host} was lost {when}: {error or type(error).__name__}", permanent=False)

    def _expect_streamed(self, response: httpx.Response, what: str) -> None:
        if response.status_code != 200:
            response.read()
        self._expect(response, (200,), f"for {what}")

    def _expect(self, response: httpx.Response, accepted: tuple[int, ...], asked: str) -> None:
        status = response.status_code
        if status in accepted:
            return
        if status == _TOO_LARGE:
            raise _BodyTooLarge(f"{self.host} answered 413 when asked {asked}", permanent=True)
        permanent = 400 <= status < 500 and status not in _WORTH_ANOTHER
        error = MissingInRegistry if status == 404 else RegistryError
        raise error(
            f"{self.host} answered {status} when asked {asked}: {_first_error(response)}", permanent=permanent
        )


class _BodyTooLarge(RegistryError):
    """What was sent in one request is more than something on the way takes."""


class _Opened:
    """An answer that is read in parts, and closed when the block ends."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __enter__(self) -> httpx.Response:
        return self._response

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()


def _pull(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull",)


def _push(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def _with_digest(location: str, digest: str) -> str:
    """Add the digest to an address that may have a query already, which must stay as it is."""
    return f"{location}{'&' if urlsplit(location).query else '?'}digest={digest}"


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join parts to chunks of one size, the last one smaller."""
    chunk = bytearray()
    for part in parts:
        chunk += part
        while len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk[:_CHUNK_BYTES])
            del chunk[:_CHUNK_BYTES]
    if chunk:
        yield bytes(chunk)


def _media_type(content: bytes, header: str) -> str:
    """What a manifest says it is, or how it was sent: in an OCI manifest the field may be missing."""
    try:
        named = json.loads(content).get("mediaType")
    except (ValueError, AttributeError):
        return header
    return str(named or header.partition(";")[0].strip())


def _first_error(response: httpx.Response) -> str:
    """Say what a registry gives as its reason, or how its answer begins."""
    try:
        first = response.json()["errors"][0]
        return f"{first['code']} {first.get('message', '')}".strip()
    except (ValueError, KeyError, IndexError, TypeError):
        return response.text[:200]
