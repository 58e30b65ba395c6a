"""The database's schema in a deployment of many processes: who migrates, and how the others know that it is done."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

LOOK_EVERY_SECONDS = 1.0
LOCK_NAME_CHARACTERS = 64  # MySQL's limit


class SchemaError(Exception):
    """Something did not come about in time; the message says what."""


def pending_migrations(connection: BaseDatabaseWrapper) -> list[str]:
    """Name what this code has and the database has not, like `users.0001_initial`. Raises DatabaseError."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def wait_for_database(connection: BaseDatabaseWrapper, *, deadline: float, say: Callable[[str], Any]) -> None:
    """Return when the database answers; `deadline` is monotonic. Raises SchemaError when that is too late."""
    _wait_until(lambda: _refusal(connection), deadline=deadline, say=say)


def wait_for_migrations(
    connection: BaseDatabaseWrapper, *, deadline: float, say: Callable[[str], Any]
) -> None:
    """Return when the database has every migration of this code. Raises SchemaError naming what is missing."""

    def what_is_missing() -> str | None:
        if (refusal := _refusal(connection)) is not None:
            return refusal
        try:
            missing = pending_migrations(connection)
        except DatabaseError as error:
            connection.close()
            return f"the database does not say what was migrated: {error}"
        return f"{len(missing)} migrations are missing: {', '.join(missing)}" if missing else None

    _wait_until(what_is_missing, deadline=deadline, say=say)


@contextlib.contextmanager
def migration_lock(
    connection: BaseDatabaseWrapper, *, deadline: float, say: Callable[[str], Any]
) -> Iterator[None]:
    """Hold what only one process holds at a time. Raises SchemaError when another one keeps it past the deadline.

    It ends with the process that holds it, however that ends, so no lock is left to be removed by hand.
    """
    lock = _server_lock if connection.vendor == "mysql" else _file_lock
    with lock(connection) as try_to_take:
        _wait_until(
            lambda: None if try_to_take() else "another process is migrating this database",
            deadline=deadline,
            say=say,
        )
        yield


@contextlib.contextmanager
def _server_lock(connection: BaseDatabaseWrapper) -> Iterator[Callable[[], bool]]:
    """A named lock of MySQL or MariaDB, held by a connection of its own: migrating may open its own anew."""
    holder = connection.copy()
    name = f"huisheng.migrate.{connection.settings_dict['NAME']}"
    if len(name) > LOCK_NAME_CHARACTERS:
        name = f"huisheng.migrate.{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def try_to_take() -> bool:
        with holder.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", [name])
            return bool(cursor.fetchone()[0])

    try:
        yield try_to_take
    finally:
        holder.close()  # the server frees what this connection held


@contextlib.contextmanager
def _file_lock(connection: BaseDatabaseWrapper) -> Iterator[Callable[[], bool]]:
    """A lock on a file beside SQLite's."""
    path = Path(f"{connection.settings_dict['NAME']}.migrate.lock")
    with path.open("w") as file:

        def try_to_take() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        yield try_to_take


def _refusal(connection: BaseDatabaseWrapper) -> str | None:
    """Say why the database cannot be asked; None when it can."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        connection.close()
        return f"the database does not answer: {error}"
    return None


def _wait_until(ask: Callable[[], str | None], *, deadline: float, say: Callable[[str], Any]) -> None:
    """Ask until there is nothing amiss any more; what is amiss is said whenever it changes."""
    said = None
    while (amiss := ask()) is not None:
        left = max(0.0, deadline - time.monotonic())
        if amiss != said:
            say(f"waiting, {left:.0f} s at the most: {amiss}")
            said = amiss
        if not left:
            raise SchemaError(amiss)
        time.sleep(min(LOOK_EVERY_SECONDS, left))
