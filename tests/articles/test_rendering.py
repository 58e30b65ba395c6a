"""Markdown as readers see it, and that nothing in it runs."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from types import FrameType

import pytest
from django.core.files.storage import default_storage
from hypothesis import given
from hypothesis import strategies as st

from blog_site.articles import effort
from blog_site.articles.code_colours import MAX_SECONDS, Colouring
from blog_site.articles.effort import MAX_FORMULA_LINES, MAX_STEPS, TooMuchMarkup
from blog_site.articles.formulas import MAX_CHARACTERS, TooMuchMath, render_formula
from blog_site.articles.rendering import ALLOWED_ATTRIBUTES, ALLOWED_TAGS, SCROLLED, render_markdown
from blog_site.media.models import Image
from tests.blog import make_user

DIGEST = "0123456789abcdef" * 2


class _Reader(HTMLParser):
    """Collects tags with their attributes, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**烫**着*喝*", "<p><strong>烫</strong>着<em>喝</em></p>"),
        ("~~凉的~~", "<p><s>凉的</s></p>"),
        ("> 引用", "<blockquote>\n<p>引用</p>\n</blockquote>"),
        ("3. 三\n4. 四", '<ol start="3">\n<li>三</li>\n<li>四</li>\n</ol>'),
        ("价格从 $5 涨到 $10。", "<p>价格从 $5 涨到 $10。</p>"),
        ("一行\\$代码$", "<p>一行$代码$</p>"),
    ],
)
def test_markdown_becomes_html(markdown: str, html: str) -> None:
    assert render_markdown(markdown).strip() == html


def test_a_table_keeps_its_alignment_without_a_style() -> None:
    html = render_markdown("| 店 | 分 |\n|---|--:|\n| 甲 | 5 |")
    assert '<table tabindex="0">' in html
    assert '<td class="align-right">5</td>' in html
    assert "style" not in html


def test_headings_have_ids_of_their_own_and_none_of_the_page() -> None:
    html = render_markdown("# 小标题\n\n## 小标题\n\n## comments\n\n## 😀\n\n## 😀")
    ids = [attributes["id"] for tag, attributes in _Reader(html).tags if tag == "h2"]
    assert ids == ["h-小标题", "h-小标题--2", "h-comments", "h-section", "h-section--2"]
    assert 'href="#h-小标题"' in html
    assert "<h1" not in html


def test_tasks_are_signs_that_a_screen_reader_says() -> None:
    html = render_markdown("- [ ] 买豆浆\n- [x] 买**油条**\n- [链接](https://a.example)")
    assert '<span class="task-box" role="img" aria-label="未完成">☐</span> 买豆浆' in html
    assert 'task-done" role="img" aria-label="已完成">☑</span> 买<strong>油条</strong>' in html
    assert html.count("task-list-item") == 2
    assert "<input" not in html


def test_a_footnote_leads_there_and_back() -> None:
    html = render_markdown("正文[^甲]再说[^甲]。\n\n[^甲]: 出处")
    assert '<a href="#fn1" id="fnref1"' in html
    assert '<li id="fn1" class="footnote-item">' in html
    assert html.count('class="footnote-backref"') == 2


def test_code_is_coloured_by_classes_and_stays_what_it_was() -> None:
    html = render_markdown('```python\nprint("<b>", 1)  # 好\n```')
    assert '<code class="language-python">' in html
    assert '<span class="t-c1"># 好</span>' in html
    assert "&lt;b&gt;" in html
    assert render_markdown("```whitespace\na  b\n```").strip() == (
        '<pre tabindex="0"><code class="language-whitespace">a  b\n</code></pre>'
    )
    assert "class" not in render_markdown('```" onclick="x\nprint(1)\n```')


def test_formulas_become_mathml_in_the_line_and_on_their_own() -> None:
    html = render_markdown("行内 $x^2<y$。\n\n$$\n\\frac{1}{2}\n$$")
    assert '<span class="math inline"><math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup>' in html
    assert "<mo>&lt;</mo>" in html
    assert '<div class="math block" tabindex="0"><math display="block">' in html
    assert "<mfrac>" in html


