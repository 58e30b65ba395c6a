"""Pages on which articles are written; all of it works without JavaScript."""

from __future__ import annotations

from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from blog_site.media.services import UploadRefused, store_image

from .drafts import FIELDS, keep_draft, keep_version
from .echo import Echo, listen
from .editor_texts import say_editor_texts
from .forms import ArticleForm
from .models import Article, ArticleQuerySet, Draft
from .services import (
    MAX_BODY_CHARACTERS,
    decide_publication,
    delete_article,
    render_body,
    save_article,
    withdraw_article,
)

KEPT_ARTICLE: Final = "kept_article"  # key in the session
ACTIONS: Final = ("draft", "preview", "schedule", "publish")
ARTICLES_PER_PAGE: Final = 20


def write(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return _ask_to_sign_in(request)
    return _write(request, Article(author=request.user))


def edit(request: HttpRequest, slug: str) -> HttpResponse:
    if not request.user.is_authenticated:
        return _ask_to_sign_in(request)
    return _write(request, get_object_or_404(Article, slug=slug, author=request.user))


def _write(request: HttpRequest, article: Article) -> HttpResponse:
    """Show the form; save, publish, schedule or show a preview, as the button says that was pressed."""
    if request.method != "POST":
        return _show_form(request, article)
    action = request.POST.get("action", "draft")
    made = _find_made(request.POST, article)
    form = ArticleForm(
        request.POST, instance=made or article, action=action if action in ACTIONS else "draft"
    )
    if not form.is_valid():
        return _render_form(request, form, status=400)
    if form.action == "preview":
        return _render_form(request, form, preview=render_body(article.body_markdown))
    if made is not None:
        return _answer_again(request, form)
    if _is_changed_elsewhere(request.POST, article):
        return _warn_of_other_version(request, form)
    return _save(request, form)


def _save(request: HttpRequest, form: ArticleForm) -> HttpResponse:
    article = form.save(commit=False)
    was_public = article.is_public()
    decide_publication(article, action=form.action, at=form.cleaned_data["publish_at"])
    if article.pk is None:
        article.form_key = _read_key(request.POST)
    try:
        saved = save_article(article=article, tags=form.cleaned_data["tag_names"])
    except IntegrityError:
        if _find_made(request.POST, Article(author=request.user)) is None:
            raise
        return _write(request, Article(author=request.user))  # the same form came twice at the same moment
    _drop_draft(request, saved)
    messages.success(request, _saved_message(saved, was_public=was_public))
    if request.POST.get("file") or request.POST.get("cover_file"):  # a name alone
        messages.warning(request, _("选好的图片没有上传：要先按“上传并插入”。"))
    return redirect(saved)


def _drop_draft(request: HttpRequest, saved: Article) -> None:
    """Delete what was kept of a form that is saved now."""
    Draft.objects.filter(author=saved.author, pk=_number(request.POST.get("draft"))).delete()


def _saved_message(article: Article, *, was_public: bool) -> str:
    if article.is_scheduled():
        at = date_format(timezone.localtime(article.published_at), "DATETIME_FORMAT")
        return _("文章定在 %(at)s 发布。") % {"at": at}
    if article.is_public():
        return _("修改已保存。") if was_public else _("文章已发布。")
    return _("文章已撤回为草稿，只有你能看到。") if was_public else _("草稿已保存，只有你能看到。")


# -- The form of a new article sent once more ----------------------------------------------------------------------


# Browsers that go back ask for the page anew and fill in what was typed, not what was hidden: so the key stands in the
# address, or follows from the draft that does.


def _draw_key(request: HttpRequest) -> str:
    """The key of the form that is shown, the same whenever this address is opened."""
    asked = request.POST.get("key") or request.GET.get("key", "")
    draft = _number(request.GET.get("draft"))
    return str(_key_of_draft(draft) if draft else _read_uuid(asked) or uuid4())


def _read_key(posted: QueryDict) -> UUID | None:
    draft = _number(posted.get("draft"))
    return _key_of_draft(draft) if draft else _read_uuid(posted.get("key", ""))


def _key_of_draft(draft: int) -> UUID:
    return uuid5(NAMESPACE_URL, f"/write/?draft={draft}")


def _read_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _find_made(posted: QueryDict, article: Article) -> Article | None:
    """The article that this form of a new one has made already."""
    key = _read_key(posted)
    if article.pk is not None or key is None:
        return None
    return Article.objects.filter(form_key=key, author=article.author).first()


def _answer_again(request: HttpRequest, form: ArticleForm) -> HttpResponse:
    """Lead to the article that the form has made; where it says something else by now, ask before it is changed."""
    saved = Article.objects.get(pk=form.instance.pk)
    if not _says_the_same(form, saved):
        return _render_form(request, form, status=409, base=_version(saved), made_before=saved)
    _drop_draft(request, saved)
    return redirect(saved)


def _says_the_same(form: ArticleForm, saved: Article) -> bool:
    typed = form.cleaned_data
    columns = ("title", "category", "summary", "body_markdown", "cover")
    return (
        all(typed[name] == getattr(saved, name) for name in columns)
        and set(typed["tag_names"]) == {tag.name for tag in saved.tags.all()}
        and typed["slug"] in ("", saved.slug)
        and {"publish": "published", "schedule": "scheduled"}.get(form.action, "draft") == _state_of(saved)
        and (form.action != "schedule" or typed["publish_at"] == saved.published_at)
    )


# -- The form ----------------------------------------------------------------------------------------------------


def _show_form(request: HttpRequest, article: Article) -> HttpResponse:
    """The form with what is saved, or with what was typed last and not saved."""
    kept = _take_kept(request, article)
    if kept is not None:
        messages.info(request, _("登录失效之前写的内容已经找回来了。"))
        return redirect(kept)
    if article.pk is None and not (request.GET.get("draft") or request.GET.get("key")):
        return redirect(f"{request.path}?key={uuid4()}")
    form = ArticleForm(instance=article)
    drafts = Draft.objects.filter(author=article.author, article=article if article.pk else None)
    draft = _choose_draft(request, drafts, is_new=article.pk is None)
    if draft is not None:
        form.restore(draft.fields)
    others = [other for other in drafts.select_related("article") if other != draft]
    return _render_form(request, form, draft=draft, other_drafts=others)


def _choose_draft(request: HttpRequest, drafts: Any, *, is_new: bool) -> Draft | None:
    """The draft that is asked for; else, of an article, the newest. `?draft=none` asks for what is saved."""
    asked = request.GET.get("draft", "")
    if asked == "none" or (is_new and not asked):
        return None
    return drafts.filter(pk=_number(asked)).first() if asked else drafts.first()


def _render_form(
    request: HttpRequest, form: ArticleForm, *, status: int = 200, draft: Draft | None = None, **page: Any
) -> HttpResponse:
    article = form.instance
    hidden = {
        "draft": draft.pk if draft else request.POST.get("draft", ""),
        "revision": draft.revision if draft else request.POST.get("revision", ""),
        "base": page.pop("base", None) or request.POST.get("base") or _version(article),
        "key": _draw_key(request),
    }
    context = {
        "form": form,
        "article": article,
        "state": _state_of(article),
        "hidden": hidden,
        "restored": draft,
        "image_max_bytes": settings.IMAGE_MAX_BYTES,
        "editor_texts": say_editor_texts(),
        "more_open": any(form[name].errors for name in ("summary", "cover", "slug")) or "as" in request.POST,
    }
    return render(request, "articles/write.html", context | page, status=status)


def _state_of(article: Article) -> str:
    """draft, scheduled or published, as it is saved: validation has written the form's values over the row's."""
    if article.is_public():
        return "published"
    return "scheduled" if article.is_scheduled() else "draft"


# -- The same article open twice ---------------------------------------------------------------------------------


def _version(article: Article) -> str:
    return article.updated_at.isoformat() if article.pk else ""


def _is_changed_elsewhere(posted: QueryDict, article: Article) -> bool:
    base = posted.get("base", "")
    return bool(article.pk and base and base != _version(article))


def _warn_of_other_version(request: HttpRequest, form: ArticleForm) -> HttpResponse:
    """Say that the article has been saved elsewhere since this page was opened. Both texts stay."""
    saved = Article.objects.get(pk=form.instance.pk)
    other = keep_version(article=saved, author=saved.author)
    return _render_form(request, form, status=409, base=_version(saved), other_version=other)


# -- A session that ended while somebody wrote --------------------------------------------------------------------


def _ask_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Keep what was typed in the session, until its writer has signed in and comes back."""
    if request.method == "POST":
        typed = {name: request.POST.get(name, "")[:MAX_BODY_CHARACTERS] for name in FIELDS}
        request.session[KEPT_ARTICLE] = {"page": request.path, "fields": typed}
    return redirect_to_login(request.path)


def _take_kept(request: HttpRequest, article: Article) -> Draft | None:
    """Make a draft of what was kept of this page, once."""
    kept = request.session.get(KEPT_ARTICLE)
    if not kept or kept["page"] != request.path:
        return None
    del request.session[KEPT_ARTICLE]
    of = article if article.pk else None
    return keep_draft(
        author=article.author, article=of, fields=kept["fields"], draft_id=None, revision=0
    ).draft


# -- Beside the form ---------------------------------------------------------------------------------------------


@require_POST
def preview(request: HttpRequest) -> HttpResponse:
    """The HTML of a text that is being written."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    try:
        return HttpResponse(render_body(request.POST.get("body_markdown", "")))
    except ValidationError as refusal:
        return HttpResponse(format_html("<p><strong>{}</strong></p>", " ".join(refusal.messages)), status=400)


@require_POST
def autosave(request: HttpRequest, slug: str | None = None) -> JsonResponse:
    """Keep what is typed, apart from the article. 409: it was typed elsewhere too, and both are kept."""
    if not request.user.is_authenticated:
        return JsonResponse({"error": _("登录已失效，请重新登录。")}, status=401)
    article = get_object_or_404(Article, slug=slug, author=request.user) if slug else None
    posted = request.POST
    try:
        kept = keep_draft(
            author=request.user,
            article=article,
            fields=posted.dict(),
            draft_id=_number(posted.get("draft")),
            revision=_number(posted.get("revision")) or 0,
        )
    except ValidationError as error:
        return JsonResponse({"error": " ".join(error.messages)}, status=429)
    draft = kept.draft
    answer = {
        "draft": draft.pk,
        "revision": draft.revision,
        "saved_at": draft.saved_at.isoformat(),
        "address": draft.get_absolute_url(),
        "conflict": kept.conflict,
        "elsewhere": [
            {"address": other.get_absolute_url(), "title": other.title} for other in kept.elsewhere
        ],
    }
    return JsonResponse(answer, status=409 if kept.conflict or kept.elsewhere else 200)


@require_POST
def insert_image(request: HttpRequest) -> HttpResponse:
    """Take a picture and show the form again, with the picture at the end of the text, or as the cover."""
    if not request.user.is_authenticated:
        return _ask_to_sign_in(request)
    slug = request.POST.get("article", "")
    article = (
        get_object_or_404(Article, slug=slug, author=request.user) if slug else Article(author=request.user)
    )
    typed, problem, status = request.POST.copy(), "", 200
    as_cover = request.POST.get("as") == "cover"
    file = request.FILES.get("cover_file" if as_cover else "file")
    try:
        if file is None:
            raise UploadRefused(_("先选一张图片，再按上传。"))
        image = store_image(owner=request.user, file=file)
        if as_cover:
            typed["cover"] = str(image.pk)
        else:
            typed["body_markdown"] = (
                f"{typed.get('body_markdown', '').rstrip()}\n\n![]({image.url})\n".lstrip()
            )
    except UploadRefused as refusal:
        problem, status = refusal.message, refusal.status
    form = ArticleForm(instance=article)
    form.restore(typed.dict())
    return _render_form(request, form, status=status, upload_problem=problem)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def discard(request: HttpRequest, draft_id: int) -> HttpResponse:
    """Throw away what was not saved; asked for before."""
    draft = get_object_or_404(Draft.objects.select_related("article"), pk=draft_id, author=request.user)
    if request.method != "POST":
        return render(request, "articles/discard.html", {"draft": draft})
    draft.delete()
    messages.success(request, _("没存的稿子已经丢弃。"))
    return redirect("articles:mine")


# -- My articles -------------------------------------------------------------------------------------------------


@login_required
@require_safe
def mine(request: HttpRequest) -> HttpResponse:
    """All that somebody has written, by state, with what is not saved yet."""
    written = Article.objects.filter(author=request.user)
    states: dict[str, tuple[Any, ArticleQuerySet]] = {
        "": (_("全部"), written),
        "draft": (_("草稿"), written.drafts()),
        "scheduled": (_("定时"), written.scheduled()),
        "published": (_("已发布"), written.published()),
    }
    asked = request.GET.get("state", "")
    asked = asked if asked in states else ""
    listed = states[asked][1].brief().order_by("-updated_at", "-pk")
    page = Paginator(listed, ARTICLES_PER_PAGE).get_page(request.GET.get("page"))
    echoes = listen(page.object_list)
    return render(
        request,
        "articles/mine.html",
        {
            "page": page,
            "entries": [(article, echoes.get(article.pk, Echo())) for article in page.object_list],
            "states": [(key, label, articles.count()) for key, (label, articles) in states.items()],
            "state": asked,
            "drafts": Draft.objects.filter(author=request.user).select_related("article"),
        },
    )


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def withdraw(request: HttpRequest, slug: str) -> HttpResponse:
    """Make an article a draft again; asked for before."""
    article = get_object_or_404(Article, slug=slug, author=request.user)
    if article.status == Article.Status.DRAFT:
        return redirect("articles:mine")
    if request.method != "POST":
        return render(request, "articles/withdraw.html", {"article": article, **_comments_said(article)})
    withdraw_article(article=article)
    messages.success(request, _("文章已撤回为草稿，只有你能看到。"))
    return redirect("articles:mine")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Remove an article for ever; asked for before."""
    article = get_object_or_404(Article, slug=slug, author=request.user)
    if request.method != "POST":
        return render(request, "articles/delete.html", {"article": article, **_comments_said(article)})
    delete_article(article=article)
    messages.success(request, _("《%(title)s》已删除。") % {"title": article.title})
    return redirect("articles:mine")


def _comments_said(article: Article) -> dict[str, Any]:
    return {"comments": listen([article]).get(article.pk, Echo()).comments}


def _number(text: str | None) -> int | None:
    """A row's key as it came from a form or an address; None for what is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None
