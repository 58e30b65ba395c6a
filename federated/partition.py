"""Spreading samples over sites, for corpora that name no site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def partition_by_dirichlet(labels: Sequence[str], *, sites: int, alpha: float, seed: int) -> np.ndarray:
    """Give each sample a site so that the sites' label shares differ (Hsu et al. 2019, arXiv:1909.06335).

    Each class is cut over the sites by shares drawn from Dirichlet(alpha): a large alpha is nearly IID, 0.1 leaves
    most sites with one class. Returns site indices, shape (len(labels),). The same input gives the same result.
    """
    if sites < 1 or alpha <= 0:
        raise ValueError(
            f"at least one site and a positive alpha are needed, not sites={sites}, alpha={alpha}"
        )
    random = np.random.default_rng(seed)
    values = np.asarray(labels)
    assigned = np.empty(len(values), dtype=np.int64)
    for label in sorted(set(labels)):
        members = random.permutation(np.flatnonzero(values == label))
        cuts = np.round(np.cumsum(random.dirichlet([alpha] * sites))[:-1] * len(members)).astype(np.int64)
        for site, part in enumerate(np.split(members, cuts)):
            assigned[part] = site
    return assigned
