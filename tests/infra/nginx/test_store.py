"""The artifact store of a cluster: who may do what, and that nothing half-written or foreign gets in or out."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from federated.presign import presign, sign
from federated.store import MAX_FILE_BYTES
from tests.infra.nginx.servers import (
    AS_ROOT,
    BLOG_TOKEN,
    READ_TOKEN,
    RUN_TOKEN,
    SIGNING_KEY,
    START,
    STORE_SECRETS,
    Nginx,
    bearer,
    running_store,
)
from tests.servers import wait_until

DIGEST = hashlib.sha256(b"what lies there").hexdigest()
PATHS = {
    "artifacts": f"/artifacts/{DIGEST}/model.onnx",
    "shards": f"/shards/{DIGEST}.jsonl",
    "reports": f"/reports/{DIGEST}/report.json",
    "runs": "/runs/run-7/progress.jsonl",
    "media": f"/media/images/{DIGEST[:32]}-640.webp",
    "champion": "/champion.json",
}
CALLERS = {
    "blog": bearer(BLOG_TOKEN),
    "run": bearer(RUN_TOKEN),
    "read": bearer(READ_TOKEN),
    "unknown": bearer("no-such-token-0123456789"),
    "nobody": {},
}
MAY_READ = {
    "blog": set(PATHS),
    "run": {"artifacts"},
    "read": {"artifacts", "champion"},
}
MAY_WRITE = {"blog": set(PATHS), "run": {"artifacts", "reports", "runs"}, "read": set()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Nginx]:
    with running_store(root) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def http(server: Nginx) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture
def kept(root: Path) -> Path:
    """The store's folder, with one file in each place."""
    folder = root / "store"
    for path in PATHS.values():
        (folder / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (folder / path[1:]).write_bytes(b"what lies there")
    return folder


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("caller", "area"), itertools.product(CALLERS, PATHS))
def test_each_caller_reads_what_is_meant_for_it(
    http: httpx.Client, kept: Path, caller: str, area: str
) -> None:
    answers = [http.request(method, PATHS[area], headers=CALLERS[caller]) for method in ("GET", "HEAD")]
    if area in MAY_READ.get(caller, ()):
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == b"what lies there"
        assert answers[1].headers["content-length"] == "15"
        assert answers[0].headers["cache-control"] == "private, no-cache"
        assert {"etag", "last-modified"} <= answers[0].headers.keys()
    else:
        refused = 403 if caller in MAY_READ else 401
        assert [answer.status_code for answer in answers] == [refused, refused]
        assert b"what lies there" not in answers[0].content
        assert ("www-authenticate" in answers[0].headers) == (refused == 401)


@pytest.mark.parametrize(("caller", "area"), itertools.product(CALLERS, PATHS))
def test_each_caller_writes_what_is_its_own(http: httpx.Client, kept: Path, caller: str, area: str) -> None:
    place = kept / PATHS[area][1:]
    place.unlink()
    answer = http.put(PATHS[area], content=b"new", headers=CALLERS[caller])
    if area in MAY_WRITE.get(caller, ()):
        assert answer.status_code == 201
        assert place.read_bytes() == b"new"
        assert place.stat().st_mode & 0o777 == 0o644
    else:
        assert answer.status_code == (403 if caller in MAY_WRITE else 401)
        assert not place.exists()


@pytest.mark.parametrize(
    ("caller", "status", "left"), [("blog", 204, b"other"), ("run", 409, b"what lies there")]
)
def test_a_run_adds_artifacts_and_changes_none(
    http: httpx.Client, kept: Path, caller: str, status: int, left: bytes
) -> None:
    answer = http.put(PATHS["artifacts"], content=b"other", headers=CALLERS[caller])
    assert answer.status_code == status
    assert (kept / PATHS["artifacts"][1:]).read_bytes() == left


def test_a_run_writes_its_diary_again_and_again(http: httpx.Client, kept: Path) -> None:
    for content in (b"one\n", b"one\ntwo\n"):
        assert http.put(PATHS["runs"], content=content, headers=bearer(RUN_TOKEN)).status_code == 204
        assert (kept / PATHS["runs"][1:]).read_bytes() == content


