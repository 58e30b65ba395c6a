"""What the aggregator's server refused, kept in the run's diary: each kind once and how often, never a line a request.

A kind is who, status and reason. It is written when it first comes and when its count has doubled, so that whoever
hammers at the door adds a handful of lines; and of kinds there are so many a site, and for all strangers together.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import asdict, replace
from typing import Final

from federated.protocol import ProgressLog, Refusal

KINDS_OF_A_SITE: Final = 16
KINDS_OF_STRANGERS: Final = 32
FURTHER: Final = "further reasons"  # of one status, when there are too many kinds to keep apart

log = logging.getLogger(__name__)


class Refusals:
    """Counts refusals and writes them to a run's diary; goes on counting where an aggregator before this one was."""

    def __init__(self, diary: ProgressLog) -> None:
        self._diary = diary
        self._lock = threading.Lock()
        self._latest = {refusal.kind(): refusal for refusal in diary.refusals()}
        self._written = Counter({kind: refusal.count for kind, refusal in self._latest.items()})
        self._kinds = Counter(refusal.site for refusal in self._latest.values())

    def note(self, refusal: Refusal) -> None:
        """Count a refusal; the diary hears of the first of its kind at once, then of the second, fourth, eighth…"""
        with self._lock:
            refusal = self._file(refusal)
            known = self._latest.get(refusal.kind())
            if known is None:
                self._kinds[refusal.site] += 1
            count = 1 if known is None else known.count + 1
            self._latest[refusal.kind()] = replace(refusal, count=count)
            if count >= 2 * self._written[refusal.kind()]:
                self._write(self._latest[refusal.kind()])

    def flush(self) -> None:
        """Write the counts as they are now."""
        with self._lock:
            for kind, refusal in self._latest.items():
                if refusal.count > self._written[kind]:
                    self._write(refusal)

    def _file(self, refusal: Refusal) -> Refusal:
        """Give the refusal as it is kept: itself, or one of many when there is no room for another kind."""
        room = KINDS_OF_A_SITE if refusal.site else KINDS_OF_STRANGERS
        if refusal.kind() in self._latest or self._kinds[refusal.site] < room:
            return refusal
        return replace(refusal, address="", reason=FURTHER)

    def _write(self, refusal: Refusal) -> None:
        self._written[refusal.kind()] = refusal.count
        who = refusal.site or refusal.address or "others"
        log.warning("refused %s: %d %s (%d times so far)", who, refusal.status, refusal.reason, refusal.count)
        try:
            self._diary.write("refused", asdict(refusal))
        except OSError as error:  # the run will say so itself when it needs the disk
            log.warning("the diary cannot be written: %s", error)
