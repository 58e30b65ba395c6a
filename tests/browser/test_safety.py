"""Pages in a browser: nothing planted runs, nothing is forbidden that a page needs, and everybody can use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Browser, Page

from blog_site.articles.models import Article
from blog_site.limits import Rate
from blog_site.training.models import Round, Run, RunSite, Site
from blog_site.training.services import sync_sites
from blog_site.users.models import User
from tests.blog import make_article, make_comment, make_prediction, make_user
from tests.injection.payloads import BUNCHES
from tests.injection.planting import plant
from tests.training.doors import make_rounds
from tests.training.rows import make_digest, make_report, make_run, make_sites, make_version

from .conftest import NewPage, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AXE = settings.BASE_DIR / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# All rules once; then those that depend on what an element looks like, in the other looks that a page has.
LOOKS = [
    (1280, "light", {"type": "tag", "values": RULES}),
    (
        390,
        "dark",
        {"type": "rule", "values": ["color-contrast", "target-size", "scrollable-region-focusable"]},
    ),
    (1280, "dark", {"type": "rule", "values": ["color-contrast"]}),
    (390, "light", {"type": "rule", "values": ["color-contrast"]}),
]
FIND = """async (runOnly) => {
  const { violations } = await axe.run(document, { runOnly, resultTypes: ["violations"] });
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical").flatMap(({ id, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${target.join(" ")}: ${failureSummary.split("\\n").pop()}`));
}"""
# What tells that a payload ran: its call, whatever it calls it with.
TRAP = "window.ran = []; window.stolen = (number) => window.ran.push(number);"
FOCUS = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    what: element.outerHTML.slice(0, 120),
    end: element === document.body,
    marked: (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) || style.boxShadow !== "none",
    seen: box.width > 0 && box.height > 0 && box.top >= 0 && box.bottom <= innerHeight + 1,
  };
}"""


BODY = """## 小标题

[链接](https://example.com/)和`代码`。

> 引用

| 店 | 价钱 |
|---|---|
| 老李 | 12 元 |

```
一行代码
```
"""


@pytest.fixture
def article() -> Article:
    writer = make_user(
        "writer", display_name="林夏", bio="写吃的，也写路上的事。", is_staff=True, is_superuser=True
    )
    article = make_article(author=writer, body_markdown=BODY, summary="热的才好。", tags=["早餐", "豆浆"])
    for number, label in enumerate(("positive", "neutral", "negative")):
        make_prediction(make_comment(article, "很好吃", author=make_user(f"reader{number}")), label)
    make_comment(article, author=writer)
    make_article("草稿", author=writer, draft=True)
    return article


def open_all(page: Page, article: Article) -> Iterator[str]:
    """Visit what a stranger sees, then what a writer and administrator sees."""
    for address in (
        "/",
        article.get_absolute_url(),
        article.category.get_absolute_url(),
        article.tags.get(name="豆浆").get_absolute_url(),
        "/authors/writer/",
        "/archive/",
        "/search/",
        "/search/?q=豆浆",
        "/search/?q=nothing",
        "/sign-in/",
        "/sign-up/",
        "/nowhere/",
    ):
        assert page.goto(address).status == (404 if address == "/nowhere/" else 200), address
        yield address
    sign_in(page, "writer")
    comment = article.comments.first()
    for address in (
        article.get_absolute_url(),
        "/write/",
        f"{article.get_absolute_url()}edit/",
        "/mine/",
        "/dashboard/",
        "/me/",
        "/me/password/",
        "/me/tokens/",
        "/api/v1/docs/",
        "/admin/",
        reverse("admin:moderation_queue"),
        f"/comments/{comment.pk}/report/",
        f"/comments/{article.comments.get(author=article.author).pk}/edit/",
        f"/comments/{article.comments.get(author=article.author).pk}/delete/",
    ):
        assert page.goto(address).status == 200, address
        yield address
    page.goto("/me/password/")
    page.locator("form.stacked button").click()
    yield "/me/password/ with mistakes"


def test_a_screen_reader_finds_nothing_serious_in_any_look(new_page: NewPage, article: Article) -> None:
    assert AXE.is_file(), "axe-core is not installed: run infra/setup/front_end.sh build"
    page = new_page(first=AXE.read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}

    for address in open_all(page, article):
        found |= look_at(page, address, LOOKS)

    assert found == {}


def look_at(
    page: Page, address: str, looks: Sequence[tuple[int, str, dict[str, Any]]]
) -> dict[str, list[str]]:
    """What a screen reader, or weak eyes, cannot read of a page, by the look it has then."""
    found = {}
    for width, scheme, rules in looks:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        if violations := page.evaluate(FIND, rules):
            found[f"{address}, {scheme}, {width} px"] = violations
    return found


