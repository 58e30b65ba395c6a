"""Markdown to HTML: CommonMark with tables, footnotes, task lists, coloured code and formulas, sanitised at the end.

What nh3 lets through is an exact list. Raw HTML in Markdown is shown as text; the list is the second wall behind that.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import nh3
from django.utils.text import slugify
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml, unescapeAll
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin

from blog_site.media.models import Image
from blog_site.policies import may_show_picture

from .code_colours import CODE_CLASS, Colouring
from .effort import limit_effort
from .formulas import MATHML_ATTRIBUTES, MATHML_TAGS, TooMuchMath, render_formula

MAX_FORMULA_CHARACTERS: Final = (
    50_000  # of all formulas of a text together; further ones are shown as they are written
)
_IMAGE_SIZES: Final = "(max-width: 44rem) 100vw, 40.5rem"  # the text's width in site.css

ALLOWED_TAGS: Final = {
    "a", "blockquote", "br", "code", "del", "div", "em", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol",
    "p", "pre", "s", "section", "span", "strong", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
} | MATHML_TAGS  # fmt: skip
ALLOWED_ATTRIBUTES: Final = {
    "a": {"href", "title", "id", "class", "aria-label"},
    "code": {"class"},
    "div": {"class", "tabindex"},
    **{heading: {"id"} for heading in ("h2", "h3", "h4", "h5", "h6")},
    "hr": {"class"},
    "img": {
        "src", "alt", "title", "width", "height", "srcset", "sizes", "loading", "decoding", "referrerpolicy",
    },
    "li": {"id", "class"},
    "ol": {"start", "class"},
    "section": {"class"},
    "span": {"class", "role", "aria-label"},
    "sup": {"class"},
    "td": {"class"},
    "th": {"class"},
    "ul": {"class"},
    **MATHML_ATTRIBUTES,
}  # fmt: skip
ALLOWED_SCHEMES: Final = {"http", "https", "mailto"}
SCROLLED: Final = {
    "pre": {"tabindex": "0"},
    "table": {"tabindex": "0"},
}  # by keyboard too, where they are wide
LINK_REL: Final = "nofollow ugc noopener"

_CLASSES: Final = {
    "a": re.compile("anchor|footnote-backref"),
    "code": re.compile(r"language-[\w.+#-]{1,40}|math-wrong"),
    "div": re.compile("math block"),
    "hr": re.compile("footnotes-sep"),
    "li": re.compile("footnote-item|task-list-item"),
    "ol": re.compile("footnotes-list|contains-task-list"),
    "section": re.compile("footnotes"),
    "span": re.compile(rf"{CODE_CLASS}|math inline|math block|task-box( task-done)?"),
    "sup": re.compile("footnote-ref"),
    "td": re.compile("align-(center|right)"),
    "th": re.compile("align-(center|right)"),
    "ul": re.compile("contains-task-list"),
}
# Ids begin so that none can be one of the page's own, which scripts and forms look for.
_ID: Final = re.compile(r"h-[\w-]{1,80}|fn\d{1,5}|fnref\d{1,5}(:\d{1,5})?")
_FILTERS: Final = {
    "tabindex": re.compile("0"),
    "role": re.compile("img"),
    "width": re.compile(r"\d{1,5}"),
    "height": re.compile(r"\d{1,5}"),
    "loading": re.compile("lazy"),
    "decoding": re.compile("async"),
    "referrerpolicy": re.compile("no-referrer"),
    "sizes": re.compile(re.escape(_IMAGE_SIZES)),
}


def check_markdown(text: str) -> None:
    """Raise TooMuchMarkup for a text that `render_markdown` would not render."""
    _markdown().parse(text, {})


def render_markdown(text: str) -> str:
    """Render Markdown to safe HTML; asks the database once for the sizes of the pictures that were uploaded here.

    Raises TooMuchMarkup for a text that takes more than effort.MAX_STEPS to read.
    """
    markdown, env = _markdown(), {"formula_characters": 0, "colouring": Colouring()}
    tokens = markdown.parse(text, env)
    _size_images(tokens)
    return nh3.clean(
        markdown.renderer.render(tokens, markdown.options, env),
        tags=ALLOWED_TAGS,
        attributes=ALLOWED_ATTRIBUTES,
        attribute_filter=_filter_attribute,
        set_tag_attribute_values=SCROLLED,
        url_schemes=ALLOWED_SCHEMES,
        link_rel=LINK_REL,
    )


@functools.cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False})
    markdown.enable(["table", "strikethrough"])
    # Prices are no formulas: a dollar that a digit follows closes none, and neither does one after a space.
    dollarmath_plugin(markdown, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    footnote_plugin(markdown, inline=False)
    markdown.core.ruler.push("headings", _name_headings)
    markdown.core.ruler.push("task_lists", _tick_tasks)
    markdown.core.ruler.push("table_cells", _align_cells)
    limit_effort(markdown)
    markdown.add_render_rule("fence", _render_fence)
    markdown.add_render_rule("math_inline", _render_math)
    markdown.add_render_rule("math_inline_double", _render_math)
    markdown.add_render_rule("math_block", _render_math)
    return markdown


def _filter_attribute(tag: str, attribute: str, value: str) -> str | None:
    """Keep an attribute whose value is one that this module writes."""
    if attribute == "class":
        allowed = _CLASSES[tag]
    elif attribute == "id":
        allowed = _ID
    elif attribute == "srcset":
        return value if Image.is_srcset(value) else None
    elif attribute in _FILTERS:
        allowed = _FILTERS[attribute]
    else:
        return value
    return value if allowed.fullmatch(value) else None


# -- Headings, lists, tables -------------------------------------------------------------------------------------


def _name_headings(state: StateCore) -> None:
    """Give each heading an id and a link to itself; the article's title is the page's only heading of level 1."""
    used: Counter[str] = Counter()
    for opening, inline, closing in _headings(state.tokens):
        if opening.tag == "h1":
            opening.tag = closing.tag = "h2"
        words = "".join(
            child.content for child in inline.children or [] if child.type in ("text", "code_inline")
        )
        opening.attrSet("id", _free_id(slugify(words, allow_unicode=True)[:60] or "section", used))
        # Its sign is drawn by the stylesheet: it stands in no feed and is not searched.
        href = f"#{opening.attrs['id']}"
        link = Token("link_open", "a", 1, attrs={"class": "anchor", "href": href, "aria-label": "本节链接"})
        inline.children = [*(inline.children or []), link, Token("link_close", "a", -1)]


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token, Token]]:
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            yield token, tokens[place + 1], tokens[place + 2]


def _free_id(words: str, used: Counter[str]) -> str:
    used[words] += 1
    return (
        f"h-{words}" if used[words] == 1 else f"h-{words}--{used[words]}"
    )  # words have no two dashes together


def _tick_tasks(state: StateCore) -> None:
    """Make of list items that begin with [ ] or [x] tasks. A sign, not an input: a reader has nothing to tick."""
    lists: list[Token] = []
    for place, token in enumerate(state.tokens):
        if token.type in ("bullet_list_open", "ordered_list_open"):
            lists.append(token)
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists.pop()
        elif place > 1 and state.tokens[place - 2].type == "list_item_open" and _tick(token):
            state.tokens[place - 2].attrSet("class", "task-list-item")
            lists[-1].attrSet("class", "contains-task-list")


def _tick(inline: Token) -> bool:
    """Put a sign in the place of the brackets; False where there are none."""
    first = inline.children[0] if inline.children else None
    if first is None or first.type != "text" or not re.match(r"\[[ xX]\]\s", first.content):
        return False
    done = first.content[1] != " "
    first.content = first.content[4:]
    box = Token("html_inline", "", 0)
    box.content = (
        '<span class="task-box task-done" role="img" aria-label="已完成">☑</span> '
        if done
        else '<span class="task-box" role="img" aria-label="未完成">☐</span> '
    )
    assert inline.children is not None
    inline.children.insert(0, box)
    return True


def _align_cells(state: StateCore) -> None:
    """Say a cell's alignment by class: styles within HTML are no part of what is allowed."""
    for token in state.tokens:
        if token.type in ("td_open", "th_open"):
            style = str(token.attrs.pop("style", ""))
            if style.endswith(("center", "right")):
                token.attrSet("class", f"align-{style.rpartition(':')[2]}")


