"""Comments as moderators meet them."""

from __future__ import annotations

from typing import Any

from blog_site.comments.models import Comment
from tests.comments.rows import make_comment
from tests.comments.test_models import make_prediction
from tests.labels.test_services import make_label


def make_judged_comment(
    text: str, *, model: str = "positive", score: float = 0.9, labelled: str = "", **fields: Any
) -> Comment:
    """A comment with what the model said of it and, where `labelled`, the language model's label."""
    comment = make_comment(text, **fields)
    make_prediction(comment, label=model, score=score)
    if labelled:
        make_label(comment, labelled)
    return comment


def make_guest(comment: Comment, name: str) -> Comment:
    """Make somebody without an account the comment's author."""
    comment.author, comment.guest_name = None, name
    comment.save()
    return comment
