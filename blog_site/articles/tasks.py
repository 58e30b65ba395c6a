"""Celery tasks of articles."""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from . import readership, services

logger = logging.getLogger(__name__)


@shared_task(name="articles.remove_unused_images", ignore_result=True)
def remove_unused_images() -> None:
    """Remove pictures that were uploaded and never used."""
    removed = services.remove_unused_images(age=timedelta(days=settings.UNUSED_IMAGE_DAYS))
    logger.info("%s unused pictures removed", removed)


@shared_task(name="articles.carry_views", ignore_result=True, expires=60)
def carry_views() -> None:
    """Add what was counted in Redis to the rows of articles and days."""
    readership.carry_shared_views()