# -- Code and formulas -------------------------------------------------------------------------------------------


def _render_fence(
    renderer: RendererProtocol, tokens: Sequence[Token], place: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[place]
    language = next(iter(unescapeAll(token.info).split()), "")
    name = f' class="language-{escapeHtml(language)}"' if language else ""
    return f"<pre><code{name}>{env['colouring'].colour(token.content, language)}</code></pre>\n"


def _render_math(
    renderer: RendererProtocol, tokens: Sequence[Token], place: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[place]
    display, source = token.type != "math_inline", token.content.strip()
    env["formula_characters"] += len(source)
    try:
        if env["formula_characters"] > MAX_FORMULA_CHARACTERS:
            raise TooMuchMath
        formula = render_formula(source, display=display)
    except ValueError:
        formula = f'<code class="math-wrong">{escapeHtml(token.markup + source + token.markup)}</code>'
    if token.type == "math_block":
        return f'<div class="math block" tabindex="0">{formula}</div>\n'
    return f'<span class="math {"block" if display else "inline"}">{formula}</span>'


# -- Pictures ----------------------------------------------------------------------------------------------------


def _size_images(tokens: Sequence[Token]) -> None:
    """Tell the browser each picture's size, so that nothing moves when it comes, and in which widths it can be had.

    A picture of another site that IMAGE_SOURCES does not name becomes a link to it.
    """
    for token in tokens:
        token.children = token.children and list(_link_unloadable(token.children))
    pictures = [child for token in tokens for child in token.children or [] if child.type == "image"]
    uploaded = Image.objects.named_in(str(picture.attrs.get("src", "")) for picture in pictures)
    for picture in pictures:
        picture.attrSet("loading", "lazy")
        picture.attrSet("decoding", "async")
        image = uploaded.get(str(picture.attrs.get("src", "")))
        if image is None:
            picture.attrSet("referrerpolicy", "no-referrer")  # another site's
        else:
            _describe_image(picture, image.html_attributes())


def _link_unloadable(children: Sequence[Token]) -> Iterator[Token]:
    """Put a link in place of a picture that the page's policy keeps browsers from loading."""
    links = 0
    for child in children:
        links += (child.type == "link_open") - (child.type == "link_close")
        address = str(child.attrs.get("src", ""))
        if child.type != "image" or may_show_picture(address):
            yield child
            continue
        words = Token("text", "", 0, content=child.content or address)
        if links:  # of one link within another browsers make two
            yield words
        else:
            yield Token("link_open", "a", 1, attrs={"href": address})
            yield words
            yield Token("link_close", "a", -1)


def _describe_image(picture: Token, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        picture.attrSet(name, str(value))
    if "srcset" in attributes:
        picture.attrSet("sizes", _IMAGE_SIZES)
