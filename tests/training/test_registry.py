from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from blog_site.training.registry import (
    ImageReference,
    RegistryAccess,
    RegistryClient,
    RegistryError,
    parse_reference,
    sha256_digest,
)
from tests.servers import find_free_port
from tests.training.images import push_base
from tests.training.registry_server import PASSWORD, USER, BadRoad, TokenServer, basic_auth, running_registry

pytestmark = pytest.mark.once

QUICK = RegistryAccess(plain_http=True, first_pause_seconds=0.01, timeout_seconds=5, deadline_seconds=30)
BLOB = b"weights " * 100_000
DIGEST = sha256_digest(BLOB)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def road(registry: str) -> Iterator[BadRoad]:
    made = BadRoad(registry)
    yield made
    made.stop()


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "tests/" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def put(client: RegistryClient, repository: str, blob: bytes = BLOB) -> None:
    parts = [blob[start : start + 65536] for start in range(0, len(blob), 65536)]
    client.put_blob(repository, sha256_digest(blob), len(blob), lambda: iter(parts))


def read(client: RegistryClient, repository: str, digest: str = DIGEST) -> bytes:
    return b"".join(client.stream_blob(repository, digest))


# -- Names -------------------------------------------------------------------------------------------------------------


def test_a_reference_is_understood_and_written_as_it_was() -> None:
    digest = "sha256:" + "a" * 64
    assert parse_reference("registry:5000/team/model") == ImageReference("registry:5000", "team/model")
    assert parse_reference("localhost/model:1.2") == ImageReference("localhost", "model", "1.2")
    for text in (
        "registry:5000/model",
        "a.example/b/c:tag",
        f"a.example/b@{digest}",
        f"a.example/b:tag@{digest}",
    ):
        assert str(parse_reference(text)) == text
    assert str(parse_reference("a.example/b:tag").at(digest)) == f"a.example/b@{digest}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model", "does not name its registry"),
        ("team/model:1", "does not name its registry"),
        ("registry:5000/Model", "no name of a repository"),
        ("registry:5000/model:", "no tag"),
        ("registry:5000/model@sha256:12", "no digest"),
        ("http://registry:5000/model", "does not name its registry"),
    ],
)
def test_what_is_no_reference_is_refused_by_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_reference(text)


# -- Blobs and manifests -----------------------------------------------------------------------------------------------


def test_a_blob_comes_back_as_it_was_sent_and_is_sent_once(road: BadRoad, repository: str) -> None:
    with RegistryClient(road.host, QUICK) as client:
        assert not client.has_blob(repository, DIGEST)
        put(client, repository)
        put(client, repository)

        assert client.has_blob(repository, DIGEST)
        assert read(client, repository) == BLOB
    assert road.count("PUT") == 1


def test_a_manifest_keeps_its_bytes_and_its_kind(registry: str, repository: str) -> None:
    with RegistryClient(registry, QUICK) as client:
        pushed = push_base(client, repository, "one")

        assert client.get_manifest(repository, "one") == pushed
        assert client.get_manifest(repository, pushed.digest()) == pushed


def test_another_repository_shares_a_blob_without_its_being_sent(road: BadRoad, repository: str) -> None:
    with RegistryClient(road.host, QUICK) as client:
        put(client, repository)
        assert client.mount_blob(f"{repository}-2", DIGEST, repository)

        assert read(client, f"{repository}-2") == BLOB
        assert not client.mount_blob(f"{repository}-2", sha256_digest(b"nowhere"), repository)
    assert road.count("PUT") == 1


def test_what_is_not_there_is_said_to_be_so_for_good(registry: str, repository: str) -> None:
    with RegistryClient(registry, QUICK) as client:
        with pytest.raises(RegistryError, match="404.*MANIFEST_UNKNOWN|404.*NAME_UNKNOWN") as caught:
            client.get_manifest(repository, "none")
        assert caught.value.permanent

        lonely = push_base(client, f"{repository}-2", "one")
        with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN") as caught:
            client.put_manifest(repository, "one", lonely)
        assert caught.value.permanent


def test_a_blob_that_is_not_what_its_digest_says_is_refused(registry: str, repository: str) -> None:
    with RegistryClient(registry, QUICK) as client:
        with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
            client.put_blob(repository, sha256_digest(b"other"), len(BLOB), lambda: iter([BLOB]))
        assert caught.value.permanent


# -- A bad road --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["500", "503", "429", "break", "lose"])
def test_an_upload_that_breaks_off_is_begun_again(what: str, road: BadRoad, repository: str) -> None:
    road.first(1, what, method="PUT")
    with RegistryClient(road.host, QUICK) as client:
        put(client, repository)

        assert read(client, repository) == BLOB


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_small_requests_are_asked_again(method: str, road: BadRoad, repository: str) -> None:
    road.first(2, "502", method=method)
    with RegistryClient(road.host, QUICK) as client:
        put(client, repository)

        assert client.has_blob(repository, DIGEST)


