"""Posting, answering, changing, liking, reporting, explaining and deleting comments; all works without JavaScript."""

from __future__ import annotations

import logging

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from blog_site.addresses import client_address
from blog_site.articles.models import Article
from blog_site.articles.pages import article_context

from . import explanations, services
from .answers import answer_with, refuse_form, wants_json
from .forms import CommentForm, GuestCommentForm, ReportForm
from .guests import remember_comment
from .inference import InferenceError
from .models import Comment
from .pages import find_comment, keep_comment, make_form, reader_of
from .text import CommentRejected

logger = logging.getLogger(__name__)


@require_http_methods(["GET", "HEAD", "POST"])
def post_comment(request: HttpRequest, slug: str) -> HttpResponse:
    """Post a comment and go to it. Whatever stands in the way, the text is given back to its writer."""
    article = Article.objects.published().with_people().filter(slug=slug).first()
    text = request.POST.get("text", "")
    if article is None:
        if request.method == "POST" and request.user.is_authenticated:
            return render(request, "comments/not_posted.html", {"text": text}, status=404)
        raise Http404
    if request.method != "POST":  # where signing in leads back to when the session had ended
        return redirect(f"{article.get_absolute_url()}#comment-form")
    form = make_form(request, article)
    if form is None and not request.user.is_authenticated:
        keep_comment(request, article, text)
        return redirect_to_login(request.path)
    form = form or CommentForm(request.POST)  # the article takes no more; the service says so
    comment = _post(request, article, form)
    if comment is None:
        if wants_json(request):
            return refuse_form(form)
        page = article_context(article, request) | {"comment_form": form}
        return render(request, "articles/article.html", page, status=400)
    notice = "" if comment.is_visible() else _("评论已提交，通过审核后其他人就能看到。")
    response: HttpResponse
    if wants_json(request):
        response = answer_with(request, comment, notice=notice, status=201)
    else:
        if notice:
            messages.info(request, notice)
        response = redirect(comment.get_absolute_url())
    if comment.author_id is None:
        remember_comment(request, response, comment)
    return response


def _post(request: HttpRequest, article: Article, form: CommentForm) -> Comment | None:
    """Post what a form holds; None when it is refused, and the form says why."""
    if not form.is_valid():
        return None
    asked_for_parent = request.POST.get("parent", "")
    parent = find_comment(article, reader_of(request), asked_for_parent)
    if asked_for_parent and parent is None:
        form.add_error("text", _("你要回复的评论已经不在了"))
        return None
    guest_name = form.cleaned_data["name"] if isinstance(form, GuestCommentForm) else ""
    try:
        return services.post_comment(
            article=article,
            author=request.user if request.user.is_authenticated else None,
            guest_name=guest_name,
            text=form.cleaned_data["text"],
            parent=parent,
        )
    except CommentRejected as rejection:
        form.add_error("text", rejection.message)
        return None


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def edit_comment(request: HttpRequest, comment_id: int) -> HttpResponse:
    """Change one's own comment, for a while after posting it."""
    comment = get_object_or_404(Comment.objects.select_related("article"), pk=comment_id, author=request.user)
    form = CommentForm(request.POST if request.method == "POST" else None, initial={"text": comment.text})
    if request.method == "POST" and form.is_valid():
        try:
            edited = services.edit_comment(comment=comment, text=form.cleaned_data["text"])
        except CommentRejected as rejection:
            form.add_error("text", rejection.message)
        else:
            notice = _("评论已修改") if edited.is_visible() else _("评论已修改，通过审核后其他人就能看到。")
            if wants_json(request):
                return answer_with(request, edited, notice=notice)
            (messages.success if edited.is_visible() else messages.info)(request, notice)
            return redirect(edited.get_absolute_url())
    if wants_json(request):
        return refuse_form(form)
    page = {"comment": comment, "form": form, "may_edit": comment.may_be_edited_by(request.user)}
    return render(request, "comments/edit.html", page, status=400 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def delete_comment(request: HttpRequest, comment_id: int) -> HttpResponse:
    """Ask whether one's own comment is to be deleted; delete it and go back to the article."""
    comment = get_object_or_404(Comment.objects.select_related("article"), pk=comment_id, author=request.user)
    if request.method != "POST":
        return render(request, "comments/delete.html", {"comment": comment})
    services.delete_comment(comment=comment)
    if wants_json(request):
        return JsonResponse({"notice": _("评论已删除")})
    messages.success(request, _("评论已删除"))
    return redirect(f"{comment.article.get_absolute_url()}#comments")


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def like_comment(request: HttpRequest, comment_id: int) -> HttpResponse:
    """Like a comment, or take the like back where the form says `liked=0`, and go back to it."""
    comment = _readable(request, comment_id)
    if request.method == "POST":
        if request.POST.get("liked") == "0":
            services.unlike_comment(comment=comment, user=request.user)
        else:
            services.like_comment(comment=comment, user=request.user)
        if wants_json(request):
            return answer_with(request, comment)
    return redirect(comment.get_absolute_url())


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def report_comment(request: HttpRequest, comment_id: int) -> HttpResponse:
    """Tell the moderators about somebody else's comment."""
    comment = _readable(request, comment_id)
    form = ReportForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        reported = services.report_comment(comment=comment, reporter=request.user, **form.cleaned_data)
        notice = _("这条评论不能举报。") if reported is None else _("谢谢，审核员会看到你的举报。")
        if wants_json(request):
            return JsonResponse({"notice": notice})
        (messages.error if reported is None else messages.success)(request, notice)
        return redirect(comment.get_absolute_url())
    if wants_json(request):
        return refuse_form(form)
    page = {"comment": comment, "form": form}
    return render(request, "comments/report.html", page, status=400 if form.errors else 200)


def _readable(request: HttpRequest, comment_id: int) -> Comment:
    seen = Comment.objects.seen_by(request.user).select_related("article", "author")
    return get_object_or_404(seen, pk=comment_id)


@require_safe
@never_cache
def explain_comment(
    request: HttpRequest, comment_id: int, template: str = "comments/explanation.html"
) -> HttpResponse:
    """Show which words of a comment made the model judge it as it does, to whoever may read the comment."""
    reader = reader_of(request)
    comments = Comment.objects.seen_by(reader.user, guests_own=reader.guests_own)
    comment = get_object_or_404(comments.with_predictions().select_related("article"), pk=comment_id)
    page = {"comment": comment}
    asker = explanations.name_asker(request.user, client_address(request.META))
    try:
        explanation = explanations.explain_comment(comment=comment, asker=asker)
    except explanations.TooManyAsked as refusal:
        response = render(request, template, page | {"too_many": True}, status=429)
        response["Retry-After"] = str(refusal.retry_after_seconds)
        return response
    except InferenceError as error:
        logger.warning("comment %s: not explained: %s", comment_id, error)
        return render(request, template, page | {"away": True}, status=503)
    return render(request, template, page | {"explanation": explanation})
