"""A draft's sentiment, for the page on which it is written: who is about to be harsh is asked to look again.

Nothing of it is kept, and sending does not wait for it. A service that is away, slow or busy leaves the writer alone.
"""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from blog_site.articles.models import Category

from .inference import InferenceError, judge_draft
from .text import CommentRejected, clean_comment_text
from .tone import is_harsh

logger = logging.getLogger(__name__)


@require_POST
@never_cache
def draft_sentiment(request: HttpRequest) -> HttpResponse:
    """Answer `{"label", "score", "harsh"}`, or 204 where there is nothing to say."""
    if not (request.user.is_authenticated or Category.objects.filter(guests_may_comment=True).exists()):
        return HttpResponse(status=204)
    try:
        text = clean_comment_text(request.POST.get("text", ""))
        judged = judge_draft(text).predictions[0]
    except CommentRejected:
        return HttpResponse(status=204)
    except InferenceError as error:
        logger.info("draft: not judged: %s", error)
        return HttpResponse(status=204)
    harsh = is_harsh(text, judged.label, judged.score)
    return JsonResponse({"label": judged.label, "score": round(judged.score, 4), "harsh": harsh})