def test_reading_is_tried_again(road: BadRoad, repository: str) -> None:
    with RegistryClient(road.host, QUICK) as client:
        pushed = push_base(client, repository, "one")
        road.first(2, "500", method="GET")

        assert client.get_manifest(repository, "one") == pushed


def test_where_a_large_body_is_refused_it_goes_up_in_chunks(
    road: BadRoad, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blog_site.training.registry._CHUNK_BYTES", 300_000)
    road.fault = lambda method, path: "413" if method == "PUT" and road.count("PATCH") == 0 else None
    with RegistryClient(road.host, QUICK) as client:
        put(client, repository)

        assert read(client, repository) == BLOB
    assert road.count("PATCH") == -(-len(BLOB) // 300_000)


def test_a_registry_that_keeps_failing_is_given_up_for_now(road: BadRoad, repository: str) -> None:
    road.fault = lambda method, path: "500" if method == "PUT" else None
    with (
        RegistryClient(road.host, QUICK) as client,
        pytest.raises(RegistryError, match="500.*told to") as caught,
    ):
        put(client, repository)
    assert not caught.value.permanent
    assert road.count("PUT") == 3


def test_a_registry_that_is_away_is_no_lasting_failure(repository: str) -> None:
    away = f"127.0.0.1:{find_free_port()}"
    with RegistryClient(away, QUICK) as client, pytest.raises(RegistryError, match="was lost") as caught:
        put(client, repository)
    assert not caught.value.permanent


def test_a_registry_that_does_not_answer_is_left_after_the_timeout(road: BadRoad, repository: str) -> None:
    road.fault = lambda method, path: "wait"
    access = RegistryAccess(plain_http=True, first_pause_seconds=0.01, timeout_seconds=0.1)
    with (
        RegistryClient(road.host, access) as client,
        pytest.raises(RegistryError, match="was lost") as caught,
    ):
        client.get_manifest(repository, "one")
    assert not caught.value.permanent


def test_all_together_take_no_longer_than_the_deadline(registry: str, repository: str) -> None:
    access = RegistryAccess(plain_http=True, deadline_seconds=0)
    with (
        RegistryClient(registry, access) as client,
        pytest.raises(RegistryError, match="longer than 0 s") as caught,
    ):
        put(client, repository)
    assert not caught.value.permanent


# -- Who may -----------------------------------------------------------------------------------------------------------


def known(plain_http: bool = True, password: str = PASSWORD) -> RegistryAccess:
    return RegistryAccess(USER, password, plain_http=plain_http, first_pause_seconds=0.01)


def test_name_and_password_are_given_where_they_are_asked_for(tmp_path: Path, repository: str) -> None:
    with running_registry(tmp_path, auth=basic_auth(tmp_path)) as host:
        with RegistryClient(host, known()) as client:
            put(client, repository)
            assert read(client, repository) == BLOB
        for access in (known(password="wrong"), QUICK):
            with (
                RegistryClient(host, access) as client,
                pytest.raises(RegistryError, match="refuses") as caught,
            ):
                client.get_manifest(repository, "one")
            assert caught.value.permanent


def test_tokens_are_fetched_for_what_is_done_and_used_until_they_expire(
    tmp_path: Path, repository: str
) -> None:
    tokens = TokenServer(tmp_path)
    try:
        with running_registry(tmp_path, auth=tokens.auth) as host:
            with RegistryClient(host, known()) as client:
                pushed = push_base(client, repository, "one")
                assert client.get_manifest(repository, "one") == pushed
                put(client, repository)
                assert client.mount_blob(f"{repository}-2", DIGEST, repository)
            scopes = [f"repository:{repository}:pull,push", f"repository:{repository}:pull"]
            mounting = (f"repository:{repository}-2:pull,push", scopes[1])
            assert tokens.asked == [(scopes[0],), (scopes[1],), mounting]

            with RegistryClient(host, known()) as client:
                tokens.lifetime_seconds = -90  # expired when it comes: the next one is asked for, once
                with pytest.raises(RegistryError, match="refuses"):
                    client.get_manifest(repository, "one")
                tokens.lifetime_seconds = 60
                assert client.get_manifest(repository, "one") == pushed

            wrong = known(password="wrong")
            with (
                RegistryClient(host, wrong) as client,
                pytest.raises(RegistryError, match="refuses") as caught,
            ):
                client.get_manifest(repository, "one")
            assert caught.value.permanent
    finally:
        tokens.stop()


def test_a_registry_of_an_own_authority_is_trusted_where_the_system_trusts_it(
    tmp_path: Path, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    tls = {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
    with running_registry(tmp_path, tls=tls) as host:
        access = known(plain_http=False)
        with RegistryClient(host, access) as client, pytest.raises(RegistryError, match="(?i)certificate"):
            client.has_blob(repository, DIGEST)

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        with RegistryClient(host, known(plain_http=False)) as client:
            put(client, repository)
            assert read(client, repository) == BLOB
