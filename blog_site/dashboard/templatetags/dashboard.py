"""Numbers as SVG wants them, whatever the language of the page."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def number(value: float) -> str:
    """Write a length for SVG: 6.8, 100; no language puts another sign in it."""
    return f"{value:g}"
