"""Who criticises is left alone; who insults or sneers is asked to look again."""

from __future__ import annotations

import pytest

from blog_site.comments.tone import is_harsh


@pytest.mark.parametrize(
    "text",
    [
        "照着做了两次都没有成功，第三步的火候可能写错了。",
        "和文章说的不一样，续航只有四个小时，有点失望。",
        "排版太密，手机上看着累，建议分段。",
        "价格比去年贵了三成，分量却少了，不值。",
        "结尾太仓促，前面埋的线索都没有收。",
        "这个结论我不同意：样本只有二十个人，说明不了什么！",
        "滚动的时候卡顿明显，退货了。",
        "翻译很生硬，好几处读不通。",
        "The second half is boring, and the ending makes no sense.",
        "Battery life is poor; I would not buy it again.",
    ],
)
def test_calm_criticism_is_not_harsh_however_negative(text: str) -> None:
    assert not is_harsh(text, "negative", 0.99)


@pytest.mark.parametrize(
    "text",
    [
        "写的什么玩意儿，浪费我十分钟。",
        "垃圾文章，别出来丢人了",
        "你有病吧，这也能发？",
        "满嘴胡说八道，闭嘴吧",
        "吃相太难看，恶心",
        "烂！烂！烂！",
        "作者脑子进水了",
        "垃 圾 作 者",
        "This is garbage, and so are you.",
        "What a pathetic waste of time",
    ],
)
def test_contempt_and_shouting_in_a_negative_text_are_harsh(text: str) -> None:
    assert is_harsh(text, "negative", 0.95)
    assert not is_harsh(text, "negative", 0.6)
    assert not is_harsh(text, "neutral", 0.99)


def test_an_insult_is_harsh_whatever_a_model_says() -> None:
    assert is_harsh("你真是个脑残，写得不错", "positive", 0.99)


def test_how_sure_the_model_must_be_is_a_setting(settings) -> None:
    settings.HARSH_DRAFT_SCORE = 0.6
    assert is_harsh("垃圾", "negative", 0.61)
    assert not is_harsh("垃圾", "negative", 0.59)
