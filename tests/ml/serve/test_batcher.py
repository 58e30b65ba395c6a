"""The batcher over a real predictor, on a real event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.artifact import load_artifact
from ml.encoding import EncodedTexts
from ml.predict import Predictor
from ml.serve.admission import Admission
from ml.serve.batcher import Abandoned, Batcher, ComputationFailed, Expired, Probabilities
from ml.serve.fleet import Fleet
from ml.serve.metrics import ServiceMetrics
from tests.ml.conftest import TinyModel

POISON = "毒"


class Watched(Predictor):
    """A real predictor that notes what it was asked, and chokes on one text."""

    def __init__(self, model: TinyModel) -> None:
        super().__init__(load_artifact(model.artifact.path, model.artifact.digest))
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        self.batches.append(list(texts))
        if POISON in texts:
            raise RuntimeError("cannot be computed")
        return super().encode(texts)


@pytest.fixture(scope="module")
def predictors(tiny: TinyModel, other_tiny: TinyModel) -> tuple[Watched, Watched]:
    return Watched(tiny), Watched(other_tiny)


@pytest.fixture
def predictor(predictors: tuple[Watched, Watched]) -> Watched:
    predictors[0].batches.clear()
    return predictors[0]


@pytest.fixture(scope="module")
def metrics() -> ServiceMetrics:
    return ServiceMetrics(Fleet())


@pytest.fixture
def admission() -> Admission:
    return Admission(max_wait_seconds=0.02, always_admitted=2, max_waiting_bytes=10_000)


@pytest.fixture
def batcher(admission: Admission, metrics: ServiceMetrics) -> Batcher:
    return Batcher(admission, metrics)


def together(*work: Awaitable[Any]) -> list[Any]:
    """Run at once; gives results, and exceptions in the place of those that failed."""

    async def run() -> list[Any]:
        return await asyncio.gather(*work, return_exceptions=True)

    return asyncio.run(run())


def close_to(wanted: Probabilities) -> Any:
    return pytest.approx(wanted, abs=1e-5)


def test_an_idle_batcher_answers_at_once(batcher: Batcher, predictor: Watched) -> None:
    async def ask() -> float:
        await batcher.compute(predictor, ["很好看"])
        quickest = 1.0
        for _ in range(20):
            started = time.perf_counter()
            await batcher.compute(predictor, ["很好看"])
            quickest = min(quickest, time.perf_counter() - started)
        return quickest

    assert asyncio.run(ask()) < 0.003  # no timer: a clock's tick would be longer


def test_what_is_queued_while_a_batch_runs_is_computed_together(batcher: Batcher, predictor: Watched) -> None:
    answers = together(*(batcher.compute(predictor, [f"第{number}条很好"]) for number in range(20)))
    assert len(predictor.batches) == 1
    assert sorted(predictor.batches[0]) == sorted(f"第{number}条很好" for number in range(20))
    for number, answer in enumerate(answers):
        assert answer == close_to(predictor.probabilities([f"第{number}条很好"]))


def test_no_texts_are_answered_without_the_model(batcher: Batcher, predictor: Watched) -> None:
    (answer,) = together(batcher.compute(predictor, []))
    assert answer.shape == (0, 3)
    assert predictor.batches == []


def test_a_large_request_does_not_hold_up_a_small_one(batcher: Batcher, predictor: Watched) -> None:
    done: list[str] = []

    async def ask(name: str, texts: list[str]) -> None:
        await batcher.compute(predictor, texts)
        done.append(name)

    async def run() -> None:
        large = asyncio.create_task(ask("large", ["房间很干净，但是服务员的态度实在让人无法接受"] * 640))
        await asyncio.sleep(0)
        while not predictor.batches:
            await asyncio.sleep(0)
        await ask("small", ["好"])
        await large

    asyncio.run(run())
    assert done == ["small", "large"]
    with_small = next(index for index, batch in enumerate(predictor.batches) if "好" in batch)
    assert max(map(len, predictor.batches[:with_small])) <= 256
    assert max(map(len, predictor.batches[with_small:])) <= 64  # more small ones may come


def test_a_large_requests_texts_are_taken_by_length_and_answered_in_their_order(
    batcher: Batcher, predictor: Watched
) -> None:
    texts = ["很好看，" * 9, "好", "太差了，再也不会买了", "一般", "物流很快" * 30] * 20
    (answer,) = together(batcher.compute(predictor, texts))
    taken = [text for batch in predictor.batches for text in batch]
    assert sorted(taken) == sorted(texts)
    assert list(map(len, taken)) == sorted(map(len, texts))
    assert answer == close_to(predictor.probabilities(texts))


def test_large_requests_that_come_one_after_another_go_together_by_length(
    batcher: Batcher, predictor: Watched
) -> None:
    texts = ["好" * length for length in range(1, 41)]

    async def run() -> None:
        await asyncio.gather(batcher.compute(predictor, texts), batcher.compute(predictor, texts))
        predictor.batches.clear()
        first = asyncio.create_task(batcher.compute(predictor, texts))
        while not predictor.batches:
            await asyncio.sleep(0)
        await asyncio.gather(first, batcher.compute(predictor, texts), batcher.compute(predictor, texts))

    asyncio.run(run())
    begun, *rest = predictor.batches
    assert begun == texts[:32]  # not all of it: the others came meanwhile
    assert [len(batch) for batch in rest] == [88]


def test_large_requests_of_one_client_are_not_divided(batcher: Batcher, predictor: Watched) -> None:
    async def run() -> None:
        for _ in range(3):
            await batcher.compute(predictor, ["很好"] * 64)

    asyncio.run(run())
    assert list(map(len, predictor.batches)) == [64, 64, 64]


def test_large_requests_that_come_when_others_have_gone_ahead_wait_for_them_and_small_ones_do_not(
    batcher: Batcher, predictor: Watched
) -> None:
    done: list[str] = []

    async def ask(name: str, texts: list[str]) -> None:
        await batcher.compute(predictor, texts)
        done.append(name)

    async def run() -> None:
        first = asyncio.create_task(ask("first", ["很好"] * 640))
        while len(predictor.batches) < 2:
            await asyncio.sleep(0)
        await asyncio.gather(first, ask("next", ["太差了"] * 40), ask("small", ["好"]))

    asyncio.run(run())
    assert done == ["small", "first", "next"]
    assert not any({"很好", "太差了"} <= set(batch) for batch in predictor.batches)


def test_a_poisonous_request_fails_alone(
    batcher: Batcher, predictor: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [["很好看"], ["还行", POISON], ["太差了", "一般"]]
    good, poisoned, also_good = together(*(batcher.compute(predictor, asked) for asked in texts))
    assert isinstance(poisoned, ComputationFailed)
    assert good == close_to(predictor.probabilities(texts[0]))
    assert also_good == close_to(predictor.probabilities(texts[2]))
    assert batcher.depth == 0
    assert "cannot be computed" in caplog.text


def test_after_a_poisonous_request_the_next_ones_are_answered(batcher: Batcher, predictor: Watched) -> None:
    async def run() -> Probabilities:
        with pytest.raises(ComputationFailed):
            await batcher.compute(predictor, [POISON])
        return await batcher.compute(predictor, ["很好看"])

    assert asyncio.run(run()) == close_to(predictor.probabilities(["很好看"]))


def test_work_whose_deadline_passed_is_dropped_before_it_is_cut_into_words(
    batcher: Batcher, predictor: Watched
) -> None:
    past = time.monotonic() - 0.001
    expired, answered = together(
        batcher.compute(predictor, ["来不及"], deadline=past), batcher.compute(predictor, ["很好看"])
    )
    assert isinstance(expired, Expired)
    assert isinstance(answered, np.ndarray)
    assert predictor.batches == [["很好看"]]


def test_work_of_a_client_that_went_away_is_dropped(batcher: Batcher, predictor: Watched) -> None:
    gone, answered = together(
        batcher.compute(predictor, ["走了"], is_wanted=lambda: False), batcher.compute(predictor, ["很好看"])
    )
    assert isinstance(gone, Abandoned)
    assert isinstance(answered, np.ndarray)
    assert predictor.batches == [["很好看"]]


def test_a_large_request_whose_client_went_away_stops_between_two_batches(
    batcher: Batcher, predictor: Watched
) -> None:
    texts = ["房间很干净"] * 640
    (gone,) = together(batcher.compute(predictor, texts, is_wanted=lambda: len(predictor.batches) < 2))
    assert isinstance(gone, Abandoned)
    assert len(predictor.batches) == 2


def test_a_cancelled_request_leaves_the_others_their_answers(batcher: Batcher, predictor: Watched) -> None:
    async def run() -> Probabilities:
        cancelled = asyncio.create_task(batcher.compute(predictor, ["算了"]))
        kept = asyncio.create_task(batcher.compute(predictor, ["很好看"]))
        await asyncio.sleep(0)
        cancelled.cancel()
        return await kept

    assert asyncio.run(run()) == close_to(predictor.probabilities(["很好看"]))


def test_the_measured_rate_follows_what_work_took(
    batcher: Batcher, admission: Admission, predictor: Watched
) -> None:
    admission.enter(1000)
    before = admission.wait_seconds
    together(*(batcher.compute(predictor, ["很好看" * 20], units=10) for _ in range(30)))
    assert admission.wait_seconds > before  # ten units of work took far longer than it was thought at first


SHORT = st.text(alphabet="很好差看的店，。a1 \u200b😀\ud800", max_size=12)
LONG = SHORT.map(lambda text: text * 30)
REQUESTS = st.lists(
    st.tuples(
        st.lists(st.one_of(SHORT, LONG), max_size=70),
        st.integers(min_value=0, max_value=6),  # turns of the loop before it is sent
        st.sampled_from(["first model", "second model"]),
        st.sampled_from(["stays", "stays", "stays", "goes away", "is late", "cancels"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
def test_any_interleaving_gives_each_client_its_own_answers_by_one_model(
    metrics: ServiceMetrics, predictors: tuple[Watched, Watched], requests: list[Any]
) -> None:
    """Equal to unbatched ones, whatever the others ask, whenever they ask it, and however they end."""
    admission = Admission(max_wait_seconds=1, always_admitted=100, max_waiting_bytes=10**9)
    batcher = Batcher(admission, metrics)
    by_name = dict(zip(["first model", "second model"], predictors, strict=True))

    async def ask(texts: list[str], turns: int, model: str, fate: str) -> Probabilities:
        for _ in range(turns):
            await asyncio.sleep(0)
        deadline = time.monotonic() if fate == "is late" else float("inf")
        work: Coroutine[Any, Any, Probabilities] = batcher.compute(
            by_name[model], texts, deadline=deadline, is_wanted=lambda: fate != "goes away"
        )
        if fate != "cancels":
            return await work
        task = asyncio.create_task(work)
        await asyncio.sleep(0)
        task.cancel()
        return await task

    answers = together(*(ask(*request) for request in requests))
    for (texts, _, model, fate), answer in zip(requests, answers, strict=True):
        if fate == "stays" or (not texts and fate != "cancels"):
            alone = [by_name[model].probabilities([text])[0] for text in texts]
            assert len(answer) == len(texts)
            for found, wanted in zip(answer, alone, strict=True):
                assert found == pytest.approx(wanted, abs=1e-5)
        elif fate != "cancels":
            assert isinstance(answer, Expired if fate == "is late" else Abandoned)
    assert batcher.depth == 0


Check = Callable[[Admission], None]


def test_admission_refuses_by_estimated_wait_and_never_the_first_few(admission: Admission) -> None:
    admission.measure(1000, 1.0)
    for _ in range(60):
        admission.measure(1000, 1.0)  # a millisecond a unit
    admission.enter(500)
    assert not admission.is_full  # fewer than two under way
    admission.enter(10)
    assert admission.is_full
    assert admission.wait_seconds == pytest.approx(0.51, rel=0.1)
    admission.leave(500)
    admission.enter(1)
    assert not admission.is_full  # eleven milliseconds
    assert admission.retry_after_seconds == 1


def test_admission_bounds_the_bytes_under_way(admission: Admission) -> None:
    admission.enter(10_001)
    assert admission.is_full
