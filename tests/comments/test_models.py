from __future__ import annotations

import pytest

from blog_site.comments.models import Comment, Prediction
from tests.comments.rows import make_comment

pytestmark = pytest.mark.django_db


def make_prediction(comment: Comment, model: str = "a", **fields) -> Prediction:
    fields = {"label": "positive", "score": 0.9, "probabilities": {}, "latency_ms": 1.0, **fields}
    fields.setdefault("text_digest", comment.text_digest)
    return Prediction.objects.create(comment=comment, model_digest=model * 64, **fields)


def test_a_comment_without_a_prediction_of_its_present_text_is_unscored() -> None:
    scored, superseded, new = make_comment("好"), make_comment("差"), make_comment("中")
    make_prediction(scored)
    make_prediction(superseded, text_digest="0" * 64)
    assert set(Comment.objects.unscored()) == {superseded, new}


def test_the_current_prediction_is_the_newest_of_the_present_text() -> None:
    comment = make_comment()
    make_prediction(comment, "a")
    newest = make_prediction(comment, "b")
    make_prediction(comment, "c", text_digest="0" * 64)
    assert comment.current_prediction() == newest
    assert Comment.objects.with_predictions().get().current_prediction() == newest


def test_a_comment_that_waits_has_no_current_prediction() -> None:
    comment = make_comment()
    make_prediction(comment, text_digest="0" * 64)
    assert comment.current_prediction() is None


def test_current_predictions_of_a_list_take_no_query_each(django_assert_num_queries) -> None:
    for _ in range(5):
        make_prediction(make_comment())
    with django_assert_num_queries(2):
        assert all(comment.current_prediction() for comment in Comment.objects.with_predictions())


def test_hidden_comments_are_not_visible() -> None:
    shown = make_comment()
    make_comment(status=Comment.Status.HIDDEN)
    assert Comment.objects.visible().get() == shown
