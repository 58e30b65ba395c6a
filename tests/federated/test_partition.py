from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.partition import partition_by_dirichlet
from ml.label_set import LABELS

BALANCED = [LABELS[index % len(LABELS)] for index in range(900)]


@settings(deadline=None)
@given(
    labels=st.lists(st.sampled_from(LABELS), max_size=60),
    sites=st.integers(1, 8),
    alpha=st.floats(0.05, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_sample_goes_to_exactly_one_site_and_to_the_same_one_again(
    labels: list[str], sites: int, alpha: float, seed: int
) -> None:
    homes = partition_by_dirichlet(labels, sites=sites, alpha=alpha, seed=seed)
    assert homes.shape == (len(labels),)
    assert all(0 <= home < sites for home in homes)
    again = partition_by_dirichlet(labels, sites=sites, alpha=alpha, seed=seed)
    assert np.array_equal(homes, again)


def test_another_seed_spreads_samples_otherwise() -> None:
    first, second = (partition_by_dirichlet(BALANCED, sites=5, alpha=1.0, seed=seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def skew(alpha: float, seed: int) -> float:
    """How far the sites' label shares are from the pool's, 0..1, weighted by the sites' sizes."""
    homes = partition_by_dirichlet(BALANCED, sites=5, alpha=alpha, seed=seed)
    labels = np.asarray(BALANCED)
    distances = [
        (homes == site).sum()
        * sum(abs((labels[homes == site] == label).mean() - 1 / len(LABELS)) for label in LABELS)
        / 2
        for site in set(homes.tolist())
    ]
    return float(sum(distances) / len(BALANCED))


def test_a_small_alpha_skews_the_sites_and_a_large_one_does_not() -> None:
    skewed, mild, even = (np.mean([skew(alpha, seed) for seed in range(10)]) for alpha in (0.1, 1.0, 1000.0))
    assert skewed > 0.4
    assert skewed > mild > even
    assert even < 0.05


@pytest.mark.parametrize(("sites", "alpha"), [(0, 1.0), (-2, 1.0), (3, 0.0), (3, -1.0)])
def test_no_site_or_no_positive_alpha_is_refused_with_the_value(sites: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=f"sites={sites}, alpha={alpha}"):
        partition_by_dirichlet(["positive"], sites=sites, alpha=alpha, seed=0)
