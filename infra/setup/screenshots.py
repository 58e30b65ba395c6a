"""Photograph a running demo: `python -m infra.setup.screenshots --base-url http://127.0.0.1:8000`.

Every page at the widths of a desktop and a phone, by day and by night, in Chinese and in English. What READMEs show is
written into docs/images, all else into docs/images/looks, which git ignores.
"""

from __future__ import annotations

import argparse
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Error, StorageState, sync_playwright

from .scenes import SCENES, Scene

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
# Those further down are loaded when one comes near them.
SEEN_PICTURES = """() => Promise.allSettled([...document.images]
  .filter((image) => image.getBoundingClientRect().top < innerHeight).map((image) => image.decode()))"""
OUT = Path(__file__).resolve().parents[2] / "docs" / "images"

LOOKS = "looks"  # folder of all others: too many to keep in the repository, which ignores them


@dataclass(frozen=True)
class Look:
    width: int
    scheme: Literal["light", "dark"]
    language: Literal["zh", "en"]

    def suffix(self) -> str:
        """What it says of itself in a file's name: nothing of a desktop by day."""
        parts = ["-phone" if self.width < 600 else "", "-dark" if self.scheme == "dark" else ""]
        return "".join(parts) + f"-{self.language}"


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

    def __init__(self, browser: Browser, *, base_url: str, password: str, whole: bool = False) -> None:
        self.browser = browser
        self.base_url = base_url
        self.password = password
        self.whole = whole
        self.sessions: dict[str, StorageState] = {}

    def take(self, scene: Scene, look: Look, path: Path) -> Path:
        """Open one page as a reader would and save what the window shows, or the whole page."""
        with self._open(look, scene) as context:
            page = context.new_page()
            try:
                scene.go(page)
                page.wait_for_load_state()
                page.evaluate(SEEN_PICTURES)
            except Error as error:
                error.add_note(f"on the way to {path.stem}, at {page.url}")
                raise
            picture = page.screenshot(full_page=self.whole)
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
            java_script_enabled=scene.javascript,
            storage_state=self._session(scene.username) if scene.username else None,
        )
        context.set_default_timeout(NAVIGATION_TIMEOUT_MS)
        return context

    def _session(self, username: str) -> StorageState:
        if username not in self.sessions:
            with self.browser.new_context(base_url=self.base_url) as context:
                page = context.new_page()
                page.goto("/sign-in/")
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
    parser.add_argument("--whole", action="store_true", help="whole pages, not only what a window shows")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=CHROMIUM_ARGUMENTS
        )
        photographer = Photographer(
            browser, base_url=arguments.base_url, password=arguments.password, whole=arguments.whole
        )
        for scene in SCENES:
            for look in ALL_LOOKS:
                name = scene.name + look.suffix()
                if arguments.only in name and (name in KEPT or not arguments.kept):
                    folder = arguments.out if name in KEPT else arguments.out / LOOKS
                    print(photographer.take(scene, look, folder / f"{name}.png"))
        browser.close()


if __name__ == "__main__":
    main()
