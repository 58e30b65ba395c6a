from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.test import Client
from jsonschema import Draft202012Validator

from blog_site.api.errors import PROBLEMS
from infra.setup.compile_messages import compile_messages

pytestmark = pytest.mark.django_db
DOCS = "/api/v1/docs/"
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module", autouse=True)
def _english() -> None:
    compile_messages()


@pytest.fixture
def described(client) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(client.get("/api/v1/schema/").content)
    return schema


def bodies(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body that is sent or answered, with where it stands."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            said = {"request": operation.get("requestBody", {}), **operation["responses"]}
            for part, body in said.items():
                for content in body.get("content", {}).values():
                    yield f"{method} {path} {part}", content


def test_every_body_has_an_example_that_is_what_its_schema_says(described: dict[str, Any]) -> None:
    seen = 0
    for place, content in bodies(described):
        examples = content.get("examples", {}).values()
        assert examples, place
        for example in examples:
            schema = {**content["schema"], "components": described["components"]}
            problems = [error.message for error in Draft202012Validator(schema).iter_errors(example["value"])]
            assert problems == [], place
            seen += 1
    assert seen > 100


def test_the_page_shows_every_operation_and_every_problem(client, described: dict[str, Any]) -> None:
    page = client.get(DOCS).content.decode()
    for path, methods in described["paths"].items():
        assert path in page
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page
    for code in PROBLEMS:
        assert f'id="problem-{code}"' in page
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_an_error_names_its_place_on_the_page(client) -> None:
    problem = client.get("/api/v1/articles/nothing/").json()
    page, _hash, place = problem["type"].partition("#")
    assert f'id="{place}"' in client.get(page).content.decode()


def test_the_page_needs_nothing_from_elsewhere_and_no_script(client) -> None:
    page = client.get(DOCS).content.decode()
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="([^"]+)"', page)
    assert all(address.startswith("/") for address in loaded)
    assert "<script" not in page
    assert "<style" not in page
    assert " style=" not in page


def test_the_description_and_the_page_speak_the_readers_language(client) -> None:
    for language, said in (("zh-hans", "已发布的文章"), ("en", "Published articles")):
        asked = {"HTTP_ACCEPT_LANGUAGE": language}
        assert said in client.get(DOCS, **asked).content.decode()
        schema = yaml.safe_load(client.get("/api/v1/schema/", **asked).content)
        assert schema["paths"]["/api/v1/articles/"]["get"]["summary"] == said


def test_our_own_mistakes_are_told_in_the_one_shape(monkeypatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("blog_site.api.categories.CategoryList.get_queryset", fail, raising=False)
    client = Client(raise_request_exception=False)
    monkeypatch.setattr(settings, "DEBUG", False)
    answer = client.get("/api/v1/categories/")
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "server_error"
    assert b"secret" not in answer.content
