"""The typed HTTP client of the inference service; needs neither torch nor ONNX Runtime.

    with InferenceClient("http://127.0.0.1:8001", timeout_seconds=5) as client:
        client.predict(["这本书很好看"]).predictions[0].label
        client.predict(["这本书很好看"], explain=True).explanations

`blocking` and `asynchronous` wait; what they wait for, and when they give up, `calls` decides for both.
"""

from ml.client.answers import PredictResponse, Readiness
from ml.client.asynchronous import AsyncInferenceClient
from ml.client.blocking import InferenceClient
from ml.client.calls import CallPolicy
from ml.client.errors import CircuitOpen, InferenceError

__all__ = [
    "AsyncInferenceClient",
    "CallPolicy",
    "CircuitOpen",
    "InferenceClient",
    "InferenceError",
    "PredictResponse",
    "Readiness",
]
