from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from blog_site.comments import services as comment_services
from blog_site.comments.models import Comment
from blog_site.labels import services
from blog_site.labels.labellers import LabellerUnavailable, UnusableAnswer, make_labeller
from blog_site.labels.models import MODERATOR_WEIGHT, Label, LabelAttempt, Sample, Source
from blog_site.labels.services import ImportedSample, ImportResult, Sweep
from ml.text import split_of, text_digest
from tests.comments.rows import make_article, make_category, make_comment, make_user
from tests.comments.test_services import run_in_threads
from tests.labels.language_model import GOOD, LanguageModelServer, Reply, asked_text, completion, failure

pytestmark = pytest.mark.django_db


def make_label(comment: Comment, sentiment: str = "positive", **fields: Any) -> Label:
    fields = {"source": Source.LLM, "model": "judge-1", "confidence": 0.9, **fields}
    fields.setdefault("text_digest", comment.text_digest)
    return Label.objects.create(comment=comment, sentiment=sentiment, **fields)


def unlabelled(settings) -> set[Comment]:
    return set(services.unlabelled_comments(labeller=make_labeller(settings)))


# -- Asking a labeller --


def test_a_label_holds_what_the_labeller_said(language_model: LanguageModelServer) -> None:
    comment = make_comment("味道真好")
    label = services.label_comment(comment=comment)
    label.refresh_from_db()
    assert (label.source, label.model, len(label.prompt_digest)) == ("llm", "judge-1", 64)
    assert (label.sentiment, label.intent, label.toxicity, label.confidence) == (
        "positive",
        "praise",
        0.0,
        0.93,
    )
    assert (label.reason, label.cost_tokens, label.text_digest) == ("称赞味道", 321, comment.text_digest)
    assert not LabelAttempt.objects.exists()
    assert comment.sample.label == "positive"


def test_the_lexicon_labels_without_a_server(settings) -> None:
    settings.LABELLER = "snownlp"
    label = services.label_comment(comment=make_comment("太难吃了，服务态度极差，再也不会来了"))
    assert (label.source, label.sentiment, label.cost_tokens) == ("lexicon", "negative", 0)


