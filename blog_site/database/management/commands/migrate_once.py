from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from blog_site.database.schema import SchemaError, migration_lock, wait_for_database


class Command(BaseCommand):
    help = (
        "Migrate the database, one process at a time: of several that are started together the first migrates, and "
        "the others find nothing left to do. Waits for a database that does not answer yet."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--timeout",
            type=float,
            default=300,
            metavar="SECONDS",
            help="to wait at the most for the database and for another process; migrating itself takes what it takes",
        )

    def handle(self, **options: Any) -> None:
        # Changing a large table takes minutes in which the server says nothing; a web process must not wait so long.
        for limit in ("read_timeout", "write_timeout"):
            connection.settings_dict["OPTIONS"].pop(limit, None)
        deadline = time.monotonic() + options["timeout"]
        try:
            wait_for_database(connection, deadline=deadline, say=self.say)
            with migration_lock(connection, deadline=deadline, say=self.say):
                call_command("migrate", interactive=False, verbosity=options["verbosity"], stdout=self.stdout)
        except SchemaError as error:
            raise CommandError(f"after {options['timeout']:g} s {error}") from error

    def say(self, words: str) -> None:
        self.stdout.write(words)
        self.stdout.flush()
