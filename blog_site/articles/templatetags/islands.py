"""`{% island 'comments' %}`: what loads static/islands/comments.js and its styles, for the head of a page."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django import template
from django.conf import settings
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

logger = logging.getLogger(__name__)
register = template.Library()

Manifest = dict[str, dict[str, Any]]


@register.simple_tag
def island(name: str) -> SafeString:
    """Print the links of an island; nothing where it is not built, as pages work without."""
    manifest = _read_manifest()
    source = f"static/islands/{name}.js"
    if source not in manifest:
        return SafeString("")
    try:
        return _links(manifest, source)
    except ValueError as error:  # built after the last `collectstatic`
        logger.warning("island %s: left out until its files are collected: %s", name, error)
        return SafeString("")


def _links(manifest: Manifest, source: str) -> SafeString:
    entry, *imported = _with_imports(manifest, source)
    styles = dict.fromkeys(file for part in (*reversed(imported), entry) for file in part.get("css", []))
    return format_html(
        '{}{}<script type="module" src="{}"></script>',
        format_html_join("", '<link rel="stylesheet" href="{}">', ((_address(file),) for file in styles)),
        format_html_join(
            "", '<link rel="modulepreload" href="{}">', ((_address(part["file"]),) for part in imported)
        ),
        _address(entry["file"]),
    )


def _with_imports(manifest: Manifest, source: str) -> Iterator[dict[str, Any]]:
    """Give an entry, then what it imports and what that does, each once."""
    waiting = [source]
    for key in waiting:
        yield manifest[key]
        waiting += [each for each in manifest[key].get("imports", []) if each not in waiting]


def _address(file: str) -> str:
    return static(f"built/{file}")


def _read_manifest() -> Manifest:
    try:
        return _parse_manifest(settings.ISLANDS_MANIFEST, settings.ISLANDS_MANIFEST.stat().st_mtime_ns)
    except FileNotFoundError:
        return {}


@functools.lru_cache(maxsize=1)
def _parse_manifest(path: Path, changed_at: int) -> Manifest:
    """Read what Vite says it has made; anew when it has made something else."""
    manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    return manifest
