from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.averaging import (
    SUM_LIMIT,
    GradientSum,
    InconsistentUpdates,
    average_gradients,
)
from federated.fixed_point import add_entries, add_numbers, add_rows
from federated.protocol import Metrics, Tensors, Update
from federated.rows import pack_tensors, unpack_tensors
from ml.data import Dataset, Example, collate, encode_dataset, pool_datasets
from ml.model import ROW_PARAMETERS, ModelConfig, SentimentLSTM, build_model, initial_parameters
from ml.optimizer import ServerOptimizer
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.train import BatchGradient, batch_gradient, train_centrally
from ml.training_config import FIRST_TRAINING
from ml.vocabulary import build_vocabulary, count_tokens
from tests.federated.conftest import SITES, TRAIN_SAMPLES, write_reviews

LABEL_SMOOTHING = 0.05


@pytest.fixture(scope="module")
def shards() -> list[Dataset]:
    """What the sites train on, encoded with one vocabulary."""
    tokenizer = make_tokenizer(TokenizerSettings())
    examples = [
        [Example(review["text"], review["label"]) for review in write_reviews(site, "", TRAIN_SAMPLES[site])]
        for site in SITES
    ]
    texts = (example.text for shard in examples for example in shard)
    vocabulary = build_vocabulary(count_tokens(texts, tokenizer), max_size=500, min_count=1)
    return [encode_dataset(shard, tokenizer, vocabulary, 32) for shard in examples]


@pytest.fixture(scope="module")
def config(shards: list[Dataset]) -> ModelConfig:
    """A small network that drops nothing: what is dropped is drawn anew for each batch."""
    size = 1 + max(int(shard.token_ids.max()) for shard in shards)
    return ModelConfig(
        size, embedding_dim=12, hidden_dim=8, dropout=0.0, embedding_dropout=0.0, token_dropout=0.0
    )


@pytest.fixture(scope="module")
def double_model(config: ModelConfig) -> SentimentLSTM:
    return build_model(config, initial_parameters(config, seed=3)).double().train()


def take_gradient(model: SentimentLSTM, dataset: Dataset, rows: list[int] | None = None) -> BatchGradient:
    chosen = range(len(dataset)) if rows is None else rows
    return batch_gradient(model, collate(dataset, list(chosen)), LABEL_SMOOTHING)


def as_update(site: str, result: BatchGradient) -> Update:
    gradients = {name: value.to_dense().numpy().copy() for name, value in result.sums.items()}
    return Update(site, 1, gradients, Metrics(result.samples, result.loss_sum, result.correct))


def assert_same_direction(averaged: Tensors, pooled: BatchGradient, tolerance: float) -> None:
    for name, total in pooled.sums.items():
        expected = total.to_dense().numpy() / pooled.samples
        size = np.linalg.norm(expected)
        assert size > 0, name
        assert np.linalg.norm(averaged[name] - expected) <= tolerance * size, name


def test_the_average_of_the_sites_gradients_is_the_gradient_of_all_their_samples(
    shards: list[Dataset], double_model: SentimentLSTM
) -> None:
    updates = [
        as_update(site, take_gradient(double_model, shard)) for site, shard in zip(SITES, shards, strict=True)
    ]
    averaged = average_gradients(updates)
    assert {value.dtype for value in averaged.values()} == {np.dtype(np.float64)}
    assert_same_direction(averaged, take_gradient(double_model, pool_datasets(shards)), 1e-9)


