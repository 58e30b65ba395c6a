"""Tokens used to lie in the database as they are sent. They go on working, and only their digests stay."""

from __future__ import annotations

import hashlib
from typing import Any

from django.apps.registry import Apps
from django.db import migrations, models

OLD_TABLE = "authtoken_token"  # of rest_framework.authtoken, which is no longer among the apps


class OldToken(models.Model):
    key = models.CharField(max_length=40, primary_key=True)
    user_id = models.BigIntegerField()
    created = models.DateTimeField()

    class Meta:
        app_label = "api"
        apps = Apps()  # this migration's alone
        db_table = OLD_TABLE
        managed = False

    def __str__(self) -> str:
        return self.key[:8]


def hash_old_tokens(apps: Any, schema_editor: Any) -> None:
    """Empty the table and leave it: while a release rolls out, processes of the one before still look into it."""
    if OLD_TABLE not in schema_editor.connection.introspection.table_names():
        return
    Token = apps.get_model("api", "Token")
    for old in OldToken.objects.all():
        digest = hashlib.sha256(old.key.encode()).hexdigest()
        made, _new = Token.objects.get_or_create(
            digest=digest,
            defaults={"owner_id": old.user_id, "name": "旧令牌 / Old token", "beginning": old.key[:8]},
        )
        Token.objects.filter(pk=made.pk).update(created_at=old.created)
    OldToken.objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("api", "0001_tokens")]

    operations = [migrations.RunPython(hash_old_tokens, migrations.RunPython.noop)]