@pytest.mark.parametrize(("caller", "area"), itertools.product(CALLERS, PATHS))
def test_only_the_blog_deletes_and_only_what_a_digest_names(
    http: httpx.Client, kept: Path, caller: str, area: str
) -> None:
    answer = http.delete(PATHS[area], headers=CALLERS[caller])
    if caller == "blog" and area in ("artifacts", "shards", "media"):
        assert answer.status_code == 204
        assert PATHS[area][1:] not in files_under(kept)
        assert http.delete(PATHS[area], headers=CALLERS[caller]).status_code == 404
    else:
        assert answer.status_code == (403 if caller in MAY_WRITE else 401)
        assert PATHS[area][1:] in files_under(kept)


@pytest.mark.parametrize("method", ["POST", "PATCH", "MKCOL", "COPY", "MOVE", "OPTIONS", "PROPFIND"])
def test_there_is_no_other_way_to_change_anything(http: httpx.Client, kept: Path, method: str) -> None:
    for path in PATHS.values():
        headers = {**bearer(BLOG_TOKEN), "Destination": f"http://store{PATHS['champion']}"}
        assert http.request(method, path, headers=headers).status_code == 405
    assert {path[1:] for path in PATHS.values()} <= files_under(kept)


@pytest.mark.parametrize(
    "header",
    [
        BLOG_TOKEN,
        f"bearer {BLOG_TOKEN}",
        f"Basic {BLOG_TOKEN}",
        f"Bearer {BLOG_TOKEN.upper()}",
        f"Bearer {BLOG_TOKEN} x",
        f"Bearer x{BLOG_TOKEN}",
        f"Bearer {BLOG_TOKEN[:-1]}",
        "Bearer",
        "Bearer .*",
    ],
)
def test_a_token_is_taken_only_as_it_is(http: httpx.Client, kept: Path, header: str) -> None:
    assert http.get(PATHS["shards"], headers={"Authorization": header}).status_code == 401


# -- Signed addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("area", PATHS)
def test_a_signed_address_lets_its_holder_get_that_file_alone(
    server: Nginx, http: httpx.Client, kept: Path, area: str
) -> None:
    address = presign(server.url, PATHS[area], SIGNING_KEY, time.time() + 60)
    assert httpx.get(address).content == b"what lies there"
    for method in ("HEAD", "PUT", "DELETE"):
        assert httpx.request(method, address, content=b"x" if method == "PUT" else None).status_code == 403
    query = urlsplit(address).query
    for other, path in PATHS.items():
        if other != area:
            assert http.get(f"{path}?{query}").status_code == 403


def test_a_signed_address_ends(server: Nginx, http: httpx.Client, kept: Path) -> None:
    past = int(time.time()) - 1
    old = f"{PATHS['shards']}?expires={past}&signature={sign(PATHS['shards'], SIGNING_KEY, past)}"
    assert http.get(old).status_code == 410
    soon = presign(server.url, PATHS["shards"], SIGNING_KEY, time.time() + 1)
    deadline = time.monotonic() + 30
    while (status := httpx.get(soon).status_code) != 410:
        assert status == 200
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_tampered_address_is_refused(server: Nginx, http: httpx.Client, kept: Path) -> None:
    path = PATHS["shards"]
    query = {
        name: values[0]
        for name, values in parse_qs(
            urlsplit(presign(server.url, path, SIGNING_KEY, time.time() + 60)).query
        ).items()
    }
    assert http.get(path, params=query).status_code == 200
    later = str(int(query["expires"]) + 3600)
    signature = query["signature"]
    wrong = [
        {**query, "expires": later},
        {**query, "signature": signature[:-1] + ("A" if signature[-1] != "A" else "Q")},
        {**query, "signature": signature.swapcase()},
        {"signature": signature},
        {**query, "expires": "x"},
        {**query, "expires": "-1"},
        {"expires": later, "signature": sign(path, "another-key-0123456789", int(later))},
    ]
    for tampered in wrong:
        assert http.get(path, params=tampered).status_code == 403, tampered
    assert http.get(path, params={"expires": query["expires"]}).status_code == 401


def test_neither_signature_nor_token_is_logged(server: Nginx, http: httpx.Client, kept: Path) -> None:
    address = presign(server.url, PATHS["shards"], SIGNING_KEY, time.time() + 60)
    httpx.get(address, headers={"X-Request-Id": "seen-in-the-log"})
    missing = presign(server.url, f"/shards/{'0' * 64}.jsonl", SIGNING_KEY, time.time() + 60)
    assert httpx.get(missing).status_code == 404
    assert httpx.put(missing, content=b"x").status_code == 403
    http.get(PATHS["runs"], headers=bearer(BLOG_TOKEN))
    content = server.log.read_text()
    assert "seen-in-the-log" in content
    secrets = [*STORE_SECRETS.values(), parse_qs(urlsplit(address).query)["signature"][0], "signature="]
    assert not [secret for secret in secrets if secret in content]
    line = next(json.loads(line) for line in content.splitlines() if "seen-in-the-log" in line)
    assert (line["caller"], line["path"], line["status"]) == ("signed", PATHS["shards"], 200)


