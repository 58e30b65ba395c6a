"""A copy of all pictures in a folder, brought up to date or put back. What is there already is not copied again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from .models import FILE_NAME, Image

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Copied:
    """How many files were copied, were there already, are in neither place, and were removed as old."""

    copied: int = 0
    there: int = 0
    missing: tuple[str, ...] = ()
    removed: int = 0


def copy_images(*, folder: Path, keep_days: float) -> Copied:
    """Copy every picture's files to a folder; those of pictures that are gone stay there for `keep_days`."""
    copied = there = 0
    missing: list[str] = []
    for name in _file_names():
        place = folder / name
        if place.is_file():
            there += 1
            os.utime(place)  # wanted today: what has not been for long is removed below
            continue
        try:
            with default_storage.open(name) as file:
                content = file.read()
        except FileNotFoundError:
            missing.append(name)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.partial")
        partial.write_bytes(content)
        partial.replace(place)
        copied += 1
    return Copied(copied, there, tuple(missing), _remove_old(folder, keep_days))


def put_images_back(*, folder: Path) -> Copied:
    """Put every picture's files that the storage lacks back from a folder."""
    copied = there = 0
    missing: list[str] = []
    for name in _file_names():
        if default_storage.exists(name):
            there += 1
        elif (folder / name).is_file():
            default_storage.save(name, ContentFile((folder / name).read_bytes()))
            copied += 1
        else:
            missing.append(name)
    return Copied(copied, there, tuple(missing))


def _file_names() -> Iterator[str]:
    for image in Image.objects.order_by("pk").iterator(500):
        yield from image.file_names()


def _remove_old(folder: Path, keep_days: float) -> int:
    before, removed = time.time() - keep_days * DAY_SECONDS, 0
    for place in folder.glob("images/*"):
        known = FILE_NAME.fullmatch(f"images/{place.name}")
        if place.stat().st_mtime < before and (known or place.name.endswith(".partial")):
            place.unlink()
            removed += 1
    return removed
