from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from celery import Celery
from django.conf import settings as django_settings
from django.db import connection, transaction

from blog_site.comments import nudges, services
from blog_site.comments.inference import InferenceError
from blog_site.comments.models import Comment, Decision, Prediction, Sentiment
from blog_site.comments.text import CommentRejected
from ml.label_set import LABELS
from ml.text import text_digest
from tests.comments.inference_server import MODEL_A, MODEL_B, InferenceServer
from tests.comments.rows import make_article, make_comment, make_user

pytestmark = pytest.mark.django_db


class RecordingQueue:
    """Takes the place of the broker, which has tests of its own."""

    def __init__(self) -> None:
        self.nudged: list[tuple[list[str], int]] = []

    def nudge(self, tasks: list[str], row_id: int) -> bool:
        self.nudged.append((tasks, row_id))
        return True


@pytest.fixture
def queue(monkeypatch) -> RecordingQueue:
    recording = RecordingQueue()
    monkeypatch.setattr(nudges, "open_queue", lambda: recording)
    return recording


def run_in_threads(work: Callable[[], object], times: int) -> list[Exception]:
    """Do the same in several threads that start together; gives what they raised."""
    barrier, raised = threading.Barrier(times), []

    def run() -> None:
        try:
            barrier.wait(timeout=10)
            work()
        except Exception as error:
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return raised


def test_the_sentiments_are_the_classes_of_the_model() -> None:
    assert tuple(Sentiment.values) == LABELS


# -- Posting --


def test_a_posted_comment_is_saved_and_queued_after_commit(queue, django_capture_on_commit_callbacks) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        comment = services.post_comment(article=make_article(), author=make_user(), text=" 好喝 \r\n")
        assert queue.nudged == []

    comment.refresh_from_db()
    assert comment.text == "好喝"
    assert comment.text_digest == text_digest("好喝")
    assert queue.nudged == [(django_settings.COMMENT_POSTED_TASKS, comment.pk)]


def test_emoji_come_back_from_the_database_intact() -> None:
    text = "👩‍👩‍👧‍👦❤️🇨🇳\U0001fae8"
    comment = services.post_comment(article=make_article(), author=make_user(), text=text)
    assert Comment.objects.get(pk=comment.pk).text == text


def test_the_longest_comment_of_the_widest_characters_fits_the_table() -> None:
    comment = services.post_comment(article=make_article(), author=make_user(), text="😀" * 10_000)
    assert Comment.objects.get(pk=comment.pk).text == "😀" * 10_000


@pytest.mark.parametrize("text", ["", "\u200b", "好" * 10_001, "好\x00", "\ud800", "a\x1bb"])
def test_a_rejected_comment_leaves_no_row(text: str) -> None:
    article, author = make_article(), make_user()
    with pytest.raises(CommentRejected):
        services.post_comment(article=article, author=author, text=text)
    assert not Comment.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_comment_is_never_queued(queue) -> None:
    article, author = make_article(), make_user()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        services.post_comment(article=article, author=author, text="好喝")
        raise ZeroDivisionError
    assert queue.nudged == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("failure", [OSError("no space left"), RuntimeError("a bug in a library")])
def test_no_failure_of_the_queue_fails_the_request(monkeypatch, failure: Exception) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr(nudges, "open_queue", fail)
    comment = services.post_comment(article=make_article(), author=make_user(), text="好喝")
    assert Comment.objects.unscored().get() == comment


@pytest.mark.django_db(transaction=True)
def test_a_comment_is_posted_at_once_while_the_broker_is_down(monkeypatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)  # Celery puts it before every other configuration
    app = Celery("nobody", set_as_current=False, broker="redis://127.0.0.1:1/0")
    monkeypatch.setattr(nudges, "open_queue", lambda: nudges.NudgeQueue(app))
    article, author = make_article(), make_user()
    started = time.monotonic()

    services.post_comment(article=article, author=author, text="好喝")

    assert time.monotonic() - started < 5.0
    assert Comment.objects.count() == 1


def test_an_edited_text_is_queued_again(queue, django_capture_on_commit_callbacks) -> None:
    comment = make_comment("好喝")
    with django_capture_on_commit_callbacks(execute=True):
        services.edit_comment(comment=comment, text="难喝")
    comment.refresh_from_db()
    assert (comment.text, comment.text_digest) == ("难喝", text_digest("难喝"))
    assert [row_id for _tasks, row_id in queue.nudged] == [comment.pk]


