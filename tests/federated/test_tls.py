"""TLS with certificates made for the test: who is let in, who is not, what each is told, and that nobody hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import trustme

from federated import server
from federated.protocol import TOKEN_VARIABLE, TOKENS_VARIABLE, encode_message, read_progress
from federated.server import MAX_MESSAGE_BYTES, AggregatorServer
from federated.tls import TlsError, make_client_context, make_server_context
from federated.trainer import EXIT_REFUSED, EXIT_USAGE, AggregatorClient, AggregatorError, main
from tests.federated.conftest import RunGround
from tests.federated.test_server import MESSAGE, Recorder, read_status, request

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with a folder of what it has signed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, *, file: str = "", **validity: datetime) -> Pair:
        issued = self._ca.issue_cert(name, **validity)
        pair = Pair(self._folder / f"{file or name}.pem", self._folder / f"{file or name}.key")
        issued.cert_chain_pems[0].write_to_path(pair.certificate)
        issued.private_key_pem.write_to_path(pair.key)
        return pair


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours") / "ca")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign") / "ca")


@pytest.fixture(scope="module")
def pair(ours: Authority) -> Pair:
    return ours.issue("localhost")


@contextmanager
def serving(pair: Pair, client_ca: Path | None = None) -> Iterator[tuple[Recorder, int]]:
    recorder = Recorder()
    context = make_server_context(pair.certificate, pair.key, client_ca)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    with AggregatorServer(listener, recorder, {"food": "secret"}, context).serving():
        yield recorder, listener.getsockname()[1]


@contextmanager
def connected(port: int, context: ssl.SSLContext, host: str = "localhost") -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        yield secured


def settings(port: int, context: ssl.SSLContext | None, *, url: str = "https://localhost") -> object:
    with contextlib.closing(AggregatorClient(f"{url}:{port}", "secret", context)) as client:
        return client.settings()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- Who is let in -----------------------------------------------------------------------------------------------


def test_a_site_that_trusts_the_ca_speaks_as_over_plain_http(ours: Authority, pair: Pair) -> None:
    with serving(pair) as (recorder, port):
        with connected(port, make_client_context(ours.ca)) as connection:
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
            for number in (1, 2):
                connection.sendall(request(MESSAGE, path=f"/v1/rounds/{number}/update"))
                assert read_status(connection) == (200, b"next")
        assert settings(port, make_client_context(ours.ca)) == {"site": "food"}
    assert [number for _, number, _ in recorder.received] == [1, 2]
    assert recorder.refused == []


def test_large_messages_go_up_and_a_refused_one_is_told_why(ours: Authority, pair: Pair) -> None:
    """Also over TLS a site that still sends must get to see the answer."""
    large = encode_message(
        {"batch": {"samples": 1, "loss_sum": 0.5, "correct": 1}}, {"bias": np.ones(4_000_000, np.float32)}
    )
    with serving(pair) as (recorder, port):
        for token, answer in (
            ("secret", (200, b"next")),
            ("wrong", (401, b"no site has this token")),
        ):
            with connected(port, make_client_context(ours.ca)) as connection:
                connection.sendall(request(large, token=token))
                assert read_status(connection) == answer
        with connected(port, make_client_context(ours.ca)) as connection:
            connection.sendall(request(b"", **{"Content-Length": str(MAX_MESSAGE_BYTES + 1)}))
            assert read_status(connection)[0] == 413
    assert recorder.received == [("food", 1, 4_000_000.0)]


def test_a_message_that_does_not_arrive_in_time_is_given_up_over_tls_too(
    ours: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.5)
    with serving(pair) as (_, port), connected(port, make_client_context(ours.ca)) as connection:
        connection.sendall(request(MESSAGE)[:-8])
        assert read_status(connection)[0] == 408


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_with_a_client_ca_only_sites_with_its_certificate_are_let_in(
    ours: Authority, foreign: Authority, pair: Pair, version: ssl.TLSVersion
) -> None:
    own, others = ours.issue("site"), foreign.issue("site")
    with serving(pair, ours.ca) as (recorder, port):
        for certificate, said in (
            (None, "a certificate of this site: give --tls-cert and --tls-key"),
            (others, "have one signed by the CA that the aggregator was given"),
            (own, ""),
        ):
            paths = (certificate.certificate, certificate.key) if certificate else ()
            context = make_client_context(ours.ca, *paths)
            context.maximum_version = version
            if not said:
                assert settings(port, context) == {"site": "food"}
                continue
            began = time.monotonic()
            with pytest.raises(AggregatorError, match=said) as failure:
                settings(port, context)
            assert failure.value.permanent
            assert time.monotonic() - began < 10
    reasons = [reason for *_, reason in recorder.refused]
    assert len(reasons) == 2
    assert "peer did not return a certificate" in reasons[0]
    assert "certificate verify failed" in reasons[1]


def test_older_versions_of_tls_are_not_spoken(ours: Authority, pair: Pair) -> None:
    for context in (make_server_context(pair.certificate, pair.key), make_client_context(ours.ca)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# -- Who is not, and what he is told -----------------------------------------------------------------------------


def test_another_ca_is_refused_at_once_with_what_to_do(foreign: Authority, pair: Pair) -> None:
    with serving(pair) as (recorder, port):
        for context in (
            make_client_context(foreign.ca),
            None,
        ):  # None: the system's store does not know it either
            with pytest.raises(AggregatorError, match=r"not trusted \(.*give .* as --ca") as failure:
                settings(port, context)
            assert failure.value.permanent
        until(lambda: len(recorder.refused) == 2)
    assert {(status, reason) for *_, status, reason in recorder.refused} == {
        (0, "no TLS connection: tlsv1 alert unknown ca")
    }


@pytest.mark.parametrize("url", ["https://127.0.0.1", "https://localhost"])
def test_a_certificate_of_another_host_is_refused_at_once(ours: Authority, url: str) -> None:
    with (
        serving(ours.issue("aggregator.example")) as (_, port),
        pytest.raises(AggregatorError, match=f"not one for {url[8:]}: .* subjectAltName") as failure,
    ):
        settings(port, make_client_context(ours.ca), url=url)
    assert failure.value.permanent


def test_an_address_that_the_certificate_names_is_trusted(ours: Authority) -> None:
    with serving(ours.issue("127.0.0.1")) as (_, port):
        assert settings(port, make_client_context(ours.ca), url="https://127.0.0.1") == {"site": "food"}


def test_a_certificate_that_has_expired_is_refused_at_once(ours: Authority) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    expired = ours.issue("localhost", file="expired", not_before=past - timedelta(days=9), not_after=past)
    with serving(expired) as (_, port), pytest.raises(AggregatorError, match=r"not valid now .*expired"):
        settings(port, make_client_context(ours.ca))


def test_plain_http_to_a_tls_port_is_told_so_and_does_not_hang(pair: Pair) -> None:
    with serving(pair) as (recorder, port):
        began = time.monotonic()
        with pytest.raises(
            AggregatorError, match=r"answered 400: this port speaks TLS only: .*https://"
        ) as failure:
            settings(port, None, url="http://localhost")
        assert failure.value.permanent
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request(b"x" * 10_000))
            assert read_status(connection)[0] == 400
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"neither HTTP nor TLS\r\n")
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass
        assert time.monotonic() - began < 10
        assert [status for *_, status, _ in recorder.refused] == [400, 400, 0]
        assert {site for site, *_ in recorder.refused} == {""}
        assert recorder.received == []


def test_tls_to_a_plain_port_is_told_so_at_once(ours: Authority) -> None:
    recorder = Recorder()
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        AggregatorServer(listener, recorder, {"food": "secret"}).serving(),
        pytest.raises(AggregatorError, match="does not speak TLS: give its address as http://") as failure,
    ):
        settings(listener.getsockname()[1], make_client_context(ours.ca))
    assert failure.value.permanent
    assert [status for *_, status, _ in recorder.refused] == [400]


def test_clients_that_say_nothing_hold_up_nobody_and_are_given_up(
    ours: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 1.0)
    with serving(pair) as (recorder, port):
        silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(30)]
        silent[0].sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake
        began = time.monotonic()
        assert settings(port, make_client_context(ours.ca)) == {"site": "food"}
        assert time.monotonic() - began < 10
        for connection in silent:
            with connection:
                assert connection.recv(1) == b""  # closed by the server
        until(lambda: len(recorder.refused) == 30)
    assert set(recorder.refused) == {("", "127.0.0.1", 0, "no TLS handshake within 1 s")}


def test_a_port_that_is_only_probed_leaves_nothing_behind(
    ours: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(pair) as (recorder, port):
        for _ in range(10):
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
        assert settings(port, make_client_context(ours.ca)) == {"site": "food"}
    assert recorder.refused == []
    assert caplog.text == ""


# -- Files that cannot be used -----------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_files_that_cannot_be_used_are_named_with_what_to_do(
    ours: Authority, pair: Pair, tmp_path: Path
) -> None:
    gone, text = tmp_path / "gone.pem", write(tmp_path / "text.pem", "回声")
    broken = write(tmp_path / "broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = write(tmp_path / "locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n")
    other = ours.issue("other")
    for certificate, key, said in (
        (gone, pair.key, "gone.pem cannot be read: No such file"),
        (pair.certificate, gone, "gone.pem cannot be read: No such file"),
        (tmp_path, pair.key, "cannot be read: Is a directory"),
        (text, pair.key, "text.pem holds no certificate in PEM form"),
        (pair.key, pair.key, "localhost.key holds no certificate"),
        (pair.certificate, pair.certificate, "localhost.pem holds no private key"),
        (pair.certificate, locked, r"locked.key is encrypted: .*openssl pkey -in"),
        (pair.certificate, other.key, "other.key is not the key of .*localhost.pem"),
        (broken, pair.key, "broken.pem and .*localhost.key cannot be used"),
    ):
        for make in (make_server_context, lambda *pair: make_client_context(ours.ca, *pair)):
            with pytest.raises(TlsError, match=said):
                make(certificate, key)
    for ca, said in (
        (gone, "cannot be read"),
        (text, "text.pem holds no certificate"),
        (broken, "broken.pem holds no"),
    ):
        with pytest.raises(TlsError, match=said):
            make_client_context(ca)
        with pytest.raises(TlsError, match=said):
            make_server_context(pair.certificate, pair.key, ca)


# -- The processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def trainer(
    ground: RunGround, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """Arguments of a trainer, but for the aggregator's address."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    site = ground.spec().sites["food"]
    shard = str(ground.store.shard(site.shard_digest))
    return ["--site", "food", "--shard", shard, "--validation", shard]


