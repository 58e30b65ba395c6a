"""The Celery application: workers and beat are started with `celery -A blog_site …`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import beat_init, worker_ready
from kombu.transport import TRANSPORT_ALIASES

from blog_site.heartbeat import Heartbeat
from blog_site.tracing import TracedTask

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "blog_site.settings")

# `folder://` in CELERY_BROKER_URL: a queue in a folder, for one machine without a broker.
TRANSPORT_ALIASES["folder"] = "blog_site.folder_broker:Transport"

app = Celery("blog_site", task_cls=TracedTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["consumer"].add(Heartbeat)


@worker_ready.connect
@beat_init.connect
def say_ready(**kwargs: Any) -> None:
    """Touch the file that READY_FILE names, so that a supervisor or a probe sees a worker or beat that is up."""
    if "READY_FILE" in os.environ:
        Path(os.environ["READY_FILE"]).touch()
