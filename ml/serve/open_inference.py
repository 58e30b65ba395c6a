"""The Open Inference Protocol, version 2, for the one model `sentiment`, with its binary tensor extension.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Response

from ml.label_set import LABELS
from ml.serve.batcher import Probabilities
from ml.serve.exchange import Answer, DirectRoute, Exchange
from ml.serve.openapi import DIRECT_PROBLEMS, direct_operation, json_response
from ml.serve.predict_api import rounded_rows
from ml.serve.problems import Problem, answer_json
from ml.serve.requests import check_texts, parse_object
from ml.serve.service import InferenceService
from ml.serve.tensors import JSON_LENGTH, pack_strings, split_binary, unpack_strings

MODEL: Final = "sentiment"
_PATH: Final = f"/v2/models/{MODEL}/infer"
_OUTPUTS: Final = ("label", "probabilities")
_DIGEST: Final = "5f3c0a6c5b1f0f6d3f4e3b2a19080706f5e4d3c2b1a09f8e7d6c5b4a39281706"
_TENSOR: Final = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    },
}
_REQUEST_EXAMPLE = {
    "id": "42",
    "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["这本书很好看，强烈推荐！"]}],
}
_ANSWER_SCHEMA = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_ANSWER_EXAMPLE = {
    "model_name": MODEL,
    "model_version": _DIGEST,
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["positive"]},
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [1, 3],
            "data": [0.010215, 0.018581, 0.971204],
        },
    ],
    "id": "42",
}


@dataclass(frozen=True)
class WantedOutput:
    """A tensor to answer with, and in which form."""

    name: str
    binary: bool


def metadata_routes(service: InferenceService) -> APIRouter:
    """Make the protocol's routes that describe the server and the model."""
    router = APIRouter(prefix="/v2")
    ready, not_ready = {"ready": True}, json_response("it does not yet", {"ready": False})

    @router.get(
        "",
        summary="Server metadata",
        responses={200: json_response("what this server is", _server_metadata())},
    )
    async def server_metadata() -> Response:
        return answer_json(_server_metadata())

    @router.get(
        "/health/live",
        summary="Whether the server runs",
        responses={200: json_response("it does", {"live": True})},
    )
    async def server_live() -> Response:
        return answer_json({"live": True})

    @router.get(
        "/health/ready",
        summary="Whether the server answers",
        responses={200: json_response("it does", ready), 503: not_ready},
    )
    async def server_ready() -> Response:
        return _readiness(service, {})

    @router.get(
        f"/models/{MODEL}/ready",
        summary="Whether the model answers",
        responses={200: json_response("it does", {"name": MODEL, **ready}), 503: not_ready},
    )
    async def model_ready() -> Response:
        return _readiness(service, {"name": MODEL})

    @router.get(
        f"/models/{MODEL}",
        summary="Model metadata",
        responses={200: json_response("its tensors", _model_metadata(_DIGEST))},
    )
    async def model_metadata() -> Response:
        return answer_json(_model_metadata(service.fleet_state.model))

    return router


def infer_routes(service: InferenceService) -> list[DirectRoute]:
    """Make the protocol's route that asks the model."""
    settings = service.settings

    async def infer(exchange: Exchange) -> Answer:
        text_part, binary_part = split_binary(exchange.body, exchange.headers.get(JSON_LENGTH))
        document = parse_object(text_part)
        texts = check_texts(_input_texts(document, binary_part), "inputs[0].data", settings)
        wanted = _wanted_outputs(document)
        predictor = service.current_predictor()
        probabilities = await service.probabilities(exchange, predictor, texts)
        labels = [predictor.labels[index] for index in probabilities.argmax(axis=1).tolist()]
        service.record_answers(exchange, texts, labels)
        answer = {"model_name": MODEL, "model_version": predictor.digest}
        if "id" in document:
            answer["id"] = document["id"]
        return _write_answer(answer, wanted, labels, probabilities)

    operation = direct_operation(
        summary="Say what each text expresses",
        request=(_REQUEST_SCHEMA, _REQUEST_EXAMPLE),
        answer=(_ANSWER_SCHEMA, _ANSWER_EXAMPLE, "label and probabilities of each text"),
        problems=DIRECT_PROBLEMS,
    )
    return [DirectRoute(_PATH, infer, operation)]


