from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from federated.presign import presign, sign
from federated.protocol import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE
from tests.infra.nginx.servers import ROOT, SIGNING_KEY, Nginx, running_store
from tests.servers import find_free_port

CONTENT = b'{"text": "x"}\n' * 200_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/shards/{DIGEST}.jsonl"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    root = tmp_path_factory.mktemp("fetch")
    (root / "store" / "shards").mkdir(parents=True)
    (root / "store" / PATH[1:]).write_bytes(CONTENT)
    with running_store(root) as nginx:
        yield nginx


def fetch(target: Path, url: str | None, digest: str = DIGEST, patience: str = "5") -> tuple[int, str]:
    """The command as a process of its own, as a pod runs it; gives its exit status and its log."""
    command = [sys.executable, "-m", "federated.fetch", "--digest", digest, "--to", str(target)]
    environment = {"PATH": os.environ["PATH"]} | ({} if url is None else {"FETCH_URL": url})
    ended = subprocess.run(
        [*command, "--patience-seconds", patience],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in ended.stderr
    assert "signature=" not in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.returncode, ended.stderr


def test_a_shard_is_fetched_whole_and_said_to_be(server: Nginx, tmp_path: Path) -> None:
    address = presign(server.url, PATH, SIGNING_KEY, time.time() + 60)
    target = tmp_path / "data" / "shard.jsonl"
    status, said = fetch(target, address)
    assert status == 0
    assert f"{target}: {len(CONTENT)} bytes from {server.url}{PATH}, sha256 {DIGEST}" in said
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644  # the trainer may be another user
    assert [path.name for path in target.parent.iterdir()] == ["shard.jsonl"]
    # What is here is not asked for again, as after a restart of the pod when the address has run out.
    assert fetch(target, f"http://127.0.0.1:{find_free_port()}{PATH}")[0] == 0


def test_the_ends_differ_by_whether_trying_again_would_help(server: Nginx, tmp_path: Path) -> None:
    target = tmp_path / "shard.jsonl"
    address = presign(server.url, PATH, SIGNING_KEY, time.time() + 60)
    past = int(time.time()) - 1
    old = f"{server.url}{PATH}?expires={past}&signature={sign(PATH, SIGNING_KEY, past)}"
    gone = presign(server.url, f"/shards/{'0' * 64}.jsonl", SIGNING_KEY, time.time() + 60)
    ends = {
        (address.replace(DIGEST, "0" * 64), DIGEST): (EXIT_REFUSED, "answered 403"),
        (f"{server.url}{PATH}", DIGEST): (EXIT_REFUSED, "answered 401"),
        (old, DIGEST): (EXIT_REFUSED, "answered 410; the address is not good any more"),
        (gone, "0" * 64): (EXIT_REFUSED, "missing"),
        (address, "0" * 64): (EXIT_REFUSED, f"its sha256 is {DIGEST}, expected {'0' * 64}"),
        (f"http://127.0.0.1:{find_free_port()}{PATH}", DIGEST): (EXIT_UNREACHABLE, "cannot be reached"),
        (None, DIGEST): (EXIT_USAGE, "FETCH_URL must be"),
        ("file:///etc/passwd", DIGEST): (EXIT_USAGE, "FETCH_URL must be"),
        (address, "short"): (EXIT_USAGE, "--digest 'short' is no digest"),
    }
    for (url, digest), (status, said) in ends.items():
        found = fetch(target, url, digest, patience="0.3")
        assert found[0] == status, found
        assert said in found[1]
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_here_is_no_fault_of_the_store(server: Nginx, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    address = presign(server.url, PATH, SIGNING_KEY, time.time() + 60)
    status, said = fetch(tmp_path / "file" / "shard.jsonl", address)
    assert status == 1
    assert "cannot be written" in said


def test_fetching_needs_no_torch() -> None:
    loaded = "import sys, federated.fetch; print([m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "[]", ended.stderr