@pytest.mark.parametrize(
    "formula",
    [
        "\\frac{",
        "\\left(",
        "\\begin{matrix}" * 50,
        "x" + "^{x" * 300 + "}" * 300,
        "_" * 500,
        "x" * (MAX_CHARACTERS + 1),
    ],
)
def test_a_formula_that_cannot_be_read_is_shown_as_it_was_written(formula: str) -> None:
    assert '<code class="math-wrong">' in render_markdown(f"前 ${formula}$ 后")


# -- Texts that were made to take long --


def repeat(unit: str, *, characters: int = 100_000) -> str:
    return (unit * (characters // len(unit) + 1))[:characters]


DENSE = {
    "brackets": repeat("["),
    "pictures": repeat("!["),
    "brackets beside definitions": "[a]: b\n\n[^a]: c\n\n" + repeat("[", characters=99_000),
    "a long paragraph in quotes": ">" * 100 + "a\n" + repeat("b\n"),
    "many paragraphs in quotes": repeat(">" * 19 + "a\nb\nb\nb\nb\n\n"),
    "a table": "|a" * 1000 + "|\n" + "|-" * 1000 + "|\n" + repeat("|\n", characters=90_000),
    "items": repeat("- a\n"),
}


@pytest.mark.once
@pytest.mark.parametrize("text", DENSE.values(), ids=DENSE.keys())
def test_a_text_that_makes_too_much_work_is_given_up_early(text: str, steps: Counter[str]) -> None:
    with pytest.raises(TooMuchMarkup, match=str(MAX_STEPS)):
        render_markdown(text)
    assert sum(steps.values()) <= MAX_STEPS + 1


@pytest.mark.once
@pytest.mark.parametrize(
    "unit",
    [
        "[^",
        "[^xxx",
        "$$ a\n\n",
        "- $$ a\n",
        "$$ a\n# h\n",
        "![a](",
        "`a ``b ",
        "*a **b ",
        "<a ",
        "[a]: b\n",
        "\\$a$ ",
    ],
)
def test_twice_the_text_is_twice_the_work(unit: str, lines_read: Counter[str]) -> None:
    work = []
    for characters in (800, 1_600):
        lines_read.clear()
        render_markdown("[^a]: x\n\n" + repeat(unit, characters=characters))
        work.append(lines_read.total())
    assert work[1] < 3 * work[0]


@pytest.fixture
def steps(monkeypatch) -> Counter[str]:
    """How often the parser tried a rule."""
    tried: Counter[str] = Counter()
    add_steps = effort._add_steps

    def count(state: object, steps: int) -> None:
        tried["rules"] += steps == 1
        add_steps(state, steps)

    monkeypatch.setattr(effort, "_add_steps", count)
    return tried


@pytest.fixture
def lines_read() -> Iterator[Counter[str]]:
    """How many lines Python goes through in the parser and its plugins, loops within one rule among them."""
    executed: Counter[str] = Counter()

    def enter(frame: FrameType, event: str, argument: object):
        return (
            step if "mdit_py_plugins" in (name := frame.f_code.co_filename) or "markdown_it" in name else None
        )

    def step(frame: FrameType, event: str, argument: object):
        executed["lines"] += event == "line"
        return step

    before = sys.gettrace()
    render_markdown("")  # what is made once
    sys.settrace(enter)
    yield executed
    sys.settrace(before)


def test_a_formula_over_more_lines_than_are_read_is_text() -> None:
    def formula(lines: int) -> str:
        return "$$\nx\n" + "\n" * (lines - 2) + "x\n$$\n"

    assert "<math" in render_markdown(formula(MAX_FORMULA_LINES - 2))
    assert "<math" not in render_markdown(formula(MAX_FORMULA_LINES))


@pytest.mark.once
def test_an_article_as_long_as_one_may_be_is_rendered() -> None:
    paragraph = (
        "## 小标题\n\n今天**很**冷，去[豆浆店](https://a.example)喝`热`豆浆[^1]，排了*很久*的队。\n\n"
        "- 油条\n- 豆浆\n\n"
    )
    html = render_markdown("[^1]: 出处\n\n" + paragraph * (99_000 // len(paragraph)))
    assert html.count("<h2") == 99_000 // len(paragraph)


def test_code_that_takes_its_lexer_long_stays_plain_and_whole() -> None:
    ticks = iter(range(10**9))
    colouring = Colouring(clock=lambda: next(ticks) * MAX_SECONDS / 50)  # each token a fiftieth
    short, long = "a = 1\n", "a = 1\n" * 100

    assert "<span" in colouring.colour(short, "python")
    assert colouring.colour(long, "python") == long
    assert next(ticks) < 60
    assert colouring.colour(short, "python") == short  # the text has had its time


@pytest.mark.parametrize("code", ["a\n" * 10_001, "a" * 1_001, "a" + "\n" * 101 + "b"])
def test_code_of_a_shape_that_lexers_cannot_bear_stays_plain(code: str) -> None:
    assert Colouring().colour(code, "matlab") == code


@pytest.mark.once
def test_the_clock_of_the_colours_ends_what_takes_a_square_of_its_length() -> None:
    code = "a\n" * 9_900
    assert Colouring().colour(code, "csharp") == code


@pytest.mark.parametrize(
    "formula",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{<img src=x onerror=alert(1)>}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(//evil)}{x}",
        r"\class{comment-form}{x}",
        r"\text{</math><script>alert(1)</script>}",
        r"\text{&lt;script&gt;alert(1)&lt;/script&gt;}",
        r"\mathrm{<annotation-xml encoding=text/html><script>alert(1)</script>}",
    ],
)
def test_nothing_in_a_formula_runs(formula: str) -> None:
    assert_harmless(render_markdown(f"${formula}$\n\n$$\n{formula}\n$$"))


@given(st.text(st.sampled_from("\\{}[]^_&$<>'\"()abx1好 frcsqtxminleghbd"), max_size=60), st.booleans())
def test_no_formula_makes_what_is_not_allowed(source: str, display: bool) -> None:
    try:
        html = render_formula(source, display=display)
    except ValueError:
        return
    assert_harmless(html)


def test_a_text_of_nothing_but_formulas_is_rendered_in_bounded_time() -> None:
    began = time.process_time()
    html = render_markdown(" ".join(f"$x_{{{number}}}^{{{'{' * 50}{'}' * 50}}}$" for number in range(600)))
    assert time.process_time() - began < 20
    assert "math-wrong" in html  # beyond MAX_FORMULA_CHARACTERS


def test_a_long_formula_says_why_it_is_not_rendered() -> None:
    with pytest.raises(TooMuchMath, match="2001"):
        render_formula("x" * 2001, display=True)


def test_links_say_that_a_reader_wrote_them() -> None:
    assert '<a href="https://example.com" rel="nofollow ugc noopener">' in render_markdown(
        "[甲](https://example.com)"
    )


# -- Pictures --


@pytest.mark.parametrize("source", ["https:", "https://a.example", "*.example", "a.example"])
def test_another_sites_picture_is_loaded_late_and_is_not_told_who_reads(settings, source: str) -> None:
    settings.IMAGE_SOURCES = [source]
    assert render_markdown("![豆浆](https://a.example/a.png)").strip() == (
        '<p><img src="https://a.example/a.png" alt="豆浆" loading="lazy" decoding="async" '
        'referrerpolicy="no-referrer"></p>'
    )


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        (
            "![豆浆](https://a.example/a.png)",
            '<p><a href="https://a.example/a.png" rel="nofollow ugc noopener">豆浆</a></p>',
        ),
        (
            "[![豆浆](https://a.example/a.png)](https://b.example)",
            '<p><a href="https://b.example" rel="nofollow ugc noopener">豆浆</a></p>',
        ),
        (
            "![](//a.example/a.png)",
            '<p><a href="//a.example/a.png" rel="nofollow ugc noopener">//a.example/a.png</a></p>',
        ),
    ],
)
@pytest.mark.parametrize("sources", [[], ["https://other.example", "http:", "*.a.example"]])
def test_a_picture_that_no_browser_would_load_here_is_a_link(
    settings, sources: list[str], markdown: str, html: str
) -> None:
    settings.IMAGE_SOURCES = sources
    assert render_markdown(markdown).strip() == html


@pytest.mark.django_db
def test_a_picture_that_was_uploaded_here_says_its_size_and_its_widths(django_assert_num_queries) -> None:
    image = Image.objects.create(owner=make_user(), digest=DIGEST, width=900, height=600, bytes=1)
    with django_assert_num_queries(1):
        html = render_markdown(f"![汤]({image.url}) 和 ![又]({image.url})")
    attributes = dict(_Reader(html).tags)["img"]
    assert (attributes["width"], attributes["height"], attributes["loading"]) == ("900", "600", "lazy")
    name = f"/media/images/{DIGEST}"
    assert attributes["srcset"] == f"{name}-320.webp 320w, {name}-640.webp 640w, {name}.webp 900w"
    assert attributes["sizes"]
    assert default_storage.url(image.name) == attributes["src"]


@pytest.mark.django_db
def test_an_animation_is_shown_moving_and_in_no_other_width() -> None:
    image = Image.objects.create(
        owner=make_user(), digest=DIGEST, width=900, height=600, bytes=1, animated=True
    )
    attributes = dict(_Reader(render_markdown(f"![]({image.url})")).tags)["img"]
    assert attributes["width"] == "900"
    assert "srcset" not in attributes


@pytest.mark.django_db
def test_a_picture_that_is_not_there_any_more_is_an_outside_one() -> None:
    assert "width" not in render_markdown(f"![](/media/images/{DIGEST}.webp)")


# -- Nothing runs --

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x]: javascript:alert(1)\n\n[x]",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    '![x](/a.png "\\" onerror=alert(1) x=\\"")',
    '![" onerror=alert(1) "](/a.png)',
    '![x](/media/images/x.webp"onerror=alert(1))',
    "![](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe src=//evil></iframe>",
    "<style>*{display:none}</style>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    '[x](https://a "onmouseover=alert(1)")<svg/onload=alert(1)>',
    "<https://a/\"onclick='alert(1)'>",
    "```<script>\nalert(1)\n```",
    "```html\n<script>alert(1)</script>\n```",
    '```a" onmouseover="alert(1)\nx\n```',
    '# <img src=x onerror=alert(1)>\n\n# " onclick=alert(1)',
    "[^<script>alert(1)</script>]\n\n[^<script>alert(1)</script>]: <script>alert(1)</script>",
    '[^" onclick="x]\n\n[^" onclick="x]: a',
    "- [x] <input autofocus onfocus=alert(1)>",
    "| <script>alert(1)</script> |\n|:-:|\n| <img src=x onerror=alert(1)> |",
    "$</span><script>alert(1)</script>$",
    "$$\n</div><script>alert(1)</script>\n$$",
    "<!--\n<script>alert(1)</script>\n-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "\x00<scr\x00ipt>alert(1)</script>",
]


@pytest.mark.parametrize("markdown", XSS)
def test_nothing_in_an_article_runs(markdown: str) -> None:
    assert_harmless(render_markdown(markdown))


@given(st.text(st.sampled_from("<>&\"'`[](){}*_~#|-!:/=\\$^\n abcx好")))
def test_no_markdown_makes_what_is_not_allowed(markdown: str) -> None:
    assert_harmless(render_markdown(markdown))


def assert_harmless(html: str) -> None:
    """Every tag and attribute is on the list, and every address is one that can be opened."""
    allowed = {**ALLOWED_ATTRIBUTES, "a": ALLOWED_ATTRIBUTES["a"] | {"rel"}}
    for tag, attributes in _Reader(html).tags:
        assert tag in ALLOWED_TAGS
        assert attributes.keys() <= allowed.get(tag, set()) | SCROLLED.get(tag, {}).keys()
        for name in ("href", "src"):
            address = re.sub(r"[\s\x00-\x1f]", "", attributes.get(name) or "").lower()
            assert re.match(r"https?:|mailto:|[^:]*$|[/#?]", address), address
