"""`manage.py remove_unused_images`: what the schedule does every night."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from blog_site.articles.services import remove_unused_images


class Command(BaseCommand):
    help = "Remove uploaded pictures that no article and no draft names."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--days", type=float, default=settings.UNUSED_IMAGE_DAYS, help="leave younger ones alone"
        )
        parser.add_argument("--dry-run", action="store_true", help="say how many, remove none")

    def handle(self, *, days: float, dry_run: bool, **_: Any) -> None:
        count = remove_unused_images(age=timedelta(days=days), dry_run=dry_run)
        self.stdout.write(f"{count} unused pictures {'would be' if dry_run else 'were'} removed")
