from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from blog_site.articles.models import Article
from blog_site.media.services import store_image
from tests.blog import make_article, make_comment, make_prediction, make_user
from tests.media.pictures import make_picture

from .conftest import NewPage, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WIDE = "很长" + "W" * 300
BODY = f"""## 小标题

{WIDE}

| 店 | 价钱 | 队伍 | 味道 | 再来 | 备注 |
|---|---|---|---|---|---|
| 老李 | 12 元 | 二十分钟 | 香 | 会 | 早上七点以前去 |

```python
{"print('a very long line of code that does not fit on any telephone') " * 4}
```

> 引用 https://example.com/{"path/" * 40}
"""

# What readers and writers wrote is Chinese in English pages too, and marked so; all else must be translated.
CHINESE_CHROME = """() => {
  const page = document.documentElement.cloneNode(true);
  page.querySelectorAll('[lang="zh-Hans"], textarea, option:not([value=""]), head').forEach((e) => e.remove());
  const words = [page.textContent, document.title.split(' · ').at(-1)];
  for (const element of page.querySelectorAll('*'))
    for (const name of ['title', 'aria-label', 'placeholder', 'alt']) words.push(element.getAttribute(name) ?? '');
  return words.flatMap((word) => word.match(/[\\u3000-\\u303f\\u4e00-\\u9fff\\uff00-\\uffef]+/g) ?? []);
}"""

# How far what is shown has been moved by what came later: https://web.dev/articles/cls
SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => {
  for (const { hadRecentInput, value } of list.getEntries()) if (!hadRecentInput) window.shifted += value;
}).observe({ type: "layout-shift", buffered: true });"""
SHIFTED = """() => new Promise((say) =>
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => say(window.shifted), 50))))"""
STEADY = 0.02

UNLABELLED = """() => [...document.querySelectorAll('input:not([type=hidden], [hidden]), select, textarea')]
  .filter((field) => !field.labels.length && !field.ariaLabel).map((field) => field.outerHTML)"""


@pytest.fixture
def article() -> Article:
    writer = make_user("writer", display_name="Summer", bio="")
    file = SimpleUploadedFile("面馆.png", make_picture(900, 600))
    picture = store_image(owner=writer, file=file)
    body = f"![面馆]({picture.url})\n\n{BODY}"
    article = make_article(
        WIDE, author=writer, body_markdown=body, tags=["老店", "x" * 40], summary=WIDE, cover=picture
    )
    for number, label in enumerate(("positive", "neutral", "negative")):
        make_prediction(make_comment(article, WIDE, author=make_user(f"reader{number}" + "x" * 60)), label)
    make_comment(article, "waiting", author=writer)
    make_article("draft", author=writer, draft=True)
    return article


def addresses(article: Article) -> list[str]:
    return [
        "/",
        article.get_absolute_url(),
        article.category.get_absolute_url(),
        article.tags.get(name="老店").get_absolute_url(),
        "/authors/writer/",
        "/search/?q=老李",
        "/sign-in/",
        "/sign-up/",
        "/nowhere/",
    ]


def private_addresses(article: Article) -> list[str]:
    return [
        "/",
        article.get_absolute_url(),
        reverse("articles:write"),
        reverse("articles:edit", args=[article.slug]),
        reverse("articles:mine"),
        reverse("dashboard:dashboard"),
        reverse("users:profile"),
        reverse("users:change_password"),
    ]


def visit_all(page, article: Article):
    """Visit what a stranger sees, then what a writer sees, giving each address with its page open."""
    for address in addresses(article):
        answer = page.goto(address)
        assert answer.status == (404 if address == "/nowhere/" else 200), address
        yield address
    sign_in(page, "writer")
    for address in private_addresses(article):
        assert page.goto(address).status == 200, address
        yield address


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_scrolls_sideways_or_moves_while_it_is_read(
    new_page: NewPage, article: Article, width: int
) -> None:
    page = new_page(width=width, first=SHIFTS)
    too_wide, restless = {}, {}

    for address in visit_all(page, article):
        wide, shifted = page.evaluate("document.documentElement.scrollWidth"), page.evaluate(SHIFTED)
        if wide > width:
            too_wide[address] = wide
        if shifted > STEADY:
            restless[address] = shifted

    assert (too_wide, restless) == ({}, {})


def test_what_moves_on_a_page_is_noticed(new_page: NewPage) -> None:
    page = new_page(first=SHIFTS)
    page.goto("/sign-in/")
    page.evaluate("document.body.prepend(document.createElement('hr'))")
    page.locator("hr").evaluate("element => { element.style.height = '300px'; }")

    page.wait_for_function(f"window.shifted > {STEADY}")


def test_english_pages_hold_no_chinese_but_what_people_wrote(new_page: NewPage, article: Article) -> None:
    page = new_page(locale="en-GB")

    left_over = {
        address: words for address in visit_all(page, article) if (words := page.evaluate(CHINESE_CHROME))
    }

    assert left_over == {}


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
def test_every_page_has_its_language_one_heading_a_title_and_labelled_fields(
    new_page: NewPage, article: Article, locale: str
) -> None:
    page = new_page(locale=locale)
    titles = {}

    for address in visit_all(page, article):
        assert page.get_attribute("html", "lang") == ("zh-Hans" if locale == "zh-CN" else "en")
        assert page.locator("h1").count() == 1, address
        assert page.evaluate(UNLABELLED) == [], address
        titles[address] = page.title()

    assert len(set(titles.values())) == len(titles), "each page says in its title which one it is"


def test_pages_are_readable_in_the_dark(new_page: NewPage, article: Article) -> None:
    page = new_page()
    page.emulate_media(color_scheme="dark")
    page.goto(article.get_absolute_url())

    assert _luminance(page, "background-color", "html") < 0.05
    assert _luminance(page, "color", ".prose p") > 0.5


def _luminance(page, property_: str, selector: str) -> float:
    colour = page.eval_on_selector(
        selector, f"element => getComputedStyle(element).getPropertyValue('{property_}')"
    )
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
