"""Code in colours: classes that static/css/prose.css gives a light and a dark colour each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from markdown_it.common.utils import escapeHtml
from pygments import format
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import _TokenType
from pygments.util import ClassNotFound

MAX_SECONDS: Final = 1.0  # of computing, for all blocks of a text together
# A block with more of any of these stays without colours.
MAX_CHARACTERS: Final = 20_000
MAX_LINE: Final = 1_000  # characters
MAX_SPACES: Final = 100  # one after another, line ends among them
CODE_CLASS: Final = "t-[a-z0-9]{1,4}"
# Those that people write about.
LANGUAGES: Final = frozenset(
    {
        "bash", "c", "c++", "console", "cpp", "cs", "csharp", "css", "diff", "docker", "dockerfile", "go", "golang",
        "graphql", "html", "http", "ini", "java", "javascript", "js", "json", "jsx", "julia", "kotlin", "latex", "lua",
        "makefile", "markdown", "matlab", "md", "nginx", "objective-c", "perl", "php", "powershell", "protobuf", "py",
        "python", "r", "rb", "ruby", "rs", "rust", "scala", "scss", "sh", "shell", "sql", "swift", "tex", "toml", "ts",
        "tsx", "typescript", "vim", "vue", "xml", "yaml", "yml", "zig", "zsh",
    }
)  # fmt: skip
_SPACES: Final = re.compile(r"\s+")
_FORMATTER: Final = HtmlFormatter(nowrap=True, classprefix="t-")


class _Tired(Exception):
    """A text's code has taken its time."""


class Colouring:
    """Colours the code blocks of one text while they take less than MAX_SECONDS together; the others stay plain.

    A lexer is a set of regular expressions, and most of them take the square of the length of a text that was made for
    it. What one match takes is bounded by the shape of the code, what all of them take by this thread's own clock,
    which does not go on while others compute: ordinary code is far below that, on any machine and however busy.
    """

    def __init__(self, *, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._seconds_left = MAX_SECONDS

    def colour(self, code: str, language: str) -> str:
        """Give the HTML of a code block's inside; without colours where the language is not known."""
        name = language.lower()
        if name not in LANGUAGES or self._seconds_left <= 0 or not _may_be_read(code):
            return escapeHtml(code)
        try:
            lexer = get_lexer_by_name(name, stripnl=False)
            return str(format(self._watch(lexer.get_tokens(code)), _FORMATTER))
        except (ClassNotFound, _Tired):
            return escapeHtml(code)

    def _watch(self, tokens: Iterable[tuple[_TokenType, str]]) -> Iterator[tuple[_TokenType, str]]:
        began, until = self._clock(), self._seconds_left
        for token in tokens:
            self._seconds_left = until - (self._clock() - began)
            if self._seconds_left <= 0:
                raise _Tired
            yield token


def _may_be_read(code: str) -> bool:
    return (
        len(code) <= MAX_CHARACTERS
        and max(map(len, code.split("\n"))) <= MAX_LINE
        and max(map(len, _SPACES.findall(code)), default=0) <= MAX_SPACES
    )