def test_an_edit_that_changes_nothing_a_model_sees_is_not_queued(
    queue, django_capture_on_commit_callbacks
) -> None:
    comment = make_comment("好喝")
    with django_capture_on_commit_callbacks(execute=True):
        services.edit_comment(comment=comment, text="好喝\u200b")
    assert Comment.objects.get().text == "好喝\u200b"
    assert queue.nudged == []


def test_a_rejected_edit_keeps_the_old_text() -> None:
    comment = make_comment("好喝")
    with pytest.raises(CommentRejected):
        services.edit_comment(comment=comment, text=" ")
    assert Comment.objects.get().text == "好喝"


def test_deleting_twice_does_no_harm() -> None:
    comment = make_comment()
    services.delete_comment(comment=comment)
    services.delete_comment(comment=comment)
    assert not Comment.objects.exists()


def test_decisions_count_only_what_they_change() -> None:
    article, moderator = make_article(), make_user()
    for number in range(3):
        make_comment(f"好{number}", article=article)
    filtered = Comment.objects.filter(article__slug=article.slug)

    assert services.decide(comments=filtered.all(), action="hide", by=moderator, reason="跑题") == 3
    assert services.decide(comments=filtered.all(), action="hide", by=moderator) == 0
    assert not Comment.objects.visible().exists()
    assert services.decide(comments=filtered.all(), action="restore", by=moderator) == 3
    assert Comment.objects.visible().count() == 3
    rows = set(Decision.objects.values_list("by", "from_status", "to_status", "action", "reason"))
    assert rows == {
        (moderator.pk, "visible", "hidden", "hide", "跑题"),
        (moderator.pk, "hidden", "visible", "restore", ""),
    }
    assert Decision.objects.count() == 6


# -- Scoring --


def test_a_prediction_holds_what_the_model_said(inference: InferenceServer) -> None:
    comment = make_comment("味道真好")

    (prediction,) = services.score_comments(comments=[comment])

    prediction.refresh_from_db()
    assert (prediction.comment, prediction.label, prediction.score) == (comment, "positive", 0.9)
    assert prediction.probabilities == {"negative": 0.05, "neutral": 0.05, "positive": 0.9}
    assert (prediction.model_digest, prediction.text_digest) == (MODEL_A, comment.text_digest)
    assert prediction.latency_ms > 0


def test_comments_are_asked_about_in_requests_of_at_most_64(inference: InferenceServer) -> None:
    article, author = make_article(), make_user()
    comments = [make_comment(f"第{n}条", article=article, author=author) for n in range(130)]

    predictions = services.score_comments(comments=comments)

    assert [len(texts) for texts in inference.asked] == [64, 64, 2]
    assert {p.comment_id for p in predictions} == {c.pk for c in comments}


def test_two_comments_with_the_same_text_both_get_a_prediction(inference: InferenceServer) -> None:
    services.score_comments(comments=[make_comment("好"), make_comment("好")])
    assert Prediction.objects.count() == 2


def test_a_retry_does_not_score_twice(inference: InferenceServer) -> None:
    comment = make_comment()
    first = services.score_comments(comments=[comment])
    second = services.score_comments(comments=[comment])
    assert [p.pk for p in first] == [p.pk for p in second] == [Prediction.objects.get().pk]


def test_a_new_model_version_adds_its_prediction(inference: InferenceServer) -> None:
    comment = make_comment()
    services.score_comments(comments=[comment])
    inference.model = MODEL_B
    services.score_comments(comments=[comment])
    assert comment.current_prediction().model_digest == MODEL_B
    assert Prediction.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_workers_that_score_the_same_comments_at_once_make_one_prediction_each(
    inference: InferenceServer,
) -> None:
    article, author = make_article(), make_user()
    comments = [make_comment(f"第{n}条", article=article, author=author) for n in range(5)]

    raised = run_in_threads(lambda: services.score_comments(comments=comments), times=4)

    assert raised == []
    assert Prediction.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_a_comment_deleted_while_the_model_thinks_is_skipped(inference: InferenceServer) -> None:
    kept, deleted = make_comment("好"), make_comment("差")

    def delete(texts: list[str]) -> None:
        Comment.objects.filter(pk=deleted.pk).delete()
        connection.close()

    inference.before_answering = delete
    predictions = services.score_comments(comments=[kept, deleted])
    assert [p.comment_id for p in predictions] == [kept.pk]