# -- What gets in, and how -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/artifacts",
        "/artifacts/",
        f"/artifacts/{DIGEST}",
        f"/artifacts/{DIGEST}/",
        "/shards/",
        "/runs/run-7/",
        f"/artifacts/{DIGEST}/../../../etc/passwd",
        "/../champion.json.bak",
        f"/shards/{DIGEST}.jsonl/",
        f"//shards/{DIGEST}.jsonl",
        f"/shards/{DIGEST.upper()}.jsonl",
        f"/shards/{DIGEST[:-1]}.jsonl",
        f"/shards/{DIGEST}.jsonl%00",
        f"/shards/{DIGEST}.json",
        f"/artifacts/{DIGEST}/.hidden",
        f"/artifacts/{DIGEST}/a%2fb",
        f"/artifacts/{DIGEST}/a%0ab",
        "/runs/Run-7/progress.jsonl",
        "/runs/-/x",
        "/.incoming/0000000001",
        f"/media/images/{DIGEST}.webp",
        f"/media/images/{DIGEST[:32]}.svg",
        f"/media/{DIGEST[:32]}.webp",
        "/champion.json.",
        "/livez/..",
        "/nginx.pid",
        f"/artifacts/{DIGEST}/" + "n" * 101,
    ],
)
def test_a_path_that_is_no_place_of_the_store_is_neither_read_nor_written(
    server: Nginx, kept: Path, path: str
) -> None:
    before = files_under(kept)
    for method, body in (("GET", b""), ("PUT", b"hostile")):
        status = ask_raw(server.port, method, path, body)
        assert status in (400, 404), (method, status)
    assert files_under(kept) == before


@pytest.mark.parametrize("way", ["/champion.json/../shards/", "/artifacts/..%2fshards/", "/./%73hards/"])
def test_a_roundabout_path_is_judged_by_where_it_leads(server: Nginx, kept: Path, way: str) -> None:
    assert ask_raw(server.port, "GET", f"{way}{DIGEST}.jsonl", b"", READ_TOKEN) == 403
    assert ask_raw(server.port, "GET", f"{way}{DIGEST}.jsonl", b"", BLOG_TOKEN) == 200


def ask_raw(port: int, method: str, path: str, body: bytes, token: str = BLOG_TOKEN) -> int:
    """Send a path as it is: a client would tidy it up first."""
    request = f"{method} {path} HTTP/1.1\r\nHost: store\r\nAuthorization: Bearer {token}\r\n"
    request += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.encode() + body)
        return int(connection.makefile("rb").readline().split()[1])


def test_a_link_in_the_store_leads_nowhere(http: httpx.Client, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    link = kept / "artifacts" / DIGEST / "link"
    link.symlink_to(tmp_path / "secret")
    try:
        answer = http.get(f"/artifacts/{DIGEST}/link", headers=bearer(BLOG_TOKEN))
        assert answer.status_code == 403
        assert "outside" not in answer.text
    finally:
        link.unlink()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_breaks_off_leaves_nothing(server: Nginx, kept: Path, chunked: bool) -> None:
    path = PATHS["artifacts"] + ".partial"
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {2**20}"
    request = f"PUT {path} HTTP/1.1\r\nHost: store\r\nAuthorization: Bearer {BLOG_TOKEN}\r\n{length}\r\n\r\n"
    part = b"x" * 2**17
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request.encode())
        for _ in range(4):
            connection.sendall(b"20000\r\n" + part + b"\r\n" if chunked else part)
        wait_until(lambda: incoming(kept), "the upload being under way")
        assert not (kept / path[1:]).exists()
    wait_until(lambda: not incoming(kept), "the upload being thrown away")
    assert not (kept / path[1:]).exists()


