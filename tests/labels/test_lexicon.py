from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from blog_site.labels.lexicon import LexiconLabeller, judge_positivity

pytestmark = pytest.mark.once

PRAISE = "味道很好，服务热情，下次还会再来，推荐给大家"
BLAME = "太难吃了，服务态度极差，再也不会来了，退款也不理人"


def test_the_labeller_names_itself_by_the_package_it_uses() -> None:
    labeller = LexiconLabeller()
    assert (labeller.source, labeller.model, labeller.prompt_digest) == ("lexicon", "snownlp-0.12.3", "")


@pytest.mark.parametrize(
    ("positivity", "sentiment", "confidence"),
    [(1.0, "positive", 1.0), (0.85, "positive", 0.7), (0.6, "positive", 0.2), (0.5, "neutral", 0.3),
     (0.45, "neutral", 0.15), (0.4, "negative", 0.2), (0.0, "negative", 1.0)],
)  # fmt: skip
def test_confidence_is_the_distance_from_even_odds(
    positivity: float, sentiment: str, confidence: float
) -> None:
    proposal = judge_positivity(positivity)
    assert proposal.sentiment == sentiment
    assert proposal.confidence == pytest.approx(confidence)


def test_praise_and_blame_are_told_apart_with_confidence() -> None:
    labeller = LexiconLabeller()
    praise, blame = labeller.propose(PRAISE), labeller.propose(BLAME)
    assert (praise.sentiment, blame.sentiment) == ("positive", "negative")
    assert min(praise.confidence, blame.confidence) > 0.7


@pytest.mark.parametrize(
    "text", ["😀😀", "!!!", "", "I love this great wonderful product, thank you so much", "12345"]
)
def test_a_text_without_chinese_gets_no_opinion(text: str) -> None:
    proposal = LexiconLabeller().propose(text)
    assert (proposal.sentiment, proposal.confidence) == ("neutral", 0.0)


def test_the_longest_comment_is_labelled_in_about_a_second() -> None:
    labeller = LexiconLabeller()
    labeller.propose(PRAISE)
    started = time.process_time()
    proposal = labeller.propose(PRAISE.replace("，", "") * 600)
    assert time.process_time() - started < 2
    assert proposal.sentiment == "positive"


def test_threads_get_the_answers_that_one_thread_gets() -> None:
    labeller = LexiconLabeller()
    texts = [PRAISE, BLAME, "一般般吧", "物流快，包装差"] * 10
    alone = [labeller.propose(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(labeller.propose, texts)) == alone
