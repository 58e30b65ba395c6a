"""A real Chromium against a live server. What is missing fails; nothing is skipped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import cache
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from blog_site.comments import inference as door
from infra.setup.compile_messages import compile_messages
from infra.setup.screenshots import CHROMIUM_ARGUMENTS
from tests.blog import PASSWORD
from tests.comments.inference_server import InferenceServer
from tests.front_end import build_islands

TIMEOUT_MS = 10_000

NewPage = Callable[..., Page]


@pytest.fixture(scope="session", autouse=True)
def _english() -> None:
    compile_messages()


@pytest.fixture(scope="session", autouse=True)
def _islands() -> None:
    build_islands()


# Of the package, not of the session: Playwright's event loop would still run in the thread of the tests after these,
# and theirs could not begin.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if shutil.which(executable) is None:
        pytest.fail(f"no Chromium at {executable}: install one, or set CHROMIUM to where it is")
    # Playwright's synchronous calls run inside an event loop of their own, in which Django would refuse the
    # database; no coroutine of ours touches it.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def new_page(chromium: Browser, live_server) -> Iterator[NewPage]:
    """Open pages of the blog by path; at the end, a page that complained in its console fails the test, be it of what
    the blog's own Content-Security-Policy forbids."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(
        *,
        locale: str = "zh-CN",
        width: int = 1280,
        javascript: bool = True,
        policy: bool = True,
        first: str = "",
    ) -> Page:
        """`policy`: whether the browser keeps to what the pages forbid it; `first`: a script before any of theirs."""
        context = chromium.new_context(
            base_url=live_server.url,
            locale=locale,
            viewport={"width": width, "height": 844},
            java_script_enabled=javascript,
            bypass_csp=not policy,
            reduced_motion="reduce",
        )
        context.set_default_timeout(TIMEOUT_MS)
        if first:
            context.add_init_script(first)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: complaints.append(message.text) if _is_complaint(message) else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _is_complaint(message: ConsoleMessage) -> bool:
    """Whether the console shows a mistake of ours; a refusal that is shown on a page is what some tests check."""
    refused = re.search(r"the server responded with a status of (4\d\d|503)", message.text)
    return message.type == "error" and refused is None


@pytest.fixture
def inference(settings) -> Iterator[InferenceServer]:
    """A running inference service that the settings point at."""
    cache.clear()
    server = InferenceServer()
    server.start()
    settings.INFERENCE_URL = server.url
    yield server
    door.close_clients()
    server.stop()


def sign_in(page: Page, username: str) -> None:
    page.goto("/sign-in/")
    page.fill("#id_username", username)
    page.fill("#id_password", PASSWORD)
    page.locator(".card button").click()
    page.wait_for_url("**/")
