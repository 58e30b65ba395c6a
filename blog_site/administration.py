"""What the pages of the admin share: addresses for the theme, the pages listed beside each, and the front page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from blog_site.comments.models import Comment, Decision
from blog_site.moderation.queue import Tab, count_waiting


def mark_address(request: HttpRequest) -> str:
    return static("img/mark.svg")


def style_address(request: HttpRequest) -> str:
    return static("css/admin.css")


def script_address(request: HttpRequest) -> str:
    return static("js/admin.js")


def describe_page(request: HttpRequest) -> dict[str, Any]:
    """Keep the theme's colours out of the page: a <style> there would break the Content Security Policy."""
    return {"colors": None}


@dataclass(frozen=True)
class _Page:
    title: str
    icon: str  # a name of Material Symbols, which come with the theme
    name: str  # of its address in the admin
    permission: str = ""

    def described(self, request: HttpRequest) -> dict[str, Any]:
        """As the theme wants it."""
        link = reverse(f"admin:{self.name}")
        return {
            "title": self.title,
            "icon": self.icon,
            "link": link,
            "active": self._covers(request.path, link),
            "permission": lambda request: not self.permission or request.user.has_perm(self.permission),
        }

    def _covers(self, path: str, link: str) -> bool:
        if self.name == "index":
            return path == link
        in_queue = path.startswith(reverse("admin:moderation_queue"))
        return path.startswith(link) and (self.name == "moderation_queue" or not in_queue)


def list_pages(request: HttpRequest) -> list[dict[str, Any]]:
    """The pages that somebody may open, in groups; the theme leaves out a group without any."""
    groups = {
        "": [_Page(_("首页"), "dashboard", "index")],
        _("审核"): [
            _Page(_("审核队列"), "inbox", "moderation_queue", "comments.view_comment"),
            _Page(_("评论"), "forum", "comments_comment_changelist", "comments.view_comment"),
            _Page(_("审核记录"), "history", "comments_decision_changelist", "comments.view_decision"),
            _Page(_("审核规则"), "rule", "comments_rules_changelist", "comments.view_rules"),
            _Page(_("屏蔽词"), "block", "comments_blockedword_changelist", "comments.view_blockedword"),
        ],
        _("情感"): [
            _Page(
                pgettext("list", "预测"),
                "psychology",
                "comments_prediction_changelist",
                "comments.view_prediction",
            ),
            _Page(pgettext("list", "标注"), "label", "labels_label_changelist", "labels.view_label"),
            _Page(
                pgettext("list", "标注尝试"),
                "pending",
                "labels_labelattempt_changelist",
                "labels.view_labelattempt",
            ),
            _Page(_("样本"), "dataset", "labels_sample_changelist", "labels.view_sample"),
        ],
        _("训练"): [
            _Page(pgettext("list", "训练"), "model_training", "training_run_changelist", "training.view_run"),
            _Page(
                _("模型版本"),
                "deployed_code",
                "training_modelversion_changelist",
                "training.view_modelversion",
            ),
            _Page(_("上线记录"), "rocket_launch", "training_rollout_changelist", "training.view_rollout"),
            _Page(pgettext("list", "站点"), "hub", "training_site_changelist", "training.view_site"),
            _Page(
                _("定时任务"),
                "schedule",
                "django_celery_beat_periodictask_changelist",
                "django_celery_beat.view_periodictask",
            ),
        ],
        pgettext("heading", "内容"): [
            _Page(_("文章"), "article", "articles_article_changelist", "articles.view_article"),
            _Page(
                pgettext("list", "分类"), "category", "articles_category_changelist", "articles.view_category"
            ),
            _Page(_("标签"), "tag", "articles_tag_changelist", "articles.view_tag"),
            _Page(pgettext("list", "图片"), "image", "media_image_changelist", "media.view_image"),
        ],
        _("账号"): [
            _Page(_("用户"), "person", "users_user_changelist", "users.view_user"),
            _Page(_("访问令牌"), "key", "api_token_changelist", "api.view_token"),
            _Page(_("用户组"), "group", "auth_group_changelist", "auth.view_group"),
            _Page(
                _("登录失败记录"), "lock_person", "users_failedsignin_changelist", "users.view_failedsignin"
            ),
        ],
    }
    return [
        {"title": title, "items": [page.described(request) for page in pages]}
        for title, pages in groups.items()
    ]


def describe_front_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What waits for whoever opens the admin, and what has happened lately."""
    context["title"] = _("首页")
    if not request.user.has_perm("comments.view_comment"):
        return context
    queue, waiting = reverse("admin:moderation_queue"), count_waiting()
    comments, decisions = reverse("admin:comments_comment_changelist"), ""
    if request.user.has_perm("comments.view_decision"):
        decisions = reverse("admin:comments_decision_changelist")
    since = timezone.now() - timedelta(days=1)
    return {
        **context,
        "counters": [
            *(
                {"title": tab.label, "count": count, "link": f"{queue}?tab={tab.value}", "urgent": count > 0}
                for tab, count in waiting.items()
            ),
            {
                "title": _("一天内的评论"),
                "count": Comment.objects.filter(created_at__gte=since).count(),
                "link": comments,
            },
            {
                "title": _("一天内的审核"),
                "count": Decision.objects.filter(at__gte=since).count(),
                "link": decisions,
            },
        ],
        "queues": [
            {"title": tab.label, "link": f"{queue}?tab={tab.value}"} for tab in (Tab.UNCERTAIN, Tab.DISPUTED)
        ],
    }
