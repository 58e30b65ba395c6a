"""Schemathesis asks the running API: no answer is an error of ours, and none is other than the description says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from blog_site.api.services import make_token
from blog_site.articles.models import Article
from blog_site.articles.services import save_article
from blog_site.labels.models import Label
from blog_site.labels.services import correct_labels
from blog_site.users.models import User
from blog_site.users.services import grant_moderators
from tests.comments.inference_server import InferenceServer
from tests.comments.rows import make_article, make_comment, make_user
from tests.comments.test_models import make_prediction

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

EXAMPLES = int(os.environ.get("API_EXAMPLES", "3"))  # of each operation, half of them malformed on purpose
CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
]
ORDER = ("GET", "PATCH", "PUT", "POST", "DELETE")  # deletions last, so that the others find something

Who = Callable[[dict[str, Any]], dict[str, str]]  # makes somebody of a blog, and gives the headers they send


@pytest.fixture
def blog(inference: InferenceServer) -> dict[str, Any]:
    """A blog with one of everything; gives what an address names each of them by."""
    article = save_article(article=make_article(slug="soy-milk"), tags=["早餐"])
    comment = make_comment("味道好，分量差", article=article)
    correct_labels(comments=[comment], sentiment="neutral", moderator=make_user())
    return {
        "/articles/": article.slug,
        "/comments/": comment.pk,
        "/predictions/": make_prediction(comment).pk,
        "/labels/": Label.objects.get().pk,
        "/categories/": article.category.slug,
        "/tags/": "早餐",
    }


def nobody(blog: dict[str, Any]) -> dict[str, str]:
    return {}


def reader(blog: dict[str, Any]) -> dict[str, str]:
    """Somebody who has written an article, so that what only its author may do is tried as well."""
    user = make_user("reader")
    Article.objects.update(author=user)
    return authorize(user, blog)


def moderator(blog: dict[str, Any]) -> dict[str, str]:
    user = make_user("moderator", is_staff=True)
    user.groups.add(grant_moderators())
    return authorize(user, blog)


def authorize(user: User, blog: dict[str, Any]) -> dict[str, str]:
    blog["/me/tokens/"] = make_token(owner=user, name="another").token.pk
    return {"Authorization": f"Bearer {make_token(owner=user, name='this').secret}"}


def operations(schema: Any, who: Who) -> Iterator[APIOperation]:
    for result in sorted(
        schema.get_all_operations(), key=lambda result: ORDER.index(result.ok().method.upper())
    ):
        operation = result.ok()
        # A moderator is another reader but for these; and whoever revokes the token in use can ask nothing more.
        unlike = operation.definition.raw["tags"][0] in ("comments", "labels", "predictions")
        if operation.label != "DELETE /api/v1/me/tokens/current/" and (unlike or who is not moderator):
            yield operation


def examples_of(operation: APIOperation, who: Who) -> int:
    """One is enough to be told that one is nobody."""
    is_public = {} in operation.definition.raw.get("security", [{}])
    return EXAMPLES if is_public or who is not nobody else 1


@pytest.mark.parametrize("who", [nobody, reader, moderator])
def test_the_api_answers_as_it_is_described(live_server, blog: dict[str, Any], who: Who) -> None:
    headers = who(blog)
    schema = schemathesis.openapi.from_url(f"{live_server.url}/api/v1/schema/?format=json")
    answered: set[int] = set()
    for operation in operations(schema, who):
        answered |= ask(operation, headers, blog, examples=examples_of(operation, who))
    assert 200 in answered
    assert answered & {400, 404}
    assert (201 in answered) == (who is not nobody)
    # A moderator deletes nothing that is named here, but may come upon what was just made.
    assert 204 not in answered if who is nobody else 204 in answered or who is moderator


def ask(operation: APIOperation, headers: dict[str, str], blog: dict[str, Any], *, examples: int) -> set[int]:
    """Send an operation's requests: of things that are there, of things that need not be, and malformed ones."""
    answered: set[int] = set()
    cases = [operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    for start, value in blog.items():
        if f"/api/v1{start}{{" in operation.path:
            name = "id" if isinstance(value, int) else "slug"
            cases.insert(0, operation.as_strategy(path_parameters={name: value}))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=EXAMPLES < 100,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(cases))
    def send(case: schemathesis.Case) -> None:
        answered.add(case.call_and_validate(headers=headers, checks=CHECKED).status_code)

    send()
    return answered
