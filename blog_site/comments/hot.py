"""What readers see of an article's comments, named: whoever keeps a copy of it compares the name."""

from __future__ import annotations

from blog_site.articles.hot import page_versions, touch_page


def touch_article(article_id: int) -> None:
    """Say that readers of an article see other comments once this transaction is over; late in it, see touch_page."""
    touch_page(article_id)


def article_version(article_id: int) -> str:
    """Name the state of an article's comments; another name may mean another state, the same name never does."""
    return str(page_versions([article_id]).get(article_id, "untouched"))
