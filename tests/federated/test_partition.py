from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.partition import (
    WAYS,
    SiteRow,
    draw_partition,
    partition,
    partition_by_dirichlet,
    partition_by_quantity,
    partition_iid,
    tabulate,
)
from ml.label_set import LABELS

BALANCED = [LABELS[index % len(LABELS)] for index in range(900)]


@settings(deadline=None)
@given(
    labels=st.lists(st.sampled_from(LABELS), max_size=60),
    sites=st.integers(1, 8),
    alpha=st.floats(0.05, 100),
    seed=st.integers(0, 2**32 - 1),
    way=st.sampled_from(WAYS),
)
def test_every_sample_goes_to_exactly_one_site_and_to_the_same_one_again(
    labels: list[str], sites: int, alpha: float, seed: int, way: str
) -> None:
    homes = partition(labels, way=way, sites=sites, alpha=alpha, seed=seed)
    assert homes.shape == (len(labels),)
    assert all(0 <= home < sites for home in homes)
    again = partition(labels, way=way, sites=sites, alpha=alpha, seed=seed)
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
    with pytest.raises(ValueError, match=f"sites={sites}, alpha={alpha}"):
        partition_by_quantity(9, sites=sites, alpha=alpha, seed=0)


def test_a_way_that_is_none_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ValueError, match="'random': one of dirichlet, iid, quantity"):
        partition(["positive"], way="random", sites=2, alpha=1.0, seed=0)


def test_without_skew_sites_are_of_one_size_and_alike() -> None:
    homes = partition_iid(len(BALANCED), sites=7, seed=1)
    sizes = np.bincount(homes, minlength=7)
    assert sizes.max() - sizes.min() <= 1
    for row in tabulate(homes, BALANCED, sites=list("abcdefg"), classes=LABELS):
        assert max(row.counts) < 2 * min(row.counts)


def test_quantity_skew_makes_sites_of_different_sizes_that_are_alike_in_their_classes() -> None:
    homes = partition_by_quantity(len(BALANCED), sites=4, alpha=0.5, seed=3)
    rows = tabulate(homes, BALANCED, sites=list("abcd"), classes=LABELS)
    assert max(row.samples for row in rows) > 3 * min(row.samples for row in rows)
    large = max(rows, key=lambda row: row.samples)
    assert max(large.counts) < 1.5 * min(large.counts)


def test_a_table_counts_every_site_and_names_what_training_will_not_like() -> None:
    homes = np.array([0, 0, 0, 1, 2, 2])
    labels = ["positive", "negative", "positive", "negative", "positive", "positive"]
    rows = tabulate(homes, labels, sites=["a", "b", "c", "d"], classes=["negative", "positive"])
    assert [row.counts for row in rows] == [(1, 2), (1, 0), (0, 2), (0, 0)]
    assert [row.trouble() for row in rows] == ["", "one sample", "one class", "no sample"]


def test_a_table_becomes_a_picture() -> None:
    picture = draw_partition([SiteRow("food", (3, 4)), SiteRow("film", (0, 0))], ["negative", "positive"])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5_000
