"""How gunicorn serves the blog in a container: `gunicorn --config python:blog_site.gunicorn_conf blog_site.wsgi`.

Everything is read from the environment; infra/docker/web.sh starts it. Nothing is written but to /dev/shm and the
standard streams, so that the root file system may be read-only.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from gunicorn.glogging import Logger

from blog_site.addresses import client_address

_PROBES = ("/livez", "/readyz")  # every few seconds, of every pod: only their failures are worth a line


class JsonLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Writes each access as one line of JSON on standard output, under the request id that the gateway gave."""

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        if not self.access_log_enabled:
            return
        status = int(str(resp.status).split(maxsplit=1)[0])
        if environ.get("PATH_INFO") in _PROBES and status < 400:
            return
        self.access_log.info(
            "%s", json.dumps(_access(environ, status, resp.sent, request_time), ensure_ascii=False)
        )


def _access(environ: dict[str, Any], status: int, sent: int | None, took: timedelta) -> dict[str, Any]:
    """Describe one request. The query is left out: it may hold what somebody searched for, or a token."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": environ.get("HTTP_X_REQUEST_ID", ""),
        "remote": client_address(environ),
        "method": environ.get("REQUEST_METHOD", ""),
        "host": environ.get("HTTP_HOST", ""),
        "path": environ.get("PATH_INFO", ""),
        "status": status,
        "bytes": sent or 0,
        "milliseconds": round(took / timedelta(milliseconds=1), 1),
        "user_agent": environ.get("HTTP_USER_AGENT", ""),
    }


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}: expected a whole number, like {default}")
    return int(text)


bind = [f"0.0.0.0:{_number('WEB_PORT', 8000)}"]  # a container's own network
# Threads, as requests wait for the database; two processes, so that one that is busy or recycled leaves another.
worker_class = "gthread"
workers = _number("WEB_CONCURRENCY", 2)
threads = _number("WEB_THREADS", 8)
# Longer than the gateway keeps its connections: who closes first must be the one who asks.
keepalive = _number("WEB_KEEPALIVE_SECONDS", 75)
timeout = _number("WEB_TIMEOUT_SECONDS", 60)
# For requests under way when told to stop; below the 30 s after which Kubernetes kills.
graceful_timeout = _number("WEB_GRACEFUL_SECONDS", 25)
max_requests = _number("WEB_MAX_REQUESTS", 10_000)
max_requests_jitter = max_requests // 10
# Workers say that they live by touching a file; on a disk that stalls they would be taken for dead.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True  # it would lie in the home folder
# Only the gateway reaches this port, and it sets these headers itself.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "*")
accesslog = "-"
errorlog = "-"
loglevel = os.environ.get("LOG_LEVEL", "info").lower()
logger_class = JsonLogger
