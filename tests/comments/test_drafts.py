"""A draft is judged while it is written; whatever stands in the way, its writer is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from blog_site.comments.models import Comment, Prediction
from blog_site.limits import Rate
from tests.comments.inference_server import InferenceServer
from tests.comments.rows import make_category, make_user

pytestmark = pytest.mark.django_db

ADDRESS = "/comments/draft-sentiment/"


@pytest.fixture(autouse=True)
def _uncounted() -> None:
    cache.clear()


@pytest.fixture
def writer(client: Client) -> Client:
    client.force_login(make_user())
    return client


def judge(client: Client, text: str = "太差了", **headers: str) -> Any:
    return client.post(reverse("comments:draft_sentiment"), {"text": text}, headers=headers)


def test_a_harsh_draft_is_called_so_and_nothing_of_it_is_kept(
    writer: Client, inference: InferenceServer
) -> None:
    answer = judge(writer, "  太差了，垃圾\r\n")

    assert answer.json() == {"label": "negative", "score": 0.9, "harsh": True}
    assert inference.asked == [["太差了，垃圾"]]
    assert not Comment.objects.exists()
    assert not Prediction.objects.exists()
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize("text", ["很好喝", "一般", "太差了"])
def test_other_drafts_are_not(writer: Client, inference: InferenceServer, text: str) -> None:
    assert judge(writer, text).json()["harsh"] is False


@pytest.mark.parametrize("text", ["", "   ", "x" * 10_001, "\x00"])
def test_what_could_not_be_posted_is_not_asked_about(
    writer: Client, inference: InferenceServer, text: str
) -> None:
    assert judge(writer, text).status_code == 204
    assert inference.asked == []


def test_a_service_that_is_away_or_refuses_says_nothing(writer: Client, inference: InferenceServer) -> None:
    inference.refusal = lambda texts: (503, {"detail": "no model"})
    assert judge(writer).status_code == 204
    inference.stop()
    assert judge(writer).status_code == 204


def test_drafts_have_an_allowance_of_their_own_and_take_nothing_from_what_is_sent(
    writer: Client, inference: InferenceServer, settings
) -> None:
    settings.ALLOWANCES = settings.ALLOWANCES | {"drafts": [Rate(uses=2, seconds=86_400)]}
    assert [judge(writer).status_code for _ in range(2)] == [200, 200]

    refused = judge(writer, accept="application/json")

    assert (refused.status_code, refused.json()["status"]) == (429, 429)
    assert 1 <= int(refused["Retry-After"]) <= 86_400
    assert writer.post("/i18n/setlang/", {"language": "en"}).status_code == 302


def test_strangers_are_heard_only_where_guests_may_comment(
    client: Client, inference: InferenceServer
) -> None:
    category = make_category()
    assert judge(client).status_code == 204
    category.guests_may_comment = True
    category.save()
    assert judge(client).status_code == 200


def test_it_takes_no_request_from_elsewhere(inference: InferenceServer) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make_user())
    assert judge(strict).status_code == 403
    assert strict.get(ADDRESS).status_code == 405
    assert inference.asked == []
