"""What the editor says (static/islands/editor), in the reader's language: translations are in one place."""

from __future__ import annotations

from django.conf import settings
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _


def say_editor_texts() -> dict[str, str]:
    return {
        "tools": _("排版"),
        "bold": _("着重"),
        "italic": _("斜体"),
        "heading": _("小标题"),
        "quote": _("引用"),
        "list": _("列表"),
        "numbers": _("编号列表"),
        "tasks": _("任务列表"),
        "link": _("链接"),
        "code": _("代码"),
        "formula": _("公式"),
        "table": _("表格"),
        "image": _("图片"),
        "preview": _("边写边看"),
        "words": _("0 字"),
        # How it stands with what is typed.
        "typing": _("还没存"),
        "saving": _("正在存……"),
        "saved": _("已自动保存"),
        "offline": _("连不上，先存在这个浏览器里，稍后再试。"),
        "signed-out": _("登录已失效，写的先存在这个浏览器里。"),
        "signIn": _("在新窗口登录"),
        "refused": _("没能自动保存，先存在这个浏览器里。"),
        "elsewhere": _("这篇文章在别处也开着。两边写的各存了一份稿子，都没有丢。"),
        "left": _("这个浏览器里有上次没存上的内容。"),
        "restore": _("恢复它"),
        "drop": _("不要了"),
        # Pictures.
        "uploading": _("上传中"),
        "newPicture": _("刚上传的图片"),
        "tooLarge": _("图片太大，最多 %(limit)s。") % {"limit": filesizeformat(settings.IMAGE_MAX_BYTES)},
        "uploadFailed": _("图片没有传上去，请再试一次。"),
    }
