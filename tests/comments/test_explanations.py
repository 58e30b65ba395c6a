from __future__ import annotations

import threading
import time

import pytest
from django.core.cache import cache
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from blog_site.articles.models import Article
from blog_site.comments import explanations
from blog_site.comments.explanations import Part, TooManyAsked, explain_comment
from blog_site.comments.inference import InferenceError
from blog_site.comments.models import Comment
from blog_site.users.models import User
from blog_site.users.services import grant_moderators
from tests.comments.inference_server import MODEL_B, InferenceServer
from tests.comments.rows import make_article, make_comment, make_user
from tests.comments.test_models import make_prediction

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


def explain(comment: Comment, asker: str = "reader") -> explanations.Explanation:
    return explain_comment(comment=comment, asker=asker)


def page_of(comment: Comment, *, part: bool = False) -> str:
    return reverse(f"comments:explanation{'_part' if part else ''}", args=[comment.pk])


# -- What an explanation says --


def test_the_parts_are_the_whole_text_and_words_are_weighed(inference: InferenceServer) -> None:
    found = explain(make_comment("味道好，分量差"))
    assert [(part.text, part.side, part.level) for part in found.parts] == [
        ("味道", "", 0),
        ("好", "for", 3),
        ("，分量", "", 0),
        ("差", "against", 2),
    ]
    assert (found.label, found.score) == ("positive", 0.9)
    assert (found.words_for(), found.words_against()) == (["好"], ["差"])


def test_a_part_says_how_certain_the_model_would_be_without_it(inference: InferenceServer) -> None:
    found = {part.text: part.score_without for part in explain(make_comment("好差")).parts}
    assert found["好"] == pytest.approx(0.549, abs=0.001)  # odds of 9 to 1, divided by e²
    assert found["差"] == pytest.approx(0.961, abs=0.001)


def test_where_no_word_weighs_much_none_is_marked(inference: InferenceServer) -> None:
    found = explain(make_comment("一碗面"))
    assert found.parts == (Part("一碗面"),)
    assert found.words_for() == found.words_against() == []


SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.floats(-20, 20)), max_size=12)


@given(SPANS, st.floats(0, 1))
def test_whatever_is_weighed_nothing_of_the_text_is_lost(
    gaps: list[tuple[int, int, float]], score: float
) -> None:
    spans, place = [], 0
    for gap, length, weight in gaps:
        spans.append((place + gap, place + gap + length, weight))
        place += gap + length
    text = "".join(chr(0x4E00 + index) for index in range(place + 2))
    parts = list(explanations._parts(text, spans, score))
    assert "".join(part.text for part in parts) == text
    assert all(0 <= part.score_without <= 1 for part in parts)
    assert all((part.level > 0) == (part.side != "") for part in parts)


def test_an_explanation_that_does_not_fit_is_an_error(inference: InferenceServer) -> None:
    wrong = {"label": "positive", "score": 0.9, "probabilities": {}, "explanation": [{"start": 0, "end": 99}]}
    inference.refusal = lambda texts: (200, {"model": "a" * 64, "predictions": [wrong]})
    with pytest.raises(InferenceError):
        explain(make_comment("好"))


# -- Asking once --


def test_a_text_is_asked_about_once_for_all_its_readers(inference: InferenceServer) -> None:
    one, other = make_comment("好吃"), make_comment("好吃")
    make_prediction(one)
    make_prediction(other)
    assert explain(one) == explain(other, "somebody else")
    assert inference.explained == [["好吃"]]


def test_texts_that_only_read_the_same_have_their_words_in_their_own_places(
    inference: InferenceServer,
) -> None:
    narrow, wide = make_comment("OK 好吃"), make_comment("ＯＫ　　好吃")
    assert narrow.text_digest == wide.text_digest
    for comment in (narrow, wide):
        make_prediction(comment)
        assert "".join(part.text for part in explain(comment).parts) == comment.text


def test_another_model_is_asked_anew(inference: InferenceServer) -> None:
    comment = make_comment("好吃")
    make_prediction(comment, "a")
    explain(comment)
    inference.model = MODEL_B
    make_prediction(comment, "b")
    explain(comment)
    assert len(inference.explained) == 2


def test_what_another_model_than_the_badges_says_is_not_kept_for_long(
    inference: InferenceServer, monkeypatch
) -> None:
    monkeypatch.setattr(explanations, "KEPT_BRIEFLY_SECONDS", 0.05)
    inference.model = MODEL_B
    comment = make_comment("好吃")
    make_prediction(comment, "a")
    explain(comment)
    time.sleep(0.1)
    explain(comment)
    assert len(inference.explained) == 2


def test_one_reader_gets_so_many_new_ones_a_minute_and_kept_ones_without_end(
    inference: InferenceServer, settings
) -> None:
    settings.EXPLANATIONS_PER_MINUTE = 2
    first, second, third = (make_comment(f"好{number}") for number in range(3))
    explain(first)
    explain(second)
    with pytest.raises(TooManyAsked) as refused:
        explain(third)
    assert 0 < refused.value.retry_after_seconds <= 60
    for _ in range(5):
        explain(first)
    explain(third, "somebody else")
    assert len(inference.explained) == 3


def test_the_service_is_given_a_short_time_and_the_token(inference: InferenceServer, settings) -> None:
    settings.EXPLANATION_TIMEOUT_SECONDS = 0.3
    settings.INFERENCE_TOKEN = "secret"
    given_up = threading.Event()
    waited: list[bool] = []
    inference.before_answering = lambda texts: waited.append(given_up.wait(60))
    with pytest.raises(InferenceError):
        explain(make_comment("好"))
    assert waited == []  # it has not answered yet
    given_up.set()
    assert int(inference.headers[0]["x-request-timeout-ms"]) <= 300
    assert inference.headers[0]["authorization"] == "Bearer secret"


