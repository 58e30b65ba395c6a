"""Make the moderators' group; `users.services.grant_moderators` gives it its permissions once they exist."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

MODERATORS = "moderators"  # written out: a migration keeps the name of its day


def make_group(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    groups = apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias)
    groups.get_or_create(name=MODERATORS)


class Migration(migrations.Migration):
    dependencies = [("users", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]

    # The group may have members by now: going back keeps it.
    operations = [migrations.RunPython(make_group, migrations.RunPython.noop)]