def test_a_retry_does_not_pay_twice(language_model: LanguageModelServer) -> None:
    comment = make_comment()
    first, second = services.label_comment(comment=comment), services.label_comment(comment=comment)
    assert first == second
    assert len(language_model.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_workers_that_label_the_same_comment_at_once_pay_once(language_model: LanguageModelServer) -> None:
    language_model.reply = lambda request: time.sleep(0.2) or completion(GOOD)
    comment = make_comment()
    assert run_in_threads(lambda: services.label_comment(comment=comment), times=4) == []
    assert len(language_model.requests) == 1
    assert Label.objects.get().comment == comment
    assert Sample.objects.get().comment == comment
    assert not LabelAttempt.objects.exists()


def test_another_model_is_another_opinion(language_model: LanguageModelServer, settings) -> None:
    comment = make_comment()
    services.label_comment(comment=comment)
    settings.LABELLER_MODEL = "judge-2"
    services.label_comment(comment=comment)
    assert set(Label.objects.values_list("model", flat=True)) == {"judge-1", "judge-2"}


def test_an_edited_text_is_labelled_anew_and_the_old_label_stays(language_model: LanguageModelServer) -> None:
    comment = make_comment("好喝")
    services.label_comment(comment=comment)
    comment_services.edit_comment(comment=comment, text="难喝")
    services.label_comment(comment=comment)
    assert [asked_text(request) for request in language_model.requests] == ["好喝", "难喝"]
    assert Label.objects.filter(comment=comment).count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_comment_deleted_while_the_labeller_thinks_leaves_nothing(
    language_model: LanguageModelServer,
) -> None:
    comment = make_comment()

    def delete(request: dict[str, Any]) -> Reply:
        Comment.objects.filter(pk=comment.pk).delete()
        connection.close()
        return completion(GOOD)

    language_model.reply = delete
    assert services.label_comment(comment=comment) is None
    assert not Label.objects.exists()
    assert not LabelAttempt.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_comment_deleted_before_the_labeller_is_asked_costs_nothing(
    language_model: LanguageModelServer,
) -> None:
    comment = make_comment()
    Comment.objects.filter(pk=comment.pk).delete()
    assert services.label_comment(comment=comment) is None
    assert language_model.requests == []


@pytest.mark.django_db(transaction=True)
def test_a_comment_edited_while_the_labeller_thinks_gets_no_sample_of_the_new_text(
    language_model: LanguageModelServer, settings
) -> None:
    comment = make_comment("好喝")

    def edit(request: dict[str, Any]) -> Reply:
        comment_services.edit_comment(comment=Comment.objects.get(pk=comment.pk), text="难喝")
        connection.close()
        return completion(GOOD)

    language_model.reply = edit
    assert services.label_comment(comment=comment).text_digest == text_digest("好喝")
    assert not Sample.objects.exists()
    assert unlabelled(settings) == {comment}


def test_a_useless_answer_is_asked_again_later_and_then_given_up(
    language_model: LanguageModelServer, settings
) -> None:
    language_model.reply = lambda request: completion("no JSON")
    comment = make_comment()
    waits = []
    for _ in range(len(services.ASK_AGAIN_AFTER) + 1):
        with pytest.raises(UnusableAnswer):
            services.label_comment(comment=comment)
        assert services.label_comment(comment=comment) is None  # not before its time
        assert unlabelled(settings) == set()
        attempt = LabelAttempt.objects.get()
        waits.append(attempt.next_at and attempt.next_at - timezone.now())
        LabelAttempt.objects.filter(next_at__isnull=False).update(next_at=timezone.now())

    for wait, expected in zip(waits, services.ASK_AGAIN_AFTER, strict=False):
        assert abs(wait - expected) < timedelta(seconds=10)
    assert waits[-1] is None
    assert attempt.cost_tokens == 4 * 321
    assert "no label" in attempt.error
    assert not Label.objects.exists()


def test_a_refused_text_is_given_up_at_once(language_model: LanguageModelServer, settings) -> None:
    language_model.reply = lambda request: completion(None, refusal="no")
    comment = make_comment()
    with pytest.raises(UnusableAnswer):
        services.label_comment(comment=comment)
    assert LabelAttempt.objects.get().next_at is None
    assert unlabelled(settings) == set()


@pytest.mark.parametrize("reply", [failure(429), failure(503), failure(401)])
def test_an_absent_labeller_leaves_the_comment_waiting(
    language_model: LanguageModelServer, settings, reply: Reply
) -> None:
    comment = make_comment()
    language_model.reply = lambda request: reply
    with pytest.raises(LabellerUnavailable):
        services.label_comment(comment=comment)
    assert unlabelled(settings) == {comment}
    assert LabelAttempt.objects.get().attempts == 0

    language_model.reply = lambda request: completion(GOOD)
    assert services.label_comment(comment=comment) is not None


def test_a_claim_whose_process_died_lapses(language_model: LanguageModelServer, settings) -> None:
    comment = make_comment()
    identity = services._identity(make_labeller(settings))
    LabelAttempt.objects.create(
        comment=comment,
        text_digest=comment.text_digest,
        **identity,
        next_at=timezone.now() + timedelta(seconds=9),
    )
    assert services.label_comment(comment=comment) is None
    LabelAttempt.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    assert services.label_comment(comment=comment) is not None


# -- Sweeping --


def test_the_sweep_labels_old_comments_and_leaves_young_ones_to_their_nudge(language_model, settings) -> None:
    old, young = make_comment("好", age_seconds=60), make_comment("差")
    assert services.sweep_unlabelled() == Sweep(labelled=1, refreshed=0, stopped=False)
    assert Label.objects.get().comment == old
    assert unlabelled(settings) == {young}


def test_the_sweep_asks_about_several_texts_at_once(language_model: LanguageModelServer) -> None:
    article, author = make_article(), make_user()
    for number in range(16):
        make_comment(f"第{number}条", article=article, author=author, age_seconds=60)
    asked_at_once = threading.Barrier(4, timeout=20)  # none is answered before so many are asked

    def answer_together(request: object) -> Reply:
        asked_at_once.wait()
        return completion(GOOD)

    language_model.reply = answer_together
    assert services.sweep_unlabelled().labelled == 16


def test_a_comment_that_a_moderator_has_labelled_costs_nothing(language_model: LanguageModelServer) -> None:
    comment = make_comment(age_seconds=60)
    services.correct_labels(comments=[comment], sentiment="neutral", moderator=make_user())
    assert services.sweep_unlabelled().labelled == 0
    assert language_model.requests == []


def test_a_useless_answer_holds_up_nobody(language_model: LanguageModelServer) -> None:
    for text in ("好", "坏", "差"):
        make_comment(text, age_seconds=60)
    language_model.reply = lambda request: completion("?" if asked_text(request) == "坏" else GOOD)
    assert services.sweep_unlabelled() == Sweep(labelled=2, refreshed=0, stopped=False)
    assert services.sweep_unlabelled() == Sweep(labelled=0, refreshed=0, stopped=False)
    assert len(language_model.requests) == 3


def test_the_sweep_stops_while_the_labeller_is_away_and_goes_on_when_it_is_back(
    language_model: LanguageModelServer, caplog
) -> None:
    for number in range(20):
        make_comment(f"第{number}条", age_seconds=60)
    language_model.reply = lambda request: failure(503)
    assert services.sweep_unlabelled() == Sweep(labelled=0, refreshed=0, stopped=True)
    assert len(language_model.requests) <= 8
    assert [record.levelname for record in caplog.records if record.name == services.logger.name] == [
        "WARNING"
    ]

    language_model.reply = lambda request: completion(GOOD)
    assert services.sweep_unlabelled() == Sweep(labelled=20, refreshed=0, stopped=False)


def test_a_wrong_set_up_is_reported_loudly_once(language_model: LanguageModelServer, caplog) -> None:
    services._report_once.cache_clear()
    make_comment(age_seconds=60)
    language_model.reply = lambda request: failure(401, message="wrong key")
    for _ in range(3):
        services.sweep_unlabelled()
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == 1
    assert "LABELLER_API_KEY" in loud[0].getMessage()


def test_a_refused_request_lets_the_others_be_tried_first(
    language_model: LanguageModelServer, settings
) -> None:
    settings.SWEEP_BATCH = 1
    poison, fine = make_comment("坏", age_seconds=60), make_comment("好", age_seconds=60)
    language_model.reply = lambda request: failure(400) if asked_text(request) == "坏" else completion(GOOD)
    assert services.sweep_unlabelled().stopped
    assert services.sweep_unlabelled() == Sweep(labelled=1, refreshed=0, stopped=False)
    assert Label.objects.get().comment == fine
    waiting = LabelAttempt.objects.get()
    assert (waiting.comment, waiting.attempts) == (poison, 0)
    assert waiting.next_at > timezone.now()


def test_the_lexicon_clears_a_hundred_comments_in_seconds(settings, monkeypatch) -> None:
    settings.LABELLER = "snownlp"
    monkeypatch.setattr(
        services, "SWEEP_SECONDS", 240.0
    )  # what is counted is the work, not a busy machine's time
    article, author = make_article(), make_user()
    for number in range(100):
        make_comment(
            f"这家店的味道真的很不错，第{number}次来", article=article, author=author, age_seconds=60
        )
    started = time.process_time()
    assert services.sweep_unlabelled().labelled == 100
    assert time.process_time() - started < 15


# -- Accepting labels --


def test_a_sure_label_makes_a_sample_owned_by_the_articles_category() -> None:
    comment = make_comment("味道真好", article=make_article(category=make_category("books")))
    make_label(comment)
    sample = services.accept_label(comment=comment)
    sample.refresh_from_db()
    assert (sample.key, sample.comment, sample.site) == (f"comment:{comment.pk}", comment, "books")
    assert (sample.text, sample.label, sample.source) == ("味道真好", "positive", "llm")
    assert (sample.text_digest, sample.split) == (comment.text_digest, split_of("味道真好"))


def test_an_unsure_label_makes_no_sample(settings) -> None:
    comment = make_comment()
    make_label(comment, confidence=settings.LABEL_MIN_CONFIDENCE - 0.01)
    assert services.accept_label(comment=comment) is None
    assert not Sample.objects.exists()


@pytest.mark.parametrize("order", [["lexicon", "llm", "moderator"], ["moderator", "llm", "lexicon"]])
def test_a_moderator_outranks_the_language_model_and_that_the_lexicon(order: list[str]) -> None:
    comment = make_comment()
    said = {"lexicon": "neutral", "llm": "positive", "moderator": "negative"}
    for source in order:
        make_label(comment, said[source], source=source, model="" if source == "moderator" else "m")
        services.accept_label(comment=comment)
    sample = Sample.objects.get()
    assert (sample.label, sample.source) == ("negative", "moderator")
    Label.objects.filter(source="moderator").delete()
    assert services.accept_label(comment=comment).label == "positive"


def test_of_two_labels_of_one_source_the_newer_counts() -> None:
    comment = make_comment()
    make_label(comment, "positive", model="judge-1")
    make_label(comment, "negative", model="judge-2")
    assert services.accept_label(comment=comment).label == "negative"


def test_a_better_source_that_is_unsure_silences_a_worse_one_that_is_sure() -> None:
    comment = make_comment()
    make_label(comment, source=Source.LEXICON, confidence=1.0)
    assert services.accept_label(comment=comment) is not None
    make_label(comment, source=Source.LLM, confidence=0.1)
    assert services.accept_label(comment=comment) is None
    assert not Sample.objects.exists()


def test_accepting_again_changes_nothing() -> None:
    comment = make_comment()
    make_label(comment)
    before = services.accept_label(comment=comment)
    after = services.accept_label(comment=comment)
    assert (before.pk, before.changed_at) == (after.pk, Sample.objects.get().changed_at)


def test_only_a_new_text_label_or_site_counts_as_a_change() -> None:
    comment = make_comment("好喝")
    make_label(comment, "positive")
    made = services.accept_label(comment=comment).changed_at

    services.correct_labels(comments=[comment], sentiment="positive", moderator=make_user())
    sample = Sample.objects.get()
    assert (sample.source, sample.changed_at) == ("moderator", made)

    services.correct_labels(comments=[comment], sentiment="negative", moderator=make_user())
    sample = Sample.objects.get()
    assert sample.label == "negative"
    assert sample.changed_at > made


def test_the_sample_of_a_superseded_text_is_removed_until_the_new_text_is_labelled() -> None:
    comment = make_comment("好喝")
    make_label(comment)
    services.accept_label(comment=comment)
    comment_services.edit_comment(comment=comment, text="难喝")
    assert services.refresh_samples() == 1
    assert not Sample.objects.exists()


def test_a_sample_follows_its_article_to_another_category() -> None:
    article = make_article(category=make_category("food"))
    comment = make_comment(article=article)
    make_label(comment)
    services.accept_label(comment=comment)
    article.category = make_category("books")
    article.save()

    assert services.refresh_samples() == 1
    assert Sample.objects.get().site == "books"
    assert services.refresh_samples() == 0


def test_deleting_a_comment_deletes_its_sample_and_labels() -> None:
    comment = make_comment()
    make_label(comment)
    services.accept_label(comment=comment)
    comment_services.delete_comment(comment=comment)
    assert not Sample.objects.exists()
    assert not Label.objects.exists()


def test_accepting_a_label_of_a_deleted_comment_is_no_error() -> None:
    comment = make_comment()
    Comment.objects.filter(pk=comment.pk).delete()
    assert services.accept_label(comment=comment) is None


@pytest.mark.django_db(transaction=True)
def test_labels_accepted_at_once_make_one_sample_that_says_the_best() -> None:
    comment, moderator = make_comment(), make_user()
    make_label(comment, "positive")
    works: list[Callable[[], object]] = [
        lambda: services.accept_label(comment=comment),
        lambda: services.correct_labels(comments=[comment], sentiment="negative", moderator=moderator),
    ]
    lock = threading.Lock()

    def work() -> None:
        with lock:
            mine = works[len(works) % 2]
            works.append(mine)
        mine()

    assert run_in_threads(work, times=6) == []
    services.accept_label(comment=comment)
    assert Sample.objects.get().label == "negative"
    assert Label.objects.filter(source=Source.MODERATOR).count() == 1


# -- Correcting --


def test_a_correction_is_the_moderators_word_and_is_accepted_whatever_others_said() -> None:
    moderator, comments = make_user(), [make_comment("好"), make_comment("差")]
    make_label(comments[0], "positive", confidence=1.0)

    assert services.correct_labels(comments=comments, sentiment="negative", moderator=moderator) == 2

    labels = Label.objects.filter(source=Source.MODERATOR)
    assert {(label.comment, label.sentiment, label.confidence, label.moderator) for label in labels} == {
        (comment, "negative", 1.0, moderator) for comment in comments
    }
    assert set(Sample.objects.values_list("label", "source", "weight")) == {
        ("negative", "moderator", MODERATOR_WEIGHT)
    }


def test_a_second_correction_replaces_the_first() -> None:
    comment = make_comment()
    for sentiment in ("negative", "neutral"):
        services.correct_labels(comments=[comment], sentiment=sentiment, moderator=make_user())
    assert Label.objects.get().sentiment == "neutral"
    assert Sample.objects.get().label == "neutral"


def test_a_deleted_comment_is_not_counted_as_corrected() -> None:
    comment = make_comment()
    Comment.objects.filter(pk=comment.pk).delete()
    assert services.correct_labels(comments=[comment], sentiment="neutral", moderator=make_user()) == 0


def test_a_correction_to_an_unknown_sentiment_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="great"):
        services.correct_labels(comments=[make_comment()], sentiment="great", moderator=make_user())
    assert not Label.objects.exists()


