"""What a comment's text may be; everything that takes text from outside passes it through here once."""

from __future__ import annotations

import re
import unicodedata

from django.conf import settings
from django.utils.translation import gettext as _

from blog_site.users.names import clean_name
from ml.text import normalize_text

GUEST_NAME_MAX = 40
_LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Letters and symbols by category, yet nothing is to be seen: Hangul fillers and the empty Braille pattern.
_BLANK_LETTERS = str.maketrans("", "", "\u115f\u1160\u3164\uffa0\u2800")


class CommentRejected(ValueError):
    """A text that cannot be a comment; the message tells its writer why and what to do."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def clean_comment_text(raw: str) -> str:
    """Bring a text from outside into the form that is stored: lines end with a newline, no blanks around it.

    Everything else is kept as written. Raises CommentRejected.
    """
    text = _LINE_ENDS.sub("\n", raw).strip()
    _refuse_unstorable(text)
    if not normalize_text(text).translate(_BLANK_LETTERS).strip():
        raise CommentRejected(_("请输入评论内容"), code="blank")
    if len(text) > settings.COMMENT_MAX_CHARACTERS:
        raise CommentRejected(
            _("评论有 %(count)d 个字符，最多 %(limit)d 个，请删减后再发表")
            % {"count": len(text), "limit": settings.COMMENT_MAX_CHARACTERS},
            code="too_long",
        )
    return text


def _refuse_unstorable(text: str) -> None:
    """Refuse what a database, a JSON document or a terminal would stumble over."""
    if _SURROGATE.search(text):
        raise CommentRejected(_("评论含有不完整的字符（半个代理对），请重新输入"), code="surrogate")
    for character in text:
        if unicodedata.category(character) == "Cc" and character not in "\n\t":
            raise CommentRejected(
                _("评论含有控制字符 U+%(code)04X，请删去") % {"code": ord(character)},
                code="control_character",
            )


def clean_guest_name(raw: str) -> str:
    """Bring the name a guest gives into the form that is stored: one line without blanks around it.

    Raises CommentRejected.
    """
    _refuse_unstorable(" ".join(raw.split()))
    name = clean_name(raw)
    if not normalize_text(name).translate(_BLANK_LETTERS).strip():
        raise CommentRejected(_("请填写称呼"), code="nameless")
    if len(name) > GUEST_NAME_MAX:
        raise CommentRejected(
            _("称呼有 %(count)d 个字符，最多 %(limit)d 个") % {"count": len(name), "limit": GUEST_NAME_MAX},
            code="name_too_long",
        )
    return name


def clean_note(raw: str) -> str:
    """Bring a note to the moderators into the form that is stored. Raises CommentRejected."""
    note = _LINE_ENDS.sub("\n", raw).strip()
    _refuse_unstorable(note)
    return note
