"""What Celery runs for training; rows in django_celery_beat (see migration 0002) say when."""

from __future__ import annotations

import logging

from celery import shared_task

from blog_site.training import pruning, services

log = logging.getLogger(__name__)


@shared_task(name="training.advance", expires=30)
def advance() -> None:
    services.advance_everything()


@shared_task(name="training.sweep", expires=60)
def sweep() -> None:
    services.sweep_runs()


@shared_task(name="training.retrain")
def retrain() -> None:
    try:
        services.start_run(trigger="beat")
    except services.TrainingError as reason:
        log.info("no retraining now: %s", reason)


@shared_task(name="training.prune", expires=3600)
def prune() -> None:
    pruning.prune()
