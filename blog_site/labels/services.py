"""Labelling comments, correcting labels, and the samples that follow from them."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from blog_site.comments.decisions import record_decision
from blog_site.comments.models import Comment, CommentQuerySet, Decision, Sentiment
from blog_site.users.models import User
from ml.text import normalize_text, split_of, text_digest

from .labellers import (
    Labeller,
    LabellerError,
    LabellerUnavailable,
    LabelProposal,
    RequestRefused,
    UnusableAnswer,
    make_labeller,
)
from .models import NEVER_SAMPLES, Label, LabelAttempt, Sample, Source

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

# A sweep leaves the rest to the next one, so that it never holds a worker for long.
SWEEP_SECONDS = 20.0
# When to ask again about a text that got a useless answer; after the last one, only a moderator labels it.
ASK_AGAIN_AFTER = (timedelta(minutes=5), timedelta(hours=1), timedelta(days=1))
# After a refusal that may be the set-up's fault: long enough not to hammer, short once it is mended.
REFUSED_FOR = timedelta(minutes=10)
IMPORT_BATCH = 1_000
# What a restored comment taught it teaches again; a decision whose nudge was lost is looked for so long.
RESTORED_WITHIN = timedelta(days=1)


# -- Asking a labeller --


def unlabelled_comments(*, labeller: Labeller) -> CommentQuerySet:
    """Comments whose present text nobody has labelled and this labeller may be asked about now."""
    labels = Label.objects.filter(comment=OuterRef("pk"), text_digest=OuterRef("text_digest"))
    attempts = LabelAttempt.objects.filter(
        Q(next_at__isnull=True) | Q(next_at__gt=timezone.now()),
        comment=OuterRef("pk"),
        text_digest=OuterRef("text_digest"),
        **_identity(labeller),
    )
    return Comment.objects.judged().filter(~Exists(labels), ~Exists(attempts))


def label_comment(*, comment: Comment) -> Label | None:
    """Ask the labeller about a comment, store its label and accept it.

    A text that this labeller has labelled is not asked about again. None when another process is asking, when
    an earlier answer was useless and its time to ask again has not come, or when the comment is gone. Raises
    LabellerError; a crash between the answer and its row is the one way in which a text is paid for twice.
    """
    labeller = make_labeller(settings)
    known = Label.objects.filter(
        comment=comment, text_digest=comment.text_digest, **_identity(labeller)
    ).first()
    if known is not None:
        accept_label(comment=comment)
        return known
    claim = _claim(comment, labeller)
    if claim is None:
        return None
    return _settle(comment, labeller, claim, _propose(labeller, comment.text))


def _identity(labeller: Labeller) -> dict[str, str]:
    return {"source": labeller.source, "model": labeller.model, "prompt_digest": labeller.prompt_digest}


def _claim(comment: Comment, labeller: Labeller) -> LabelAttempt | None:
    """Take the right to ask about a text, or give None. It lapses, lest a crash hold the text up for ever."""
    now = timezone.now()
    lapses_at = now + timedelta(seconds=2 * settings.LABELLER_TIMEOUT_SECONDS + 30)
    try:
        claim, made = LabelAttempt.objects.get_or_create(
            comment_id=comment.pk,
            text_digest=comment.text_digest,
            **_identity(labeller),
            defaults={"next_at": lapses_at},
        )
    except IntegrityError:  # the comment was deleted meanwhile
        return None
    if made:
        return claim
    taken = LabelAttempt.objects.filter(pk=claim.pk, next_at__lte=now).update(next_at=lapses_at)
    return claim if taken else None


def _propose(labeller: Labeller, text: str) -> LabelProposal | LabellerError:
    """Ask, and give an error back as a value: in a sweep each text settles its own."""
    try:
        return labeller.propose(text)
    except LabellerError as error:
        return error


def _settle(
    comment: Comment, labeller: Labeller, claim: LabelAttempt, outcome: LabelProposal | LabellerError
) -> Label | None:
    """Turn what the labeller said into rows; raises its error once the claim says when to ask again."""
    if isinstance(outcome, LabellerError):
        _put_off(claim, outcome)
        raise outcome
    label = _store_label(comment, labeller, outcome)
    claim.delete()
    if label is not None:
        accept_label(comment=comment)
    return label


def _put_off(claim: LabelAttempt, error: LabellerError) -> None:
    """Write down when this text may be asked about again."""
    now = timezone.now()
    if isinstance(error, UnusableAnswer):
        claim.attempts += 1
        gives_up = error.permanent or claim.attempts > len(ASK_AGAIN_AFTER)
        claim.next_at = None if gives_up else now + ASK_AGAIN_AFTER[claim.attempts - 1]
        claim.cost_tokens += error.cost_tokens
        logger.warning("comment %s: no label (attempt %d): %s", claim.comment_id, claim.attempts, error)
    else:
        claim.next_at = now + REFUSED_FOR if isinstance(error, RequestRefused) else now
    claim.error = str(error)[:500]
    # By condition, not by save(): the comment may have been deleted, and the claim with it.
    LabelAttempt.objects.filter(pk=claim.pk).update(
        attempts=claim.attempts, next_at=claim.next_at, error=claim.error, cost_tokens=claim.cost_tokens
    )


def _store_label(comment: Comment, labeller: Labeller, proposal: LabelProposal) -> Label | None:
    """Store a label of the text that was asked about, present or not; None when the comment is gone."""
    said = {
        "sentiment": proposal.sentiment,
        "intent": proposal.intent,
        "toxicity": proposal.toxicity,
        "confidence": proposal.confidence,
        "reason": proposal.reason,
        "cost_tokens": proposal.cost_tokens,
    }
    with transaction.atomic():
        present = Comment.objects.select_for_update().filter(pk=comment.pk).first()
        if present is None or present.status == Comment.Status.DELETED:
            return None
        label, _made = Label.objects.get_or_create(
            comment_id=comment.pk, text_digest=comment.text_digest, **_identity(labeller), defaults=said
        )
    return label


# -- Sweeping --


@dataclass(frozen=True)
class Sweep:
    """What a sweep did: comments labelled, samples brought up to date, and whether the labeller failed it."""

    labelled: int
    refreshed: int
    stopped: bool


def sweep_unlabelled() -> Sweep:
    """Label what no nudge brought to the labeller, oldest first, until none is left or time is up."""
    refreshed = refresh_samples()
    labeller = make_labeller(settings)
    deadline = time.monotonic() + SWEEP_SECONDS
    labelled = 0
    try:
        for _label in _label_waiting(labeller, deadline):
            labelled += 1
    except LabellerUnavailable as error:
        report_unavailable(error)
        logger.warning("sweep: %d comments labelled, then the labeller stopped it: %s", labelled, error)
        return Sweep(labelled, refreshed, stopped=True)
    if labelled:
        logger.info("sweep: %d comments labelled", labelled)
    return Sweep(labelled, refreshed, stopped=False)


def _label_waiting(labeller: Labeller, deadline: float) -> Iterator[Label]:
    """Label batch after batch, as many texts at once as the labeller can take."""
    waiting = unlabelled_comments(labeller=labeller).older_than(settings.SWEEP_AFTER_SECONDS).order_by("pk")
    last_id = 0
    with ThreadPoolExecutor(max_workers=labeller.concurrency, thread_name_prefix="labeller") as pool:
        while batch := list(waiting.filter(pk__gt=last_id)[: settings.SWEEP_BATCH]):
            last_id = batch[-1].pk
            for comments in _chunks(batch, labeller.concurrency):
                if time.monotonic() > deadline:
                    return
                yield from _label_at_once(labeller, comments, pool)


def _label_at_once(
    labeller: Labeller, comments: Sequence[Comment], pool: ThreadPoolExecutor
) -> Iterator[Label]:
    """Ask about several comments at the same time; rows are read and written by this thread alone."""
    claims = [(comment, claim) for comment in comments if (claim := _claim(comment, labeller)) is not None]
    outcomes = pool.map(functools.partial(_propose, labeller), [comment.text for comment, _claim in claims])
    unavailable: LabellerUnavailable | None = None
    for (comment, claim), outcome in zip(claims, list(outcomes), strict=True):
        try:
            label = _settle(comment, labeller, claim, outcome)
        except UnusableAnswer:
            continue  # this text waits, the others go on
        except LabellerUnavailable as error:
            unavailable = error
        else:
            if label is not None:
                yield label
    if unavailable is not None:
        raise unavailable


@functools.lru_cache(maxsize=16)
def _report_once(message: str) -> None:
    logger.error("labelling waits until this is mended: %s", message)


def report_unavailable(error: LabellerUnavailable) -> None:
    """Say once in a process's life, loudly, what only an administrator can mend."""
    if error.permanent:
        _report_once(str(error))


