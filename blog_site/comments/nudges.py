"""The door to the queue. A nudge tells a worker that a row waits; losing one costs time and nothing else,
because the sweeps find every row that still lacks its next fact."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Sequence

from celery import Celery, current_app
from django.db import transaction
from kombu import Connection
from kombu.exceptions import ChannelError, ConnectionError, KombuError
from kombu.pools import ProducerPool, producers

from blog_site.tracing import current_origin

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
# After a broker failed or dawdled, requests do not try it again for a while: each try may cost a second.
SILENCE_SECONDS = 10.0


class NudgeQueue:
    """The producing side of one broker, which forgets rather than waits."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._silent_until = 0.0  # on the monotonic clock
        self._lock = threading.Lock()

    def nudge(self, tasks: Sequence[str], row_id: int) -> bool:
        """Queue each task with the id of a row; False when the broker did not take them all."""
        if time.monotonic() < self._silent_until:
            return False
        started = time.monotonic()
        try:
            self._send(tasks, row_id)
        # A refused connection is a KombuError, what an AMQP broker says one of the next two, a folder that
        # cannot be written an OSError.
        except (KombuError, ChannelError, ConnectionError, OSError) as error:
            self._fall_silent(f"{type(error).__name__}: {error}")
            return False
        if time.monotonic() - started > ANSWER_SECONDS:
            self._fall_silent(f"it took {time.monotonic() - started:.1f} s to take a message")
        return True

    def _send(self, tasks: Sequence[str], row_id: int) -> None:
        with self._producers().acquire(block=True, timeout=ANSWER_SECONDS) as producer:
            for task in tasks:
                self._app.send_task(
                    task,
                    args=[row_id],
                    producer=producer,
                    retry=False,
                    ignore_result=True,
                    headers=current_origin().headers(),
                )

    def _producers(self) -> ProducerPool:
        # kombu empties this registry in a forked process, so no connection is shared with the parent's.
        return producers[self._connection]

    @functools.cached_property
    def _connection(self) -> Connection:
        return _describe_connection(self._app)

    def _fall_silent(self, reason: str) -> None:
        with self._lock:
            if time.monotonic() < self._silent_until:
                return  # another thread has said so
            self._silent_until = time.monotonic() + SILENCE_SECONDS
        logger.warning("queue: no nudges for %.0f s, sweeps take over: %s", SILENCE_SECONDS, reason)


def _describe_connection(app: Celery) -> Connection:
    """Describe, and not yet open, a connection that gives up soon; kombu itself would try for ever."""
    options: dict[str, float | int | bool] = {"max_retries": 0}
    if app.conf.broker_write_url.startswith(("redis:", "rediss:")):
        options |= {
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "retry_on_timeout": False,
        }
    return app.connection_for_write(connect_timeout=CONNECT_SECONDS, transport_options=options)


def nudge_after_commit(tasks: Sequence[str], row_id: int) -> None:
    """Queue the id of a row once it is committed; robust, because a request has succeeded once its row is there."""

    def nudge() -> None:
        open_queue().nudge(tasks, row_id)

    transaction.on_commit(nudge, robust=True)


def open_queue() -> NudgeQueue:
    """Give this process's queue."""
    return _queue_of(current_app._get_current_object())


@functools.lru_cache(maxsize=4)
def _queue_of(app: Celery) -> NudgeQueue:
    return NudgeQueue(app)
