from __future__ import annotations

import json
from pathlib import Path

import pytest

from blog_site.labels.models import MODERATOR_WEIGHT
from blog_site.training.corpus import CorpusError, Row, assign_sites, bootstrap_rows, read_corpus
from blog_site.training.models import Site
from tests.training.rows import SITES, make_sites, opinions

GOOD = ("味道真好", "positive")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_jsonl(*objects: object) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects)


# -- Reading -------------------------------------------------------------------------------------------------------


def test_a_csv_file_is_read_row_by_row(tmp_path: Path) -> None:
    content = (
        'text,label,site\n味道真好,positive,food\n"贵，而且""慢""",negative,\n"两行\n文字",neutral,film\n'
    )

    assert read_corpus(write(tmp_path, "good.csv", content)) == [
        Row(2, "味道真好", "positive", "food"),
        Row(3, '贵，而且"慢"', "negative", ""),
        Row(5, "两行\n文字", "neutral", "film"),
    ]


def test_a_jsonl_file_is_read_line_by_line(tmp_path: Path) -> None:
    first = {"text": "味道真好", "label": "positive", "site": "food", "id": 7}
    lines = as_jsonl(first, {"text": "差", "label": "negative"})

    assert read_corpus(write(tmp_path, "good.jsonl", "\n" + lines.replace("\n", "\r\n"))) == [
        Row(2, "味道真好", "positive", "food"),
        Row(3, "差", "negative", ""),
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path: Path, separator: str) -> None:
    text = f"第一句{separator}第二句"
    raw = f'{{"text": "{text}", "label": "neutral"}}\n'
    content = raw if separator != "\x0c" else as_jsonl({"text": text, "label": "neutral"})

    assert [row.text for row in read_corpus(write(tmp_path, "lines.jsonl", content))] == [text]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.csv", "text,label\n味道真好,positive\n"),
        ("bom.jsonl", as_jsonl({"text": "味道真好", "label": "positive"})),
    ],
)
def test_a_byte_order_mark_belongs_to_nothing(tmp_path: Path, name: str, content: str) -> None:
    rows = read_corpus(write(tmp_path, name, b"\xef\xbb\xbf" + content.encode()))

    assert [(row.text, row.label) for row in rows] == [GOOD]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\n好,positive\n坏,\n", r"a\.csv 第 3 行没有 label"),
        ("a.csv", "text,label\n好,positive\n坏\n", "第 3 行没有 label"),
        ("a.csv", "text,label\n好,POSITIVE\n", "第 2 行的 label 是 'POSITIVE'，应为 negative、neutral、positive"),
        ("a.csv", "text,label\n好,很香,positive\n", "第 2 行的 label 是 '很香'"),
        ("a.csv", "text,label\n好,positive\n  ,negative\n", "第 3 行没有可用的 text"),
        ("a.csv", "text,label\n好\0坏,positive\n", "第 2 行没有可用的 text"),
        ("a.csv", "text,label\n\u200b\ufeff,positive\n", "第 2 行没有可用的 text"),
        ("a.csv", "text,labels\n好,positive\n", "表头缺少 label 列"),
        ("a.csv", "好,positive\n", "表头缺少 label、text 列"),
        ("a.csv", "text,label\n", "没有样本"),
        ("a.csv", "", "表头缺少"),
        ("a.csv", 'text,label\n"' + "没有关上的引号，" * 20_000, "不是 CSV"),
        ("a.csv", '"' + "没有关上的表头，" * 20_000, "不是 CSV"),
        ("a.csv", b"text,label\n\xc4\xe3\xba\xc3,positive\n", "不是 UTF-8 文本（第 11 字节）"),
        ("a.jsonl", as_jsonl({"text": "好"}), "第 1 行没有 label"),
        ("a.jsonl", as_jsonl({"text": "好", "label": "positive"}, {"text": "好", "label": 1}), "第 2 行的 label 是 1"),
        ("a.jsonl", as_jsonl({"text": "好", "label": ["positive"]}), "第 1 行的 label 是"),
        ("a.jsonl", as_jsonl({"text": 7, "label": "positive"}), "第 1 行没有可用的 text"),
        ("a.jsonl", '{"text": "\\ud800", "label": "positive"}\n', "第 1 行没有可用的 text"),
        ("a.jsonl", '{"text": "好\\u0000", "label": "positive"}\n', "第 1 行没有可用的 text"),
        ("a.jsonl", '\n\n{"text": "好", "lab\n', "第 3 行不是 JSON"),
        ("a.jsonl", '["好", "positive"]\n', "第 1 行不是 JSON 对象"),
        ("a.jsonl", "\n  \n", "没有样本"),
        ("a.jsonl", "", "没有样本"),
        ("a.xlsx", "PK", "只认得 .csv 和 .jsonl"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_be_used_names_the_place(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(CorpusError, match=words):
        read_corpus(write(tmp_path, name, content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.csv: No such file"):
        read_corpus(tmp_path / "nowhere.csv")


# -- Spreading over sites --------------------------------------------------------------------------------------------


def rows_without_site(amount: int = 400) -> list[Row]:
    return [Row(number, text, label, "") for number, (text, label) in enumerate(opinions(amount), start=1)]


@pytest.mark.django_db
def test_rows_without_a_site_are_spread_over_all_sites_in_the_same_way_each_time() -> None:
    make_sites()

    placed = assign_sites(rows_without_site(), alpha=1.0, seed=0)

    assert {sample.site for sample in placed} == set(SITES)
    assert len(placed) == 400
    assert placed == assign_sites(rows_without_site(), alpha=1.0, seed=0)
    assert placed != assign_sites(rows_without_site(), alpha=1.0, seed=1)


@pytest.mark.django_db
def test_a_small_alpha_skews_the_labels_of_the_sites() -> None:
    make_sites()

    def skew(alpha: float) -> float:
        """The greatest distance of a site's share of positives from that of all, weighted by the site's size."""
        placed = assign_sites(rows_without_site(), alpha=alpha, seed=3)
        distance = 0.0
        for slug in SITES:
            labels = [sample.label for sample in placed if sample.site == slug]
            distance += abs(labels.count("positive") - len(labels) / 2)
        return distance / len(placed)

    assert skew(0.05) > 2 * skew(100.0)


@pytest.mark.django_db
def test_rows_with_a_site_stay_there() -> None:
    make_sites()
    rows = [Row(1, "好", "positive", "film"), *rows_without_site(30), Row(32, "坏", "negative", "books")]

    placed = assign_sites(rows, alpha=1.0, seed=0)

    assert (placed[0].site, placed[-1].site) == ("film", "books")


@pytest.mark.django_db
def test_an_unknown_site_is_named_with_its_line_and_the_known_ones() -> None:
    make_sites()

    with pytest.raises(CorpusError, match="第 9 行的站点 drinks 不存在；现有：books、film、food"):
        assign_sites([Row(9, "好", "positive", "drinks")], alpha=1.0, seed=0)


@pytest.mark.django_db
def test_a_site_that_takes_no_part_gets_no_rows() -> None:
    make_sites()
    assign_sites(rows_without_site(9), alpha=1.0, seed=0)
    Site.objects.filter(slug="film").update(active=False)

    assert {sample.site for sample in assign_sites(rows_without_site(), alpha=5.0, seed=0)} == {
        "books",
        "food",
    }


@pytest.mark.django_db
def test_without_any_site_it_says_how_to_get_one() -> None:
    with pytest.raises(CorpusError, match="seed_demo"):
        assign_sites(rows_without_site(9), alpha=1.0, seed=0)


def test_the_corpus_that_comes_along_is_large_and_has_every_text_once() -> None:
    rows = bootstrap_rows()

    assert len(rows) > 15_000
    assert len({row.text for row in rows}) == len(rows)
    assert {row.label for row in rows} == {"negative", "neutral", "positive"}
    assert {row.weight for row in rows if row.label == "neutral"} == {MODERATOR_WEIGHT}


@pytest.mark.django_db
def test_a_row_keeps_its_weight_wherever_it_goes() -> None:
    make_sites(("food",))
    rows = [Row(0, "几点开门？", "neutral", "", weight=3), Row(0, "好吃", "positive", "food")]

    assert [sample.weight for sample in assign_sites(rows, alpha=1.0, seed=0)] == [3, 1]


@pytest.mark.parametrize("second", ["好吃,negative,food", "好吃 ,positive,film"])
def test_a_text_that_stands_twice_and_differs_is_refused_naming_both_lines(
    tmp_path: Path, second: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label,site\n好吃,positive,food\n{second}\n", encoding="utf-8")

    with pytest.raises(CorpusError, match="第 2 行和第 3 行"):
        read_corpus(path)


def test_json_nested_without_end_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000, encoding="utf-8")

    with pytest.raises(CorpusError, match="第 1 行"):
        read_corpus(path)
