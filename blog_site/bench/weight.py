"""What a browser loads of a page before its pictures: HTML, style sheets and scripts, compressed."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

GZIP_LEVEL = 5  # of the gateway
_IMPORTED = re.compile(r"""(?:from|import)\s*\(?["']([./][^"']+)["']""")


class _Links(HTMLParser):
    """Collects what a page names in its style sheets, scripts and preloaded modules."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "script" and given.get("src"):
            self.found.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "modulepreload"):
            self.found.append(given["href"])


def weigh_page(address: str) -> dict[str, float]:
    """Give the kilobytes (of 1000 bytes) of a page's HTML, of its styles and of its scripts."""
    weights = {"html": 0.0, "css": 0.0, "js": 0.0}
    with httpx.Client(trust_env=False, headers={"Accept-Encoding": "identity"}) as client:
        page = client.get(address).raise_for_status()
        weights["html"] = _compressed_kb(page.content)
        for link in _files_of(client, address, page.text):
            content = client.get(link).raise_for_status().content
            weights["css" if link.endswith(".css") else "js"] += _compressed_kb(content)
    return {kind: round(weight, 1) for kind, weight in weights.items()}


def _files_of(client: httpx.Client, address: str, html: str) -> Iterator[str]:
    """Each file once, with the scripts that scripts import."""
    links = _Links()
    links.feed(html)
    waiting = [urljoin(address, link) for link in links.found]
    seen: set[str] = set()
    while waiting:
        link = waiting.pop()
        if link in seen:
            continue
        seen.add(link)
        yield link
        if link.endswith(".js"):
            script = client.get(link).raise_for_status().text
            waiting += [urljoin(link, name) for name in _IMPORTED.findall(script)]


def _compressed_kb(content: bytes) -> float:
    return len(gzip.compress(content, GZIP_LEVEL)) / 1000
