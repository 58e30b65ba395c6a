"""The Open Inference Protocol, spoken by NVIDIA's client, with tensors as JSON and as bytes."""

from __future__ import annotations

import json
import struct

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from tests.ml.conftest import TinyModel
from tests.ml.serve.conftest import ServeHere

TEXTS = ["很好看", "太差了，再也不买", ""]


def text_tensor(shape: list[int], *, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("text", shape, "BYTES")
    values = np.array([text.encode() for text in TEXTS], dtype=object).reshape(shape)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_a_real_client_gets_the_answers_that_the_native_api_gives(
    serve_here: ServeHere,
    tiny: TinyModel,
    binary_input: bool,
    binary_output: bool | None,
    shape: list[int],
) -> None:
    with serve_here() as served:
        native = httpx.post(f"{served.url}/v1/predict", json={"texts": TEXTS}).json()["predictions"]
        client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
        try:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("sentiment")
            assert client.get_server_metadata()["name"] == "huisheng"
            metadata = client.get_model_metadata("sentiment")
            assert metadata["versions"] == [tiny.artifact.digest]
            outputs = None
            if binary_output is not None:
                outputs = [
                    triton.InferRequestedOutput(name, binary_data=binary_output)
                    for name in ("label", "probabilities")
                ]
            result = client.infer(
                "sentiment", [text_tensor(shape, binary=binary_input)], outputs=outputs, request_id="42"
            )
            assert result.get_response()["id"] == "42"
            assert result.get_response()["model_version"] == tiny.artifact.digest
            labels = result.as_numpy("label").tolist()
            assert [one.decode() if isinstance(one, bytes) else one for one in labels] == [
                one["label"] for one in native
            ]
            found = result.as_numpy("probabilities")
            assert found.shape == (3, 3)
            for row, wanted in zip(found, native, strict=True):
                assert row == pytest.approx(list(wanted["probabilities"].values()), abs=2e-6)
        finally:
            client.close()


def test_a_real_client_understands_a_refusal(serve_here: ServeHere) -> None:
    with serve_here() as served:
        client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
        try:
            tensor = triton.InferInput("image", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([b"x"], dtype=object))
            with pytest.raises(triton.InferenceServerException, match='the name "text"'):
                client.infer("sentiment", [tensor])
        finally:
            client.close()


@pytest.mark.parametrize(
    ("content", "json_length", "detail"),
    [
        (struct.pack("<I", 3) + "好".encode(), "-1", "Inference-Header-Content-Length"),
        (struct.pack("<I", 3) + "好".encode(), "999999", "Inference-Header-Content-Length"),
        (struct.pack("<I", 9) + "好".encode(), None, "a string of 9 bytes"),
        (b"\x01\x00", None, "no strings"),
        (struct.pack("<I", 1) + b"\xff", None, "no strings in UTF-8"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused_with_the_reason(
    serve_here: ServeHere, content: bytes, json_length: str | None, detail: str
) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
    parameters = {"binary_data_size": len(content)}
    document = json.dumps({"inputs": [{**tensor, "parameters": parameters}]}).encode()
    headers = {"Inference-Header-Content-Length": json_length or str(len(document))}
    with serve_here() as served:
        answer = httpx.post(
            f"{served.url}/v2/models/sentiment/infer", content=document + content, headers=headers
        )
        assert answer.status_code == 422
        assert detail in answer.json()["error"]


def test_a_size_that_does_not_fit_the_bytes_is_refused(serve_here: ServeHere) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
    with serve_here() as served:
        answer = httpx.post(f"{served.url}/v2/models/sentiment/infer", json={"inputs": [tensor]})
        assert answer.status_code == 422
        assert "binary_data_size is 5, 0 bytes follow" in answer.json()["detail"]
