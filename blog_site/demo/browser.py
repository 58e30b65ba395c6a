"""A visitor of the blog over HTTP, as a browser would be one: cookies, forms, CSRF tokens."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Self

import httpx

TIMEOUT_SECONDS = 15


class VisitFailed(Exception):
    """A page did not answer as it must; the text names the page and what it said."""


class Visitor:
    """A browser's window: what it was told to remember is forgotten when it is closed."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(
            base_url=base_url, timeout=TIMEOUT_SECONDS, follow_redirects=True, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._http.close()

    def submit(self, page: str, fields: dict[str, Any], *, action: str | None = None) -> httpx.Response:
        """Open a page, fill in its form, send it. The token comes from the page, as in a browser."""
        token = csrf_token(self.open(page).text)
        data = {"csrfmiddlewaretoken": token, **fields}
        referer = str(self._http.base_url.join(page))
        return self._checked(self._http.post(action or page, data=data, headers={"Referer": referer}))

    def open(self, page: str) -> httpx.Response:
        return self._checked(self._http.get(page))

    def api(self, method: str, path: str, value: Any = None) -> Any:
        """Call the API with the session's cookie, as the page's own scripts do."""
        headers = {
            "X-CSRFToken": self._http.cookies.get("csrftoken", ""),
            "Referer": str(self._http.base_url),
        }
        return self._checked(self._http.request(method, path, json=value, headers=headers)).json()

    def sign_in(self, page: str, username: str, password: str) -> None:
        answer = self.submit(page, {"username": username, "password": password})
        if answer.url.path == page:
            raise VisitFailed(f"{username} could not sign in at {page}")

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        request = response.request
        raise VisitFailed(
            f"{request.method} {request.url.path} answered {response.status_code}: {response.text[:300]}"
        )


class _TokenFinder(HTMLParser):
    token = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "input" and values.get("name") == "csrfmiddlewaretoken":
            self.token = values.get("value") or ""


def csrf_token(page: str) -> str:
    finder = _TokenFinder()
    finder.feed(page)
    if not finder.token:
        raise VisitFailed("the page has no form with a CSRF token")
    return finder.token
