"""Photograph a running demo: `python -m infra.setup.screenshots --base-url http://127.0.0.1:8000`.

Every page at the widths of a desktop and a phone, by day and by night, in Chinese and in English. What READMEs show is
written into docs/images, all else into docs/images/looks, which git ignores.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, sync_playwright

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
# Accounts that seed_demo makes.
READER, WRITER, MODERATOR, ADMINISTRATOR = "xiaoman", "linxia", "moderator", "admin"
MANUSCRIPT = "## 老板记得每个人的口味\n\n进门他就问：还是**多葱少面**？\n\n- 猪油一勺\n- 葱花一把\n"
OUT = Path(__file__).resolve().parents[2] / "docs" / "images"

LOOKS = "looks"  # folder of all others: too many to keep in the repository, which ignores them

Go = Callable[[Page], None]


@dataclass(frozen=True)
class Scene:
    """A page as somebody comes to it."""

    name: str
    go: Go
    username: str = ""  # signed in as, or a stranger
    height: int = 860  # of a desktop's window


@dataclass(frozen=True)
class Look:
    width: int
    scheme: Literal["light", "dark"]
    language: Literal["zh", "en"]

    def suffix(self) -> str:
        """What it says of itself in a file's name: nothing of a desktop by day."""
        parts = ["-phone" if self.width < 600 else "", "-dark" if self.scheme == "dark" else ""]
        return "".join(parts) + f"-{self.language}"


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
    page.context.set_offline(True)  # no draft is left for the next picture to show
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


def _reply(page: Page) -> None:
    _comments(page)
    if page.locator("a.reply").count():
        page.locator("a.reply").first.click()


def _explanation(page: Page) -> None:
    _article(page)
    page.goto(page.locator("a.badge").first.get_attribute("href") or "/")


def _at(address: str) -> Go:
    def go(page: Page) -> None:
        page.goto(address)

    return go


SCENES = [
    Scene("home", _home),
    Scene("article", _article),
    Scene("comments", _comments),
    Scene("reply", _reply, READER),
    Scene("explanation", _explanation),
    Scene("category", _at("/categories/food/")),
    Scene("author", _at(f"/authors/{WRITER}/")),
    Scene("archive", _at("/archive/")),
    Scene("search", _at("/search/?q=面馆")),
    Scene("sign-in", _sign_in),
    Scene("sign-up", _at("/sign-up/")),
    Scene("lost", _at("/nowhere/")),
    Scene("api", _at("/api/v1/docs/")),
    Scene("write", _write, WRITER),
    Scene("mine", _at("/mine/"), WRITER),
    Scene("dashboard", _dashboard, WRITER),
    Scene("profile", _at("/me/"), WRITER),
    Scene("tokens", _at("/me/tokens/"), WRITER),
    Scene("moderation", _moderation, MODERATOR),
    Scene("comment", _judged_comment, MODERATOR),
    Scene("record", _record, MODERATOR),
    Scene("rules", _rules, MODERATOR),
    Scene("admin", _admin, ADMINISTRATOR),
    Scene("run", _newest_run, ADMINISTRATOR, height=1400),
    Scene("versions", _versions, ADMINISTRATOR),
]
ALL_LOOKS = [
    Look(width, scheme, language)
    for width in (1280, 390)
    for scheme in ("light", "dark")
    for language in ("zh", "en")
]
# The best of them, which READMEs show and the repository keeps.
KEPT = {
    *("home-zh", "home-dark-zh", "home-en", "home-phone-zh", "article-zh", "article-phone-zh"),
    *("comments-zh", "comments-dark-zh", "comments-en", "comments-phone-zh"),
    *("write-zh", "dashboard-zh", "dashboard-phone-zh", "moderation-zh", "moderation-phone-zh"),
    *("run-zh", "run-en", "versions-zh"),
}


class Photographer:
    """Opens pages in every look; whoever must be signed in signs in once."""

    def __init__(self, browser: Browser, *, base_url: str, password: str) -> None:
        self.browser = browser
        self.base_url = base_url
        self.password = password
        self.sessions: dict[str, StorageState] = {}

    def take(self, scene: Scene, look: Look, path: Path) -> Path:
        """Open one page as a reader would and save what the window shows."""
        with self._open(look, scene) as context:
            page = context.new_page()
            scene.go(page)
            page.wait_for_load_state()
            picture = page.screenshot()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_small(picture, path)
        return path

    def _open(self, look: Look, scene: Scene) -> BrowserContext:
        context = self.browser.new_context(
            base_url=self.base_url,
            viewport={"width": look.width, "height": 844 if look.width < 600 else scene.height},
            color_scheme=look.scheme,
            locale={"zh": "zh-CN", "en": "en-US"}[look.language],
            device_scale_factor=1,
            reduced_motion="reduce",
            storage_state=self._session(scene.username) if scene.username else None,
        )
        context.set_default_timeout(NAVIGATION_TIMEOUT_MS)
        return context

    def _session(self, username: str) -> StorageState:
        if username not in self.sessions:
            with self.browser.new_context(base_url=self.base_url) as context:
                page = context.new_page()
                _sign_in(page)
                page.fill("#id_username", username)
                page.fill("#id_password", self.password)
                page.locator(".card button").click()
                page.wait_for_url(lambda url: "/sign-in/" not in url)
                self.sessions[username] = context.storage_state()
        return self.sessions[username]


def save_small(picture: bytes, path: Path) -> None:
    """With a palette, at a third of the bytes; by coverage, so that a small badge keeps a colour of its own."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


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
    parser.add_argument("--kept", action="store_true", help="take only those that the repository keeps")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=CHROMIUM_ARGUMENTS
        )
        photographer = Photographer(browser, base_url=arguments.base_url, password=arguments.password)
        for scene in SCENES:
            for look in ALL_LOOKS:
                name = scene.name + look.suffix()
                if arguments.only in name and (name in KEPT or not arguments.kept):
                    folder = arguments.out if name in KEPT else arguments.out / LOOKS
                    print(photographer.take(scene, look, folder / f"{name}.png"))
        browser.close()


if __name__ == "__main__":
    main()
