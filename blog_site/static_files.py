"""Which files of static/ are published, and under what names.

What Vite builds into static/built/ has a digest in its name already, and its modules import each other by these names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import FileSystemFinder
from whitenoise.storage import CompressedManifestStaticFilesStorage


class PublishedFilesFinder(FileSystemFinder):
    """Find what is to be collected: not what islands are built from, nor the manifest, which only the blog reads."""

    def list(self, ignore_patterns: Iterable[str] | None) -> Any:
        return super().list([*(ignore_patterns or ()), "islands", "built/manifest.json"])


class DigestNamesStorage(CompressedManifestStaticFilesStorage):
    """Give every file a name with its digest, once."""

    def hashed_name(self, name: str, *rest: Any, **named: Any) -> str:
        if name.startswith("built/") and re.search(settings.WHITENOISE_IMMUTABLE_FILE_TEST, name):
            return name
        return str(super().hashed_name(name, *rest, **named))
