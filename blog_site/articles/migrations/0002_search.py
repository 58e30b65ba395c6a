import django.db.models.deletion
from django.db import migrations, models

# FTS5 keeps no second copy of the words; triggers tell it what changes in the table. Whoever changes that table in a
# later migration makes the triggers again: on SQLite, Django then makes a new table and they are gone.
SQLITE = (
    """CREATE VIRTUAL TABLE articles_search USING fts5(
        title_words, all_words, content='articles_searchentry', content_rowid='article_id')""",
    """CREATE TRIGGER articles_search_added AFTER INSERT ON articles_searchentry BEGIN
        INSERT INTO articles_search(rowid, title_words, all_words)
        VALUES (new.article_id, new.title_words, new.all_words); END""",
    """CREATE TRIGGER articles_search_removed AFTER DELETE ON articles_searchentry BEGIN
        INSERT INTO articles_search(articles_search, rowid, title_words, all_words)
        VALUES ('delete', old.article_id, old.title_words, old.all_words); END""",
    """CREATE TRIGGER articles_search_changed AFTER UPDATE ON articles_searchentry BEGIN
        INSERT INTO articles_search(articles_search, rowid, title_words, all_words)
        VALUES ('delete', old.article_id, old.title_words, old.all_words);
        INSERT INTO articles_search(rowid, title_words, all_words)
        VALUES (new.article_id, new.title_words, new.all_words); END""",
)
# One after the other: InnoDB adds a single full-text index at a time.
MYSQL = tuple(
    f"ALTER TABLE articles_searchentry ADD FULLTEXT INDEX articles_search_{column} ({column})"
    for column in ("title_words", "all_words")
)


def make_indexes(apps, schema_editor):
    for statement in SQLITE if schema_editor.connection.vendor == "sqlite" else MYSQL:
        schema_editor.execute(statement)


def remove_indexes(apps, schema_editor):
    if schema_editor.connection.vendor == "sqlite":
        schema_editor.execute(
            "DROP TABLE IF EXISTS articles_search"
        )  # the triggers go with the table they watch


class Migration(migrations.Migration):
    dependencies = [("articles", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="SearchEntry",
            fields=[
                (
                    "article",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="search_entry",
                        serialize=False,
                        to="articles.article",
                    ),
                ),
                ("title_words", models.TextField()),
                ("all_words", models.TextField()),
            ],
            options={"verbose_name": "搜索条目", "verbose_name_plural": "搜索条目"},
        ),
        migrations.RunPython(make_indexes, remove_indexes, atomic=False),  # MySQL ends a transaction at DDL
    ]
