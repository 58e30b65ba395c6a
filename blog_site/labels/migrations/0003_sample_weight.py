from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

MODERATOR_WEIGHT = 6


def weigh_moderators(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("labels", "Sample").objects.filter(source="moderator").update(weight=MODERATOR_WEIGHT)


class Migration(migrations.Migration):
    dependencies = [
        ("labels", "0002_by_source"),
    ]

    operations = [
        migrations.AddField(
            model_name="sample",
            name="weight",
            field=models.PositiveSmallIntegerField(db_default=1, default=1, verbose_name="权重"),
        ),
        migrations.RunPython(weigh_moderators, migrations.RunPython.noop),
    ]
