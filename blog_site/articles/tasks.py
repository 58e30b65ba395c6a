"""Celery tasks of articles."""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from . import services

logger = logging.getLogger(__name__)


@shared_task(name="articles.remove_unused_images", ignore_result=True)
def remove_unused_images() -> None:
    """Remove pictures that were uploaded and never used."""
    removed = services.remove_unused_images(age=timedelta(days=settings.UNUSED_IMAGE_DAYS))
    logger.info("%s unused pictures removed", removed)
