"""An article's comments in templates: articles know nothing of them."""

from __future__ import annotations

from typing import Any

from django import template

from blog_site.articles.models import Article

from ..island_texts import island_texts
from ..pages import Section, make_section

register = template.Library()


@register.simple_tag(takes_context=True)
def comment_section(context: dict[str, Any], article: Article) -> Section:
    """Give what the page shows of an article's comments; a form that was refused stands in `comment_form`."""
    return make_section(context["request"], article, context.get("comment_form"))


@register.simple_tag
def comment_texts() -> dict[str, Any]:
    """Give what the island on the page says and needs to know."""
    return island_texts()