# -- Importing --


def test_an_imported_text_is_a_sample_of_its_site() -> None:
    result = services.import_samples(examples=[ImportedSample("酒店很干净", "positive", "hotel")])
    assert result == ImportResult(imported=1, duplicates=0)
    sample = Sample.objects.get()
    assert sample.key == f"corpus:{text_digest('酒店很干净')}"
    assert (sample.comment, sample.source, sample.site, sample.weight) == (None, "corpus", "hotel", 1)
    assert (sample.label, sample.split) == ("positive", split_of("酒店很干净"))


def test_the_same_text_is_imported_once() -> None:
    examples = [ImportedSample(text, "positive", "hotel") for text in ("很好", " 很好\u200b", "不错")]
    assert services.import_samples(examples=examples) == ImportResult(imported=2, duplicates=1)
    assert services.import_samples(examples=examples) == ImportResult(imported=0, duplicates=3)


def test_importing_again_does_not_make_samples_new() -> None:
    examples = [ImportedSample("很好", "positive", "hotel")]
    services.import_samples(examples=examples)
    before = Sample.objects.get().changed_at
    services.import_samples(examples=examples)
    assert Sample.objects.get().changed_at == before


@pytest.mark.parametrize(
    "example", [ImportedSample("好", "good", "hotel"), ImportedSample("\u200b", "positive", "hotel")]
)
def test_an_example_that_cannot_teach_is_named(example: ImportedSample) -> None:
    with pytest.raises(ValueError, match=r"good|hotel"):
        services.import_samples(examples=[example])
    assert not Sample.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_make_each_sample_once() -> None:
    examples = [ImportedSample(f"第{number}条", "neutral", "hotel") for number in range(300)]
    assert run_in_threads(lambda: services.import_samples(examples=examples), times=3) == []
    assert Sample.objects.count() == 300


def test_a_corpus_of_seventeen_thousand_is_imported_in_seconds() -> None:
    examples = (
        ImportedSample(f"第{number}条评价，房间干净，早餐一般。" * 3, "positive", "hotel")
        for number in range(17_000)
    )
    started = time.process_time()
    assert services.import_samples(examples=examples).imported == 17_000
    assert time.process_time() - started < 20
