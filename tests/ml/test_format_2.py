"""Artifacts of format 2 are still served: their graphs read text by text and hold the wide part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml.artifact import Artifact, load_artifact
from ml.export import model_weights
from ml.grams import WIDE_SCALE
from ml.predict import Predictor, open_predictor
from tests.ml.conftest import TinyModel
from tests.ml.test_artifact import read_files, write_files

TEXTS = ["很好", "", "太差了，再也不会买了。" * 9, "一般般", "。", "物流很快，包装也不错👍"] * 4


def put_before(graph: bytes, rows: np.ndarray) -> bytes:
    """Give a graph with the inputs of format 2, and the look-up in rows (K, classes), before one of today."""
    model = onnx.load_model_from_string(graph)
    node, value = helper.make_node, helper.make_tensor_value_info
    constants = {
        "gram_rows": rows * np.float32(WIDE_SCALE),
        "buckets": np.array(len(rows) - 1),
        "one": np.array(1),
        "last_axis": np.array([-1]),
        "second_axis": np.array([1]),
    }
    before = [
        node("Transpose", ["token_ids"], ["ids_by_time"], perm=[1, 0]),
        node("Cast", ["ids_by_time"], ["token_ids_by_time"], to=TensorProto.INT32),
        node("Cast", ["lengths"], ["lengths_32"], to=TensorProto.INT32),
        node("Mod", ["grams", "buckets"], ["bucket"]),
        node("Add", ["bucket", "one"], ["row"]),
        node("Cast", ["grams"], ["is_gram"], to=TensorProto.BOOL),
        node("Cast", ["is_gram"], ["counts"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["counts", "last_axis"], ["counts_column"]),
        node("Gather", ["gram_rows", "row"], ["found"]),
        node("Mul", ["found", "counts_column"], ["found_grams"]),
        node("ReduceSum", ["found_grams", "second_axis"], ["gram_sum"], keepdims=0),
        node("ReduceSum", ["counts", "second_axis"], ["gram_count"], keepdims=1),
        node("Cast", ["one"], ["one_float"], to=TensorProto.FLOAT),
        node("Max", ["gram_count", "one_float"], ["some"]),
        node("Sqrt", ["some"], ["norm"]),
        node("Div", ["gram_sum", "norm"], ["wide_logits"]),
    ]
    after = list(model.graph.node)
    for name in (entry for each in after for entry in each.input):
        assert name != "token_ids"
    for each in after:
        each.input[:] = ["lengths_32" if name == "lengths" else name for name in each.input]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*before, *after])
    model.graph.input.extend(
        [
            value("token_ids", TensorProto.INT64, ["batch", "time"]),
            value("lengths", TensorProto.INT64, ["batch"]),
            value("grams", TensorProto.INT64, ["batch", "grams"]),
        ]
    )
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture(scope="module")
def old(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    files = read_files(tiny.artifact)
    config = files["config.json"].replace(b'"format":3', b'"format":2')
    assert config != files["config.json"]
    graph = put_before(files["model.onnx"], model_weights(tiny.model)["grams.weight"])
    folder: Path = tmp_path_factory.mktemp("format-2")
    return load_artifact(folder, write_files(folder, {**files, "config.json": config, "model.onnx": graph}))


def test_an_artifact_of_format_2_gives_the_answers_of_its_network(old: Artifact, tiny: TinyModel) -> None:
    wanted = Predictor(load_artifact(tiny.artifact.path, tiny.artifact.digest)).probabilities(TEXTS)
    predictor = open_predictor(old, threads=1, device="cpu")
    assert predictor.probabilities(TEXTS) == pytest.approx(wanted, abs=1e-5)
    assert predictor.probabilities(TEXTS[:1]) == pytest.approx(wanted[:1], abs=1e-5)
    assert predictor.probabilities([]).shape == (0, 3)
