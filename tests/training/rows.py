"""Rows and files that training tests need before they begin, made by the product's services where it has them."""

from __future__ import annotations

import hashlib
from itertools import count, islice, product
from pathlib import Path
from typing import Any

from django.utils import timezone

from blog_site.articles.models import Category
from blog_site.labels.services import ImportedSample, import_samples
from blog_site.training.models import ONLY, ModelVersion, Run, RunSite, Site
from ml.text import split_of

SITES = ("books", "film", "food")
LABELS = ("negative", "neutral", "positive")
SUBJECTS = (
    "这家店",
    "第三章",
    "女主角",
    "红烧肉",
    "店员",
    "配乐",
    "译文",
    "早餐",
    "结尾",
    "包装",
    "豆浆",
    "镜头",
)
PRAISE = ("真好", "我很喜欢", "强烈推荐", "非常满意", "太棒了")
BLAME = ("太差了", "很失望", "浪费钱", "糟糕透顶", "再也不来")
DETAILS = (
    "昨天刚试过",
    "和朋友一起",
    "第二次了",
    "周末去的",
    "听人说的",
    "等了很久",
    "只花了一小时",
    "在老城区",
)
OPINIONS = tuple(
    [(f"{subject}{word}，{detail}。", label) for subject, detail in product(SUBJECTS, DETAILS)]
    for words, label in ((PRAISE, "positive"), (BLAME, "negative"))
    for word in words
)
_numbers = count(1)


def opinions(amount: int) -> list[tuple[str, str]]:
    """Distinct short texts with an obvious label, both labels equally often."""
    half = len(OPINIONS) // 2
    mixed = (pair for group in zip(*OPINIONS[:half], *OPINIONS[half:], strict=True) for pair in group)
    return list(islice(mixed, amount))


def make_sites(slugs: tuple[str, ...] = SITES) -> None:
    """The categories that are the sites of training."""
    for slug in slugs:
        Category.objects.get_or_create(slug=slug, defaults={"name": slug})


def import_opinions(amount: int, *, skip: int = 0, slugs: tuple[str, ...] = SITES) -> int:
    """Import labelled texts, one for each site in turn; gives how many were new."""
    make_sites(slugs)
    chosen = opinions(skip + amount)[skip:]
    # Neighbours differ in their label alone, so each site takes a run of them.
    share = -(-len(chosen) // len(slugs))
    examples = [
        ImportedSample(text, label, slugs[index // share]) for index, (text, label) in enumerate(chosen)
    ]
    return import_samples(examples=examples).imported


def text_of_split(beginning: str, split: str) -> str:
    """The beginning with a number that puts the whole into this split."""
    return next(text for number in count() if split_of(text := f"{beginning}{number}") == split)


def make_evaluation(macro_f1: float, *, samples: int = 60, accuracy: float | None = None) -> dict[str, Any]:
    """An evaluation as ml.metrics and federated.report write it."""
    support = samples // 3
    quality = {"precision": macro_f1, "recall": macro_f1, "f1": macro_f1, "support": support}
    return {
        "samples": samples,
        "loss": 0.5,
        "accuracy": macro_f1 if accuracy is None else accuracy,
        "macro_f1": macro_f1,
        "per_class": {label: dict(quality) for label in LABELS},
        "confusion": [[support if row == column else 0 for column in range(3)] for row in range(3)],
        "sites": {"food": {"samples": samples, "accuracy": macro_f1}},
    }


def make_report(
    artifact: str, macro_f1: float = 0.9, *, champion: ModelVersion | None = None
) -> dict[str, Any]:
    """A run's report of a candidate beside the champion, whose figure is the one it was registered with."""
    return {
        "run": "run-1",
        "artifact": artifact,
        "size_bytes": 1_000_000,
        "champion": champion.digest if champion else None,
        "candidate_evaluation": make_evaluation(macro_f1),
        "champion_evaluation": make_evaluation(champion.metrics["macro_f1"]) if champion else None,
        "train_samples": 480,
        "heldout_samples": 60,
        "seconds": 1.5,
    }


def make_digest() -> str:
    return hashlib.sha256(f"an artifact of the tests, number {next(_numbers)}".encode()).hexdigest()


def make_artifact(store: Path, digest: str = "") -> str:
    """A folder where an artifact should be: enough wherever nobody loads it."""
    digest = digest or make_digest()
    (store / "artifacts" / digest).mkdir(parents=True)
    return digest


def make_version(
    digest: str, *, macro_f1: float = 0.9, champion: bool = False, **fields: Any
) -> ModelVersion:
    state = ModelVersion.State.CHAMPION if champion else ModelVersion.State.CANDIDATE
    return ModelVersion.objects.create(
        digest=digest,
        metrics=make_evaluation(macro_f1),
        size_bytes=1_000_000,
        champion_slot=ONLY if champion else None,
        **{"state": state, **fields},
    )


def make_run(*, trained: str = "", **fields: Any) -> Run:
    """A run in the state given, with the site `trained` or without any; one that has ended holds no slot."""
    fields = {"trigger": "command", "new_samples": 10, "samples_until": timezone.now(), **fields}
    if fields.get("state") in Run.ENDED:
        fields = {"active_slot": None, "ended_at": timezone.now(), **fields}
    run = Run.objects.create(**fields)
    if trained:
        part = {"samples": 1, "validation_samples": 0, "class_counts": {}}
        RunSite.objects.create(run=run, site=Site.objects.get(slug=trained), **part)
    return run
