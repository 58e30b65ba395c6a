from __future__ import annotations

import pytest
from celery import current_app

from blog_site.labels import tasks
from blog_site.labels.models import Label
from tests.comments.rows import make_comment
from tests.labels.language_model import LanguageModelServer, completion, failure

pytestmark = pytest.mark.django_db


def test_the_tasks_have_the_names_that_others_queue_them_by() -> None:
    current_app.loader.import_default_modules()
    assert {"labels.label_comment", "labels.sweep_unlabelled"} <= set(current_app.tasks)


def test_the_task_labels_its_comment_once_however_often_it_is_delivered(
    language_model: LanguageModelServer,
) -> None:
    comment = make_comment()
    for _ in range(3):
        tasks.label_comment.apply(args=[comment.pk], throw=True)
    assert Label.objects.get().comment == comment
    assert len(language_model.requests) == 1


def test_a_comment_that_is_gone_is_no_error(language_model: LanguageModelServer) -> None:
    tasks.label_comment.apply(args=[404], throw=True)
    assert language_model.requests == []


@pytest.mark.parametrize("reply", [failure(503), failure(401), failure(400), completion("?")])
def test_a_failure_is_one_line_and_left_to_the_sweep(
    language_model: LanguageModelServer, reply, caplog
) -> None:
    language_model.reply = lambda request: reply
    tasks.label_comment.apply(args=[make_comment().pk], throw=True)
    own = [record for record in caplog.records if record.name == tasks.logger.name]
    assert [record.exc_info for record in own] == [None]
    assert not Label.objects.exists()


def test_the_sweep_task_sweeps(language_model: LanguageModelServer) -> None:
    make_comment(age_seconds=60)
    tasks.sweep_unlabelled.apply(throw=True)
    assert Label.objects.count() == 1
