"""What starts the real MariaDB and Redis for the other tests leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 90.0
SAY_WHERE = "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'], flush=True)"
USE_BOTH = """
import MySQLdb, os, redis
from urllib.parse import urlsplit
url = urlsplit(os.environ["DATABASE_URL"])
connection = MySQLdb.connect(host=url.hostname, port=url.port, user=url.username, passwd=url.password, db=url.path[1:])
cursor = connection.cursor()
cursor.execute("CREATE TABLE echoes (text VARCHAR(20))")
cursor.execute("INSERT INTO echoes VALUES ('回声🌀')")
cursor.execute("SELECT text, CHAR_LENGTH(text) FROM echoes WHERE text = '回声🌀'")
assert cursor.fetchall() == (("回声🌀", 3),)
assert redis.Redis.from_url(os.environ["CELERY_BROKER_URL"]).ping()
"""


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """A short one: the path of MariaDB's socket may have 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def start(temporary_folder: Path, program: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers", "--", sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary_folder)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answers(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address.hostname, address.port)) == 0


def test_a_command_finds_both_servers_and_its_status_is_passed_on(temporary_folder: Path) -> None:
    with start(temporary_folder, USE_BOTH + "raise SystemExit(7)") as servers:
        _, said = servers.communicate(timeout=PATIENCE_SECONDS)

    assert (servers.returncode, said) == (7, "")
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_leaves_no_server_and_no_file(
    temporary_folder: Path, ended_by: signal.Signals
) -> None:
    with start(temporary_folder, SAY_WHERE + "; import time; time.sleep(600)") as servers:
        assert servers.stdout is not None
        urls = servers.stdout.readline().split()
        assert [answers(url) for url in urls] == [True, True]
        if ended_by == signal.SIGINT:
            os.killpg(servers.pid, ended_by)  # as Ctrl-C at a terminal, which reaches the command too
        else:
            servers.send_signal(ended_by)
        servers.communicate(timeout=PATIENCE_SECONDS)

    assert servers.returncode != 0
    assert [answers(url) for url in urls] == [False, False]
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_servers_end_even_when_what_started_them_is_killed(temporary_folder: Path) -> None:
    with start(temporary_folder, SAY_WHERE + "; import time; time.sleep(600)") as servers:
        assert servers.stdout is not None
        urls = servers.stdout.readline().split()
        servers.kill()
        servers.wait()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(answers(url) for url in urls):
            assert time.monotonic() < deadline, f"{urls} still answer"
            time.sleep(0.1)


def test_a_server_that_is_not_installed_is_named(temporary_folder: Path) -> None:
    program = (
        "import infra.setup.servers as i, tests.servers as s; i.SEARCH_PATH = '/nowhere'; "
        "raise SystemExit(s.main(['--', 'true']))"
    )
    tried = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert tried.returncode == 1
    assert "redis-server is not installed: run infra/setup/test_servers.sh" in tried.stderr
