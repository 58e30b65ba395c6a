"""The service's HTTP face, asked in this process; the watcher runs as it does in production."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from ml.label_set import LABELS
from ml.serve.app import create_app
from ml.serve.settings import ServeSettings
from tests.ml.conftest import Store, TinyModel
from tests.servers import wait_until


@pytest.fixture
def client(store: Store, tiny: TinyModel) -> Iterator[TestClient]:
    store.point_at(tiny.artifact.digest)
    with TestClient(create_app(ServeSettings(store=store.path, poll_seconds=0.02))) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "the service is ready")
        yield client


@pytest.fixture
def empty_client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(ServeSettings(store=store.path, poll_seconds=0.02))) as client:
        wait_until(lambda: "champion.json" in client.get("/readyz").json()["error"], "the watcher looked")
        yield client


def assert_problem(response: Response, status: int, detail: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    assert detail in document["detail"]


def test_every_text_gets_an_answer_of_the_model_named(client: TestClient, tiny: TinyModel) -> None:
    response = client.post("/v1/predict", json={"texts": ["很好看", "太差了", ""]})
    assert response.status_code == 200
    assert response.headers["x-model-digest"] == response.json()["model"] == tiny.artifact.digest
    predictions = response.json()["predictions"]
    assert len(predictions) == 3
    for prediction in predictions:
        assert list(prediction["probabilities"]) == list(LABELS)
        assert prediction["score"] == prediction["probabilities"][prediction["label"]]


@pytest.mark.parametrize(
    "texts",
    [
        '["\\ud800"]',
        '["\\ud83d\\ude00", "\\udc00\\ud800x"]',
        '["\\u0000"]',
        '["", "   ", "\\u200b"]',
        "[]",
        json.dumps(["好" * 10_000]),
        json.dumps(["好"] * 256),
        json.dumps(["\U0001f600" * 10_000]),
    ],
)
def test_odd_texts_within_the_limits_are_answered(client: TestClient, texts: str) -> None:
    response = client.post("/v1/predict", content=f'{{"texts": {texts}}}')
    assert response.status_code == 200, response.text
    assert len(response.json()["predictions"]) == len(json.loads(texts))


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"texts": ["' + b"\xe5\xa5" + b'"]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"texts": [' + b"9" * 5000 + b"]}", "not JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b"null", "must be a JSON object, got NoneType"),
        (b"{}", "texts must be a list of strings"),
        (b'{"texts": "one"}', "texts must be a list of strings"),
        (b'{"texts": {"0": "one"}}', "texts must be a list of strings"),
        (b'{"texts": ["one", 2]}', "texts[1] must be a string, got int"),
        (b'{"texts": [null]}', "texts[0] must be a string, got NoneType"),
        (b'{"texts": [["one"]]}', "texts[0] must be a string, got list"),
        (json.dumps({"texts": ["a"] * 257}).encode(), "holds 257 texts, the limit is 256"),
        (
            json.dumps({"texts": ["a", "a" * 10_001]}).encode(),
            "texts[1] has 10001 characters, the limit is 10000",
        ),
    ],
)
def test_a_request_that_is_no_request_is_refused_with_the_reason(
    client: TestClient, body: bytes, detail: str
) -> None:
    assert_problem(client.post("/v1/predict", content=body), 422, detail)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_refused_whether_or_not_it_announces_itself(
    store: Store, tiny: TinyModel, announced: bool
) -> None:
    body = json.dumps({"texts": ["a" * 3000]}).encode()
    content = body if announced else iter([body[:1500], body[1500:]])
    settings = ServeSettings(store=store.path, max_body_bytes=2000)
    with TestClient(create_app(settings)) as client:
        assert_problem(client.post("/v1/predict", content=content), 413, "limit of 2000 bytes")


def test_unknown_addresses_and_methods_are_problems_too(client: TestClient) -> None:
    assert_problem(client.get("/nothing"), 404, "GET /nothing")
    assert_problem(client.get("/v1/predict"), 405, "Method Not Allowed")
    assert_problem(client.get("/v2/models/other"), 404, "/v2/models/other")


def test_an_unexpected_failure_is_a_problem_and_tells_no_secrets(
    store: Store, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("ml.serve.predict_api.check_texts", fail)
    with TestClient(create_app(ServeSettings(store=store.path)), raise_server_exceptions=False) as client:
        response = client.post("/v1/predict", json={"texts": []})
    assert_problem(response, 500, "unexpected failure")
    assert "secret" not in response.text


def test_without_a_model_the_service_lives_and_says_what_is_missing(
    empty_client: TestClient, store: Store
) -> None:
    assert empty_client.get("/livez").json() == {"live": True}
    assert empty_client.get("/v2/health/live").status_code == 200
    ready = empty_client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["ready"] is False
    assert ready.json()["model"] is None
    assert f"{store.path}/champion.json: missing" in ready.json()["error"]
    refused = empty_client.post("/v1/predict", json={"texts": ["很好"]})
    assert_problem(refused, 503, "no model is being served")
    assert "champion.json: missing" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "1"
    assert empty_client.get("/v2/health/ready").status_code == 503
    assert empty_client.get("/v2/models/sentiment/ready").json() == {"name": "sentiment", "ready": False}
    assert empty_client.get("/v2/models/sentiment").json()["versions"] == []


def test_a_store_that_does_not_exist_yet_may_appear_later(store: Store, tiny: TinyModel) -> None:
    away = replace(store, path=store.path.with_name("later"))
    with TestClient(create_app(ServeSettings(store=away.path, poll_seconds=0.02))) as client:
        assert client.get("/readyz").status_code == 503
        store.path.rename(away.path)
        away.point_at(tiny.artifact.digest)
        wait_until(lambda: client.get("/readyz").status_code == 200, "the store was found")


def test_the_open_inference_protocol_gives_the_same_answers(client: TestClient, tiny: TinyModel) -> None:
    texts = ["很好看", "太差了"]
    native = client.post("/v1/predict", json={"texts": texts}).json()["predictions"]
    request = {"id": "42", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": texts}]}
    response = client.post("/v2/models/sentiment/infer", json=request)
    assert response.status_code == 200
    document = response.json()
    assert (document["model_name"], document["model_version"]) == ("sentiment", tiny.artifact.digest)
    assert document["id"] == "42"
    label, probabilities = document["outputs"]
    assert label == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [2],
        "data": [one["label"] for one in native],
    }
    assert (probabilities["name"], probabilities["datatype"]) == ("probabilities", "FP32")
    assert probabilities["shape"] == [2, 3]
    assert probabilities["data"] == [value for one in native for value in one["probabilities"].values()]


def test_the_protocols_column_shape_nested_data_and_chosen_outputs_are_understood(client: TestClient) -> None:
    tensor = {"name": "text", "shape": [2, 1], "datatype": "BYTES"}
    for data in (["好", "坏"], [["好"], ["坏"]]):
        request = {"inputs": [{**tensor, "data": data}], "outputs": [{"name": "probabilities"}]}
        document = client.post("/v2/models/sentiment/infer", json=request).json()
        assert [output["name"] for output in document["outputs"]] == ["probabilities"]
        assert "id" not in document


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"inputs": None}, "one tensor"),
        ({"inputs": []}, "one tensor"),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["a"]}]},
            'the name "text"',
        ),
        ({"inputs": [{"name": "text", "datatype": "FP32", "shape": [1], "data": ["a"]}]}, 'datatype "BYTES"'),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a"]}]}, "shape is [2]"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [1]}]}, "must be a string"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": "a"}]}, "shape is"),
        ({"outputs": [{"name": "logits"}]}, "named among label, probabilities"),
        ({"outputs": "label"}, "named among"),
        ({"outputs": []}, "named among"),
    ],
)
def test_the_protocol_refuses_other_tensors_with_the_reason(
    client: TestClient, change: dict[str, object], detail: str
) -> None:
    request = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["好"]}], **change}
    response = client.post("/v2/models/sentiment/infer", json=request)
    assert_problem(response, 422, detail)
    assert detail in response.json()["error"]  # where the protocol's clients look


def test_metadata_describes_tensors_and_version(client: TestClient, tiny: TinyModel) -> None:
    assert client.get("/v2").json()["name"] == "huisheng"
    document = client.get("/v2/models/sentiment").json()
    assert document["versions"] == [tiny.artifact.digest]
    assert document["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["shape"] for output in document["outputs"]] == [[-1], [-1, 3]]
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/sentiment/ready").status_code == 200


def test_figures_count_requests_texts_the_model_and_failures(
    client: TestClient, store: Store, tiny: TinyModel
) -> None:
    answered = client.post("/v1/predict", json={"texts": ["很好", "很差", "还行"]}).json()
    client.post("/v1/predict", content=b"{")
    client.get("/random/1")
    client.get("/random/2")
    text = client.get("/metrics").text
    assert 'inference_request_seconds_count{route="/v1/predict",status="200"} 1.0' in text
    assert 'inference_request_seconds_count{route="/v1/predict",status="422"} 1.0' in text
    assert 'inference_request_seconds_count{route="unknown",status="404"} 2.0' in text
    assert f'inference_model_info{{device="cpu",digest="{tiny.artifact.digest}"}} 1.0' in text
    assert "inference_swaps_total 1.0" in text
    assert "inference_swap_failures_total 0.0" in text
    counted = sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("inference_texts_total{")
    )
    assert counted == len(answered["predictions"])
    store.point_at("0" * 64)
    wait_until(
        lambda: "inference_swap_failures_total 1.0" in client.get("/metrics").text, "a failure is counted"
    )


def test_several_services_in_one_process_count_apart(store: Store) -> None:
    apps = [create_app(ServeSettings(store=store.path)) for _ in range(2)]
    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        first.get("/livez")
        assert 'route="/livez"' in first.get("/metrics").text
        assert 'route="/livez"' not in second.get("/metrics").text


def test_the_schema_documents_request_and_answer(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["required"] == ["texts"]
    assert {"200", "413", "422", "503"} <= set(operation["responses"])


def test_a_long_computation_does_not_hold_up_other_requests(client: TestClient) -> None:
    import threading

    texts = {"texts": ["很好看" * 3000] * 256}
    slow = threading.Thread(target=lambda: client.post("/v1/predict", json=texts))
    started = time.monotonic()
    slow.start()
    waits = []
    while slow.is_alive():
        before = time.monotonic()
        client.get("/livez")
        waits.append(time.monotonic() - before)
    took = time.monotonic() - started
    slow.join()
    assert len(waits) > 3
    assert sorted(waits)[len(waits) // 2] < took / 4
