from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from blog_site.database.schema import SchemaError, migration_lock, pending_migrations, wait_for_database
from tests.servers import find_free_port

REPOSITORY = Path(__file__).resolve().parents[2]


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def unapplied(transactional_db: None) -> Iterator[str]:
    """The newest migration of the training app is not recorded as applied."""
    recorder = MigrationRecorder(connection)
    newest = max(name for app, name in recorder.applied_migrations() if app == "training")
    recorder.record_unapplied("training", newest)
    yield newest
    if ("training", newest) not in recorder.applied_migrations():
        recorder.record_applied("training", newest)


@pytest.mark.django_db
def test_a_migrated_database_is_waited_for_no_longer() -> None:
    said = StringIO()

    call_command("wait_for_migrations", timeout=0, stdout=said)

    assert said.getvalue() == "the database has every migration\n"


def test_what_is_missing_is_named_when_the_time_is_over(unapplied: str) -> None:
    said = StringIO()

    with pytest.raises(CommandError, match=f"1 migrations are missing: training.{unapplied}"):
        call_command("wait_for_migrations", timeout=0.2, stdout=said)

    assert f"training.{unapplied}" in said.getvalue()
    assert pending_migrations(connection) == [f"training.{unapplied}"]


def test_waiting_ends_when_another_process_has_migrated(unapplied: str) -> None:
    said = StringIO()

    def migrate() -> None:
        while "missing" not in said.getvalue():
            time.sleep(0.02)
        MigrationRecorder(connection).record_applied("training", unapplied)
        connection.close()

    other = threading.Thread(target=migrate)
    other.start()
    call_command("wait_for_migrations", timeout=60, stdout=said)
    other.join()

    assert said.getvalue().endswith("the database has every migration\n")


@pytest.mark.django_db
def test_a_database_that_does_not_answer_is_named() -> None:
    absent = connection.copy()
    absent.settings_dict = {**connection.settings_dict}
    if connection.vendor == "sqlite":
        absent.settings_dict["NAME"] = "/nowhere/db.sqlite3"
    else:
        absent.settings_dict["PORT"] = str(find_free_port())

    with pytest.raises(SchemaError, match="the database does not answer: .+"):
        wait_for_database(absent, deadline=in_seconds(0), say=print)


@pytest.mark.django_db(transaction=True)
def test_a_second_process_waits_for_the_lock_and_gets_it_when_the_first_ends() -> None:
    said: list[str] = []
    entered, may_leave, order = threading.Event(), threading.Event(), []

    def hold() -> None:
        with migration_lock(connection, deadline=in_seconds(30), say=said.append):
            entered.set()
            may_leave.wait(30)
            order.append("first left")
        connection.close()

    first = threading.Thread(target=hold)
    first.start()
    assert entered.wait(30)

    with (
        pytest.raises(SchemaError, match="another process is migrating"),
        migration_lock(connection, deadline=in_seconds(0), say=said.append),
    ):
        order.append("two at a time")

    def release_when_waited_for(words: str) -> None:
        said.append(words)
        may_leave.set()

    with migration_lock(connection, deadline=in_seconds(30), say=release_when_waited_for):
        order.append("second entered")
    first.join()

    assert order == ["first left", "second entered"]
    assert any("another process is migrating" in words for words in said)


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that leads to a database without a table, on the server that the tests use."""
    given = os.environ.get("DATABASE_URL", "")
    if not given.startswith("mysql:"):
        yield {"DATABASE_URL": f"sqlite:///{tmp_path / 'race.sqlite3'}"}
        return
    import MySQLdb

    settings = connection.settings_dict
    server = MySQLdb.connect(
        host=settings["HOST"],
        port=int(settings["PORT"]),
        user=settings["USER"],
        passwd=settings["PASSWORD"],
    )
    with server.cursor() as cursor:
        cursor.execute("CREATE DATABASE race CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        yield {"DATABASE_URL": f"{given.rpartition('/')[0]}/race"}
        cursor.execute("DROP DATABASE race")
    server.close()


def test_two_processes_that_migrate_an_empty_database_both_succeed(empty_database: dict[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate_once", "--timeout", "200"]
    environment = os.environ | empty_database

    both = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("Applying users.0001_initial" in output for output in outputs) == [False, True], outputs
    waited = subprocess.run(
        [sys.executable, "manage.py", "wait_for_migrations", "--timeout", "0"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert waited.returncode == 0, waited.stderr
