"""Code in colours: classes that static/css/prose.css gives a light and a dark colour each."""

from __future__ import annotations

from typing import Final

from markdown_it.common.utils import escapeHtml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_CHARACTERS: Final = 20_000  # of one block; a longer one stays without colours
CODE_CLASS: Final = "t-[a-z0-9]{1,4}"
# Those that people write about. Each further one is a set of regular expressions that a hostile text may try.
LANGUAGES: Final = frozenset(
    {
        "bash", "c", "c++", "console", "cpp", "cs", "csharp", "css", "diff", "docker", "dockerfile", "go", "golang",
        "graphql", "html", "http", "ini", "java", "javascript", "js", "json", "jsx", "julia", "kotlin", "latex", "lua",
        "makefile", "markdown", "matlab", "md", "nginx", "objective-c", "perl", "php", "powershell", "protobuf", "py",
        "python", "r", "rb", "ruby", "rs", "rust", "scala", "scss", "sh", "shell", "sql", "swift", "tex", "toml", "ts",
        "tsx", "typescript", "vim", "vue", "xml", "yaml", "yml", "zig", "zsh",
    }
)  # fmt: skip
_FORMATTER: Final = HtmlFormatter(nowrap=True, classprefix="t-")


def colour_code(code: str, language: str) -> str:
    """Give the HTML of a code block's inside; without colours where the language is not known."""
    name = language.lower()
    if name not in LANGUAGES or len(code) > MAX_CHARACTERS:
        return escapeHtml(code)
    try:
        lexer = get_lexer_by_name(name, stripnl=False)
    except ClassNotFound:
        return escapeHtml(code)
    return str(highlight(code, lexer, _FORMATTER))
