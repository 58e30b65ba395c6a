"""A real registry (Debian's docker-registry) as a process, what gives tokens for it, and what breaks on the way."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import load_pem_x509_certificate

from tests.servers import find_free_port, find_program, running_server

USER, PASSWORD = "huisheng", "only on this loopback"
# bcrypt of PASSWORD with the least cost: what `htpasswd -B` writes, without the program
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuPo0xwzG3IKj2GDdux77/lv./xcjUAL.\n"


@contextmanager
def running_registry(
    folder: Path, *, auth: dict[str, Any] | None = None, tls: dict[str, str] | None = None
) -> Iterator[str]:
    """Run an empty registry until the block ends; gives host and port."""
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{find_free_port()}"
    configuration: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host, "secret": "of the tests", **({"tls": tls} if tls else {})},
    }
    if auth:
        configuration["auth"] = auth
    path = folder / "config.yml"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    scheme = "https" if tls else "http"

    def answers() -> bool:
        try:
            httpx.get(f"{scheme}://{host}/v2/", verify=False, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    program = find_program("docker-registry", "registry")
    with running_server([program, "serve", str(path)], log=folder / "log", answers=answers):
        yield host


def basic_auth(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(HTPASSWD)
    return {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}


class TokenServer:
    """Gives the tokens that a registry with token authentication wants, for the scopes that are asked for."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
        self._certificate = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
        self._key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        authority.cert_pem.write_to_path(folder / "root.pem")
        self.asked: list[tuple[str, ...]] = []  # scopes, a request each
        self.lifetime_seconds = 60
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {expected}":
                    self.send_error(401)
                    return
                server.asked.append(tuple(query.get("scope", [])))
                sent = json.dumps({"token": server.make_token(query)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.auth = {
            "token": {
                "realm": f"http://127.0.0.1:{self._server.server_address[1]}/token",
                "service": "registry of the tests",
                "issuer": "tests",
                "rootcertbundle": str(folder / "root.pem"),
            }
        }

    def make_token(self, query: dict[str, list[str]]) -> str:
        chain = base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()
        now = int(time.time())
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": query["service"][0],
            "nbf": now - 120,
            "iat": now,
            "exp": now + self.lifetime_seconds,
            "jti": str(len(self.asked)),
            "access": access,
        }
        header = {"typ": "JWT", "alg": "ES256", "x5c": [chain]}
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


Fault = Callable[[str, str], str | None]
"""Told method and path of a request, says what goes wrong: a status, "break" (in the midst of the body), "lose" (the
answer), "wait", or nothing."""


class BadRoad:
    """Passes requests on to a registry, and breaks what it is told to."""

    def __init__(self, registry: str) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fault: Fault = lambda method, path: None
        self.released = threading.Event()  # ends every "wait"
        road = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                road.requests.append((self.command, self.path))
                fault = road.fault(self.command, self.path)
                length = int(self.headers.get("Content-Length") or 0)
                if fault == "break":
                    self.rfile.read(length // 2)
                    self.close_connection = True
                    self.connection.close()
                    return
                body = self.rfile.read(length)
                if fault == "wait":
                    road.released.wait(30)
                    self.close_connection = True
                    return
                if fault is not None and fault.isdecimal():
                    self._answer(int(fault), {}, b'{"errors": [{"code": "TEST", "message": "told to"}]}')
                    return
                upstream = http.client.HTTPConnection(registry, timeout=30)
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() != "connection"
                }
                upstream.request(self.command, self.path, body=body or None, headers=headers)
                response = upstream.getresponse()
                content = response.read()
                upstream.close()
                if fault == "lose":
                    self.close_connection = True
                    self.connection.close()
                    return
                self._answer(response.status, dict(response.getheaders()), content)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _pass_on

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # a client that has gone, or a connection that was broken here
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def first(self, times: int, what: str, *, method: str, contains: str = "") -> None:
        """Let the first so many requests of a kind go wrong."""
        left = [times]

        def fault(found: str, path: str) -> str | None:
            if found != method or contains not in path or left[0] == 0:
                return None
            left[0] -= 1
            return what

        self.fault = fault

    def count(self, method: str, contains: str = "") -> int:
        return sum(found == method and contains in path for found, path in self.requests)

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