# -- Accepting labels --


def best_label(labels: Iterable[Label]) -> Label | None:
    """Of the labels of one text, the one that counts."""
    return max(labels, key=Label.rank, default=None)


def accept_label(*, comment: Comment) -> Sample | None:
    """Make the sample what the best label says, or remove it when no label of the present text may teach."""
    with transaction.atomic():
        # Locking the comment orders everybody who would change its sample.
        present = Comment.objects.select_for_update().filter(pk=comment.pk).first()
        if present is None:
            return None
        if present.status in NEVER_SAMPLES:
            Sample.objects.filter(comment=present).delete()
            return None
        label = best_label(Label.objects.filter(comment=present, text_digest=present.text_digest))
        if label is None or not label.is_acceptable():
            Sample.objects.filter(comment=present).delete()
            return None
        return _put_sample(present, label)


def _put_sample(comment: Comment, label: Label) -> Sample:
    """Make or update a comment's sample; `changed_at` moves only when there is something new to learn."""
    site = Comment.objects.values_list("article__category__slug", flat=True).get(pk=comment.pk)
    taught = {"text": comment.text, "label": label.sentiment, "site": site}
    derived = {
        "text_digest": comment.text_digest,
        "split": split_of(comment.text),
        "source": label.source,
        "weight": label.weight(),
        "comment": comment,
    }
    now = timezone.now()
    sample, made = Sample.objects.get_or_create(
        key=f"comment:{comment.pk}", defaults={**taught, **derived, "changed_at": now}
    )
    if made:
        return sample
    if any(getattr(sample, field) != value for field, value in taught.items()):
        sample.changed_at = now
    for field, value in {**taught, **derived}.items():
        setattr(sample, field, value)
    sample.save()
    return sample


