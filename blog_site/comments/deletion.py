"""What becomes of comments when what they hang on is deleted: handlers for `on_delete`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db import connections
from django.db.models import CASCADE, F, ForeignKey, QuerySet
from django.db.models.deletion import Collector, get_candidate_relations_to_delete


def keep_thread(
    collector: Collector, field: ForeignKey[Any, Any], replies: QuerySet[Any], using: str
) -> None:
    """Refuse to delete a comment from above its replies, unless they go with the article.

    Django's RESTRICT, but for databases that check each row as it goes: there the replies are cut off first.
    """
    collector.add_restricted_objects(field, replies)
    if not connections[using].features.can_defer_constraint_checks:
        collector.add_field_update(field, None, replies)


def bury_comments(
    collector: Collector, field: ForeignKey[Any, Any], written: QuerySet[Any], using: str
) -> None:
    """Delete somebody's comments with them; those that were answered leave a tombstone."""
    comments = list(field.model._base_manager.using(using).filter(pk__in=[one.pk for one in written]))
    answered = set(written.filter(replies__isnull=False).values_list("pk", flat=True))
    gone = [comment for comment in comments if comment.pk not in answered]
    kept = [comment for comment in comments if comment.pk in answered]
    _uncount(collector, [comment for comment in comments if comment.is_visible()], "reply_count")
    _uncount(collector, [comment for comment in gone if comment.is_visible()], "shown_replies")
    if gone:
        CASCADE(collector, field, gone, using)
    if kept:
        _empty(collector, field, kept, using)


def _uncount(collector: Collector, replies: list[Any], name: str) -> None:
    """Take replies from the counts of what they answer."""
    taken = Counter(reply.parent_id for reply in replies if reply.parent_id is not None)
    for parent_id, count in taken.items():
        model = type(replies[0])
        collector.add_field_update(model._meta.get_field(name), F(name) - count, [model(pk=parent_id)])


def _empty(collector: Collector, field: ForeignKey[Any, Any], kept: list[Any], using: str) -> None:
    """Take from comments all that was said in them, of them and learnt from them."""
    fields = field.model._meta
    for name, value in field.model.TOMBSTONE.items():
        collector.add_field_update(fields.get_field(name), value, kept)
    for relation in get_candidate_relations_to_delete(fields):
        if relation.field.remote_field.on_delete is CASCADE:
            said = relation.related_model._base_manager.using(using)
            collector.collect(
                said.filter(**{f"{relation.field.name}__in": kept}),
                source=field.model,
                source_attr=relation.field.name,
                nullable=True,
                fail_on_restricted=False,
            )
