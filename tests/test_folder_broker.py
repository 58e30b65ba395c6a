"""The queue in a folder, between real producer and worker processes."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 60.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"VAR_DIR": str(tmp_path), "CELERY_BROKER_URL": "folder://", "PYTHONUNBUFFERED": "1"}


def start_producer(
    environment: dict[str, str], *, first: int, count: int, seconds: float = 0.0
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.queue_app", str(first), str(count), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def queue_notes(environment: dict[str, str], *, first: int, count: int, seconds: float = 0.0) -> None:
    with start_producer(environment, first=first, count=count, seconds=seconds) as producer:
        assert producer.wait(PATIENCE_SECONDS) == 0


@contextmanager
def running_worker(environment: dict[str, str], name: str) -> Iterator[subprocess.Popen[bytes]]:
    """One worker that takes one task at a time; its log is VAR_DIR/<name>.log."""
    log = Path(environment["VAR_DIR"]) / f"{name}.log"
    command = [sys.executable, "-m", "celery", "-A", "tests.queue_app", "worker", "--pool", "solo"]
    command += ["--hostname", f"{name}@%h", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    with log.open("wb") as output:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield worker
        if worker.poll() is None:
            worker.terminate()
            worker.wait(PATIENCE_SECONDS)
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
        sys.stderr.write(log.read_text())  # shown when the test fails
    assert "Traceback" not in log.read_text(), log.read_text()


def wait_until(condition: Callable[[], bool], what: str, *workers: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert all(worker.poll() is None for worker in workers), f"a worker ended before {what}"
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s until {what}"
        time.sleep(0.05)


def read_notes(folder: Path) -> list[str]:
    file = folder / "notes"
    return file.read_text().split() if file.exists() else []


def waiting_messages(folder: Path) -> list[Path]:
    return sorted((folder / "queue" / "messages").glob("*.msg"))


def number_of(message: Path) -> str:
    arguments, _, _ = json.loads(base64.b64decode(json.loads(message.read_text())["body"]))
    return str(arguments[0])


def test_messages_of_concurrent_producers_reach_one_of_two_workers_whole_and_once(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with running_worker(environment, "one") as one, running_worker(environment, "two") as two:
        producers = [start_producer(environment, first=100 * n, count=50) for n in range(3)]
        assert [producer.wait(PATIENCE_SECONDS) for producer in producers] == [0, 0, 0]
        wait_until(lambda: len(read_notes(tmp_path)) >= 150, "150 notes are taken", one, two)

    expected = [str(100 * n + i) for n in range(3) for i in range(50)]
    assert sorted(read_notes(tmp_path)) == sorted(expected)
    assert waiting_messages(tmp_path) == []


def test_messages_wait_for_a_worker_and_are_taken_in_order(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    queue_notes(environment, first=0, count=20)
    queue_notes(environment, first=20, count=20)
    assert [number_of(message) for message in waiting_messages(tmp_path)] == [str(n) for n in range(40)]

    with running_worker(environment, "late") as worker:
        wait_until(lambda: len(read_notes(tmp_path)) >= 40, "40 notes are taken", worker)

    assert read_notes(tmp_path) == [str(n) for n in range(40)]


def test_a_killed_worker_loses_nothing_that_it_had_not_taken(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    queue_notes(environment, first=0, count=40, seconds=0.1)
    with running_worker(environment, "killed") as worker:
        wait_until(lambda: len(read_notes(tmp_path)) >= 3, "some notes are taken", worker)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    before, left = read_notes(tmp_path), [number_of(message) for message in waiting_messages(tmp_path)]
    assert left, "the worker was killed too late to leave anything"

    with running_worker(environment, "next") as worker:
        wait_until(lambda: len(read_notes(tmp_path)) >= len(before) + len(left), "the rest is taken", worker)

    assert read_notes(tmp_path) == before + left


def test_a_message_being_written_is_not_taken(tmp_path: Path, environment: dict[str, str]) -> None:
    queue_notes(environment, first=1, count=1)
    (whole,) = waiting_messages(tmp_path)
    unfinished = whole.with_name(f".{whole.name.replace('0', '1', 1)}.unfinished")
    unfinished.write_text(whole.read_text()[:100], encoding="utf-8")

    with running_worker(environment, "careful") as worker:
        wait_until(lambda: read_notes(tmp_path) == ["1"], "the whole message is taken", worker)

    assert unfinished.exists()
