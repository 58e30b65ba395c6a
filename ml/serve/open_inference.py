"""The Open Inference Protocol, version 2, for the one model `sentiment`.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from ml.label_set import LABELS
from ml.prediction import Prediction
from ml.serve.problems import Problem, answer_json
from ml.serve.requests import check_texts, read_json
from ml.serve.service import InferenceService

MODEL: Final = "sentiment"
_OUTPUTS: Final = ("label", "probabilities")


def open_inference_routes(service: InferenceService) -> APIRouter:
    """Make the protocol's routes."""
    router = APIRouter(prefix="/v2")

    @router.get("", summary="Server metadata")
    async def server_metadata() -> Response:
        return answer_json({"name": "huisheng", "version": "1", "extensions": []})

    @router.get("/health/live", summary="Whether the server runs")
    async def server_live() -> Response:
        return answer_json({"live": True})

    @router.get("/health/ready", summary="Whether the server answers")
    async def server_ready() -> Response:
        return _readiness(service, {})

    @router.get(f"/models/{MODEL}/ready", summary="Whether the model answers")
    async def model_ready() -> Response:
        return _readiness(service, {"name": MODEL})

    @router.get(f"/models/{MODEL}", summary="Model metadata")
    async def model_metadata() -> Response:
        return answer_json(_model_metadata(service.state.model))

    @router.post(f"/models/{MODEL}/infer", summary="Say what each text expresses")
    async def infer(request: Request) -> Response:
        document = await read_json(request, service.settings.max_body_bytes)
        texts = check_texts(_input_texts(document), "inputs[0].data", service.settings)
        wanted = _wanted_outputs(document)
        predictor = service.current_predictor()
        predictions = await service.predict(predictor, texts)
        answer = {
            "model_name": MODEL,
            "model_version": predictor.digest,
            "outputs": [_output_tensor(name, predictions) for name in wanted],
        }
        if "id" in document:
            answer["id"] = document["id"]
        return answer_json(answer, headers={"X-Model-Digest": predictor.digest})

    return router


def _readiness(service: InferenceService, names: dict[str, str]) -> Response:
    ready = service.state.predictor is not None
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


def _input_texts(document: dict[str, Any]) -> Any:
    """Take the data of the one input tensor; the texts themselves are checked by the caller."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Problem(422, 'inputs must be a list of one tensor named "text"')
    tensor = inputs[0]
    if tensor.get("name") != "text" or tensor.get("datatype") != "BYTES":
        raise Problem(422, 'inputs[0] must have the name "text" and the datatype "BYTES"')
    data, shape = tensor.get("data"), tensor.get("shape")
    if not isinstance(data, list) or shape not in ([len(data)], [len(data), 1]):
        raise Problem(
            422, f"inputs[0].shape is {shape!r:.40}, expected [n] or [n, 1] for a data list of n texts"
        )
    nested = shape == [len(data), 1] and all(isinstance(row, list) and len(row) == 1 for row in data)
    return [row[0] for row in data] if nested else data


def _wanted_outputs(document: dict[str, Any]) -> list[str]:
    asked = document.get("outputs")
    if asked is None:
        return list(_OUTPUTS)
    tensors = asked if isinstance(asked, list) else []
    names = [str(tensor.get("name")) for tensor in tensors if isinstance(tensor, dict)]
    if not names or len(names) != len(tensors) or not set(names) <= set(_OUTPUTS):
        raise Problem(422, f"outputs must be a list of tensors named among {', '.join(_OUTPUTS)}")
    return names


def _output_tensor(name: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    if name == "label":
        labels = [prediction.label for prediction in predictions]
        return {"name": name, "datatype": "BYTES", "shape": [len(labels)], "data": labels}
    rows = [[round(prediction.probabilities[label], 6) for label in LABELS] for prediction in predictions]
    flat = [value for row in rows for value in row]
    return {"name": name, "datatype": "FP32", "shape": [len(rows), len(LABELS)], "data": flat}
