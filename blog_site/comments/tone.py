"""How something is said: a model of sentiment does not tell calm criticism from an attack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.conf import settings

from .models import Sentiment
from .rules import contains_word

# Said to or of a person, whatever it is about; harsh words for a thing are not here.
INSULTS: Final = (
    "傻逼", "傻比", "煞笔", "傻子", "脑残", "智障", "弱智", "白痴", "蠢货", "蠢猪", "猪脑子", "人渣", "畜生", "贱人",
    "王八蛋", "混蛋", "滚蛋", "滚粗", "滚出去", "去死吧", "不要脸", "他妈的", "草泥马", "狗东西", "死全家",
    "sb", "cnm", "nmsl", "idiot", "idiots", "moron", "morons", "asshole", "bitch", "retard", "retarded", "fuck",
    "fucking", "kill yourself",
)  # fmt: skip

# Contempt, of a thing or a person: in a negative text they make the difference between a judgement and a blow.
CONTEMPT: Final = (
    "垃圾", "废物", "恶心", "闭嘴", "狗屁", "放屁", "屁话", "扯淡", "胡扯", "胡说八道", "瞎扯", "鬼话",
    "无耻", "丢人", "可耻", "恶臭", "有病吧", "你有病", "神经病", "没脑子", "脑子进水", "带脑子", "智商堪忧",
    "你智商", "什么玩意", "算什么东西", "什么鬼", "烂透", "稀烂", "一坨", "浪费时间", "浪费我", "骗子",
    "骗钱", "吃相", "死开", "滚吧", "滚开", "快滚", "呸", "令人作呕", "想吐", "看吐了", "辣眼睛", "误人子弟",
    "别出来丢", "也配", "配吗", "没素质", "缺德", "黑心", "笑死人", "garbage", "trash", "rubbish", "crap",
    "bullshit", "pathetic", "disgusting", "stupid", "shut up", "waste of time", "clown", "liar", "liars",
    "loser", "losers", "wtf",
)  # fmt: skip
SHOUTS: Final = 3  # marks of exclamation in a text


def is_harsh(text: str, label: str, score: float) -> bool:
    """Whether its writer may want to put it otherwise: an insult, or surely negative and contemptuous or loud."""
    if holds_any(text, INSULTS):
        return True
    if label != Sentiment.NEGATIVE or score < settings.HARSH_DRAFT_SCORE:
        return False
    return holds_any(text, CONTEMPT) or text.count("!") + text.count("！") >= SHOUTS


def holds_any(text: str, words: Iterable[str]) -> bool:
    """Whether a text holds one of these words."""
    return any(contains_word(text, word) for word in words)
