"""The start scripts of the cluster's Redis and MariaDB, with the real servers: settings, passwords, what they keep."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import find_free_port, running_server

pytestmark = pytest.mark.servers
K8S = Path(__file__).resolve().parents[2] / "infra" / "k8s"
PASSWORD, ROOT_PASSWORD = "it's \\ of the user", "of the root"


# -- Redis -------------------------------------------------------------------------------------------------------------


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[Any]:
    """The server as the pod starts it, but for its folder and its port; yields a client."""
    import redis

    port = find_free_port()
    command = ["sh", str(K8S / "base/redis/start.sh"), "--port", str(port), *options]
    client = redis.Redis(port=port, password="secret", decode_responses=True, socket_timeout=10)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("REDIS_PASSWORD", "secret")
        environment.setenv("REDIS_DATA", str(folder))
        with running_server(command, log=folder / "log", answers=answers):
            yield client
            client.close()


def test_redis_asks_for_the_password_and_keeps_messages_over_a_restart(tmp_path: Path) -> None:
    import redis

    with running_redis(tmp_path) as client:
        port = client.connection_pool.connection_kwargs["port"]
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        client.rpush("celery", "a message")

    with running_redis(tmp_path) as client:
        assert client.lrange("celery", 0, -1) == ["a message"]


def probe_of(manifest: str, probe: str, port: int) -> list[str]:
    """The command of a probe, which finds the server at another port."""
    server = yaml.safe_load((K8S / manifest).read_text(encoding="utf-8"))
    (container,) = server["spec"]["template"]["spec"]["containers"]
    command = [str(word) for word in container[probe]["exec"]["command"]]
    found = [word.replace("-h 127.0.0.1", f"-h 127.0.0.1 -p {port}") for word in command]
    return [word.replace("--host=127.0.0.1", f"--host=127.0.0.1 --port={port}") for word in found]


def probe_answers(command: list[str], **environment: str) -> bool:
    kept = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=kept, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_redis_is_probed_by_what_older_clients_understand_too(tmp_path: Path, probe: str) -> None:
    with running_redis(tmp_path) as client:
        port = client.connection_pool.connection_kwargs["port"]
        command = probe_of("base/redis/statefulset.yaml", probe, port)

        assert probe_answers(command, REDIS_PASSWORD="secret")
        assert not probe_answers(command, REDIS_PASSWORD="another")


def test_redis_forgets_what_has_an_end_and_never_a_message(tmp_path: Path) -> None:
    import redis

    with running_redis(tmp_path, "--maxmemory", "4mb") as client:
        client.rpush("celery", *(f"message {number}" for number in range(100)))
        for number in range(2_000):
            client.set(f"cache:{number}", "x" * 10_000, ex=3600)
            if client.info("stats")["evicted_keys"]:
                break
        else:
            pytest.fail("nothing was evicted")
        assert client.llen("celery") == 100

        with pytest.raises(redis.OutOfMemoryError):  # refused, not made room for by forgetting other messages
            while True:
                client.rpush("celery", "x" * 100_000)
        assert client.lindex("celery", 0) == "message 0"


def test_redis_does_not_start_without_a_password(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    started = subprocess.run(
        ["sh", K8S / "base/redis/start.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert started.returncode != 0
    assert "huisheng-redis must hold it" in started.stderr


# -- MariaDB -----------------------------------------------------------------------------------------------------------


@contextmanager
def running_mariadb(folder: Path, password: str) -> Iterator[int]:
    """The server as components/mariadb starts it, but for its folders and its port; yields that."""
    port = find_free_port()
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "lost+found").mkdir(exist_ok=True)  # as a new file system has it
    options = [f"--port={port}", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"]
    options += [f"--user={os.environ.get('USER', 'root')}"] if os.getuid() == 0 else []
    environment = {
        "MYSQL_DATABASE": "huisheng",
        "MYSQL_USER": "huisheng",
        "MYSQL_PASSWORD": password,
        "MYSQL_ROOT_PASSWORD": ROOT_PASSWORD,
        "MYSQL_DATA": str(data),
        "MYSQL_RUN": str(folder),
        "TMPDIR": str(folder),
    }
    probe = ["mariadb-admin", "--no-defaults", "--host=127.0.0.1", f"--port={port}", "--silent", "ping"]

    def answers() -> bool:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    with pytest.MonkeyPatch.context() as given:
        for name, value in environment.items():
            given.setenv(name, value)
        command = ["bash", str(K8S / "components/mariadb/start.sh"), *options]
        with running_server(command, log=folder / "log", answers=answers):
            yield port


def ask(port: int, password: str, statement: str) -> list[tuple[Any, ...]]:
    import MySQLdb

    connection = MySQLdb.connect(
        host="127.0.0.1", port=port, user="huisheng", passwd=password, db="huisheng", autocommit=True
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        connection.close()


def test_mariadb_fills_an_empty_volume_and_finds_it_again_under_a_new_password(tmp_path: Path) -> None:
    import MySQLdb

    with running_mariadb(tmp_path, PASSWORD) as port:
        assert ask(port, PASSWORD, "SELECT @@character_set_database, @@collation_database") == [
            ("utf8mb4", "utf8mb4_bin")
        ]
        ask(port, PASSWORD, "CREATE TABLE kept (id INT)")
        ask(port, PASSWORD, "INSERT INTO kept VALUES (7)")
        probe = probe_of("components/mariadb/mysql.yaml", "livenessProbe", port)
        assert probe_answers(probe, MYSQL_USER="huisheng", MYSQL_PASSWORD=PASSWORD)

    with running_mariadb(tmp_path, "rotated") as port:
        assert ask(port, "rotated", "SELECT id FROM kept") == [(7,)]
        with pytest.raises(MySQLdb.OperationalError, match="Access denied"):
            ask(port, PASSWORD, "SELECT 1")


def test_mariadb_begins_again_on_a_volume_that_was_not_filled_to_the_end(tmp_path: Path) -> None:
    half = tmp_path / "data" / "mysql"
    half.mkdir(parents=True)
    (half / "global_priv.frm").write_bytes(b"half a file")
    (tmp_path / "data" / ".filling").touch()

    with running_mariadb(tmp_path, PASSWORD) as port:
        assert ask(port, PASSWORD, "SELECT 1") == [(1,)]
    assert not (tmp_path / "data" / ".filling").exists()
