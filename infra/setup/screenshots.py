"""Take the README's pictures from a running demo: `python -m infra.setup.screenshots --base-url http://127.0.0.1:8000`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # Chromium refuses to run as root with its sandbox, as in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAVIGATION_TIMEOUT_MS = 15_000
WRITER, MODERATOR, ADMINISTRATOR = "linxia", "moderator", "admin"  # accounts that seed_demo makes
MANUSCRIPT = "## 老板记得每个人的口味\n\n进门他就问：还是**多葱少面**？\n\n- 猪油一勺\n- 葱花一把\n"
OUT = Path(__file__).resolve().parents[2] / "docs" / "images"

Go = Callable[[Page], None]


@dataclass(frozen=True)
class Picture:
    name: str
    go: Go
    width: int = 1280
    height: int = 860
    scheme: Literal["light", "dark"] = "light"
    locale: str = "zh-CN"
    username: str = ""  # signed in as, or a stranger


def _home(page: Page) -> None:
    page.goto("/")


def _article(page: Page) -> None:
    page.goto("/")
    page.locator(".entry").filter(has=page.locator(".entry-echo")).locator(".entry-title a").first.click()


def _comments(page: Page) -> None:
    _article(page)
    page.locator("#comments").evaluate("element => element.scrollIntoView()")


def _sign_in(page: Page) -> None:
    page.goto("/sign-in/")


def _write(page: Page) -> None:
    page.goto("/write/")
    page.fill("#id_title", "雨天的面馆")
    page.locator("textarea.manuscript").fill(MANUSCRIPT)
    page.locator("h1").scroll_into_view_if_needed()


def _dashboard(page: Page) -> None:
    page.goto("/dashboard/?days=30")


def _newest_run(page: Page) -> None:
    page.goto("/admin/training/run/")
    page.locator("#result_list tbody th a").first.click()
    page.locator("img").last.evaluate("image => image.decode()")


def _moderation(page: Page) -> None:
    page.goto("/admin/comments/comment/queue/?tab=uncertain")


def _judged_comment(page: Page) -> None:
    _moderation(page)
    page.locator(".queue-time").first.click()


def _record(page: Page) -> None:
    page.goto("/admin/comments/decision/")


def _rules(page: Page) -> None:
    page.goto("/admin/comments/rules/")


def _admin(page: Page) -> None:
    page.goto("/admin/")


def _versions(page: Page) -> None:
    page.goto("/admin/training/modelversion/")


PICTURES = [
    Picture("home-zh", _home),
    Picture("home-dark-zh", _home, scheme="dark"),
    Picture("home-en", _home, locale="en-US"),
    Picture("home-phone-zh", _home, width=390, height=844),
    Picture("article-zh", _article),
    Picture("article-phone-zh", _article, width=390, height=844),
    Picture("comments-zh", _comments),
    Picture("comments-dark-zh", _comments, scheme="dark"),
    Picture("comments-en", _comments, locale="en-US"),
    Picture("comments-phone-zh", _comments, width=390, height=844),
    Picture("sign-in-zh", _sign_in),
    Picture("sign-in-phone-en", _sign_in, width=390, height=844, locale="en-US"),
    Picture("write-zh", _write, username=WRITER),
    Picture("write-phone-zh", _write, width=390, height=844, username=WRITER),
    Picture("dashboard-zh", _dashboard, username=WRITER),
    Picture("dashboard-dark-zh", _dashboard, scheme="dark", username=WRITER),
    Picture("dashboard-en", _dashboard, locale="en-US", username=WRITER),
    Picture("dashboard-phone-zh", _dashboard, width=390, height=844, username=WRITER),
    Picture("run-zh", _newest_run, height=1400, username=ADMINISTRATOR),
    Picture("run-phone-zh", _newest_run, width=390, height=844, username=ADMINISTRATOR),
    Picture("run-en", _newest_run, height=1400, locale="en-US", username=ADMINISTRATOR),
    Picture("admin-zh", _admin, username=ADMINISTRATOR),
    Picture("moderation-zh", _moderation, username=MODERATOR),
    Picture("moderation-en", _moderation, locale="en-US", username=MODERATOR),
    Picture("moderation-dark-zh", _moderation, scheme="dark", username=MODERATOR),
    Picture("moderation-phone-zh", _moderation, width=390, height=844, username=MODERATOR),
    Picture("comment-zh", _judged_comment, username=MODERATOR),
    Picture("record-zh", _record, username=MODERATOR),
    Picture("rules-zh", _rules, username=MODERATOR),
    Picture("versions-zh", _versions, username=ADMINISTRATOR),
]


def take(picture: Picture, *, browser: Browser, base_url: str, password: str, out: Path) -> Path:
    """Open one page as a reader would and save what the window shows."""
    context = browser.new_context(
        base_url=base_url,
        viewport={"width": picture.width, "height": picture.height},
        color_scheme=picture.scheme,
        locale=picture.locale,
        device_scale_factor=1,
        reduced_motion="reduce",
    )
    try:
        context.set_default_timeout(NAVIGATION_TIMEOUT_MS)
        page = context.new_page()
        if picture.username:
            _sign_in(page)
            page.fill("#id_username", picture.username)
            page.fill("#id_password", password)
            page.locator(".card button").click()
        picture.go(page)
        page.wait_for_load_state()
        path = out / f"{picture.name}.png"
        page.screenshot(path=path)
        return path
    finally:
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8000", help="of a running demo (default: %(default)s)"
    )
    parser.add_argument(
        "--password", default="huisheng-demo", help="of the demo's accounts (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, help="folder of the PNG files (default: docs/images)"
    )
    parser.add_argument("--only", default="", help="take only pictures whose name contains this")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=CHROMIUM_ARGUMENTS
        )
        for picture in PICTURES:
            if arguments.only in picture.name:
                options = {
                    "base_url": arguments.base_url,
                    "password": arguments.password,
                    "out": arguments.out,
                }
                print(take(picture, browser=browser, **options))
        browser.close()


if __name__ == "__main__":
    main()
