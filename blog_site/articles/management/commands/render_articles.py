"""`manage.py render_articles`: after an upgrade that renders Markdown otherwise. Repeating changes nothing."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from blog_site.articles.services import render_articles


class Command(BaseCommand):
    help = "Render the Markdown of all articles anew, where that gives other HTML."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say how many would change, change none")

    def handle(self, *, dry_run: bool, **_: Any) -> None:
        count = render_articles(dry_run=dry_run)
        self.stdout.write(f"{count} articles {'would be' if dry_run else 'were'} rendered anew")
