"""What a script gets that has sent a form and stays on the page; without it the same views lead to a page."""

from __future__ import annotations

from django.forms import Form
from django.http import HttpRequest, JsonResponse

from .live import describe_comment
from .models import Comment
from .pages import reader_of
from .threads import with_likes


def wants_json(request: HttpRequest) -> bool:
    """Whether a form was sent by such a script."""
    return request.method == "POST" and request.headers.get("Accept") == "application/json"


def answer_with(
    request: HttpRequest, comment: Comment, *, notice: str = "", status: int = 200
) -> JsonResponse:
    """Answer with the comment as the page is to show it now: `{"comment": {"id", "parent", "html"}, "notice"}`."""
    reader = reader_of(request, added=comment)
    comments = Comment.objects.filter(pk=comment.pk).with_predictions().select_related("article__category")
    fresh = with_likes(comments, reader).get()
    described = describe_comment(fresh, fresh.article, request, reader)
    return JsonResponse({"comment": described, "notice": notice}, status=status)


def refuse_form(form: Form) -> JsonResponse:
    """Answer with what is wrong with a form: `{"errors": […]}`."""
    problems = [str(problem) for found in form.errors.values() for problem in found]
    return JsonResponse({"errors": problems}, status=400)