@pytest.mark.django_db(transaction=True)
def test_a_comment_edited_while_the_model_thinks_stays_unscored(inference: InferenceServer) -> None:
    comment = make_comment("好")

    def edit(texts: list[str]) -> None:
        services.edit_comment(comment=Comment.objects.get(pk=comment.pk), text="差")
        connection.close()

    inference.before_answering = edit
    assert services.score_comments(comments=[comment]) == []
    assert Comment.objects.unscored().get() == comment


def test_one_refused_text_holds_up_nobody(inference: InferenceServer, caplog) -> None:
    inference.refusal = lambda texts: (422, {"detail": "no such text"}) if "坏" in texts else None
    comments = [make_comment("好"), make_comment("坏"), make_comment("差")]

    predictions = services.score_comments(comments=comments)

    assert {p.comment_id for p in predictions} == {comments[0].pk, comments[2].pk}
    assert f"comment {comments[1].pk}: not scored" in caplog.text


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [
        ((503, {"detail": "no model"}), False),
        ((422, {"detail": "no"}), True),
        ((200, b"<html>"), False),
        ((200, {"model": MODEL_A, "predictions": []}), False),
        (
            (
                200,
                {"model": "latest", "predictions": [{"label": "positive", "score": 1, "probabilities": {}}]},
            ),
            True,
        ),
        (
            (200, {"model": MODEL_A, "predictions": [{"label": "good", "score": 1, "probabilities": {}}]}),
            True,
        ),
    ],
)
def test_a_useless_answer_is_an_error_and_stores_nothing(
    inference: InferenceServer, answer, permanent: bool
) -> None:
    inference.refusal = lambda texts: answer
    with pytest.raises(InferenceError) as error:
        services.score_comments(comments=[make_comment()])
    assert error.value.permanent is permanent
    assert not Prediction.objects.exists()


def test_a_service_that_hangs_is_given_up(inference: InferenceServer, settings) -> None:
    settings.INFERENCE_TIMEOUT_SECONDS = 0.1
    inference.before_answering = lambda texts: time.sleep(0.5)
    with pytest.raises(InferenceError) as error:
        services.score_comments(comments=[make_comment()])
    assert not error.value.permanent


# -- Sweeping --


def test_the_sweep_scores_old_comments_and_leaves_young_ones_to_their_nudge(
    inference: InferenceServer,
) -> None:
    old, young = make_comment("好", age_seconds=60), make_comment("差")
    assert services.sweep_unscored() == services.Sweep(done=1, stopped=False)
    assert Prediction.objects.get().comment == old
    assert Comment.objects.unscored().get() == young


def test_the_sweep_clears_three_hundred_comments_in_seconds(inference: InferenceServer, settings) -> None:
    settings.SWEEP_BATCH = 100
    article, author = make_article(), make_user()
    Comment.objects.bulk_create(
        Comment(article=article, author=author, text=f"第{n}条", text_digest=text_digest(f"第{n}条"))
        for n in range(300)
    )
    settings.SWEEP_AFTER_SECONDS = -1
    started = time.process_time()
    assert services.sweep_unscored().done == 300
    assert time.process_time() - started < 5
    assert not Comment.objects.unscored().exists()


def test_the_sweep_stops_quietly_while_the_service_is_down_and_goes_on_when_it_is_back(
    inference: InferenceServer, caplog
) -> None:
    comment = make_comment(age_seconds=60)
    inference.stop()
    assert services.sweep_unscored() == services.Sweep(done=0, stopped=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].exc_info is None

    inference.start()
    assert services.sweep_unscored() == services.Sweep(done=1, stopped=False)
    assert comment.current_prediction() is not None


def test_a_refused_text_does_not_keep_the_sweep_from_the_next_batch(
    inference: InferenceServer, settings
) -> None:
    settings.SWEEP_BATCH = 2
    for text in ("坏", "好", "差", "好吧"):
        make_comment(text, age_seconds=60)
    inference.refusal = lambda texts: (422, {"detail": "no"}) if "坏" in texts else None
    assert services.sweep_unscored() == services.Sweep(done=3, stopped=False)


def test_the_sweep_ends_when_its_time_is_up(inference: InferenceServer, monkeypatch) -> None:
    monkeypatch.setattr(services, "SWEEP_SECONDS", 0)
    make_comment(age_seconds=60)
    assert services.sweep_unscored() == services.Sweep(done=0, stopped=False)
