"""One id from the browser's request through the queue to the inference service, and in every line about it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.core.cache import cache
from django.test import Client

from blog_site.comments import nudges, services, tasks
from blog_site.comments.models import Prediction
from blog_site.comments.nudges import NudgeQueue
from blog_site.tracing import OriginFilter, current_origin, working_for
from tests.comments.conftest import inference
from tests.comments.inference_server import InferenceServer
from tests.comments.rows import make_article, make_comment, make_user

__all__ = ["inference"]
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
MADE = re.compile("[0-9a-f]{32}")


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


def test_an_answer_names_its_request_by_the_id_that_came() -> None:
    assert (
        Client().get("/livez", headers={"X-Request-ID": "order-7/retry:2"})["X-Request-ID"]
        == "order-7/retry:2"
    )


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "-x", "名", '{"a"}', "a\tb"])
def test_an_id_that_is_none_is_replaced(given: str) -> None:
    first, second = (
        Client().get("/livez", headers={"X-Request-ID": given})["X-Request-ID"] for _ in range(2)
    )
    assert MADE.fullmatch(first)
    assert first != second


def test_redirects_and_errors_are_named_too(settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    for address in ("/livez", "/nothing-is-here/"):
        assert Client().get(address, headers={"X-Request-ID": "seven"})["X-Request-ID"] == "seven"


@pytest.mark.django_db
def test_what_a_page_asks_of_the_service_carries_its_id_and_its_trace(inference: InferenceServer) -> None:
    address = f"/comments/{make_comment('好').pk}/explanation/"
    Client().get(address, headers={"X-Request-ID": "page-1", "traceparent": PARENT})
    (asked,) = inference.headers
    assert asked["x-request-id"] == "page-1"
    version, trace, span, flags = asked["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != "b7ad6b7169203331"
    assert current_origin().request_id == ""


@pytest.mark.django_db
def test_a_request_without_a_trace_begins_none(inference: InferenceServer) -> None:
    Client().get(f"/comments/{make_comment('好').pk}/explanation/")
    assert "traceparent" not in inference.headers[0]
    assert MADE.fullmatch(inference.headers[0]["x-request-id"])


@pytest.fixture
def messages(settings, monkeypatch, tmp_path: Path) -> Iterator[Path]:
    """The folder in which nudges become messages."""
    app = current_app._get_current_object()
    folders = ("data_folder_in", "data_folder_out", "processed_folder")
    options = dict.fromkeys(folders, str(tmp_path)) | {"control_folder": str(tmp_path / "control")}
    connection = app.connection_for_write("folder://localhost", transport_options=options)
    queue = NudgeQueue(app)
    queue.__dict__["_connection"] = connection  # a cached property
    monkeypatch.setattr(nudges, "_queue_of", lambda _: queue)
    yield tmp_path
    connection.release()


def deliver(message: Path) -> None:
    """Run the task of a message as a worker does: with what came in its headers."""
    document = json.loads(message.read_text())
    headers: dict[str, Any] = document["headers"]
    task = current_app.tasks[headers["task"]]
    known = {name: headers[name] for name in ("X-Request-ID", "traceparent") if name in headers}
    task.apply(args=json.loads(headers["argsrepr"]), task_id=headers["id"], headers=known, throw=True)


@pytest.mark.django_db(transaction=True)
def test_the_task_that_a_request_queued_asks_the_service_in_its_name(
    inference: InferenceServer, messages: Path, settings
) -> None:
    settings.COMMENT_POSTED_TASKS = ["comments.score_comment"]
    article, author = make_article(), make_user()
    with working_for({"X-Request-ID": "post-1", "traceparent": PARENT}):
        services.post_comment(article=article, author=author, text="味道真好")
    (message,) = messages.glob("*.msg")
    deliver(message)
    assert Prediction.objects.count() == 1
    assert inference.headers[0]["x-request-id"] == "post-1"
    assert inference.headers[0]["traceparent"].split("-")[1] == TRACE


@pytest.mark.django_db
def test_a_task_that_no_request_queued_is_named_by_its_own_id(inference: InferenceServer) -> None:
    tasks.score_comment.apply(args=[make_comment().pk], task_id="0c1d-of-the-beat", throw=True)
    assert inference.headers[0]["x-request-id"] == "0c1d-of-the-beat"
    assert current_origin().request_id == ""


@pytest.mark.django_db
def test_a_task_that_is_tried_again_keeps_its_origin(inference: InferenceServer) -> None:
    failures = iter([(503, {"detail": "restarting"})])
    inference.refusal = lambda texts: next(failures, None)
    tasks.score_comment.apply(args=[make_comment().pk], headers={"X-Request-ID": "post-2"})
    assert [asked["x-request-id"] for asked in inference.headers] == ["post-2", "post-2"]


def test_every_line_names_the_request_it_is_about(settings) -> None:
    record = logging.makeLogRecord({"msg": "something"})
    with working_for({"X-Request-ID": "line-1"}):
        assert OriginFilter().filter(record)
    line = logging.Formatter(settings.LOGGING["formatters"]["line"]["format"]).format(record)
    assert line.endswith("[line-1] something")
    OriginFilter().filter(record)
    assert record.request_id == "-"