def refresh_samples() -> int:
    """Bring samples up to date whose comment was edited, found to be spam or restored, or whose article moved."""
    strayed = list(Sample.objects.strayed().select_related("comment")[: settings.SWEEP_BATCH])
    for sample in strayed:
        assert sample.comment is not None
        accept_label(comment=sample.comment)
    return len(strayed) + _refresh_restored()


def _refresh_restored() -> int:
    restored = Decision.objects.filter(
        from_status__in=NEVER_SAMPLES, at__gte=timezone.now() - RESTORED_WITHIN, comment__sample=None
    ).exclude(to_status__in=NEVER_SAMPLES)
    comments = Comment.objects.filter(decisions__in=restored).exclude(status__in=NEVER_SAMPLES).distinct()
    return sum(accept_label(comment=comment) is not None for comment in comments[: settings.SWEEP_BATCH])


def correct_labels(*, comments: Iterable[Comment], sentiment: str, moderator: User, reason: str = "") -> int:
    """Label comments by a moderator's word, which outranks every other, and write down that it was; gives how many."""
    label = Sentiment(sentiment)
    return sum(_correct_label(comment.pk, label, moderator, reason) for comment in comments)


@transaction.atomic
def _correct_label(comment_id: int, sentiment: Sentiment, moderator: User, reason: str) -> bool:
    comment = Comment.objects.select_for_update().filter(pk=comment_id).first()
    if comment is None or comment.status == Comment.Status.DELETED:
        return False
    before = best_label(Label.objects.filter(comment=comment, text_digest=comment.text_digest))
    Label.objects.update_or_create(
        comment=comment,
        text_digest=comment.text_digest,
        source=Source.MODERATOR,
        model="",
        prompt_digest="",
        defaults={"sentiment": sentiment.value, "confidence": 1.0, "moderator": moderator},
    )
    record_decision(
        comment=comment,
        to_status=comment.status,
        action=Decision.Action.RELABEL,
        by=moderator,
        reason=reason,
        from_label=before.sentiment if before else "",
        to_label=sentiment.value,
    )
    accept_label(comment=comment)
    return True


# -- Importing a corpus --


@dataclass(frozen=True)
class ImportedSample:
    """A text that comes with its label, and the site that owns it."""

    text: str
    label: str
    site: str
    weight: int = 1  # how many times it stands in a training shard


@dataclass(frozen=True)
class ImportResult:
    """How many samples were new, and how many were here already or stood twice in the corpus."""

    imported: int
    duplicates: int


def import_samples(*, examples: Iterable[ImportedSample]) -> ImportResult:
    """Import labelled texts as samples, each text once; a repetition or a second run changes nothing.

    Raises ValueError naming the first example that has an unknown label or no visible text; the batches
    before it stay imported.
    """
    imported = duplicates = 0
    for batch in _chunks(examples, IMPORT_BATCH):
        samples = {f"corpus:{text_digest(example.text)}": example for example in batch}
        with transaction.atomic():
            _wait_for_other_imports()
            known = set(Sample.objects.filter(key__in=samples).values_list("key", flat=True))
            new = [_imported_sample(key, example) for key, example in samples.items() if key not in known]
            Sample.objects.bulk_create(new)
        imported += len(new)
        duplicates += len(batch) - len(new)
    return ImportResult(imported, duplicates)


def _wait_for_other_imports() -> None:
    """Let one transaction import at a time: MySQL and MariaDB end one of two that insert the same keys as deadlocked.

    A row that nobody else locks stands for the table; SQLite lets one transaction write at a time anyway.
    """
    list(ContentType.objects.select_for_update().filter(app_label="labels", model="sample"))


def _imported_sample(key: str, example: ImportedSample) -> Sample:
    if example.label not in Sentiment.values:
        raise ValueError(
            f"label {example.label!r} of {example.text!r:.40}: {', '.join(Sentiment.values)} are known"
        )
    if not normalize_text(example.text):
        raise ValueError(f"the text {example.text!r:.40} of site {example.site!r} shows nothing")
    return Sample(
        key=key,
        text=example.text,
        text_digest=key.removeprefix("corpus:"),
        label=example.label,
        source=Source.CORPUS,
        site=example.site,
        split=split_of(example.text),
        weight=example.weight,
        changed_at=timezone.now(),
    )


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
