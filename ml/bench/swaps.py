"""Putting one model in another's place, over and over, while clients ask."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from ml.bench.answers import TOLERANCE, Expected, is_right, read_digest
from ml.bench.processes import read_rss_mb
from ml.bench.traffic import ask_in_turns

CLIENTS: Final = 4
SWAP_SECONDS: Final = 30  # in which a model that was pointed to answers
SETTLED: Final = 10  # swaps after which memory should grow no more


@dataclass(frozen=True)
class Swaps:
    """What clients saw while the models changed."""

    swaps: int
    answers: int
    failed: int  # answered with anything but 200, or not at all
    mixed: int  # named one model, and gave what it does not say
    median_seconds: float  # from the pointer to the first answer of the new model
    p99_ms: float  # of the answers
    rss_before_mb: float
    rss_settled_mb: float  # after some swaps: from here on it should be flat
    rss_after_mb: float


def point_at(store: Path, digest: str, previous: str | None) -> None:
    """Name the model to serve, as a promotion does: the file is there whole or not at all."""
    pointer = {"digest": digest, "previous": previous} if previous else {"digest": digest}
    partial = store / ".champion.json.partial"
    partial.write_text(json.dumps(pointer), encoding="ascii")
    os.replace(partial, store / "champion.json")


def choose_telling(expected: Expected, most: int = 256) -> list[int]:
    """Give the texts of which the models say different things, the most different first."""
    first, second = expected.values()
    apart = np.abs(first - second).max(axis=1)
    order = np.argsort(-apart)[:most]
    return [int(row) for row in order if apart[row] > 4 * TOLERANCE]


def swap_under_load(
    port: int, pid: int, store: Path, requests: Sequence[bytes], expected: Expected, swaps: int
) -> Swaps:
    """Swap two models, the served one first in `expected`, each time when the last swap shows in an answer.

    Raises TimeoutError when a swap does not show.
    """
    process = psutil.Process(pid)
    served, wanted = expected
    memory = [read_rss_mb(process)]
    latencies, waits = [], []
    failed = mixed = 0
    pointed_at = time.perf_counter()
    point_at(store, wanted, served)
    with contextlib.closing(ask_in_turns(port, requests, CLIENTS)) as answers:
        for answer in answers:
            latencies.append(answer.ended - answer.began)
            if answer.status != 200:
                failed += 1
            elif not is_right(answer, expected):
                mixed += 1
            if answer.status == 200 and read_digest(answer.head) == wanted:
                waits.append(answer.ended - pointed_at)
                memory.append(read_rss_mb(process))
                if len(waits) == swaps:
                    break
                served, wanted, pointed_at = wanted, served, time.perf_counter()
                point_at(store, wanted, served)
            elif answer.ended - pointed_at > SWAP_SECONDS:
                raise TimeoutError(f"{wanted} does not answer {SWAP_SECONDS} s after it was pointed to")
    return Swaps(
        swaps=len(waits),
        answers=len(latencies),
        failed=failed,
        mixed=mixed,
        median_seconds=statistics.median(waits),
        p99_ms=float(np.percentile(latencies, 99)) * 1000,
        rss_before_mb=memory[0],
        rss_settled_mb=statistics.median(memory[SETTLED : SETTLED + 10] or memory[-1:]),
        rss_after_mb=statistics.median(memory[-10:]),
    )
