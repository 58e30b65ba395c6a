"""What the liveness probes of worker and beat look at: a real worker, and a real Redis that goes and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.servers import (
    find_free_port,
    find_program,
    redis_answers,
    running_server,
    stop_process,
    tied_to_parent,
)

PATIENCE_SECONDS = 90


def wait_for(condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come about:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "blog_site", *command],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=tied_to_parent(),
        )
    try:
        yield process
    finally:
        stop_process(process)


def redis_at(port: int, folder: Path) -> list[str]:
    command = [find_program("redis-server", "valkey-server"), "--bind", "127.0.0.1", "--port", str(port)]
    return [*command, "--dir", str(folder), "--save", ""]


def touched_since(file: Path, moment: float) -> bool:
    return file.exists() and file.stat().st_mtime > moment


@pytest.mark.servers
def test_a_worker_beats_while_it_takes_messages_and_not_while_its_broker_is_away(tmp_path: Path) -> None:
    port, heartbeat, log = find_free_port(), tmp_path / "heartbeat", tmp_path / "worker.log"
    environment = {"CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/1", "HEARTBEAT_FILE": str(heartbeat)}
    command = ["worker", "--pool", "threads", "--concurrency", "1", "--queues", "celery"]

    with ExitStack() as stack:
        with running_server(
            redis_at(port, tmp_path), log=tmp_path / "1.log", answers=lambda: redis_answers(port)
        ):
            worker = stack.enter_context(running(command, environment, log))
            wait_for(heartbeat.exists, "the first beat", log)
            first = heartbeat.stat().st_mtime
            wait_for(lambda: touched_since(heartbeat, first), "the second beat", log)

        wait_for(lambda: not heartbeat.exists(), "silence without a broker", log)
        assert worker.poll() is None

        with running_server(
            redis_at(port, tmp_path), log=tmp_path / "2.log", answers=lambda: redis_answers(port)
        ):
            wait_for(heartbeat.exists, "a beat after the broker came back", log)


@pytest.mark.servers
def test_a_worker_that_stands_still_stops_beating_but_keeps_its_file(tmp_path: Path) -> None:
    heartbeat, log = tmp_path / "heartbeat", tmp_path / "worker.log"
    command = ["worker", "--pool", "threads", "--concurrency", "1", "--queues", "heartbeat-test"]

    with running(command, {"HEARTBEAT_FILE": str(heartbeat)}, log) as worker:
        wait_for(heartbeat.exists, "the first beat", log)
        worker.send_signal(signal.SIGSTOP)
        probe = ["sh", "-c", f'test -z "$(find {heartbeat} -mmin +3 2>/dev/null)"']
        assert subprocess.run(probe, check=False).returncode == 0, "young: alive"
        four_minutes_ago = time.time() - 240
        os.utime(heartbeat, (four_minutes_ago, four_minutes_ago))
        assert subprocess.run(probe, check=False).returncode == 1, "old: not alive"
        worker.send_signal(signal.SIGCONT)
        wait_for(lambda: touched_since(heartbeat, four_minutes_ago + 1), "a beat after going on", log)


@pytest.mark.django_db(transaction=True)
def test_every_look_at_the_schedule_is_a_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_celery_beat.models import PeriodicTask

    from blog_site.celery import app
    from blog_site.schedule import BeatingScheduler

    heartbeat = tmp_path / "heartbeat"
    monkeypatch.setenv("HEARTBEAT_FILE", str(heartbeat))
    scheduler = BeatingScheduler(app=app, lazy=True)
    PeriodicTask.objects.all().delete()  # nothing is due

    scheduler.tick()
    assert heartbeat.exists()
