"""The blog: users, articles, comments, labels, training and their API.

Importing the Celery application here makes `@shared_task` use it in every process that loads Django.
"""

from __future__ import annotations

from .celery import app as celery_app

__all__ = ["celery_app"]