def finish_run() -> Run:
    """A run with its rounds, its sites and its report."""
    make_sites(("food",))
    sync_sites()
    version = make_version(make_digest(), champion=True)
    run = make_run(
        state=Run.State.PROMOTED, model_version=version, report=make_report(version.digest), rounds_planned=3
    )
    part = {"samples": 8, "validation_samples": 2, "class_counts": {"negative": 3, "positive": 5}}
    RunSite.objects.create(run=run, site=Site.objects.get(), **part)
    for record in make_rounds(3):
        Round.objects.create(run=run, **{**vars(record), "sites": dict(record.sites)})
    return run


def test_a_screen_reader_finds_nothing_serious_in_the_admins_forms_and_in_refusals(
    new_page: NewPage, article: Article, settings
) -> None:
    settings.ALLOWANCES = settings.ALLOWANCES | {"passwords": [Rate(uses=1, seconds=3600)]}
    make_user("moderator", is_staff=True)
    rows = {
        "comments_comment": article.comments.first(),
        "articles_article": article,
        "articles_category": article.category,
        "users_user": article.author,
        "training_run": finish_run(),
    }
    page = new_page(first=AXE.read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    sign_in(page, "writer")

    for address in (
        *(reverse(f"admin:{name}_change", args=[row.pk]) for name, row in rows.items()),
        reverse("admin:comments_blockedword_add"),
        reverse("admin:comments_comment_changelist"),
    ):
        assert page.goto(address).status == 200, address
        found |= look_at(page, address, LOOKS[:2])
    for status in (200, 429):
        page.goto("/me/password/")
        with page.expect_navigation() as refusal:
            page.locator(".card form").evaluate("form => form.submit()")
        assert refusal.value.status == status
    found |= look_at(page, "429", LOOKS)
    page.context.clear_cookies()
    sign_in(page, "moderator")
    assert page.goto(reverse("admin:users_user_changelist")).status == 403
    found |= look_at(page, "403", LOOKS)

    assert found == {}


def test_what_a_screen_reader_cannot_read_is_found(new_page: NewPage) -> None:
    page = new_page(first=AXE.read_text(encoding="utf-8"))
    page.goto("/sign-in/")
    page.locator(".below-card").evaluate("(element) => { element.style.color = '#ccc'; }")
    page.locator("label").first.evaluate("(element) => element.remove()")

    found = page.evaluate(FIND, LOOKS[0][2])

    assert {each.partition(":")[0] for each in found} >= {"color-contrast", "label"}


def test_nothing_that_was_planted_runs(new_page: NewPage) -> None:
    article = plant()
    User.objects.filter(username__in=["writer", "admin"]).update(password=make_user("another").password)
    # Without the policy, so that it is the pages themselves which keep it from running.
    page = new_page(policy=False, first=TRAP)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    ran: dict[str, list[int]] = {}

    def visit(address: str) -> None:
        page.goto(address)
        page.locator("[autofocus], [onfocus]").evaluate_all("all => all.forEach((each) => each.focus())")
        if numbers := page.evaluate("window.ran"):
            ran[address] = numbers

    for address in (
        "/",
        article.get_absolute_url(),
        article.tags.first().get_absolute_url(),
        "/authors/writer/",
    ):
        visit(address)
    for bunch in BUNCHES:
        visit(f"/search/?q={bunch}")
    sign_in(page, "admin")
    for address in (article.get_absolute_url(), "/admin/comments/comment/", "/admin/articles/article/"):
        visit(address)

    assert (ran, dialogs) == ({}, [])


def test_a_payload_would_be_noticed(new_page: NewPage) -> None:
    page = new_page(policy=False, first=TRAP)
    page.goto("/sign-in/")
    page.set_content("<img src=x onerror=stolen(7)>")

    page.wait_for_function("window.ran.length > 0")

    assert page.evaluate("window.ran") == [7]


def test_the_policy_alone_keeps_a_script_from_running(chromium: Browser, live_server) -> None:
    with chromium.new_context(base_url=live_server.url) as context:
        page = context.new_page()
        page.goto("/sign-in/")
        page.evaluate(
            """() => {
              window.refused = [];
              document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
              const script = document.createElement("script");
              script.textContent = "window.ran = true";
              document.body.append(script);
            }"""
        )
        page.wait_for_function("window.refused.length > 0")

        assert page.evaluate("[window.refused, window.ran ?? false]") == [["script-src-elem"], False]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    new_page: NewPage, article: Article, width: int
) -> None:
    page = new_page(width=width)
    page.goto(article.get_absolute_url())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip-link"
    lost = []

    for _ in range(80):
        focus = page.evaluate(FOCUS)
        if focus["end"]:
            break
        if not (focus["marked"] and focus["seen"]):
            lost.append(focus["what"])
        page.keyboard.press("Tab")
    else:
        pytest.fail("after 80 steps the keyboard is still on its way")

    assert lost == []
    page.goto(article.get_absolute_url())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
