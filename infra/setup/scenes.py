"""What `screenshots` photographs: the pages of a running demo, each as somebody comes to it.

Scenes that leave something behind, a comment or a count, come last: no other picture shows it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from playwright.sync_api import Page

# Accounts that seed_demo makes.
READER, WRITER, MODERATOR, ADMINISTRATOR = "xiaoman", "linxia", "moderator", "admin"
HASTY = "laowang"  # another reader, who does too much in too short a time
GUESTS_CATEGORY = "/categories/food/"  # where one may comment without an account
MANUSCRIPT = "## 老板记得每个人的口味\n\n进门他就问：还是**多葱少面**？\n\n- 猪油一勺\n- 葱花一把\n"
LONG_COMMENT = (
    "读到最后一段停了很久。以前总觉得只要味道好就不会关门，后来才明白，房租、年纪和天气都比味道更说了算。"
)
WRITING_SECONDS = 3.2  # a guest's form that comes back sooner was not written by hand
MOST_ATTEMPTS = 30  # more than anything is allowed in a minute or, of passwords, in an hour
SOON_SECONDS = 15

Go = Callable[[Page], None]


@dataclass(frozen=True)
class Scene:
    """A page as somebody comes to it."""

    name: str
    go: Go
    username: str = ""  # signed in as, or a stranger
    height: int = 860  # of a desktop's window
    javascript: bool = True


def at(address: str) -> Go:
    def go(page: Page) -> None:
        page.goto(address)

    return go


def then(first: Go, *selectors: str) -> Go:
    """Go somewhere, then press what these find, one after the other."""

    def go(page: Page) -> None:
        first(page)
        for selector in selectors:
            page.locator(selector).first.click()
            page.wait_for_load_state()

    return go


# -- Readers -----------------------------------------------------------------------------------------------------


def _article(page: Page) -> None:
    page.goto("/")
    page.locator(".entry").filter(has=page.locator(".entry-echo")).locator(".entry-title a").first.click()


def _comments(page: Page) -> None:
    _article(page)
    page.locator("#comments").evaluate("element => element.scrollIntoView()")


def _reply(page: Page) -> None:
    _comments(page)
    if page.locator("a.reply").count():
        page.locator("a.reply").first.click()


def _explanation(page: Page) -> None:
    _article(page)
    page.goto(page.locator("a.badge").first.get_attribute("href") or "/")


def _why(page: Page) -> None:
    _comments(page)
    page.locator("a.badge").first.click()
    page.locator(".explained").wait_for()


def _constructive(page: Page) -> None:
    _comments(page)
    page.locator("[data-order=constructive]").click()
    page.locator("[data-order=constructive][aria-current]").wait_for()


def _nudge(page: Page) -> None:
    _comments(page)
    page.fill("#comment-text", "写得太差了，浪费我的时间")
    page.locator(".composer-nudge").wait_for()


def _wrong_password(page: Page) -> None:
    page.goto("/sign-in/")
    page.fill("#id_username", f"{READER}-{secrets.token_hex(2)}")  # who fails too often is locked out
    page.fill("#id_password", "not the password")
    page.locator(".card button").click()


def _wrong_sign_up(page: Page) -> None:
    page.goto("/sign-up/")
    page.fill("#id_username", WRITER)
    page.fill("#id_password1", "12345678")
    page.fill("#id_password2", "87654321")
    page.locator(".card button").click()


# -- Writers -----------------------------------------------------------------------------------------------------


def _write(page: Page) -> None:
    page.goto("/write/")
    page.context.set_offline(True)  # no draft is left for the next picture to show
    page.fill("#id_title", "雨天的面馆")
    page.locator("textarea.manuscript").fill(MANUSCRIPT)
    page.locator("h1").scroll_into_view_if_needed()


def _write_wrong(page: Page) -> None:
    page.goto("/write/")
    page.locator(".write-bar button[value=publish]").click()


# -- The admin ---------------------------------------------------------------------------------------------------


def _newest_run(page: Page) -> None:
    page.goto("/admin/training/run/")
    page.locator("#result_list tbody th a").first.click()
    page.locator("img").last.evaluate("image => image.decode()")


def _queue(tab: str) -> Go:
    return at(f"/admin/comments/comment/queue/?tab={tab}")


def _first_row(address: str) -> Go:
    return then(at(address), "#result_list tbody th a")


# -- What was refused, and what is no page of the blog ---------------------------------------------------------------


def _expired_form(page: Page) -> None:
    page.goto("/sign-in/")
    page.context.clear_cookies()
    page.fill("#id_username", READER)
    page.fill("#id_password", "forgotten")
    page.locator(".card button").click()


def _malformed(page: Page) -> None:
    page.goto("/sign-in/")
    page.evaluate(
        """() => {
          const form = document.querySelector(".card form");
          for (let n = 0; n < 1100; n += 1) {
            form.append(Object.assign(document.createElement("input"), { name: `more-${n}` }));
          }
          form.submit();
        }"""
    )
    page.locator(".code").wait_for()


def _failure(page: Page) -> None:
    """No address of the blog fails: its answer is shown without the failure."""
    page.goto("/nowhere/")
    answer = _render_failure(page.evaluate("document.documentElement.lang"))
    page.route("**/failure/", lambda route: route.fulfill(status=500, content_type="text/html", body=answer))
    page.goto("/failure/")


def _render_failure(language: str) -> str:
    import os

    import django
    from django.utils import translation

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog_site.settings")
    django.setup()
    from django.template.loader import render_to_string

    with translation.override(language.lower()):
        return render_to_string("500.html")


def _repeat(page: Page, form: str, fields: dict[str, str]) -> None:
    """Send a form more often than is allowed, and faster than a person could."""
    action = page.locator(form).get_attribute("action") or page.url
    token = page.locator(f"{form} [name=csrfmiddlewaretoken]").input_value()
    for _ in range(MOST_ATTEMPTS):
        answer = page.request.post(
            action, form={"csrfmiddlewaretoken": token, **fields}, headers={"Referer": page.url}
        )
        wait_seconds = int(answer.headers.get("retry-after", "0"))
        if wait_seconds > SOON_SECONDS:
            return
        page.wait_for_timeout(wait_seconds * 1000)  # else it is allowed again before the picture is taken


def _too_many_passwords(page: Page) -> None:
    page.goto("/me/password/")
    fields = {"old_password": "not it", "new_password1": "a-new-one-2024", "new_password2": "a-new-one-2024"}
    _repeat(page, ".card form", fields)
    for name, value in fields.items():
        page.fill(f"#id_{name}", value)
    page.locator(".card button").click()


def _too_many_comments(page: Page) -> None:
    """What is refused is given back to its writer, if it was work to write."""
    _article(page)
    _repeat(page, "#comment-form", {"text": "\u200b"})  # refused as empty, and counted
    page.fill("#comment-text", LONG_COMMENT)
    page.locator(".comment-form .button").click()


# -- Comments that are posted ------------------------------------------------------------------------------------


def _guests_article(page: Page) -> None:
    page.goto(GUESTS_CATEGORY)
    page.goto((page.locator(".entry-title a").first.get_attribute("href") or "/") + "#comment-form")


def _guests_comment(page: Page) -> None:
    _guests_article(page)
    page.fill("#comment-text", "照着做了一遍，家里老人说咸淡正好。")
    page.fill("#comment-name", "路过的阿姨")
    page.wait_for_timeout(WRITING_SECONDS * 1000)
    page.locator(".comment-form .button").click()


def _own_comment(page: Page) -> None:
    """A comment that may still be changed: the one of the last picture, or a new one."""
    _guests_article(page)
    if not page.locator("a.edit").count():
        page.fill("#comment-text", "收藏了，周末试试看；要是能写上大概要多久就更好了。")
        page.locator(".comment-form .button").click()
        page.locator("a.edit").first.wait_for()


def _edit_in_place(page: Page) -> None:
    _own_comment(page)
    page.locator("a.edit").first.click()
    page.locator(".comment-composer textarea").wait_for()


SCENES = [
    Scene("home", at("/")),
    Scene("home-second", at("/?page=2")),
    Scene("article", _article),
    Scene("comments", _comments),
    Scene("comments-signed-in", _comments, READER),
    Scene("constructive", _constructive),
    Scene("reply", _reply, READER),
    Scene("nudge", _nudge, READER),
    Scene("why", _why),
    Scene("explanation", _explanation),
    Scene("report", then(_comments, "a.report"), READER, javascript=False),
    Scene("report-dialog", then(_comments, "a.report"), READER),
    Scene("category", at("/categories/food/")),
    Scene("tag", then(at("/"), ".with-aside .tag")),
    Scene("author", at(f"/authors/{WRITER}/")),
    Scene("archive", at("/archive/")),
    Scene("search", at("/search/?q=电影")),
    Scene("search-empty", at("/search/")),
    Scene("search-nothing", at("/search/?q=量子引力")),
    Scene("sign-in", at("/sign-in/")),
    Scene("sign-in-wrong", _wrong_password),
    Scene("sign-up", at("/sign-up/")),
    Scene("sign-up-wrong", _wrong_sign_up),
    Scene("profile", at("/me/"), WRITER),
    Scene("password", at("/me/password/"), WRITER),
    Scene("tokens", at("/me/tokens/"), WRITER),
    Scene("api", at("/api/v1/docs/")),
    Scene("write", _write, WRITER),
    Scene("write-wrong", _write_wrong, WRITER, javascript=False),
    Scene("revise", then(at("/mine/"), ".written-actions a"), WRITER),
    Scene("mine", at("/mine/"), WRITER),
    Scene("mine-empty", at("/mine/"), READER),
    Scene("withdraw-article", then(at("/mine/"), ".written-actions a[href$='/withdraw/']"), WRITER),
    Scene("delete-article", then(at("/mine/"), ".written-actions a[href$='/delete/']"), WRITER),
    Scene("dashboard", at("/dashboard/?days=30"), WRITER),
    Scene("dashboard-empty", at("/dashboard/"), READER),
    Scene("moderation", _queue("uncertain"), MODERATOR),
    Scene("pending", _queue("pending"), MODERATOR),
    Scene("reported", _queue("reported"), MODERATOR),
    Scene("comment", then(_queue("uncertain"), ".queue-time"), MODERATOR),
    Scene("record", at("/admin/comments/decision/"), MODERATOR),
    Scene("rules", at("/admin/comments/rules/"), MODERATOR),
    Scene("word", at("/admin/comments/blockedword/add/"), MODERATOR),
    Scene("admin-sign-in", at("/admin/")),
    Scene("admin", at("/admin/"), ADMINISTRATOR),
    Scene("admin-comments", at("/admin/comments/comment/"), ADMINISTRATOR),
    Scene("admin-articles", at("/admin/articles/article/"), ADMINISTRATOR),
    Scene("admin-article", _first_row("/admin/articles/article/"), ADMINISTRATOR),
    Scene("admin-category", _first_row("/admin/articles/category/"), ADMINISTRATOR),
    Scene("admin-user", _first_row("/admin/users/user/"), ADMINISTRATOR),
    Scene("runs", at("/admin/training/run/"), ADMINISTRATOR),
    Scene("run", _newest_run, ADMINISTRATOR, height=1400),
    Scene("versions", at("/admin/training/modelversion/"), ADMINISTRATOR),
    Scene("lost", at("/nowhere/")),
    Scene("forbidden", at("/admin/users/user/"), MODERATOR),
    Scene("expired", _expired_form),
    Scene("malformed", _malformed),
    Scene("failure", _failure),
    Scene("too-many", _too_many_passwords, HASTY),
    Scene("too-many-kept", _too_many_comments, HASTY, javascript=False),
    Scene("guest", _guests_article, javascript=False),
    Scene("guest-posted", _guests_comment, javascript=False),
    Scene("own", _own_comment, READER),
    Scene("edit-in-place", _edit_in_place, READER),
    Scene("edit", then(_own_comment, "a.edit"), READER, javascript=False),
    Scene("delete", then(_own_comment, "a.delete"), READER, javascript=False),
    Scene("delete-dialog", then(_own_comment, "a.delete"), READER),
]
