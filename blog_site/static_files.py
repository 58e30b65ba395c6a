"""Which files of static/ are published, and under what names.

What Vite builds into static/built/ has a digest in its name already, and its modules import each other by these names.
"""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.apps import StaticFilesConfig
from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFiles(StaticFilesConfig):
    """`collectstatic` without what islands are built from; only the blog itself reads the manifest."""

    ignore_patterns = [*StaticFilesConfig.ignore_patterns, "islands", "built/manifest.json"]


class DigestNamesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # WhiteNoise has no types here
    """Give every file a name with its digest, once."""

    def hashed_name(self, name: str, *rest: Any, **named: Any) -> str:
        if name.startswith("built/") and re.search(settings.WHITENOISE_IMMUTABLE_FILE_TEST, name):
            return name
        return str(super().hashed_name(name, *rest, **named))
