from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from blog_site.labels.models import Label, Sample
from blog_site.users.services import grant_moderators
from tests.api.answers import assert_error, post
from tests.comments.rows import make_comment, make_user
from tests.labels.test_services import make_label

pytestmark = pytest.mark.django_db
LABELS = "/api/v1/labels/"


@pytest.fixture
def moderator(client):
    user = make_user("moderator", is_staff=True, display_name="值班编辑")
    user.groups.add(grant_moderators())
    client.force_login(user)
    return user


def listed(client, **asked: Any) -> list[int]:
    return [label["id"] for label in client.get(LABELS, asked).json()["results"]]


def test_labels_are_for_moderators(client) -> None:
    comment = make_comment()
    label = make_label(comment)
    body = {"comment": comment.pk, "sentiment": "neutral"}
    assert_error(client.get(LABELS), 401, "not_authenticated")
    client.force_login(make_user())
    for answer in (client.get(LABELS), client.get(f"{LABELS}{label.pk}/"), post(client, body, LABELS)):
        assert_error(answer, 403, "permission_denied")


def test_a_moderator_reads_what_was_said_by_whom_and_how_surely(client, moderator) -> None:
    comment = make_comment("豆浆很香")
    label = make_label(comment, "positive", confidence=0.75, reason="夸了味道")
    said = client.get(f"{LABELS}{label.pk}/").json()
    assert (said["comment"], said["text"], said["sentiment"]) == (comment.pk, "豆浆很香", "positive")
    assert (said["confidence"], said["reason"], said["moderator"]) == (0.75, "夸了味道", None)
    assert said["of_present_text"] is True


def test_a_moderators_label_outranks_the_others_and_makes_the_sample(client, moderator) -> None:
    comment = make_comment()
    make_label(comment, "positive")
    first = post(client, {"comment": comment.pk, "sentiment": "negative"}, LABELS)
    assert first.status_code == 201
    assert first.json()["moderator"] == {"username": "moderator", "display_name": "值班编辑"}
    assert client.get(first["Location"]).json() == first.json()
    assert Sample.objects.get().label == "negative"
    again = post(client, {"comment": comment.pk, "sentiment": "neutral"}, LABELS).json()
    assert (again["id"], again["sentiment"]) == (first.json()["id"], "neutral")
    assert Label.objects.filter(comment=comment).count() == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"comment": 404, "sentiment": "neutral"}, "comment"),
        ({"comment": "1", "sentiment": "neutral"}, "comment"),
        ({"comment": 10**30, "sentiment": "neutral"}, "comment"),
        ({"sentiment": "neutral"}, "comment"),
        ({"comment": 1, "sentiment": "angry"}, "sentiment"),
    ],
)
def test_a_label_of_nothing_is_refused(client, moderator, body: dict[str, Any], field: str) -> None:
    error = assert_error(post(client, body, LABELS), 400, "invalid")
    assert list(error["fields"]) == [field]


def test_labels_are_listed_as_asked_newest_first(client, moderator) -> None:
    first, second = make_comment(), make_comment()
    of_first = make_label(first, "positive")
    outdated = make_label(second, "negative", text_digest="0" * 64)
    lexicon = make_label(second, "negative", source="lexicon")
    Label.objects.filter(pk=of_first.pk).update(created_at=timezone.now() - timedelta(days=3))
    yesterday = (timezone.localdate() - timedelta(days=1)).isoformat()
    assert listed(client) == [lexicon.pk, outdated.pk, of_first.pk]
    assert listed(client, comment=first.pk) == [of_first.pk]
    assert listed(client, sentiment="negative", source="llm") == [outdated.pk]
    assert listed(client, present="true") == [lexicon.pk, of_first.pk]
    assert listed(client, present="false") == [outdated.pk]
    assert listed(client, **{"from": yesterday}) == [lexicon.pk, outdated.pk]
    assert listed(client, to=yesterday) == [of_first.pk]
    for name, value in (("source", "rumour"), ("comment", "-1"), ("present", "maybe"), ("to", "soon")):
        assert list(assert_error(client.get(LABELS, {name: value}), 400, "invalid")["fields"]) == [name]