@settings(max_examples=8, deadline=None)
@given(owners=st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_whatever_the_split_the_average_is_the_same(
    shards: list[Dataset], double_model: SentimentLSTM, owners: list[int]
) -> None:
    pool = pool_datasets(shards)
    parts = {owner: [row for row, mine in enumerate(owners) if mine == owner] for owner in set(owners)}
    updates = [
        as_update(f"site-{owner}", take_gradient(double_model, pool, rows)) for owner, rows in parts.items()
    ]
    assert_same_direction(
        average_gradients(updates), take_gradient(double_model, pool, list(range(40))), 1e-9
    )


def test_averaging_the_sites_means_instead_would_not_be_that_gradient(
    shards: list[Dataset], double_model: SentimentLSTM
) -> None:
    """The sites differ in size, so the two averages differ: the tests above can tell them apart."""
    results = [take_gradient(double_model, shard) for shard in shards]
    means = [result.sums["output.weight"].numpy() / result.samples for result in results]
    pooled = take_gradient(double_model, pool_datasets(shards))
    expected = pooled.sums["output.weight"].numpy() / pooled.samples
    assert np.linalg.norm(np.mean(means, axis=0) - expected) > 1e-3 * np.linalg.norm(expected)


def test_rounds_of_averaged_gradients_are_central_training_on_large_batches(
    shards: list[Dataset], config: ModelConfig
) -> None:
    # A pool smaller than the batch is given whole each round, here as there.
    training = replace(FIRST_TRAINING.with_rounds(50), averaging_decay=0.0)
    assert sum(map(len, shards)) < training.global_batch_size
    central = train_centrally(shards, config, training)

    optimizer = ServerOptimizer(initial_parameters(config, training.seed), training, ROW_PARAMETERS)
    shapes = {name: tuple(value.shape) for name, value in optimizer.parameters.items()}
    total = GradientSum(shapes, sites=len(SITES), rowwise=ROW_PARAMETERS)
    for _ in range(training.rounds):
        model = build_model(config, optimizer.parameters).train()
        for site, shard in zip(SITES, shards, strict=True):
            result = take_gradient(model, shard)
            batch = Metrics(result.samples, result.loss_sum, result.correct)
            total.add(Update(site, 1, pack_tensors(result.sums), batch))
        optimizer.step(unpack_tensors(total.take_average(), shapes))

    start = initial_parameters(config, training.seed)
    for name, value in central.state_dict().items():
        torch.testing.assert_close(optimizer.parameters[name], value, rtol=1e-5, atol=1e-5)
        assert (value - start[name]).abs().max() > 1e-3, f"{name} has not moved, so this shows nothing"


def make_update(site: str, samples: int = 4, **changed: np.ndarray) -> Update:
    random = np.random.default_rng([samples, *site.encode()])
    gradients = {
        "embedding.weight": random.normal(size=(6, 3)).astype(np.float32),
        "output.bias": random.normal(size=3).astype(np.float32) * 300,
    }
    return Update(site, 1, {**gradients, **changed}, Metrics(samples, 1.5, min(samples, 2)))


def shapes_of(update: Update) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in update.gradients.items()}


def test_the_order_of_arrival_does_not_change_a_single_bit() -> None:
    updates = [make_update(site, samples) for site, samples in (("a", 3), ("b", 5), ("c", 7), ("d", 1))]
    first = average_gradients(updates)
    for arrival in itertools.permutations(updates):
        again = average_gradients(arrival)
        assert {name: value.tobytes() for name, value in again.items()} == {
            name: value.tobytes() for name, value in first.items()
        }


@pytest.mark.parametrize("sites", [2, 64])
def test_a_sum_of_many_sites_is_the_same_in_any_order(sites: int) -> None:
    updates = [make_update(f"site-{number}", samples=1 + number % 7) for number in range(sites)]
    random = np.random.default_rng(sites)
    averages = set()
    for _ in range(5):
        total = GradientSum(shapes_of(updates[0]), sites=sites)
        for position in random.permutation(sites):
            total.add(updates[position])
        averages.add(b"".join(value.tobytes() for value in total.take_average().values()))
    assert len(averages) == 1


def test_updates_that_are_added_at_once_are_all_in_the_sum() -> None:
    shapes = {"embedding.weight": (400, 64), "output.weight": (64, 300)}
    random = np.random.default_rng(5)
    updates = []
    for number in range(24):
        rows = np.sort(random.choice(400, 250, replace=False)).astype(np.int32)
        gradient = {
            "embedding.weight#rows": rows,
            "embedding.weight#values": random.standard_normal((len(rows), 64)).astype(np.float32),
            "output.weight": random.standard_normal((64, 300)).astype(np.float32),
        }
        updates.append(Update(f"site-{number}", 1, gradient, Metrics(64, 64.0, 32)))
    one_by_one, at_once = (GradientSum(shapes, sites=24, rowwise={"embedding.weight"}) for _ in range(2))
    for update in updates:
        one_by_one.add(update)
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(at_once.add, updates):
            pass
    assert at_once.samples == one_by_one.samples == 24 * 64
    expected, found = one_by_one.take_average(), at_once.take_average()
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_the_sum_is_that_of_exact_arithmetic_to_a_part_in_a_trillion() -> None:
    updates = [make_update(f"site-{number}", samples=4) for number in range(64)]
    total = GradientSum(shapes_of(updates[0]), sites=64)
    for update in updates:
        total.add(update)
    for name, average in total.take_average().items():
        exact = [
            math.fsum(float(value) for value in numbers) / (4 * 64)
            for numbers in zip(*(update.gradients[name].reshape(-1) for update in updates), strict=True)
        ]
        expected = np.array(exact, np.float64).astype(np.float32).reshape(average.shape)
        np.testing.assert_allclose(average, expected, rtol=2**-23, atol=2.0**-43)


