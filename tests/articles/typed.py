"""What a writer types into the form of an article, and the buttons that they press."""

from __future__ import annotations

from tests.blog import make_category


def form_data(**changes: object) -> dict[str, object]:
    return {
        "title": "雨天的面馆",
        "category": make_category().pk,
        "summary": "",
        "body_markdown": "多葱少面。",
        "tag_names": "面馆",
        "action": "draft",
    } | changes