def test_a_trainer_ends_with_10_where_it_cannot_trust_and_with_2_for_a_file_it_cannot_use(
    trainer: list[str], foreign: Authority, pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(pair) as (_, port):
        address = ["--aggregator", f"https://localhost:{port}"]
        assert main([*trainer, *address, "--ca", str(foreign.ca)]) == EXIT_REFUSED
        assert main([*trainer, *address, "--ca", str(tmp_path / "gone.pem")]) == EXIT_USAGE
    assert "the aggregator's certificate is not trusted" in caplog.text
    assert "gone.pem cannot be read" in caplog.text
    assert "attempt" not in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        ["--aggregator", "http://localhost:1", "--ca", "ca.pem"],
        ["--aggregator", "http://localhost:1", "--tls-cert", "a.pem", "--tls-key", "a.key"],
        ["--aggregator", "https://localhost:1", "--tls-cert", "a.pem"],
    ],
)
def test_options_that_would_leave_the_token_unprotected_are_wrong_usage(
    trainer: list[str], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*trainer, *options])
    assert ended.value.code == EXIT_USAGE
    assert "--tls-cert" in capsys.readouterr().err


def start(
    module: str, arguments: list[str], environment: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=output,
            stderr=output,
        )


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
def test_a_whole_run_of_an_aggregator_and_two_trainers_over_tls(
    ground: RunGround, ours: Authority, pair: Pair, mutual: bool
) -> None:
    spec = ground.spec(rounds=3)
    spec = replace(spec, sites={site: spec.sites[site] for site in ("food", "books")})
    work = ground.root
    (work / "run.json").write_text(spec.to_json(), encoding="utf-8")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        arguments = ["--spec", str(work / "run.json"), "--work-dir", str(work), "--port", str(port)]
        arguments += ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
        arguments += ["--tls-client-ca", str(ours.ca)] if mutual else []
        tokens = {TOKENS_VARIABLE: '{"food": "secret of food", "books": "secret of books"}'}
        processes.append(start("federated.aggregator", arguments, tokens, work / "aggregator.log"))
        for site, shards in spec.sites.items():
            own = ours.issue(site)
            arguments = ["--aggregator", f"https://localhost:{port}", "--ca", str(ours.ca), "--site", site]
            arguments += ["--shard", str(ground.store.shard(shards.shard_digest))]
            arguments += ["--validation", str(ground.store.shard(shards.validation_digest))]
            arguments += ["--tls-cert", str(own.certificate), "--tls-key", str(own.key)] if mutual else []
            token = {TOKEN_VARIABLE: f"secret of {site}"}
            processes.append(start("federated.trainer", arguments, token, work / f"{site}.log"))
        # The trainers first: where one was refused, the aggregator would wait for it.
        ended = [process.wait(timeout=150) for process in processes[1:]]
        ended += [processes[0].wait(timeout=60)] if not any(ended) else []
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = "\n".join(path.read_text(encoding="utf-8") for path in sorted(work.glob("*.log")))
    assert ended == [0, 0, 0], said
    status = read_progress(work / "progress.jsonl")
    assert (status.phase, len(status.rounds), status.refusals) == ("done", 3, ()), said
    assert set(status.rounds[-1].sites) == {"food", "books"}


def test_an_aggregator_that_cannot_use_its_certificate_says_so_in_the_diary(
    ground: RunGround, ours: Authority, pair: Pair
) -> None:
    (ground.root / "run.json").write_text(ground.spec().to_json(), encoding="utf-8")
    arguments = ["--spec", str(ground.root / "run.json"), "--work-dir", str(ground.root), "--port", "0"]
    arguments += ["--tls-cert", str(pair.certificate), "--tls-key", str(ours.issue("another").key)]
    process = start(
        "federated.aggregator", arguments, {TOKENS_VARIABLE: "{}"}, ground.root / "aggregator.log"
    )
    assert process.wait(timeout=90) == 1
    status = read_progress(ground.root / "progress.jsonl")
    assert status.phase == "failed"
    assert "another.key is not the key of" in status.reason
