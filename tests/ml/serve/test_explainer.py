"""Explanations over HTTP: what they say, what is refused, and that plain requests hardly notice them."""

from __future__ import annotations

import json
import statistics
import threading
import time
from typing import Any

import httpx
import pytest

from ml.artifact import load_artifact
from ml.client import InferenceClient
from ml.explain import MAX_SPANS, occlude
from ml.predict import Predictor
from ml.serve import explainer
from tests.ml.conftest import TinyModel
from tests.ml.serve.conftest import ServeHere

TEXTS = ["这本书很好看，物流　太慢了！", "ＯＫ\u200b❤️", "", "好" * 500]


def post(url: str, document: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/predict", content=json.dumps(document), headers=headers, timeout=30)


@pytest.fixture(scope="module")
def predictor(tiny: TinyModel) -> Predictor:
    return Predictor(load_artifact(tiny.artifact.path, tiny.artifact.digest))


def test_each_part_weighs_what_the_label_loses_without_it(
    serve_here: ServeHere, predictor: Predictor
) -> None:
    with serve_here() as served:
        answer = post(served.url, {"texts": TEXTS, "explain": True}).json()
    assert answer["model"] == predictor.digest
    whole = predictor.predict(TEXTS)
    for text, found, entry in zip(TEXTS, whole, answer["predictions"], strict=True):
        occlusion = occlude(text, predictor.tokenizer)
        expected = occlusion.weigh(found, predictor.predict(occlusion.variants()))
        assert entry["label"] == found.label
        assert [(part["start"], part["end"], part["text"]) for part in entry["explanation"]] == [
            (part.start, part.end, part.text) for part in expected
        ]
        assert [part["weight"] for part in entry["explanation"]] == pytest.approx(
            [part.weight for part in expected], abs=2e-3
        )
        assert len(entry["explanation"]) <= MAX_SPANS


def test_predictions_are_the_same_with_and_without_and_explanations_come_only_when_asked(
    serve_here: ServeHere,
) -> None:
    with serve_here() as served:
        plain = post(served.url, {"texts": TEXTS}).json()["predictions"]
        declined = post(served.url, {"texts": TEXTS, "explain": False}).json()["predictions"]
        explained = post(served.url, {"texts": TEXTS, "explain": True}).json()["predictions"]
    assert declined == plain
    assert all("explanation" not in entry for entry in plain)
    for entry, other in zip(explained, plain, strict=True):
        assert entry["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_half_an_emoji_is_left_out_of_the_text_and_counts_in_its_place(serve_here: ServeHere) -> None:
    with serve_here() as served:
        entry = post(served.url, {"texts": ["好\ud800看"], "explain": True}).json()["predictions"][0]
    assert "".join(part["text"] for part in entry["explanation"]) == "好看"
    assert entry["explanation"][-1]["end"] == 3


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (
            {"texts": ["好"] * 17, "explain": True},
            "texts holds 17 texts, the limit is 16 a request with explain",
        ),
        ({"texts": ["好"], "explain": "yes"}, "explain must be true or false, got str"),
        ({"texts": ["好"], "explain": None}, "explain must be true or false, got NoneType"),
        ({"texts": ["好"], "explain": 1}, "explain must be true or false, got int"),
    ],
)
def test_a_request_beyond_the_limits_of_explaining_is_refused_naming_them(
    serve_here: ServeHere, document: Any, detail: str
) -> None:
    with serve_here() as served:
        answer = post(served.url, document)
        assert post(served.url, {"texts": ["好"] * 17, "explain": False}).status_code == 200
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


def test_sixteen_texts_are_within_the_limit(serve_here: ServeHere) -> None:
    with serve_here() as served:
        answer = post(served.url, {"texts": ["很好看"] * 16, "explain": True})
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 16


def test_time_that_runs_out_while_explaining_is_said(serve_here: ServeHere) -> None:
    document = {"texts": ["很好看，" * 2000] * 16, "explain": True}
    with serve_here() as served:
        started = time.monotonic()
        answer = post(served.url, document, **{"X-Request-Timeout-Ms": "200"})
        assert time.monotonic() - started < 3
        assert post(served.url, {"texts": ["好"], "explain": True}).status_code == 200
    assert answer.status_code == 504


def test_more_explanations_at_once_than_are_made_are_refused_for_a_while(
    serve_here: ServeHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explainer, "MAX_EXPLAINED_REQUESTS", 1)
    long = {"texts": ["很好看，" * 2000] * 8, "explain": True}
    with serve_here() as served:

        def insist() -> None:  # the long one itself is refused while a short one is being explained
            while post(served.url, long).status_code == 429:
                pass

        slow = threading.Thread(target=insist)
        slow.start()
        answers = []
        while slow.is_alive():
            answers.append(post(served.url, {"texts": ["好"], "explain": True}))
        slow.join()
        after = post(served.url, {"texts": ["好"], "explain": True})
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[0].headers["retry-after"] == "1"
    assert "the limit" in refused[0].json()["detail"]
    assert after.status_code == 200


def test_explanations_do_not_starve_plain_requests(serve_here: ServeHere) -> None:
    """Four clients want nothing but long explanations; a plain request waits for a batch or two, not for them."""
    long = {"texts": ["这家店的味道真好，下次还会再来。" * 60] * 16, "explain": True}
    stop = threading.Event()
    took: list[float] = []

    def explain_on(url: str) -> None:
        while not stop.is_set():
            started = time.monotonic()
            if post(url, long).status_code == 200:
                took.append(time.monotonic() - started)

    with serve_here() as served, httpx.Client(base_url=served.url, timeout=30) as client:
        threads = [threading.Thread(target=explain_on, args=(served.url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        waits, statuses = [], []
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            started = time.monotonic()
            statuses.append(client.post("/v1/predict", json={"texts": ["很好看"]}).status_code)
            waits.append(time.monotonic() - started)
        stop.set()
        for thread in threads:
            thread.join()
    assert took
    assert set(statuses) == {200}
    assert statistics.median(waits) < statistics.median(took) / 10


def test_the_schema_documents_explanations(serve_here: ServeHere) -> None:
    with serve_here() as served:
        operation = httpx.get(f"{served.url}/openapi.json").json()["paths"]["/v1/predict"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]["explain"]
    assert (asked["type"], asked["default"]) == ("boolean", False)
    assert "16 texts" in asked["description"]
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    entry = answered["properties"]["predictions"]["items"]["properties"]
    assert set(entry["explanation"]["items"]["properties"]) == {"start", "end", "text", "weight"}


def test_our_client_reads_what_the_service_explains(serve_here: ServeHere) -> None:
    text = "\udc00很好看，\ud800太慢了"
    with serve_here() as served, InferenceClient(served.url, 20) as client:
        found = client.predict([text], explain=True).explanations
    assert found is not None
    assert "".join(text[part.start : part.end] for part in found[0]).replace("\ud800", "") == "很好看，太慢了"
