"""The dumps that the cluster makes of its database, and putting one back: the scripts themselves, on a real server."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

pytestmark = pytest.mark.servers
SCRIPTS = Path(__file__).resolve().parents[2] / "infra" / "k8s" / "base" / "backup"
DATABASE = "backup_test"
TEXT = '书很好看 😀 it\'s \\ "quoted"'
BLOB = bytes(range(256))


class Server:
    """The test server's database of its own, and the scripts run against it."""

    def __init__(self, folder: Path) -> None:
        import MySQLdb

        settings = connection.settings_dict
        self.folder = folder
        self._server: Any = MySQLdb.connect(
            host=settings["HOST"],
            port=int(settings["PORT"]),
            user=settings["USER"],
            passwd=settings["PASSWORD"],
            charset="utf8mb4",
            autocommit=True,
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "BACKUP_DIR": str(folder),
            "MYSQL_HOST": settings["HOST"],
            "MYSQL_PORT": str(settings["PORT"]),
            "MYSQL_DATABASE": DATABASE,
            "MYSQL_USER": settings["USER"],
            "MYSQL_PASSWORD": settings["PASSWORD"],
        }

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._server.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", SCRIPTS / script],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def backups(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("huisheng-*.sql.gz"))

    def close(self) -> None:
        self.ask(f"DROP DATABASE IF EXISTS {DATABASE}")
        self._server.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.ask(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    server.ask(f"CREATE TABLE {DATABASE}.comment (id INT PRIMARY KEY, text LONGTEXT, raw LONGBLOB)")
    server.ask(f"INSERT INTO {DATABASE}.comment VALUES (1, %s, %s)", TEXT, BLOB)
    yield server
    server.close()


def test_what_was_dumped_comes_back_and_what_came_later_goes(server: Server) -> None:
    dumped = server.run("backup.sh")
    assert dumped.returncode == 0, dumped.stderr
    assert len(server.backups()) == 1
    server.ask(f"UPDATE {DATABASE}.comment SET text = 'spoilt'")
    server.ask(f"CREATE TABLE {DATABASE}.of_a_newer_release (id INT)")

    restored = server.run("restore.sh", FILE="latest")

    assert restored.returncode == 0, restored.stderr
    assert server.ask(f"SELECT id, text, raw FROM {DATABASE}.comment") == [(1, TEXT, BLOB)]
    assert server.ask(f"SHOW TABLES IN {DATABASE}") == [("comment",)]
    assert server.ask(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA "
        "WHERE SCHEMA_NAME = %s",
        DATABASE,
    ) == [("utf8mb4", "utf8mb4_bin")]


def test_a_dump_is_whole_checked_and_readable_by_its_owner_alone(server: Server) -> None:
    assert server.run("backup.sh").returncode == 0

    (name,) = server.backups()
    lines = gzip.decompress((server.folder / name).read_bytes()).decode().splitlines()
    assert lines[-1].startswith("-- Dump completed")
    checked = subprocess.run(["sha256sum", "--check", f"{name}.sha256"], cwd=server.folder, check=False)
    assert checked.returncode == 0
    assert {path.stat().st_mode & 0o077 for path in server.folder.iterdir()} == {0}
    assert not list(server.folder.glob(".unfinished-*"))


@pytest.mark.parametrize("damage", ["bit", "end", "checksum"])
def test_a_damaged_dump_is_refused_and_the_database_is_not_touched(server: Server, damage: str) -> None:
    assert server.run("backup.sh").returncode == 0
    (name,) = server.backups()
    dump, checksum = server.folder / name, server.folder / f"{name}.sha256"
    content = dump.read_bytes()
    if damage == "bit":
        dump.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "end":
        dump.write_bytes(content[: len(content) // 2])
    else:
        checksum.unlink()
    server.ask(f"UPDATE {DATABASE}.comment SET text = 'newer'")

    refused = server.run("restore.sh", FILE=name)

    assert refused.returncode == 2
    assert "The database was not touched" in refused.stderr
    assert server.ask(f"SELECT text FROM {DATABASE}.comment") == [("newer",)]


@pytest.mark.parametrize("file", ["", "not-said", "huisheng-20200101T000000Z.sql.gz", "../../etc/passwd"])
def test_a_file_that_is_no_backup_is_refused_with_those_there_are(server: Server, file: str) -> None:
    assert server.run("backup.sh").returncode == 0

    refused = server.run("restore.sh", FILE=file)

    assert refused.returncode == 2
    assert server.backups()[0] in refused.stderr
    assert server.ask(f"SELECT text FROM {DATABASE}.comment") == [(TEXT,)]


def test_a_server_that_does_not_answer_leaves_no_dump_behind(server: Server) -> None:
    failed = server.run("backup.sh", MYSQL_PASSWORD="wrong")

    assert failed.returncode != 0
    assert "Access denied" in failed.stderr
    assert server.backups() == []
    assert list(server.folder.iterdir()) == []


def test_dumps_that_are_old_go_but_never_the_newest_ones(server: Server) -> None:
    old = [f"huisheng-202001{day:02d}T000000Z.sql.gz" for day in range(1, 10)]
    for name in old:
        (server.folder / name).write_bytes(b"")
        (server.folder / f"{name}.sha256").write_bytes(b"")
    (server.folder / ".unfinished-abc").mkdir()

    done = server.run("backup.sh", KEEP_DAYS="30", KEEP_LEAST="3")

    assert done.returncode == 0, done.stderr
    *kept, newest = server.backups()
    assert kept == old[-2:]
    assert {path.name for path in server.folder.iterdir()} == {
        name + ending for name in (*kept, newest) for ending in ("", ".sha256")
    }
    assert "removing" in done.stdout


def test_dumps_that_are_young_are_kept_however_many_there_are(server: Server) -> None:
    assert server.run("backup.sh", KEEP_DAYS="30", KEEP_LEAST="0").returncode == 0

    assert len(server.backups()) == 1
