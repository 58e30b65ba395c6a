"""A real MariaDB and a real Redis for a while, on free ports of 127.0.0.1, with everything in a folder of theirs.

For tests and benchmarks: both forget all, and are stopped however the block that runs them ends.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0
DATABASE = "huisheng"
USER = "huisheng"
PASSWORD = "only-on-this-loopback"  # noqa: S105 - of a server that lives for minutes, on 127.0.0.1
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


class ServerError(Exception):
    """A server is not installed, or did not start; the message says which and what its log says."""


def find_program(*names: str) -> str:
    """The first of `names` that is installed. Raises ServerError when none is."""
    for name in names:
        if found := shutil.which(name, path=SEARCH_PATH):
            return found
    raise ServerError(f"{names[0]} is not installed: run infra/setup/test_servers.sh")


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tied_to_parent(cores: set[int] | None = None) -> Callable[[], None]:
    """Give what lets Linux stop a new process when its parent is gone, even by SIGKILL; other systems lack the call.

    All is loaded before the process forks: between that and exec, a lock that another thread held stays locked.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl, pr_set_pdeathsig, number = ctypes.CDLL(None).prctl, 1, int(signal.SIGTERM)

    def tie() -> None:
        prctl(pr_set_pdeathsig, number)
        if cores:
            os.sched_setaffinity(0, cores)

    return tie


@contextmanager
def running_server(
    command: Sequence[str],
    *,
    log: Path,
    answers: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    cores: set[int] | None = None,
) -> Iterator[None]:
    """Run a server from when it answers until the block ends. Raises ServerError, with its log, if it never does.

    It has this process's environment, folder and processor cores where it is given no others.
    """
    name = Path(command[0]).name
    with log.open("ab") as output:  # appended to, as servers may open the same file once more
        # A session of its own: Ctrl-C at the terminal reaches the command only, and the servers outlive it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=tied_to_parent(cores),
            env=environment,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None:
                raise ServerError(f"{name} ended with status {process.returncode}:\n{read_tail(log)}")
            if time.monotonic() > deadline:
                raise ServerError(f"{name} did not answer within {START_SECONDS:.0f} s:\n{read_tail(log)}")
            time.sleep(0.05)
        yield
    finally:
        stop_process(process)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def read_tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def running_mariadb(folder: Path, *, buffer_pool_mb: int = 64) -> Iterator[str]:
    """A MariaDB with one empty utf8mb4 database and a user who may make more; yields its DATABASE_URL."""
    server = find_program("mariadbd", "mysqld")
    data, log, temporary = folder / "mariadb", folder / "mariadb.log", folder / "mariadb-tmp"
    temporary.mkdir()
    user = getpass.getuser()
    install = [
        find_program("mariadb-install-db", "mysql_install_db"),
        "--no-defaults",
        f"--datadir={data}",
        f"--user={user}",  # as root the server otherwise refuses to run, or runs as one who may not enter the folder
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ]
    made = subprocess.run(install, capture_output=True, timeout=START_SECONDS, check=False)
    if made.returncode:
        raise ServerError(
            f"{install[0]} ended with status {made.returncode}:\n{made.stderr.decode(errors='replace')}"
        )

    port = find_free_port()
    first_statements = folder / "first.sql"
    first_statements.write_text(
        f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n"
        f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
        f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1';\n"
    )
    command = [
        server,
        "--no-defaults",
        f"--user={user}",
        f"--datadir={data}",
        f"--tmpdir={temporary}",  # where it starts, a server deletes the temporary tables it finds: also another one's
        f"--socket={folder / 'mariadb.sock'}",
        f"--pid-file={folder / 'mariadb.pid'}",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--skip-name-resolve",
        "--character-set-server=utf8mb4",
        f"--init-file={first_statements}",
        # The data live for minutes: nothing is gained by waiting for the disk.
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=0",
        f"--innodb-buffer-pool-size={buffer_pool_mb}M",
    ]
    with running_server(command, log=log, answers=lambda: mariadb_answers(port)):
        yield f"mysql://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}"


def mariadb_answers(port: int) -> bool:
    import MySQLdb

    try:
        connection = MySQLdb.connect(
            host="127.0.0.1", port=port, user=USER, passwd=PASSWORD, db=DATABASE, connect_timeout=2
        )
    except MySQLdb.OperationalError:
        return False
    connection.close()
    return True


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """A Redis that keeps nothing; yields its address without a database number."""
    port = find_free_port()
    command = [find_program("redis-server", "valkey-server"), "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--dir", str(folder), "--save", "", "--appendonly", "no"]
    command += ["--databases", "64"]  # two for each process of the tests
    with running_server(command, log=folder / "redis.log", answers=lambda: redis_answers(port)):
        yield f"redis://127.0.0.1:{port}"


def redis_answers(port: int) -> bool:
    import redis

    try:
        with redis.Redis(port=port, socket_connect_timeout=1, socket_timeout=1) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
