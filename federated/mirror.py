"""Copies a run's diary to the store, for readers who cannot see the folder it is written in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from federated.store import StoreError

EVERY_SECONDS: Final = 1.0
LAST_WORD_SECONDS: Final = 60.0  # in which the last word should get there
LONGEST_PAUSE_SECONDS: Final = 30.0  # between attempts at a store that is away

log = logging.getLogger(__name__)


class DiaryMirror:
    """A thread of its own: however slow the store is, or however long away, no round waits for it or fails with it."""

    def __init__(
        self, diary: Path, put: Callable[[bytes], None], every_seconds: float = EVERY_SECONDS
    ) -> None:
        """`put` keeps the whole diary in the store, and raises StoreError; it should not try for long by itself."""
        self._diary = diary
        self._put = put
        self._every_seconds = every_seconds
        self._copied: bytes | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._copy_again_and_again, name="mirror", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def finish(self, seconds: float = LAST_WORD_SECONDS) -> bool:
        """Copy what was written last, trying so long; says whether it got there."""
        self._ending.set()
        self._thread.join(seconds)
        deadline = time.monotonic() + seconds
        while not self._thread.is_alive() and not self._copy():
            if time.monotonic() >= deadline:
                break
            time.sleep(0.5)
        if there := self._is_copied():
            return there
        log.error("the last of the diary did not get to the store within %.0f s", seconds)
        return False

    def _copy_again_and_again(self) -> None:
        pause = self._every_seconds
        while not self._ending.wait(pause):
            pause = self._every_seconds if self._copy() else min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _copy(self) -> bool:
        """Copy the diary if there is more in it than was copied; False where the store did not take it."""
        if self._is_copied():
            return True
        content = self._read()
        try:
            self._put(content)
        except StoreError as error:
            log.warning("the diary could not be copied: %s", error)
            return False
        self._copied = content
        return True

    def _is_copied(self) -> bool:
        return self._read() == (self._copied or b"")

    def _read(self) -> bytes:
        """The diary's whole lines."""
        try:
            content = self._diary.read_bytes()
        except FileNotFoundError:
            return b""
        return content[: content.rfind(b"\n") + 1]
