"""What goes with a request and its answer: ids, traces, deadlines, the token, the log, the document."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml.serve.app import create_app
from ml.serve.payload_log import mask_text
from ml.serve.settings import ServeSettings
from ml.trace import request_id_of, trace_of
from tests.ml.conftest import Store, TinyModel
from tests.ml.serve.test_app import assert_problem
from tests.servers import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
BODY = {"texts": ["很好看", "太差了"]}
INFER = "/v2/models/sentiment/infer"


def started(store: Store, tiny: TinyModel, **changes: Any) -> TestClient:
    store.point_at(tiny.artifact.digest)
    return TestClient(create_app(ServeSettings(store=store.path, poll_seconds=0.02, **changes)))


def wait_ready(client: TestClient) -> None:
    wait_until(lambda: client.get("/readyz").status_code == 200, "the service is ready")


@pytest.fixture
def client(store: Store, tiny: TinyModel) -> Iterator[TestClient]:
    with started(store, tiny) as client:
        wait_ready(client)
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/predict", BODY),
        ("POST", "/v1/predict", {}),
        ("GET", "/livez", None),
        ("GET", "/nothing", None),
        ("POST", INFER, {}),
    ],
)
def test_every_answer_names_its_request(client: TestClient, method: str, path: str, body: object) -> None:
    given = client.request(method, path, json=body, headers={"X-Request-ID": "order-7/retry:2"})
    assert given.headers.get_list("x-request-id") == ["order-7/retry:2"]
    made = {client.request(method, path, json=body).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made)


@pytest.mark.parametrize("wrong", [b"", b" ", b"a" * 129, b"a b", b'"', b"\xff", b"a\tb", b"{}", b"-x"])
def test_an_id_that_could_spoil_a_log_is_replaced(wrong: bytes) -> None:
    assert re.fullmatch(b"[0-9a-f]{32}", request_id_of(wrong))


def test_a_trace_goes_on_with_a_span_of_our_own(client: TestClient) -> None:
    answer = client.post("/v1/predict", json=BODY, headers={"traceparent": PARENT})
    version, trace, span, flags = answer.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != PARENT.split("-")[2]
    assert "traceparent" not in client.post("/v1/predict", json=BODY).headers


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        PARENT.upper(),
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}-more",
        f"00-{TRACE}-00f067aa0ba902b7",
    ],
)
def test_a_trace_that_is_none_is_ignored_as_the_standard_says(wrong: str) -> None:
    assert trace_of(wrong.encode()) is None


def test_a_later_version_of_the_trace_header_is_understood() -> None:
    found = trace_of(f"01{PARENT[2:]}-what-comes-later".encode())
    assert found is not None
    assert found.header.startswith(f"00-{TRACE}-".encode())


@pytest.mark.parametrize("path", ["/v1/predict", INFER])
def test_a_deadline_that_has_passed_is_answered_504(client: TestClient, path: str) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["好"]}
    answer = client.post(path, json={**BODY, "inputs": [tensor]}, headers={"X-Request-Timeout-Ms": "0"})
    assert_problem(answer, 504, "X-Request-Timeout-Ms")
    assert 'inference_refusals_total{reason="deadline"} 1.0' in client.get("/metrics").text
    assert client.post("/v1/predict", json=BODY, headers={"X-Request-Timeout-Ms": "9000"}).status_code == 200


@pytest.mark.parametrize("wrong", ["", "soon", "-1", "1.5", "9" * 30, "\u0661"])
def test_a_deadline_that_is_no_number_is_refused(client: TestClient, wrong: str) -> None:
    headers = {"X-Request-Timeout-Ms": wrong.encode()}
    assert_problem(client.post("/v1/predict", json=BODY, headers=headers), 422, "expected whole milliseconds")


def test_with_a_token_only_its_bearers_are_answered(store: Store, tiny: TinyModel) -> None:
    with started(store, tiny, token="s3cret") as client:
        wait_ready(client)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            for path in ("/v1/predict", INFER):
                refused = client.post(path, json=BODY, headers=headers)
                assert_problem(refused, 401, "INFERENCE_TOKEN")
                assert refused.headers["www-authenticate"].startswith("Bearer")
            for path in ("/openapi.json", "/docs", "/v2", "/v2/models/sentiment", "/nothing"):
                assert client.get(path, headers=headers).status_code == 401
            for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics"):
                assert client.get(path, headers=headers).status_code == 200
        allowed = {"Authorization": "Bearer s3cret"}
        assert client.post("/v1/predict", json=BODY, headers=allowed).status_code == 200
        assert 'reason="unauthorized"} 21.0' in client.get("/metrics").text


def test_metrics_may_be_for_bearers_only_too(store: Store, tiny: TinyModel) -> None:
    with started(store, tiny, token="s3cret", protect_metrics=True) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/livez").status_code == 200


def test_each_request_is_one_line_of_json_in_the_log(
    store: Store, tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    with started(store, tiny, access_log=True) as client:
        wait_ready(client)
        with caplog.at_level(logging.INFO, "ml.serve.access"):
            caplog.clear()
            client.post("/v1/predict", json=BODY, headers={"X-Request-ID": "a", "traceparent": PARENT})
            client.post("/v1/predict", content=b"{")
            client.get("/nothing")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "ml.serve.access"]
    assert [(line["method"], line["path"], line["status"], line["texts"]) for line in lines] == [
        ("POST", "/v1/predict", 200, 2),
        ("POST", "/v1/predict", 422, 0),
        ("GET", "/nothing", 404, 0),
    ]
    assert (lines[0]["request_id"], lines[0]["trace_id"], lines[0]["model"]) == (
        "a",
        TRACE,
        tiny.artifact.digest,
    )
    assert all(line["duration_ms"] > 0 and "很好看" not in json.dumps(line) for line in lines)


def test_without_the_option_nothing_is_logged_of_requests(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ml.serve.access"):
        client.post("/v1/predict", json=BODY)
    assert not [record for record in caplog.records if record.name == "ml.serve.access"]


def test_the_document_describes_every_route_with_examples_and_every_error(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/predict", INFER, "/livez", "/readyz", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready",
        "/v2/models/sentiment", "/v2/models/sentiment/ready",
    }  # fmt: skip
    for path in ("/v1/predict", INFER):
        operation = document["paths"][path]["post"]
        (content,) = operation["requestBody"]["content"].values()
        example = content["example"]
        assert client.post(path, json=example).status_code == 200
        assert {"200", "401", "413", "422", "429", "500", "503", "504"} <= set(operation["responses"])
        assert {one["name"] for one in operation["parameters"]} >= {"X-Request-Timeout-Ms", "X-Request-ID"}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            for status, response in operation["responses"].items():
                assert any("example" in content for content in response["content"].values()), status
                if int(status) in (401, 413, 422, 429, 500, 504):
                    problem = response["content"]["application/problem+json"]["example"]
                    assert problem["status"] == int(status)
    assert document["components"]["schemas"]["Problem"]["required"]


def test_answers_look_as_the_document_says(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path in ("/livez", "/readyz", "/v2", "/v2/health/ready", "/v2/models/sentiment"):
        response = document["paths"][path]["get"]["responses"]["200"]
        example = response["content"]["application/json"]["example"]
        assert set(client.get(path).json()) == set(example)


def test_figures_tell_stages_batches_lengths_and_unknown_words(client: TestClient) -> None:
    client.post("/v1/predict", json={"texts": ["很好看", "囗囗囗", "一" * 300]})
    text = client.get("/metrics").text
    for stage in ("queue", "tokenise", "model"):
        assert f'inference_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "inference_batch_texts_sum 3.0" in text
    assert "inference_text_characters_sum 306.0" in text
    assert "inference_queue_depth 0.0" in text

    def figure(name: str) -> float:
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE).group(1))  # type: ignore[union-attr]

    assert figure("inference_tokens_total") == figure("inference_batch_tokens_sum") > 30
    assert 1 <= figure("inference_unknown_tokens_total") < figure("inference_tokens_total")


def test_a_sample_of_what_was_asked_is_written_masked_and_bounded(
    store: Store, tiny: TinyModel, tmp_path: Path
) -> None:
    log = tmp_path / "payloads.jsonl"
    texts = ["请联系 zhang.san+x@mail.example 或 @张三，电话13800138000", "\ud800"]
    with started(store, tiny, payload_log=log, payload_rate=1.0, payload_log_bytes=2000) as client:
        wait_ready(client)
        for number in range(50):
            body = json.dumps({"texts": texts})
            client.post("/v1/predict", content=body, headers={"X-Request-ID": f"n{number}"})
    files = sorted(path.name for path in tmp_path.glob("payloads.jsonl*"))
    assert files == ["payloads.jsonl", "payloads.jsonl.1"]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in files)
    line = json.loads((log.with_name("payloads.jsonl.1")).read_text(encoding="utf-8").splitlines()[-1])
    assert line["texts"][0] == "请联系 <email> 或 <handle>，电话00000000000"
    assert line["model"] == tiny.artifact.digest
    assert len(line["labels"]) == 2


def test_the_sample_is_as_large_as_the_rate_says(store: Store, tiny: TinyModel, tmp_path: Path) -> None:
    log = tmp_path / "payloads.jsonl"
    with started(store, tiny, payload_log=log, payload_rate=0.0) as client:
        wait_ready(client)
        client.post("/v1/predict", json=BODY)
    assert not log.exists()
    with pytest.raises(ValueError, match="payload rate 2"):
        ServeSettings(store=tmp_path, payload_rate=2)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a@b.example", "<email>"),
        ("＠某人 你好", "<handle> 你好"),
        ("１２三4", "00三0"),
        ("好@", "好@"),
        ("没有", "没有"),
    ],
)
def test_what_may_reach_a_person_is_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_processes_keep_payload_logs_of_their_own(tmp_path: Path) -> None:
    settings = ServeSettings(store=tmp_path, payload_log=tmp_path / "sample.jsonl")
    assert settings.for_worker(1).payload_log == tmp_path / "sample.1.jsonl"
