"""Pages of other addresses: those that are named may use the API with a token, and no session of ours."""

from __future__ import annotations

import pytest

from blog_site.api.services import make_token
from tests.comments.rows import make_user

pytestmark = pytest.mark.django_db
APP = "https://app.example"
ME = "/api/v1/me/"


def ask_first(client, origin: str, address: str = ME):
    """What a browser asks before it sends a request with headers of a page's own."""
    return client.options(
        address,
        HTTP_ORIGIN=origin,
        HTTP_ACCESS_CONTROL_REQUEST_METHOD="PATCH",
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS="authorization, if-match, content-type",
    )


def test_no_other_page_may_use_the_api_unless_it_is_named(client) -> None:
    assert "Access-Control-Allow-Origin" not in client.get(ME, HTTP_ORIGIN=APP)
    assert "Access-Control-Allow-Origin" not in ask_first(client, APP)


def test_a_named_page_reads_and_writes_with_a_token(client, settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [APP]
    allowed = ask_first(client, APP)
    assert allowed["Access-Control-Allow-Origin"] == APP
    assert "PATCH" in allowed["Access-Control-Allow-Methods"]
    assert {"authorization", "if-match"} <= set(allowed["Access-Control-Allow-Headers"].split(", "))
    token = make_token(owner=make_user(), name="app").secret
    answer = client.get(ME, HTTP_ORIGIN=APP, HTTP_AUTHORIZATION=f"Bearer {token}")
    assert answer.status_code == 200
    assert {"etag", "retry-after"} <= set(answer["Access-Control-Expose-Headers"].split(", "))
    assert "Access-Control-Allow-Credentials" not in answer  # so a browser sends no cookie of ours
    assert "Access-Control-Allow-Origin" not in ask_first(client, "https://evil.example")


def test_pages_that_are_no_api_are_nobody_elses(client, settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [APP]
    assert "Access-Control-Allow-Origin" not in client.get("/", HTTP_ORIGIN=APP)
