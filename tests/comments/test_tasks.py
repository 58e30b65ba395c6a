from __future__ import annotations

import pytest
from celery import current_app

from blog_site.comments import tasks
from blog_site.comments.models import Comment, Prediction
from tests.comments.inference_server import InferenceServer
from tests.comments.rows import make_comment

pytestmark = pytest.mark.django_db


def test_the_tasks_have_the_names_that_others_queue_them_by() -> None:
    current_app.loader.import_default_modules()
    assert {"comments.score_comment", "comments.sweep_unscored"} <= set(current_app.tasks)


def test_the_task_scores_its_comment(inference: InferenceServer) -> None:
    comment = make_comment()
    tasks.score_comment.apply(args=[comment.pk], throw=True)
    assert Prediction.objects.get().comment == comment


def test_a_second_delivery_asks_nobody(inference: InferenceServer) -> None:
    comment = make_comment()
    for _ in range(2):
        tasks.score_comment.apply(args=[comment.pk], throw=True)
    assert len(inference.asked) == 1


def test_a_comment_that_is_gone_is_no_error(inference: InferenceServer) -> None:
    tasks.score_comment.apply(args=[404], throw=True)
    assert inference.asked == []


def test_a_service_that_is_away_for_a_moment_is_asked_once_more(inference: InferenceServer) -> None:
    failures = iter([(503, {"detail": "restarting"})])
    inference.refusal = lambda texts: next(failures, None)
    comment = make_comment()
    result = tasks.score_comment.apply(args=[comment.pk])  # runs its retry in place
    assert result.successful()
    assert len(inference.asked) == 2
    assert Prediction.objects.get().comment == comment


def test_a_service_that_stays_away_is_left_to_the_sweep_with_one_line(
    inference: InferenceServer, caplog
) -> None:
    inference.refusal = lambda texts: (503, {"detail": "no model"})
    comment = make_comment()
    assert tasks.score_comment.apply(args=[comment.pk]).successful()
    assert (
        len(inference.asked) == 5
    )  # three attempts of the client; of the task's retry two, then the circuit opens
    assert Comment.objects.unscored().get() == comment
    own = [record for record in caplog.records if record.name == tasks.logger.name]
    assert [record.exc_info for record in own] == [None]
    assert "left to the sweep" in own[0].message


def test_the_sweep_task_sweeps(inference: InferenceServer) -> None:
    comment = make_comment(age_seconds=60)
    tasks.sweep_unscored.apply(throw=True)
    assert comment.current_prediction() is not None
