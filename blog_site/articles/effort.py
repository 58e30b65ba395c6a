"""How much work a text may make for the Markdown parser.

The parser is built of rules. Each that is tried is a step, and so is each token of what it found: together they say how
long a text takes, whatever machine it is on. A step counts at any depth, since what costs most is little text that
stands in many quotes and lists at once: each of its lines is tried against all rules at each of them.

A rule that looks for an end may also read on and on within one step. Of the rules here two did so for every beginning
without an end, and took minutes for what fits into an article: formulas and footnotes. They look only so far now.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.ruler import Ruler
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline

# An article as long as one may be and dense with markup makes some 60,000.
MAX_STEPS: Final = 250_000
MAX_FORMULA_LINES: Final = 100
MAX_FOOTNOTE_NAME: Final = 100
_FOOTNOTE_MARK: Final = re.compile(rf"\[\^[^\s\]]{{1,{MAX_FOOTNOTE_NAME}}}\]")


class TooMuchMarkup(ValueError):
    """A text makes more than MAX_STEPS."""


def limit_effort(markdown: MarkdownIt) -> None:
    """Let a parser give up on texts of too much work, by TooMuchMarkup. To be called when it has all its rules."""
    _narrow(markdown.block.ruler, "math_block", _look_for_end_of_formula)
    _narrow(markdown.inline.ruler, "footnote_ref", _look_for_end_of_mark)
    for ruler in (markdown.block.ruler, markdown.inline.ruler):
        for name in ruler.get_all_rules():
            _narrow(ruler, name, _count)
    markdown.core.ruler.after("block", "count_blocks", lambda state: _add_steps(state, len(state.tokens)))


def _narrow(
    ruler: Ruler[Any], name: str, narrowed: Callable[[Callable[..., bool]], Callable[..., bool]]
) -> None:
    """Put a rule in place of one, made of it."""
    rule = next(rule for rule in ruler.__rules__ if rule.name == name)
    ruler.at(name, narrowed(rule.fn), {"alt": rule.alt})


def _count(rule: Callable[..., bool]) -> Callable[..., bool]:
    def counted(state: StateBlock | StateInline, *place: Any) -> bool:
        _add_steps(state, 1)
        return rule(state, *place)

    return counted


def _add_steps(state: StateCore | StateBlock | StateInline, steps: int) -> None:
    total = state.env["steps"] = state.env.get("steps", 0) + steps
    if total > MAX_STEPS:
        raise TooMuchMarkup(f"the text's markup takes more than {MAX_STEPS} steps to read")


def _look_for_end_of_formula(rule: Callable[..., bool]) -> Callable[..., bool]:
    def narrowed(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        return rule(state, start, min(end, start + MAX_FORMULA_LINES), silent)

    return narrowed


def _look_for_end_of_mark(rule: Callable[..., bool]) -> Callable[..., bool]:
    def narrowed(state: StateInline, silent: bool) -> bool:
        return bool(_FOOTNOTE_MARK.match(state.src, state.pos, state.posMax)) and rule(state, silent)

    return narrowed
