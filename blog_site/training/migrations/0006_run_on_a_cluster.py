"""What a run is told of a cluster, and what is wanted of it; and the sweep that carries that out."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F

SWEEP_EVERY_SECONDS = 60


def mark_ended_runs_as_stopped(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Nothing is left of runs that ended before this: they were stopped as they ended."""
    run = apps.get_model("training", "Run")
    run.objects.filter(active_slot=None).update(stopped_at=F("ended_at"))


def add_sweep(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    periodic_task = apps.get_model("django_celery_beat", "PeriodicTask")
    interval = apps.get_model("django_celery_beat", "IntervalSchedule")
    every, _ = interval.objects.get_or_create(every=SWEEP_EVERY_SECONDS, period="seconds")
    periodic_task.objects.get_or_create(
        name="training.sweep",
        defaults={"task": "training.sweep", "interval": every, "expire_seconds": SWEEP_EVERY_SECONDS},
    )


def remove_sweep(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name="training.sweep").delete()


class Migration(migrations.Migration):
    dependencies = [("training", "0005_rollout_image")]

    operations = [
        migrations.AddField("run", "pods", models.JSONField(blank=True, null=True, verbose_name="容器组")),
        migrations.AddField(
            "run",
            "stopped_at",
            models.DateTimeField(blank=True, editable=False, null=True, verbose_name="停止时间"),
        ),
        migrations.AddField(
            "run",
            "resuming",
            models.BooleanField(db_default=False, default=False, editable=False, verbose_name="等待继续"),
        ),
        migrations.RunPython(mark_ended_runs_as_stopped, migrations.RunPython.noop),
        migrations.RunPython(add_sweep, remove_sweep),
    ]