@settings(deadline=None)  # what is called first is compiled first
@given(
    values=st.lists(st.floats(-900.0, 900.0, width=32), min_size=1, max_size=40),
    fraction=st.integers(-(2**46), 2**46),
)
def test_numbers_are_rounded_half_to_even_however_they_are_added(values: list[float], fraction: int) -> None:
    halves = [(fraction + 0.5) * 2.0**-42, -(fraction + 0.5) * 2.0**-42]
    for numbers in (np.array(values, np.float32), np.array(halves, np.float64)):
        exact = np.rint(numbers.astype(np.float64) * 2.0**42).astype(np.int64)
        places = np.arange(len(numbers), dtype=np.int32)
        one_by_one, at_places, by_rows = (np.zeros(len(numbers), np.int64) for _ in range(3))
        add_numbers(one_by_one, numbers)
        add_entries(at_places, places, numbers)
        add_rows(by_rows.reshape(-1, 1), places, numbers.reshape(-1, 1))
        for total in (one_by_one, at_places, by_rows):
            assert np.array_equal(total, exact)


def test_a_refused_update_leaves_the_sum_as_it_was() -> None:
    good, other = make_update("a"), make_update("b")
    total, untouched = (GradientSum(shapes_of(good), sites=2) for _ in range(2))
    for update in (good, other):
        untouched.add(update)
    total.add(good)
    with pytest.raises(InconsistentUpdates, match="NaN"):
        total.add(make_update("b", **{"output.bias": WITH_NAN}))
    total.add(other)
    assert (total.updates, total.samples) == (2, 8)
    expected = untouched.take_average()
    for name, value in total.take_average().items():
        assert np.array_equal(value, expected[name])


@pytest.mark.parametrize("form", ["whole", "rows", "entries", "half"])
def test_of_a_row_wise_matrix_the_touched_rows_are_averaged_however_they_were_sent(form: str) -> None:
    shapes = {"embedding.weight": (6, 3)}
    matrix = np.zeros((6, 3), np.float32)
    matrix[[1, 4]] = [[1.0, 0.0, -2.0], [0.0, 0.5, 0.0]]
    flat = np.flatnonzero(matrix)
    sent: Tensors = {
        "whole": {"embedding.weight": matrix},
        "rows": {
            "embedding.weight#rows": np.array([1, 4], np.int32),
            "embedding.weight#values": matrix[[1, 4]],
        },
        "entries": {
            "embedding.weight#indices": flat.astype(np.int32),
            "embedding.weight#entries": matrix.reshape(-1)[flat],
        },
        "half": {"embedding.weight": matrix.astype(np.float16)},
    }[form]
    total = GradientSum(shapes, sites=2, rowwise=shapes)
    for _ in range(2):  # it begins anew each time
        total.add(Update("a", 1, sent, Metrics(2, 1.0, 1)))
        average = total.take_average()
        assert average["embedding.weight#rows"].tolist() == [1, 4]
        assert np.array_equal(average["embedding.weight#values"], matrix[[1, 4]] / 2)


def test_a_sum_takes_no_more_updates_than_it_was_made_for() -> None:
    total = GradientSum(shapes_of(make_update("a")), sites=1)
    total.add(make_update("a"))
    with pytest.raises(InconsistentUpdates, match="site b: 1 updates were announced"):
        total.add(make_update("b"))


def test_a_sum_begins_anew_when_its_average_is_taken() -> None:
    total = GradientSum(shapes_of(make_update("a")), sites=1)
    total.add(make_update("b"))
    total.take_average()
    with pytest.raises(InconsistentUpdates, match="no update"):
        total.take_average()
    total.add(make_update("a"))
    assert np.array_equal(
        total.take_average()["output.bias"], average_gradients([make_update("a")])["output.bias"]
    )


@pytest.mark.parametrize("size", [4_001.0, 1e15, 3e38])
def test_a_norm_beyond_the_bound_is_refused_with_the_bound(size: float) -> None:
    loud = make_update("books", samples=4, **{"output.bias": np.array([size, 0, 0], np.float32)})
    with pytest.raises(
        InconsistentUpdates, match="books: output.bias (has norm .*at most 4e|holds NaN or inf)"
    ):
        GradientSum(shapes_of(loud)).add(loud)


