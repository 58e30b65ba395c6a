from __future__ import annotations

from dataclasses import dataclass

import pytest

from blog_site.comments.constructiveness import rate_constructiveness
from blog_site.comments.rules import Facts, Held, contains_link, contains_word, judge

pytestmark = pytest.mark.once


@dataclass
class Rules:
    hold_first_comments: int = 0
    hold_links: bool = False
    hold_guests: bool = False


@dataclass
class Word:
    word: str
    action: str = "hold"


@pytest.mark.parametrize(
    ("facts", "rules", "held"),
    [
        (Facts("好喝"), Rules(), None),
        (Facts("好喝"), Rules(hold_first_comments=2), Held("first_comments")),
        (Facts("好喝", comments_before=2), Rules(hold_first_comments=2), None),
        (Facts("看 https://a.example"), Rules(hold_links=True), Held("link")),
        (Facts("看 https://a.example"), Rules(), None),
        (Facts("好喝", by_guest=True), Rules(hold_guests=True), Held("guest")),
        (Facts("好喝", by_guest=True), Rules(hold_first_comments=5), None),
        (Facts("加微信领红包"), Rules(hold_links=True), Held("word", "微信")),
        (Facts("加微信去赌场 www.a.example"), Rules(hold_links=True), Held("spam_word", "赌场")),
    ],
)
def test_a_comment_is_held_for_the_gravest_reason(facts: Facts, rules: Rules, held: Held | None) -> None:
    assert judge(facts, rules, [Word("微信"), Word("赌场", "spam")]) == held


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("加微信", "微信", True),
        ("加 微.信", "微信", True),
        ("加微\u200b信", "微信", True),
        ("加ＷｅＣｈａｔ吧", "wechat", True),
        ("a classic", "ass", False),
        ("what an ass", "ASS", True),
        ("微笑着信了", "微信", False),
        ("好喝", "", False),
        ("太贵💩", "💩", True),
    ],
)
def test_a_blocked_word_is_found_however_it_is_written(text: str, word: str, found: bool) -> None:
    assert contains_word(text, word) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("见 HTTPS://x.example/a", True),
        ("去www.taobao.com买", True),
        ("搜 taobao.com 就有", True),
        ("ｈｔｔｐ：／／x.cn", True),
        ("3.5分，第1.2节", False),
        ("用 vue.js 写的", False),
        ("还行...就是贵", False),
    ],
)
def test_a_link_is_an_address_or_the_name_of_a_site(text: str, found: bool) -> None:
    assert contains_link(text) is found


REASONED = "豆浆偏淡，因为石磨换成了机器；不过油条现炸，建议早上七点前去，比如周二人少，就不用排队。"


def test_reasons_outrank_a_shout_of_the_same_length() -> None:
    shout = "好吃" * 24
    assert rate_constructiveness(text=REASONED) > 2 * rate_constructiveness(text=shout)


def test_criticism_with_reasons_keeps_its_worth_and_an_empty_attack_does_not() -> None:
    assert rate_constructiveness(text=REASONED, negative=1.0) > 0.9 * rate_constructiveness(text=REASONED)
    assert rate_constructiveness(text="垃圾", negative=0.99) < rate_constructiveness(
        text="不错", negative=0.01
    )


def test_likes_raise_a_comment_and_never_beyond_the_scale() -> None:
    rated = [rate_constructiveness(text=REASONED * 9, likes=likes) for likes in (0, 1, 5, 20, 10_000)]
    assert rated == sorted(rated)
    assert rated[0] < rated[2]
    assert 0 <= rated[0] <= rated[-1] <= 1


def test_what_says_nothing_is_worth_nothing() -> None:
    assert rate_constructiveness(text="👍👍👍！！！") == 0
    assert rate_constructiveness(text="") == 0
