from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from blog_site.labels.models import Sample, Source
from tests.training.rows import SITES, make_sites, opinions

pytestmark = pytest.mark.django_db


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A good file of 60 rows, the first of which names its site."""
    path = tmp_path / "opinions.csv"
    first, *rest = opinions(60)
    lines = [f"{first[0]},{first[1]},film", *(f"{text},{label}," for text, label in rest)]
    path.write_text("\n".join(["text,label,site", *lines]), encoding="utf-8")
    return path


def test_a_file_becomes_samples_of_the_sites(corpus: Path, capsys) -> None:
    make_sites()

    call_command("import_samples", str(corpus))

    assert "导入 60 条样本，0 条已有" in capsys.readouterr().out
    assert Sample.objects.filter(source=Source.CORPUS, comment=None).count() == 60
    assert set(Sample.objects.values_list("site", flat=True)) <= set(SITES)
    assert Sample.objects.get(text=opinions(1)[0][0]).site == "film"
    assert set(Sample.objects.values_list("split", flat=True)) == {"train", "validation", "test"}


def test_importing_again_changes_nothing(corpus: Path, capsys) -> None:
    make_sites()
    call_command("import_samples", str(corpus))
    before = list(Sample.objects.order_by("pk").values())

    call_command("import_samples", str(corpus), seed=5)

    assert "导入 0 条样本，60 条已有" in capsys.readouterr().out
    assert list(Sample.objects.order_by("pk").values()) == before


def test_a_bad_line_stops_the_import_before_anything_is_kept(corpus: Path) -> None:
    make_sites()
    corpus.write_text(corpus.read_text() + "\n没有标注的一条,,\n")

    with pytest.raises(CommandError, match=r"opinions\.csv 第 62 行没有 label"):
        call_command("import_samples", str(corpus))
    assert not Sample.objects.exists()


def test_an_unknown_site_stops_the_import_before_anything_is_kept(corpus: Path) -> None:
    make_sites(("food",))

    with pytest.raises(CommandError, match="站点 film 不存在"):
        call_command("import_samples", str(corpus))
    assert not Sample.objects.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 0}, "--alpha"),
        ({"alpha": -1}, "--alpha"),
        ({"alpha": float("nan")}, "--alpha"),
        ({"alpha": float("inf")}, "--alpha"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_a_senseless_option_is_refused(corpus: Path, options: dict[str, float], words: str) -> None:
    make_sites()

    with pytest.raises(CommandError, match=words):
        call_command("import_samples", str(corpus), **options)


def test_a_file_or_the_bootstrap_corpus_must_be_named(corpus: Path) -> None:
    with pytest.raises(CommandError, match="required"):
        call_command("import_samples")
    with pytest.raises(CommandError, match="not allowed"):
        call_command("import_samples", str(corpus), "--bootstrap")


def test_an_import_that_is_interrupted_keeps_nothing(corpus: Path, monkeypatch) -> None:
    """Half of a corpus, sorted by class, would train a model that knows one class."""
    make_sites()
    monkeypatch.setattr("blog_site.labels.services.IMPORT_BATCH", 20)
    real, batches = Sample.objects.bulk_create, []

    def interrupted(samples: list[Sample], **options: bool) -> list[Sample]:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(samples)
        return real(samples, **options)

    monkeypatch.setattr(Sample.objects, "bulk_create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_command("import_samples", str(corpus))
    assert len(batches) == 2
    assert not Sample.objects.exists()


@pytest.mark.parametrize("way", ["iid", "quantity", "dirichlet"])
def test_an_import_prints_and_draws_what_each_site_got(
    corpus: Path, tmp_path: Path, capsys, way: str
) -> None:
    make_sites()
    picture = tmp_path / "sites.png"

    call_command("import_samples", str(corpus), partition=way, plot=picture)

    printed = capsys.readouterr().out
    counted = {site: Sample.objects.filter(site=site, label="positive").count() for site in SITES}
    for site, positive in counted.items():
        assert re.search(rf"{site} .*正面 +{positive}\b", printed), printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_site_with_one_class_is_named(tmp_path: Path, capsys) -> None:
    make_sites()
    path = tmp_path / "a.csv"
    rows = [
        "好吃,positive,food",
        "很香,positive,food",
        "难看,negative,film",
        "好看,positive,film",
        "一般,neutral,books",
    ]
    path.write_text("\n".join(["text,label,site", *rows]), encoding="utf-8")

    call_command("import_samples", str(path))

    printed = capsys.readouterr().out
    assert re.search("food .*只有一类", printed)
    assert re.search("books .*只有一条样本", printed)
    assert not re.search("film .*只有", printed)


def test_a_picture_that_cannot_be_written_is_said(corpus: Path, tmp_path: Path) -> None:
    make_sites()
    with pytest.raises(CommandError, match="nowhere/a.png: No such file"):
        call_command("import_samples", str(corpus), plot=tmp_path / "nowhere" / "a.png")
