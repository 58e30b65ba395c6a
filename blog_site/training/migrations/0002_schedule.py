"""The beat schedule as rows, so that the admin can change it; a schedule in the settings would overwrite that."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

EVERY_SECONDS = {
    "comments.sweep_unscored": 10,
    "labels.sweep_unlabelled": 10,
    "training.advance": 2,
}
# A message that waited longer than this is dropped: the next one does the same work.
EXPIRE_SECONDS = 30


def add_schedule(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    periodic_task = apps.get_model("django_celery_beat", "PeriodicTask")
    interval = apps.get_model("django_celery_beat", "IntervalSchedule")
    crontab = apps.get_model("django_celery_beat", "CrontabSchedule")
    for task, seconds in EVERY_SECONDS.items():
        every, _ = interval.objects.get_or_create(every=seconds, period="seconds")
        periodic_task.objects.get_or_create(
            name=task, defaults={"task": task, "interval": every, "expire_seconds": EXPIRE_SECONDS}
        )
    nightly, _ = crontab.objects.get_or_create(
        minute="30", hour="3", day_of_week="*", day_of_month="*", month_of_year="*", timezone="Asia/Shanghai"
    )
    periodic_task.objects.get_or_create(
        name="retrain", defaults={"task": "training.retrain", "crontab": nightly}
    )


def remove_schedule(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    periodic_task = apps.get_model("django_celery_beat", "PeriodicTask")
    periodic_task.objects.filter(name__in=[*EVERY_SECONDS, "retrain"]).delete()


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial"), ("django_celery_beat", "0019_alter_periodictasks_options")]

    operations = [migrations.RunPython(add_schedule, remove_schedule)]