def _server_metadata() -> dict[str, Any]:
    return {"name": "huisheng", "version": "1", "extensions": ["binary_tensor_data"]}


def _readiness(service: InferenceService, names: dict[str, str]) -> Response:
    ready = service.fleet_state.ready
    return answer_json({**names, "ready": ready}, 200 if ready else 503)


def _model_metadata(digest: str | None) -> dict[str, Any]:
    return {
        "name": MODEL,
        "versions": [digest] if digest else [],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(LABELS)]},
        ],
    }


def _input_texts(document: dict[str, Any], binary_part: bytes) -> Any:
    """Take the data of the one input tensor; the texts themselves are checked by the caller."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _refusal('inputs must be a list of one tensor named "text"')
    tensor = inputs[0]
    if tensor.get("name") != "text" or tensor.get("datatype") != "BYTES":
        raise _refusal('inputs[0] must have the name "text" and the datatype "BYTES"')
    size_bytes = _parameters(tensor).get("binary_data_size")
    if size_bytes is None:
        data = tensor.get("data")
    elif size_bytes == len(binary_part):
        data = unpack_strings(binary_part)
    else:
        raise _refusal(
            f"inputs[0].parameters.binary_data_size is {size_bytes!r:.40}, {len(binary_part)} bytes follow"
        )
    shape = tensor.get("shape")
    if not isinstance(data, list) or shape not in ([len(data)], [len(data), 1]):
        raise _refusal(f"inputs[0].shape is {shape!r:.40}, expected [n] or [n, 1] for a data list of n texts")
    nested = shape == [len(data), 1] and all(isinstance(row, list) and len(row) == 1 for row in data)
    return [row[0] for row in data] if nested else data


def _wanted_outputs(document: dict[str, Any]) -> list[WantedOutput]:
    binary = _parameters(document).get("binary_data_output") is True
    asked = document.get("outputs")
    if asked is None:
        return [WantedOutput(name, binary) for name in _OUTPUTS]
    tensors = asked if isinstance(asked, list) else []
    wanted = [
        WantedOutput(str(tensor.get("name")), _parameters(tensor).get("binary_data", binary) is True)
        for tensor in tensors
        if isinstance(tensor, dict)
    ]
    if not wanted or len(wanted) != len(tensors) or not {one.name for one in wanted} <= set(_OUTPUTS):
        raise _refusal(f"outputs must be a list of tensors named among {', '.join(_OUTPUTS)}")
    return wanted


def _parameters(part: Mapping[str, Any]) -> Mapping[str, Any]:
    found = part.get("parameters")
    return found if isinstance(found, dict) else {}


def _write_answer(
    answer: dict[str, Any],
    wanted: Sequence[WantedOutput],
    labels: Sequence[str],
    probabilities: Probabilities,
) -> Answer:
    tensors = [_output_tensor(one, labels, probabilities) for one in wanted]
    # Escaped to ASCII, unlike /v1/predict's: the id is the client's own, and may hold half an emoji.
    text_part = json.dumps({**answer, "outputs": [tensor for tensor, _ in tensors]}).encode()
    headers = [(b"x-model-digest", str(answer["model_version"]).encode())]
    if not any(one.binary for one in wanted):
        return Answer(200, text_part, headers=headers)
    headers.append((JSON_LENGTH, b"%d" % len(text_part)))
    body = b"".join([text_part, *(content for _, content in tensors)])
    return Answer(200, body, b"application/octet-stream", headers)


def _output_tensor(
    wanted: WantedOutput, labels: Sequence[str], probabilities: Probabilities
) -> tuple[dict[str, Any], bytes]:
    """Give a tensor's document, and the bytes that follow where it is wanted so."""
    tensor: dict[str, Any]
    data: list[Any]
    if wanted.name == "label":
        tensor = {"name": wanted.name, "datatype": "BYTES", "shape": [len(labels)]}
        data, content = list(labels), pack_strings(labels)
    else:
        tensor = {"name": wanted.name, "datatype": "FP32", "shape": [len(labels), len(LABELS)]}
        data = [value for row in rounded_rows(probabilities) for value in row]
        content = np.asarray(probabilities, dtype="<f4").tobytes()
    if not wanted.binary:
        return {**tensor, "data": data}, b""
    return {**tensor, "parameters": {"binary_data_size": len(content)}}, content


def _refusal(detail: str) -> Problem:
    return Problem(422, detail, reason="limits")
