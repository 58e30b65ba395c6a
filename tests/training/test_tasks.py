"""The tasks, and the rows of the schedule that runs them."""

from __future__ import annotations

import importlib

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from django.forms.models import model_to_dict
from django.urls import reverse
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from blog_site.celery import app
from blog_site.training import tasks
from blog_site.training.models import Run
from blog_site.training.services import start_run
from tests.training.rows import import_opinions, make_run

pytestmark = pytest.mark.django_db
EVERY_SECONDS = {"comments.sweep_unscored": 10, "labels.sweep_unlabelled": 10, "training.advance": 2}


def test_the_schedule_is_there_after_migrating() -> None:
    rows = {row.name: row for row in PeriodicTask.objects.select_related("interval", "crontab")}

    for name, seconds in EVERY_SECONDS.items():
        assert (rows[name].task, rows[name].enabled) == (name, True)
        assert (rows[name].interval.every, rows[name].interval.period) == (seconds, "seconds")
        assert rows[name].expire_seconds == 30, "a queue that stood still must not be worked off"
    assert rows["retrain"].task == "training.retrain"
    assert (rows["retrain"].crontab.hour, rows["retrain"].crontab.minute) == ("3", "30")
    assert str(rows["retrain"].crontab.timezone) == "Asia/Shanghai"


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()

    for task in PeriodicTask.objects.exclude(name="celery.backend_cleanup"):
        assert task.task in app.tasks


@pytest.mark.django_db(transaction=True)
def test_what_an_administrator_changed_survives_the_next_migration_and_the_next_start() -> None:
    migration = importlib.import_module("blog_site.training.migrations.0002_schedule")
    migration.add_schedule(apps, connection.schema_editor())  # tests like this one begin with empty tables
    daily = CrontabSchedule.objects.create(minute="0", hour="12", timezone="Asia/Shanghai")
    PeriodicTask.objects.filter(name="retrain").update(crontab=daily, enabled=False)
    slow, _ = IntervalSchedule.objects.get_or_create(every=300, period="seconds")
    PeriodicTask.objects.filter(name="labels.sweep_unlabelled").update(interval=slow)

    migration.add_schedule(apps, connection.schema_editor())
    call_command("migrate", verbosity=0, interactive=False)
    schedule = DatabaseScheduler(app=app).schedule

    retrain = PeriodicTask.objects.get(name="retrain")
    assert (retrain.crontab, retrain.enabled) == (daily, False)
    assert PeriodicTask.objects.get(name="labels.sweep_unlabelled").interval == slow
    assert schedule["labels.sweep_unlabelled"].schedule.run_every.total_seconds() == 300
    assert "retrain" not in schedule
    assert not hasattr(django_settings, "CELERY_BEAT_SCHEDULE"), "it would overwrite the rows at every start"


def test_an_administrator_can_change_the_schedule_in_the_admin(people) -> None:
    row = PeriodicTask.objects.get(name="comments.sweep_unscored")
    slow, _ = IntervalSchedule.objects.get_or_create(every=60, period="seconds")
    address = reverse("admin:django_celery_beat_periodictask_change", args=[row.pk])
    page = people["admin"].get(address)
    assert page.status_code == 200
    fields = {name: value for name, value in model_to_dict(row).items() if value is not None}
    fields |= {"regtask": row.task, "interval": slow.pk, "enabled": "on", "one_off": ""}

    answer = people["admin"].post(address, {name: value for name, value in fields.items() if value != ""})

    assert answer.status_code == 302, answer.context["errors"]
    row.refresh_from_db()
    assert row.interval == slow
    assert people["moderator"].get(address).status_code == 403


def test_reversing_the_migration_takes_the_rows_away() -> None:
    migration = importlib.import_module("blog_site.training.migrations.0002_schedule")

    migration.remove_schedule(apps, connection.schema_editor())

    assert not PeriodicTask.objects.filter(name__in=[*EVERY_SECONDS, "retrain"]).exists()


def test_the_nightly_task_starts_a_run_when_there_is_enough(settings) -> None:
    settings.TRAINING_MIN_LABELS = 60
    import_opinions(90)

    tasks.retrain()

    assert Run.objects.get().trigger == "beat"


def test_the_nightly_task_keeps_still_when_there_is_too_little_or_a_run_is_active(settings, caplog) -> None:
    caplog.set_level("INFO")
    settings.TRAINING_MIN_LABELS = 1_000
    import_opinions(90)
    tasks.retrain()
    assert not Run.objects.exists()
    assert "90 条新样本" in caplog.text

    active = make_run()
    tasks.retrain()
    assert Run.objects.get() == active


def test_the_frequent_task_moves_the_active_run(launcher) -> None:
    tasks.advance()  # with no run there is nothing to do
    import_opinions(90)
    run = start_run(trigger="command", min_labels=1)
    tasks.advance()
    run.refresh_from_db()
    assert run.state == Run.State.TRAINING
