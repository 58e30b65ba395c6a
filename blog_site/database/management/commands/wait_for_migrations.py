from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from blog_site.database.schema import SchemaError, wait_for_migrations


class Command(BaseCommand):
    help = (
        "Wait until the database has every migration of this code; what runs beside other processes calls it before "
        "it starts. A database that has more, of a newer release, will do. Exit 0, or 1 with what is missing."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--timeout", type=float, default=300, metavar="SECONDS", help="at the most (default: 300)"
        )

    def handle(self, **options: Any) -> None:
        deadline = time.monotonic() + options["timeout"]
        try:
            wait_for_migrations(connection, deadline=deadline, say=self.say)
        except SchemaError as error:
            raise CommandError(
                f"after {options['timeout']:g} s {error}. Does the Job that migrates run? "
                "By hand: python manage.py migrate_once"
            ) from error
        self.say("the database has every migration")

    def say(self, words: str) -> None:
        self.stdout.write(words)
        self.stdout.flush()  # whoever looks at the log of what waits wants the reason now
