"""The schedule of tasks, as beat reads it."""

from __future__ import annotations

from typing import Any

from django_celery_beat.schedulers import DatabaseScheduler

from blog_site.heartbeat import heartbeat_file


class BeatingScheduler(DatabaseScheduler):  # type: ignore[misc]
    """The schedule in the database; every look at it touches HEARTBEAT_FILE."""

    def tick(self, *arguments: Any, **options: Any) -> Any:
        if (file := heartbeat_file()) is not None:
            file.touch()
        return super().tick(*arguments, **options)
