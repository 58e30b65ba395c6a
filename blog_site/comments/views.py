"""Posting, explaining and deleting a comment from the article's page; all works without JavaScript."""

from __future__ import annotations

import logging

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from blog_site.addresses import client_address
from blog_site.articles.models import Article
from blog_site.articles.pages import article_context, keep_comment

from . import explanations, services
from .forms import CommentForm
from .inference import InferenceError
from .models import Comment

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
    if not request.user.is_authenticated:
        keep_comment(request, article, text)
        return redirect_to_login(request.path)
    form = CommentForm(request.POST)
    if not form.is_valid():
        return render(request, "articles/article.html", article_context(article, request, form), status=400)
    comment = services.post_comment(article=article, author=request.user, text=form.cleaned_data["text"])
    return redirect(comment.get_absolute_url())


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def delete_comment(request: HttpRequest, comment_id: int) -> HttpResponse:
    """Delete one's own comment and go back to the article."""
    comment = get_object_or_404(Comment.objects.select_related("article"), pk=comment_id, author=request.user)
    if request.method == "POST":  # else signing in has led back here: nothing is deleted by following a link
        services.delete_comment(comment=comment)
        messages.success(request, _("评论已删除"))
    return redirect(f"{comment.article.get_absolute_url()}#comments")


@require_safe
@never_cache
def explain_comment(
    request: HttpRequest, comment_id: int, template: str = "comments/explanation.html"
) -> HttpResponse:
    """Show which words of a comment made the model judge it as it does, to whoever may read the comment."""
    comments = Comment.objects.seen_by(request.user).with_predictions().select_related("article")
    comment = get_object_or_404(comments, pk=comment_id)
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