def test_tensors_that_are_within_the_bound_one_by_one_are_taken() -> None:
    shapes = {"output.bias": (3,), "other.bias": (2,)}
    loud = Update(
        "books",
        1,
        {"output.bias": np.array([800, 0, 0], np.float32), "other.bias": np.array([0, 900], np.float32)},
        Metrics(1, 0.5, 1),
    )
    total = GradientSum(shapes)
    total.add(loud)
    averaged = total.take_average()
    assert {name: value.tolist() for name, value in averaged.items()} == {
        "output.bias": [800, 0, 0],
        "other.bias": [0, 900],
    }
    too_loud = replace(loud, gradients={**loud.gradients, "other.bias": np.array([0, 1001], np.float32)})
    with pytest.raises(InconsistentUpdates, match="books: other.bias has norm"):
        total.add(too_loud)


def test_as_many_sites_as_there_are_cannot_make_the_integers_overflow() -> None:
    size = SUM_LIMIT / 64 / 2
    updates = [
        make_update(f"site-{number}", 5_000, **{"output.bias": np.full(3, size / 2, np.float32)})
        for number in range(64)
    ]
    average = average_gradients(updates)["output.bias"]
    assert average.tolist() == pytest.approx([size / 2 / 5_000] * 3)


def test_sums_are_divided_by_the_number_of_all_samples() -> None:
    heavy = make_update("a", 3, **{"output.bias": np.full(3, 9.0, np.float32)})
    light = make_update("b", 1, **{"output.bias": np.full(3, -1.0, np.float32)})
    averaged = average_gradients([heavy, light])["output.bias"]
    assert averaged.dtype == np.float32
    assert averaged.tolist() == [2.0, 2.0, 2.0]


def test_the_average_leaves_the_updates_as_they_were() -> None:
    update = make_update("a")
    before = update.gradients["output.bias"].copy()
    average_gradients([update, make_update("b")])
    assert np.array_equal(update.gradients["output.bias"], before)


WITH_NAN = np.array([0.0, np.nan, 0.0], np.float32)
WITH_INFINITY = np.array([0.0, 0.0, -np.inf], np.float32)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (make_update("books", **{"output.bias": np.zeros(4, np.float32)}), ["output.bias", "(4,)", "(3,)"]),
        (make_update("books", **{"output.bias": np.zeros((3, 1), np.float32)}), ["output.bias", "(3, 1)"]),
        (make_update("books", **{"output.bias": np.zeros(3, np.float64)}), ["output.bias", "float64"]),
        (make_update("books", **{"output.bias": np.zeros(3, np.int32)}), ["output.bias", "int32"]),
        (make_update("books", **{"output.bias": WITH_NAN}), ["output.bias", "NaN"]),
        (make_update("books", **{"output.bias": WITH_INFINITY}), ["output.bias", "infinity"]),
        (make_update("books", backdoor=np.zeros(3, np.float32)), ["backdoor"]),
        (replace(make_update("books"), gradients={}), ["output.bias", "embedding.weight"]),
        (make_update("books", samples=0), ["at least one sample", "0"]),
    ],
    ids=["size", "rank", "double", "integer", "nan", "infinity", "extra name", "no name", "no sample"],
)
def test_an_update_that_does_not_fit_is_refused_by_site_and_tensor(wrong: Update, words: list[str]) -> None:
    good = make_update("art")  # comes first by name, so the wrong one is held against it
    with pytest.raises(InconsistentUpdates) as refusal:
        average_gradients([wrong, good])
    for word in ["site books", *words]:
        assert word in str(refusal.value)
    shapes = {name: value.shape for name, value in good.gradients.items()}
    GradientSum(shapes).add(good)
    with pytest.raises(InconsistentUpdates, match="site books"):
        GradientSum(shapes).add(wrong)


def test_no_update_at_all_is_refused() -> None:
    with pytest.raises(InconsistentUpdates, match="no update"):
        average_gradients([])


def test_sums_in_double_precision_are_refused_where_sites_send_them() -> None:
    double = Update("books", 1, {"output.bias": np.zeros(3)}, Metrics(1, 0.5, 1))
    with pytest.raises(InconsistentUpdates, match=r"books: output\.bias is float64\(3,\), wanted float32"):
        GradientSum({"output.bias": (3,)}).add(double)