# -- The page and the part of it --


def test_the_part_shows_the_text_with_its_words_marked(client, inference: InferenceServer) -> None:
    comment = make_comment("味道好，<b>差")
    answer = client.get(page_of(comment, part=True))
    html = answer.content.decode()
    assert answer.status_code == 200
    assert '<mark class="word word-for word-3" title="没有它，把握是 55%">好</mark>' in html
    assert '<mark class="word word-against word-2" title="没有它，把握是 96%">差</mark>' in html
    assert "&lt;b&gt;" in html
    assert "<html" not in html
    assert "no-store" in answer["Cache-Control"]


def test_without_a_script_the_page_shows_the_same_and_leads_back(client, inference: InferenceServer) -> None:
    comment = make_comment("味道好")
    html = client.get(page_of(comment)).content.decode()
    assert "<html" in html
    assert ">好</mark>" in html
    assert f'href="{comment.get_absolute_url()}"' in html


@pytest.mark.parametrize("part", [True, False])
def test_a_model_that_is_away_is_said_kindly(client, inference: InferenceServer, part: bool) -> None:
    inference.refusal = lambda texts: (503, {"detail": "no model"})
    answer = client.get(page_of(make_comment("好"), part=part))
    assert answer.status_code == 503
    assert "暂时联系不上模型" in answer.content.decode()
    assert "no model" not in answer.content.decode()


def test_who_asks_too_fast_is_told_so(client, inference: InferenceServer, settings) -> None:
    settings.EXPLANATIONS_PER_MINUTE = 1
    client.get(page_of(make_comment("好"), part=True))
    answer = client.get(page_of(make_comment("差"), part=True))
    assert answer.status_code == 429
    assert "你问得太快了" in answer.content.decode()
    assert 0 < int(answer["Retry-After"]) <= 60


def ask_from(client, address: str, comment: Comment) -> int:
    """Ask as a request does that the gateway, 192.0.2.1, passes on for a reader."""
    headers = {"X-Real-IP": address}
    return client.get(page_of(comment, part=True), headers=headers, REMOTE_ADDR="192.0.2.1").status_code


def test_readers_behind_the_gateway_are_counted_by_their_own_addresses(
    client, inference: InferenceServer, settings
) -> None:
    settings.EXPLANATIONS_PER_MINUTE, settings.BEHIND_GATEWAY = 1, True
    assert ask_from(client, "198.51.100.7", make_comment("好")) == 200
    assert ask_from(client, "198.51.100.7", make_comment("好吃")) == 429
    assert ask_from(client, "2001:db8::7", make_comment("差")) == 200


def test_without_a_gateway_nobody_is_counted_anew_by_naming_another_address(
    client, inference: InferenceServer, settings
) -> None:
    settings.EXPLANATIONS_PER_MINUTE, settings.BEHIND_GATEWAY = 1, False
    assert ask_from(client, "198.51.100.7", make_comment("好")) == 200
    assert ask_from(client, "198.51.100.8", make_comment("差")) == 429


# -- Who may see it --


@pytest.fixture
def moderator() -> User:
    user = make_user("moderator", is_staff=True)
    user.groups.add(grant_moderators())
    return user


def readers(client, comment: Comment, *users: User | None) -> list[int]:
    """What each of them gets; None is a stranger."""
    statuses = []
    for user in users:
        client.logout()
        if user:
            client.force_login(user)
        statuses.append(client.get(page_of(comment, part=True)).status_code)
    return statuses


def test_a_shown_comment_is_explained_to_everybody(client, inference: InferenceServer) -> None:
    assert readers(client, make_comment("好"), None, make_user()) == [200, 200]


def test_a_hidden_comment_is_explained_to_its_author_and_moderators(
    client, inference: InferenceServer, moderator: User
) -> None:
    comment = make_comment("好", status=Comment.Status.HIDDEN)
    found = readers(client, comment, None, make_user(), comment.article.author, comment.author, moderator)
    assert found == [404, 404, 404, 200, 200]


def test_a_comment_under_a_draft_is_explained_to_those_who_can_read_it(
    client, inference: InferenceServer, moderator: User
) -> None:
    comment = make_comment("好", article=make_article(status=Article.Status.DRAFT))
    found = readers(client, comment, None, make_user(), comment.article.author, comment.author, moderator)
    assert found == [404, 404, 200, 200, 200]


def test_what_nobody_may_see_costs_the_service_nothing(client, inference: InferenceServer) -> None:
    readers(client, make_comment("好", status=Comment.Status.HIDDEN), None, make_user())
    assert inference.explained == []


@pytest.mark.parametrize("number", ["404", "9" * 18])
def test_a_comment_that_is_not_there_is_not_found(client, inference: InferenceServer, number: str) -> None:
    assert client.get(f"/comments/{number}/explanation/part/").status_code == 404


def test_asking_changes_nothing_and_cannot_be_posted(client, inference: InferenceServer) -> None:
    assert client.post(page_of(make_comment("好"))).status_code == 405


def test_moderators_find_the_reasons_beside_the_comment(
    client, inference: InferenceServer, moderator: User
) -> None:
    comment = make_comment("好", status=Comment.Status.HIDDEN)
    client.force_login(moderator)
    page = client.get(reverse("admin:comments_comment_change", args=[comment.pk])).content.decode()
    assert f'href="{page_of(comment)}"' in page
