"""`manage.py copy_images FOLDER [--back]`: the pictures' part of a backup. The database says which there are."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from blog_site.media.backups import copy_images, put_images_back


class Command(BaseCommand):
    help = "Copy all pictures to a folder, or with --back put those that are missing back from it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--back", action="store_true", help="from the folder into the storage")
        parser.add_argument(
            "--keep-days",
            type=float,
            default=30,
            help="how long the folder keeps pictures that are gone (30)",
        )

    def handle(self, *, folder: Path, back: bool, keep_days: float, **_: Any) -> None:
        try:
            done = put_images_back(folder=folder) if back else copy_images(folder=folder, keep_days=keep_days)
        except OSError as error:
            raise CommandError(f"{error}; what was copied stays, run this again") from error
        self.stdout.write(f"{done.copied} copied, {done.there} were there, {done.removed} old ones removed")
        for name in done.missing[:20]:
            self.stderr.write(f"{name}: in neither place")
        if done.missing:
            self.stderr.write(f"{len(done.missing)} files are missing: their pictures cannot be shown")
