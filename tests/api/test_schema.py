from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from django.urls import URLPattern

from blog_site.api import urls
from blog_site.api.endpoint import ApiView
from tests.api.answers import assert_error
from tests.comments.rows import make_article, make_comment

pytestmark = pytest.mark.django_db
METHODS = ("get", "post", "put", "patch", "delete")


def test_the_schema_is_valid_and_has_no_warnings(tmp_path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))


def test_the_schema_is_served_and_names_every_address(client) -> None:
    response = client.get("/api/v1/schema/")
    assert response.status_code == 200
    schema = (
        yaml.safe_load(response.content) if b"openapi:" in response.content else json.loads(response.content)
    )
    assert schema["openapi"].startswith("3.1")
    described = {
        (method, path) for path, methods in schema["paths"].items() for method in methods if method in METHODS
    }
    assert described == set(reachable(urls.urlpatterns))


def reachable(patterns: list[URLPattern]) -> Iterator[tuple[str, str]]:
    """Every method that an endpoint answers, with its address as the schema writes it."""
    for pattern in patterns:
        view = getattr(pattern.callback, "cls", None)
        if view is None or not issubclass(view, ApiView):
            continue
        path = re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern)).replace("{pk}", "{id}")
        answered = [name for name in METHODS if hasattr(view, name) and name in view.http_method_names]
        yield from ((method, f"/api/v1/{path}") for method in answered)


def test_a_comment_has_the_fields_that_the_schema_says(client) -> None:
    comment = make_comment(article=make_article())
    schema = yaml.safe_load(client.get("/api/v1/schema/").content)
    said = client.get(f"/api/v1/comments/{comment.pk}/").json()
    assert said.keys() == schema["components"]["schemas"]["Comment"]["properties"].keys()


@pytest.mark.parametrize(
    "address", ["/api/v1/", "/api/v1/nothing", "/api/v1/nothing/", "/api/v1/articles", "/api/v1/comments/x/"]
)
def test_an_unknown_address_is_an_error_in_the_same_shape(client, address: str) -> None:
    assert_error(client.get(address), 404, "not_found")
    assert_error(Client(enforce_csrf_checks=True).post(address), 404, "not_found")