def test_a_server_killed_amid_an_upload_keeps_the_old_file_and_clears_up_when_it_starts(
    tmp_path: Path,
) -> None:
    path, folder = PATHS["champion"], tmp_path / "store"
    with running_store(tmp_path) as nginx:
        assert httpx.put(nginx.url + path, content=b"old", headers=bearer(BLOG_TOKEN)).status_code == 201
        with socket.create_connection(("127.0.0.1", nginx.port), timeout=20) as connection:
            head = f"PUT {path} HTTP/1.1\r\nHost: store\r\nAuthorization: Bearer {BLOG_TOKEN}\r\n"
            connection.sendall(f"{head}Content-Length: {2**20}\r\n\r\n".encode() + b"x" * 2**19)
            wait_until(lambda: incoming(folder), "the upload being under way")
            workers = subprocess.run(["pgrep", "-P", str(nginx.pid)], capture_output=True, text=True).stdout
            for pid in [nginx.pid, *map(int, workers.split())]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:  # the watching shell, or a worker that went with its master
                    continue
    assert incoming(folder)
    assert (folder / path[1:]).read_bytes() == b"old"
    with running_store(tmp_path) as nginx:
        assert not incoming(folder)
        assert httpx.get(nginx.url + path, headers=bearer(READ_TOKEN)).content == b"old"


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(server: Nginx, kept: Path) -> None:
    request = f"PUT {PATHS['shards']} HTTP/1.1\r\nHost: store\r\nAuthorization: Bearer {BLOG_TOKEN}\r\n"
    for size, status in ((MAX_FILE_BYTES + 1, 413), (15, 204)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(f"{request}Content-Length: {size}\r\n\r\n".encode() + b"what lies there")
            assert int(connection.makefile("rb").readline().split()[1]) == status
    assert not incoming(kept)


def incoming(folder: Path) -> list[Path]:
    return [path for path in (folder / ".incoming").glob("*") if path.is_file()]


# -- How it starts -------------------------------------------------------------------------------------------------


def start(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What start.sh says of an environment, without serving."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    settings = {"RUN_DIR": str(tmp_path / "run"), "STORE_ROOT": str(root), **STORE_SECRETS, **environment}
    return subprocess.run(
        [START, "store", "-t", *AS_ROOT],
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_only_nginx_can_read_the_secrets_it_is_started_with(tmp_path: Path) -> None:
    started = start(tmp_path)
    assert started.returncode == 0, started.stderr
    for name in ("tokens.conf", "signing.conf"):
        assert (tmp_path / "run" / name).stat().st_mode & 0o777 == 0o600
    assert not [secret for secret in STORE_SECRETS.values() if secret in started.stderr + started.stdout]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ARTIFACT_STORE_TOKEN": ""}, "ARTIFACT_STORE_TOKEN is not set"),
        ({"ARTIFACT_STORE_RUN_TOKEN": "short"}, "a secret of 5 characters: at least 20"),
        ({"ARTIFACT_STORE_SIGNING_KEY": 'a"; return 200 "0123456789'}, "ARTIFACT_STORE_SIGNING_KEY may hold"),
        ({"ARTIFACT_STORE_READ_TOKEN": "0123456789$uri0123456789"}, "ARTIFACT_STORE_READ_TOKEN may hold"),
        ({"PORT": "80;80"}, "PORT is '80;80': expected a port"),
        ({"PORT": "80\n80"}, "PORT has more than one line"),
        ({"STORE_ROOT": "/no/such/folder"}, "cannot write there"),
    ],
)
def test_a_store_that_would_not_be_safe_does_not_start(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    started = start(tmp_path, **environment)
    assert started.returncode == 64
    assert said in started.stderr
    value = next(iter(environment.values()))
    assert "TOKEN" not in str(environment) or not value or value not in started.stderr


def test_a_token_can_be_exchanged_without_a_gap_and_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-next-token-0123456789\n")
    both = f"{READ_TOKEN} the-other-token-0123456789"
    with running_store(
        tmp_path,
        ARTIFACT_STORE_READ_TOKEN=both,
        ARTIFACT_STORE_TOKEN_FILE=str(tmp_path / "token"),
    ) as nginx:
        put = httpx.put(
            nginx.url + PATHS["champion"], content=b"{}", headers=bearer("the-next-token-0123456789")
        )
        assert put.status_code == 201
        for token in both.split():
            assert httpx.get(nginx.url + PATHS["champion"], headers=bearer(token)).status_code == 200
        assert httpx.get(nginx.url + PATHS["champion"], headers=bearer(BLOG_TOKEN)).status_code == 401
