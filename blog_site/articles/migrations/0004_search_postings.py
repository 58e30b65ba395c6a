import django.db.models.deletion
from django.db import migrations, models

import blog_site.articles.models


def remove_fts(apps, schema_editor):
    # Its triggers go with the table they watch, and so do the full-text indexes of MySQL.
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute("DROP TABLE IF EXISTS articles_search")


def index_articles(apps, schema_editor):
    from blog_site.articles.search import rebuild_index

    for _done in rebuild_index():
        pass


class Migration(migrations.Migration):
    """The full-text indexes of the databases give way to an index of ours, which all of them hold alike."""

    dependencies = [("articles", "0003_comments_open")]

    operations = [
        migrations.RunPython(remove_fts, migrations.RunPython.noop, atomic=False),
        migrations.DeleteModel("SearchEntry"),
        migrations.CreateModel(
            name="SearchEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("title", models.TextField()),
                ("text", models.TextField()),
                (
                    "article",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="search_entry",
                        to="articles.article",
                    ),
                ),
            ],
            options={"verbose_name": "搜索条目", "verbose_name_plural": "搜索条目"},
        ),
        migrations.CreateModel(
            name="SearchPosting",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "block",
                        "word",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("block", models.PositiveIntegerField()),
                ("word", blog_site.articles.models.WordField()),
                ("in_titles", models.BinaryField()),
                ("anywhere", models.BinaryField()),
            ],
            options={"verbose_name": "搜索词", "verbose_name_plural": "搜索词"},
        ),
        migrations.RunPython(index_articles, migrations.RunPython.noop),
    ]
