from __future__ import annotations

import pytest
import yaml
from django.core.cache import cache
from django.test import Client

from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from blog_site.users.models import User
from blog_site.users.services import grant_moderators
from tests.api.answers import assert_error
from tests.comments.inference_server import MODEL_A, InferenceServer
from tests.comments.rows import make_article, make_comment, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _empty_cache(inference: InferenceServer) -> None:
    cache.clear()


def address_of(comment: Comment) -> str:
    return f"/api/v1/comments/{comment.pk}/explanation/"


def test_an_explanation_is_the_whole_text_in_parts_with_what_each_does(client: Client) -> None:
    answer = client.get(address_of(make_comment("味道好，分量差")))
    assert answer.status_code == 200
    said = answer.json()
    assert (said["model"], said["label"], said["score"]) == (MODEL_A, "positive", 0.9)
    assert "".join(part["text"] for part in said["parts"]) == "味道好，分量差"
    marked = [part for part in said["parts"] if part["side"]]
    assert [(part["text"], part["side"], part["level"], part["weight"]) for part in marked] == [
        ("好", "for", 3, 2.0),
        ("差", "against", 2, -1.0),
    ]
    assert marked[0]["score_without"] == pytest.approx(0.549, abs=0.001)
    unmarked = [part for part in said["parts"] if not part["side"]]
    assert all(part["weight"] is part["score_without"] is None for part in unmarked)


def test_page_and_api_ask_the_service_once(client: Client, inference: InferenceServer) -> None:
    comment = make_comment("好")
    client.get(f"/comments/{comment.pk}/explanation/")
    client.get(address_of(comment))
    assert inference.explained == [["好"]]


def test_a_model_that_is_away_is_503_and_says_when_to_come_again(
    client: Client, inference: InferenceServer
) -> None:
    inference.stop()
    answer = client.get(address_of(make_comment("好")))
    assert_error(answer, 503, "model_away")
    assert int(answer["Retry-After"]) >= 1


def test_what_the_service_says_of_itself_stays_inside(client: Client, inference: InferenceServer) -> None:
    inference.refusal = lambda texts: (500, {"detail": "secret reason"})
    answer = client.get(address_of(make_comment("好")))
    assert_error(answer, 503, "model_away")
    assert "secret" not in answer.content.decode()


def test_who_asks_too_fast_is_429_wherever_the_others_were_asked(client: Client, settings) -> None:
    settings.EXPLANATIONS_PER_MINUTE = 1
    client.get(f"/comments/{make_comment('好').pk}/explanation/part/")
    answer = client.get(address_of(make_comment("差")))
    assert_error(answer, 429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= 60


def statuses(comment: Comment, *users: User | None) -> list[int]:
    """What each of them gets; None is a stranger."""
    found = []
    for user in users:
        client = Client()
        if user:
            client.force_login(user)
        found.append(client.get(address_of(comment)).status_code)
    return found


def test_only_who_may_read_a_comment_has_it_explained(inference: InferenceServer) -> None:
    moderator = make_user("moderator", is_staff=True)
    moderator.groups.add(grant_moderators())
    hidden = make_comment("好", status=Comment.Status.HIDDEN)
    assert statuses(hidden, None, make_user()) == [404, 404]
    assert inference.explained == []  # what nobody may see costs the service nothing
    assert statuses(hidden, hidden.author, moderator) == [200, 200]
    draft = make_comment("差", article=make_article(status=Article.Status.DRAFT))
    assert statuses(draft, None, draft.article.author) == [404, 200]


def test_it_is_read_only_and_of_comments_that_are_there(client: Client) -> None:
    client.force_login(make_user())
    assert_error(client.post(address_of(make_comment("好"))), 405, "method_not_allowed")
    assert_error(client.get("/api/v1/comments/404/explanation/"), 404, "not_found")


def test_the_schema_shows_an_example_with_the_fields_that_are_answered(client: Client) -> None:
    said = client.get(address_of(make_comment("味道好"))).json()
    schema = yaml.safe_load(client.get("/api/v1/schema/").content)
    responses = schema["paths"]["/api/v1/comments/{id}/explanation/"]["get"]["responses"]
    (example,) = responses["200"]["content"]["application/json"]["examples"].values()
    assert example["value"].keys() == said.keys()
    assert [part.keys() for part in example["value"]["parts"][:1]] == [said["parts"][0].keys()]
    assert {"404", "429", "503"} <= responses.keys()
