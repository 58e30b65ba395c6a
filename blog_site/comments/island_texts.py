"""What static/islands/comments.js says, in the language of the page; `{n}` and its like it fills in itself."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from .models import Report


def island_texts() -> dict[str, object]:
    """Texts by key; of what is counted, `…_one` for one. And with them the two choices that forms need."""
    return {
        "draft_address": reverse("comments:draft_sentiment"),
        "reasons": [[value, str(label)] for value, label in Report.Reason.choices],
        "new": ngettext("{n} 条新评论", "{n} 条新评论", 2),
        "new_one": ngettext("{n} 条新评论", "{n} 条新评论", 1),
        "new_here": _("{name} 发表了新评论"),
        "counter": _("{n} / {limit}"),
        "too_long": _("超出 {n} 个字符"),
        "hint": _("按 Ctrl + Enter 发表"),
        "restored": _("这是你上次没发出的话。"),
        "discard": _("清空"),
        "nudge": _("听起来有点重，换个说法更容易被听进去；想直接发也可以。"),
        "sending": _("正在发表…"),
        "posted": _("评论已发表"),
        "unreachable": _("没能发出去，请检查网络后再试一次。你写的话还在这里。"),
        "failed": _("没有成功，请稍后再试。"),
        "answering": _("回复 {name}"),
        "send_reply": _("发表回复"),
        "edit": _("修改评论"),
        "save": _("保存"),
        "cancel": _("取消"),
        "delete_title": _("删除这条评论？"),
        "delete_text": _("删除后不能恢复。"),
        "delete": _("删除"),
        "report_title": _("为什么举报？"),
        "report_note": _("补充说明（可不填）"),
        "report": pgettext("to do", "举报"),
        "choose_reason": _("请选一个理由。"),
        "loading": _("正在加载…"),
    }
