"""Spreading samples over sites, for corpora that name no site; and the table and picture of what came of it.

Each way gives site indices, shape (samples,), the same for the same input and seed. The ways and their names are those
of Li et al. 2022, Federated Learning on Non-IID Data Silos, arXiv:2102.02079.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

WAYS: Final = ("dirichlet", "iid", "quantity")


def partition(labels: Sequence[str], *, way: str, sites: int, alpha: float, seed: int) -> np.ndarray:
    """Spread samples in one of WAYS; `alpha` says how unevenly, and means nothing to "iid"."""
    if way == "dirichlet":
        return partition_by_dirichlet(labels, sites=sites, alpha=alpha, seed=seed)
    if way == "quantity":
        return partition_by_quantity(len(labels), sites=sites, alpha=alpha, seed=seed)
    if way == "iid":
        return partition_iid(len(labels), sites=sites, seed=seed)
    raise ValueError(f"way={way!r}: one of {', '.join(WAYS)} is wanted")


def partition_iid(samples: int, *, sites: int, seed: int) -> np.ndarray:
    """Give each site as many samples as any other, give or take one, drawn without regard to what they are."""
    _check(sites, alpha=1.0)
    return np.random.default_rng(seed).permutation(np.arange(samples, dtype=np.int64) % sites)


def partition_by_quantity(samples: int, *, sites: int, alpha: float, seed: int) -> np.ndarray:
    """Give sites shares of different sizes, drawn from Dirichlet(alpha), each of them alike in its classes."""
    _check(sites, alpha)
    random = np.random.default_rng(seed)
    cuts = np.round(np.cumsum(random.dirichlet([alpha] * sites))[:-1] * samples).astype(np.int64)
    homes = np.searchsorted(cuts, np.arange(samples), side="right")
    return random.permutation(homes.astype(np.int64))


def partition_by_dirichlet(labels: Sequence[str], *, sites: int, alpha: float, seed: int) -> np.ndarray:
    """Give each sample a site so that the sites' label shares differ (Hsu et al. 2019, arXiv:1909.06335).

    Each class is cut over the sites by shares drawn from Dirichlet(alpha): a large alpha is nearly IID, 0.1 leaves
    most sites with one class. Returns site indices, shape (len(labels),). The same input gives the same result.
    """
    _check(sites, alpha)
    random = np.random.default_rng(seed)
    values = np.asarray(labels)
    assigned = np.empty(len(values), dtype=np.int64)
    for label in sorted(set(labels)):
        members = random.permutation(np.flatnonzero(values == label))
        cuts = np.round(np.cumsum(random.dirichlet([alpha] * sites))[:-1] * len(members)).astype(np.int64)
        for site, part in enumerate(np.split(members, cuts)):
            assigned[part] = site
    return assigned


def _check(sites: int, alpha: float) -> None:
    if sites < 1 or alpha <= 0:
        raise ValueError(
            f"at least one site and a positive alpha are needed, not sites={sites}, alpha={alpha}"
        )


# -- What came of it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SiteRow:
    """One site of a partition: how many samples it has of each class."""

    site: str
    counts: tuple[int, ...]  # in the order of the classes

    @property
    def samples(self) -> int:
        """All of the site's samples."""
        return sum(self.counts)

    def trouble(self) -> str:
        """What training will not like about this site; empty when nothing is."""
        if self.samples == 0:
            return "no sample"
        if self.samples == 1:
            return "one sample"
        return "one class" if sum(count > 0 for count in self.counts) == 1 else ""


def tabulate(
    homes: np.ndarray, labels: Sequence[str], *, sites: Sequence[str], classes: Sequence[str]
) -> list[SiteRow]:
    """Count a partition's samples, a row for each site in the order given, those without a sample too."""
    counts = Counter(zip(homes.tolist(), labels, strict=True))
    return [
        SiteRow(site, tuple(counts[index, label] for label in classes)) for index, site in enumerate(sites)
    ]


def draw_partition(rows: Sequence[SiteRow], classes: Sequence[str]) -> bytes:
    """Draw the table as a PNG: a bar for each site, its length the samples, its colours the classes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(rows))
    for position, label in enumerate(classes):
        widths = np.array([row.counts[position] for row in rows])
        axes.barh([row.site for row in rows], widths, left=left, label=label)
        left += widths
    axes.invert_yaxis()  # the first site on top, as in the table
    axes.set(xlabel="samples")
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
