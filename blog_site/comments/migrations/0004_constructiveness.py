from __future__ import annotations

from django.db import migrations

from blog_site.comments.constructiveness import rate_constructiveness

BATCH = 500


def rate_comments(apps, schema_editor):
    """Rate what was posted before comments were rated, by its text alone; likes and predictions come to it as they do."""
    comments = apps.get_model("comments", "Comment").objects.using(schema_editor.connection.alias)
    last_id = 0
    while batch := list(
        comments.filter(pk__gt=last_id, constructiveness=0.0).only("text").order_by("pk")[:BATCH]
    ):
        last_id = batch[-1].pk
        for comment in batch:
            comment.constructiveness = rate_constructiveness(text=comment.text)
        comments.bulk_update(batch, ["constructiveness"])


class Migration(migrations.Migration):
    dependencies = [("comments", "0003_moderation")]

    operations = [migrations.RunPython(rate_comments, migrations.RunPython.noop)]
