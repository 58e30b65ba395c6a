"""What an article's page shows of its comments."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from blog_site.articles.echo import Echo, listen
from blog_site.articles.models import Article

from .cursors import make_cursor
from .forms import CommentForm, GuestCommentForm
from .guests import remembered_comments
from .models import Comment
from .threads import CONSTRUCTIVE, NEWEST, OLDEST, ORDERS, BadCursor, Node, Page, Reader, page_of, path_to

KEPT_COMMENT = "kept_comment"  # key in the session
ORDER_NAMES: dict[str, Promise] = {
    NEWEST.name: _("最新"),
    OLDEST.name: _("最早"),
    CONSTRUCTIVE.name: _("有见地"),
}


@dataclass(frozen=True)
class Section:
    """The comments below an article, as one reader sees them."""

    article: Article
    reader: Reader
    echo: Echo
    page: Page
    nodes: tuple[Node, ...]
    focus: Comment | None  # whose replies these are, where it is not the whole thread
    begins_at_top: bool
    form: CommentForm | None  # None where this reader cannot write here
    answering: Comment | None  # what the form replies to
    orders: tuple[tuple[str, Promise], ...] = tuple(ORDER_NAMES.items())

    @property
    def order(self) -> str:
        return self.page.order.name

    @property
    def cursor(self) -> str:
        """From where the page asks for changes."""
        return make_cursor()

    @property
    def may_write(self) -> bool:
        return may_write(self.article, self.reader)


def make_section(request: HttpRequest, article: Article, form: CommentForm | None = None) -> Section:
    """Read what `?order=`, `?after=`, `?comment=` (one in its place), `?thread=` (what answers one) and `?reply=` ask.

    `form` is one that was refused, with its text and errors, to be shown again.
    """
    reader = reader_of(request)
    asked = request.GET
    sought = find_comment(article, reader, asked.get("comment", ""))
    focus = _parent_of(sought) or find_comment(article, reader, asked.get("thread", ""))
    order = asked.get("order", "")
    if order not in ORDERS:
        order = OLDEST.name if focus else NEWEST.name
    page = _read_page(focus or article, order, asked.get("after", ""), reader, sought)
    answering = find_comment(article, reader, request.POST.get("parent") or asked.get("reply", ""))
    if answering is not None and not answering.is_visible():
        answering = None
    return Section(
        article=article,
        reader=reader,
        echo=listen([article]).get(article.pk, Echo()),
        page=page,
        nodes=(path_to(focus, page, reader=reader),) if focus else page.nodes,
        focus=focus,
        begins_at_top=sought is None and not asked.get("after"),
        form=form or make_form(request, article),
        answering=answering,
    )


def reader_of(request: HttpRequest, *, added: Comment | None = None) -> Reader:
    """Who reads, and what they have written as a guest; `added` is what they have written just now."""
    own = () if request.user.is_authenticated else remembered_comments(request)
    return Reader(request.user, (*own, added.pk) if added is not None and added.author_id is None else own)


def may_write(article: Article, reader: Reader) -> bool:
    """Whether somebody may comment here: a draft has no readers, and guests need leave."""
    if not article.comments_open or not article.is_public():
        return False
    return reader.user.is_authenticated or article.category.guests_may_comment


def make_form(request: HttpRequest, article: Article) -> CommentForm | None:
    """The form below an article for this reader, filled in where it comes back; None where they cannot write."""
    if not may_write(article, reader_of(request)):
        return None
    kind = CommentForm if request.user.is_authenticated else GuestCommentForm
    if request.method == "POST":
        return kind(request.POST)
    return kind(initial={"text": _take_kept(article, request)})


def keep_comment(request: HttpRequest, article: Article, text: str) -> None:
    """Keep a comment of somebody whose session has ended until they have signed in and come back to the article."""
    request.session[KEPT_COMMENT] = {"article": article.pk, "text": text[: settings.COMMENT_MAX_CHARACTERS]}


def _take_kept(article: Article, request: HttpRequest) -> str:
    """Give back what was kept, once, to somebody who can now post it."""
    kept = request.session.get(KEPT_COMMENT)
    if not request.user.is_authenticated or not kept or kept["article"] != article.pk:
        return ""
    del request.session[KEPT_COMMENT]
    return str(kept["text"])


def find_comment(article: Article, reader: Reader, number: str) -> Comment | None:
    """The comment of this number under an article, where the reader may see it."""
    if not (number.isascii() and number.isdigit()):
        return None
    seen = Comment.objects.seen_by(reader.user, guests_own=reader.guests_own).filter(article=article)
    return seen.select_related("parent", "author").filter(pk=min(int(number), 2**63 - 1)).first()


def _parent_of(comment: Comment | None) -> Comment | None:
    return comment.parent if comment is not None else None


def _read_page(
    under: Article | Comment, order: str, after: str, reader: Reader, sought: Comment | None
) -> Page:
    try:
        return page_of(under, order=order, after=after, reader=reader, starting_with=sought)
    except BadCursor:
        return page_of(under, order=order, reader=reader)
