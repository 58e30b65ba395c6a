"""Posting and deleting a comment from the article's page; both work without JavaScript."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from blog_site.articles.models import Article
from blog_site.articles.pages import article_context, keep_comment

from . import services
from .forms import CommentForm
from .models import Comment


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
