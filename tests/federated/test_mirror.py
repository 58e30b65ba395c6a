from __future__ import annotations

import threading
from pathlib import Path

from federated.mirror import DiaryMirror
from federated.protocol import ProgressLog
from federated.store import StoreError
from tests.servers import wait_until


class SlowStore:
    """Takes the diary, unless it is away; holds whoever puts while `let` is not set."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.away = False
        self.asked = 0
        self.let = threading.Event()
        self.let.set()

    def put(self, content: bytes) -> None:
        self.asked += 1
        self.let.wait(60)
        if self.away:
            raise StoreError("away", permanent=False)
        self.contents.append(content)


def test_the_diary_is_copied_as_it_grows_and_only_then(tmp_path: Path) -> None:
    diary, store = ProgressLog(tmp_path / "progress.jsonl"), SlowStore()
    mirror = DiaryMirror(tmp_path / "progress.jsonl", store.put, every_seconds=0.01)
    mirror.start()
    for phase in ("training", "evaluating"):
        diary.write("phase", {"phase": phase})
        wait_until(lambda phase=phase: store.contents and phase.encode() in store.contents[-1], "the copy")
    assert mirror.finish(30)
    assert len(store.contents) == store.asked == 2
    assert store.contents[-1] == (tmp_path / "progress.jsonl").read_bytes()


def test_a_line_that_is_being_written_is_left_for_the_next_copy(tmp_path: Path) -> None:
    store = SlowStore()
    (tmp_path / "progress.jsonl").write_bytes(b'{"kind": "phase"}\n{"kind": "rou')
    mirror = DiaryMirror(tmp_path / "progress.jsonl", store.put)
    mirror.start()
    assert mirror.finish(30)
    assert store.contents == [b'{"kind": "phase"}\n']


def test_a_store_that_hangs_holds_up_neither_the_diary_nor_the_end(tmp_path: Path) -> None:
    diary, store = ProgressLog(tmp_path / "progress.jsonl"), SlowStore()
    store.let.clear()
    mirror = DiaryMirror(tmp_path / "progress.jsonl", store.put, every_seconds=0.01)
    mirror.start()
    diary.write("phase", {"phase": "training"})
    wait_until(lambda: store.asked == 1, "the copy")
    diary.write("done", {})
    assert not mirror.finish(0.1)
    assert store.asked == 1
    store.let.set()


def test_the_last_word_gets_there_once_the_store_is_back(tmp_path: Path) -> None:
    diary, store = ProgressLog(tmp_path / "progress.jsonl"), SlowStore()
    store.away = True
    mirror = DiaryMirror(tmp_path / "progress.jsonl", store.put, every_seconds=0.01)
    mirror.start()
    diary.write("done", {})
    wait_until(lambda: store.asked >= 2, "the copy")
    threading.Timer(0.3, lambda: setattr(store, "away", False)).start()
    assert mirror.finish(30)
    assert b"done" in store.contents[-1]


def test_without_a_diary_nothing_is_copied(tmp_path: Path) -> None:
    store = SlowStore()
    mirror = DiaryMirror(tmp_path / "progress.jsonl", store.put)
    mirror.start()
    assert mirror.finish(30)
    assert store.asked == 0
