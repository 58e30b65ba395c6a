from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from blog_site.comments import nudges
from blog_site.comments.nudges import NudgeQueue
from tests.servers import find_free_port, find_program, redis_answers, running_server

TASKS = ["comments.score_comment", "labels.label_comment"]


@pytest.fixture
def make_app(monkeypatch) -> Iterator[Callable[[str], Celery]]:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)  # Celery puts it before every other configuration
    apps = []

    def make(url: str, **options: object) -> Celery:
        app = Celery("nudged", set_as_current=False)
        app.conf.update(broker_url=url, broker_transport_options=options, task_ignore_result=True)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def folder_app(make_app: Callable[..., Celery], folder: Path) -> Celery:
    return make_app(
        "folder://localhost",
        data_folder_in=str(folder),
        data_folder_out=str(folder),
        processed_folder=str(folder),
        control_folder=str(folder / "control"),
    )


def test_each_task_is_queued_with_the_id_of_the_row(make_app, tmp_path: Path) -> None:
    queue = NudgeQueue(folder_app(make_app, tmp_path))

    assert queue.nudge(TASKS, 17)

    messages = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.msg"))]
    assert [message["headers"]["task"] for message in messages] == TASKS
    assert [message["headers"]["argsrepr"] for message in messages] == ["[17]", "[17]"]


def test_a_broker_that_is_down_neither_raises_nor_holds_the_request(make_app, dead_port: int, caplog) -> None:
    queue = NudgeQueue(make_app(f"redis://127.0.0.1:{dead_port}/0"))
    started = time.monotonic()

    assert not queue.nudge(TASKS, 1)

    assert time.monotonic() - started < 5.0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_unwritable_folder_is_a_warning(make_app, tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("not a folder")
    queue = NudgeQueue(folder_app(make_app, tmp_path / "file" / "messages"))

    assert not queue.nudge(TASKS, 1)

    assert "Not a directory" in caplog.text


def test_a_broker_that_never_answers_costs_about_a_second_once(make_app, caplog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        queue = NudgeQueue(make_app(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        started = time.monotonic()
        assert not queue.nudge(TASKS, 1)
        first = time.monotonic() - started
        for row_id in range(2, 50):
            assert not queue.nudge(TASKS, row_id)
        later = time.monotonic() - started - first

    assert first < 2 * nudges.ANSWER_SECONDS
    assert later < 0.1
    assert len(caplog.records) == 1


def test_the_queue_is_tried_again_when_the_silence_is_over(make_app, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(nudges, "SILENCE_SECONDS", 0.05)
    obstacle = tmp_path / "messages"
    obstacle.write_text("not a folder")
    queue = NudgeQueue(folder_app(make_app, obstacle))
    assert not queue.nudge(TASKS, 1)
    obstacle.unlink()
    obstacle.mkdir()
    time.sleep(0.06)

    assert queue.nudge(TASKS, 2)
    assert len(list(obstacle.glob("*.msg"))) == 2


@pytest.mark.servers
def test_a_redis_that_comes_back_takes_nudges_again(make_app, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nudges, "SILENCE_SECONDS", 0.0)
    port = find_free_port()
    command = [
        find_program("redis-server", "valkey-server"),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
    ]
    queue = NudgeQueue(make_app(f"redis://127.0.0.1:{port}/0"))

    with running_server(command, log=tmp_path / "redis.log", answers=lambda: redis_answers(port)):
        assert queue.nudge(TASKS, 1)
    assert not queue.nudge(TASKS, 2)
    with running_server(command, log=tmp_path / "redis.log", answers=lambda: redis_answers(port)):
        assert queue.nudge(TASKS, 3)
