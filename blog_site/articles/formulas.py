"""Formulas in TeX to MathML, which browsers draw themselves: no script, no fonts."""

from __future__ import annotations

import functools
import html
from typing import Final
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element

MAX_CHARACTERS: Final = 2_000  # of one formula
MAX_DEPTH: Final = 60  # of braces within braces; the library calls itself for each
MATHML_TAGS: Final = {
    "math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace",
    "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
}  # fmt: skip
MATHML_ATTRIBUTES: Final = {
    "math": {"display"},
    "menclose": {"notation"},
    "mfrac": {"linethickness"},
    "mi": {"mathvariant"},
    "mo": {
        "fence", "form", "largeop", "lspace", "maxsize", "minsize", "movablelimits", "rspace", "separator", "stretchy",
        "symmetric",
    },
    "mover": {"accent"},
    "mpadded": {"depth", "height", "lspace", "voffset", "width"},
    "mspace": {"depth", "height", "width"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtable": {"columnalign", "columnlines", "rowlines", "displaystyle"},
    "mtd": {"columnalign"},
    "munder": {"accentunder"},
}  # fmt: skip


class WrongFormula(ValueError):
    """The text is no TeX that can be read; it is shown as it was written."""


class TooMuchMath(ValueError):
    """A formula, or all of a text together, has more characters than are rendered."""


def render_formula(source: str, *, display: bool) -> str:
    """Give a formula's MathML. Raises WrongFormula or TooMuchMath, both ValueErrors."""
    if len(source) > MAX_CHARACTERS:
        raise TooMuchMath(f"a formula has {len(source)} characters: at most {MAX_CHARACTERS} are rendered")
    if _depth(source) > MAX_DEPTH:
        raise TooMuchMath(f"a formula's braces are nested more than {MAX_DEPTH} deep")
    rendered = _render(source, display)
    if rendered is None:
        raise WrongFormula(f"{source[:80]!r} cannot be read as TeX")
    return rendered


def _depth(source: str) -> int:
    deepest = depth = 0
    for character in source:
        depth += (character == "{") - (character == "}")
        deepest = max(deepest, depth)
    return deepest


@functools.lru_cache(maxsize=1024)  # while somebody writes, the same formulas come again with each preview
def _render(source: str, display: bool) -> str | None:
    try:
        math = convert_to_element(source, display="block" if display else "inline")
        _clean(math)
        return tostring(math, encoding="unicode", short_empty_elements=False)
    except (
        Exception
    ):  # the library raises whatever it stumbles over: IndexError, KeyError, RecursionError, its own
        return None


def _clean(element: Element) -> None:
    """Keep what a formula needs. The library means its texts as markup; here they are text."""
    element.text = html.unescape(element.text or "")
    element.tail = html.unescape(element.tail or "")
    if element.tag not in MATHML_TAGS:
        raise ValueError(f"{element.tag} is no part of a formula here")
    allowed = MATHML_ATTRIBUTES.get(element.tag, set())
    for name in [name for name in element.attrib if name not in allowed]:
        del element.attrib[name]
    for child in element:
        _clean(child)
