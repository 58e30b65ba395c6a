"""What the pages of the admin share: addresses for the theme, and the list of pages beside each."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext as _


def mark_address(request: HttpRequest) -> str:
    return static("img/mark.svg")


def style_address(request: HttpRequest) -> str:
    return static("css/admin.css")


def describe_page(request: HttpRequest) -> dict[str, Any]:
    """Keep the theme's colours out of the page: a <style> there would break the Content Security Policy."""
    return {"colors": None}


def list_pages(request: HttpRequest) -> list[dict[str, Any]]:
    """The pages that somebody may open, in groups; a group without any is left out by the theme."""
    return [
        {
            "title": title,
            "items": [_page(request, *page) for page in pages],
        }
        for title, pages in (
            ("", [(_("首页"), "dashboard", "index", "")]),
            (
                _("审核"),
                [
                    (_("评论"), "forum", "comments_comment_changelist", "comments.view_comment"),
                    (_("预测"), "psychology", "comments_prediction_changelist", "comments.view_prediction"),
                    (_("标注"), "label", "labels_label_changelist", "labels.view_label"),
                    (_("标注尝试"), "pending", "labels_labelattempt_changelist", "labels.view_labelattempt"),
                ],
            ),
            (
                _("训练"),
                [
                    (_("训练"), "model_training", "training_run_changelist", "training.view_run"),
                    (
                        _("模型版本"),
                        "deployed_code",
                        "training_modelversion_changelist",
                        "training.view_modelversion",
                    ),
                    (_("上线记录"), "rocket_launch", "training_rollout_changelist", "training.view_rollout"),
                    (_("样本"), "dataset", "labels_sample_changelist", "labels.view_sample"),
                    (_("站点"), "hub", "training_site_changelist", "training.view_site"),
                    (
                        _("定时任务"),
                        "schedule",
                        "django_celery_beat_periodictask_changelist",
                        "django_celery_beat.view_periodictask",
                    ),
                ],
            ),
            (
                _("内容"),
                [
                    (_("文章"), "article", "articles_article_changelist", "articles.view_article"),
                    (_("分类"), "category", "articles_category_changelist", "articles.view_category"),
                    (_("标签"), "tag", "articles_tag_changelist", "articles.view_tag"),
                ],
            ),
            (
                _("账号"),
                [
                    (_("用户"), "person", "users_user_changelist", "users.view_user"),
                    (_("用户组"), "group", "auth_group_changelist", "auth.view_group"),
                ],
            ),
        )
    ]


def _page(request: HttpRequest, title: str, icon: str, name: str, permission: str) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse(f"admin:{name}"),
        "permission": lambda request: not permission or request.user.has_perm(permission),
    }
