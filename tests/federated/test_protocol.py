from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from federated.protocol import (
    MessageError,
    Metrics,
    ProgressLog,
    Refusal,
    RunSpec,
    SiteSpec,
    Tensors,
    decode_message,
    encode_message,
    read_metrics,
    read_progress,
    tidy_reason,
)

# -- Messages ----------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(text, json_values, max_size=4)
arrays = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in ("float32", "float64", "int32", "int64", "uint8")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)


@settings(deadline=None)
@given(header=headers, tensors=st.dictionaries(names, arrays, max_size=4))
def test_a_message_comes_out_as_it_went_in(header: dict[str, Any], tensors: Tensors) -> None:
    read_header, read_tensors = decode_message(encode_message(header, tensors))
    assert read_header == header
    assert read_tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert read_tensors[name].dtype == value.dtype
        assert read_tensors[name].shape == value.shape
        assert read_tensors[name].tobytes() == value.tobytes()


def test_a_transposed_tensor_arrives_transposed() -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    _, tensors = decode_message(encode_message({}, {"turned": weights.T, "strided": weights[:, ::2]}))
    assert tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert tensors["strided"].tolist() == [[0, 2], [3, 5]]


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_message(data)


MESSAGE = encode_message({"round": 3, "site": "美食"}, {"bias": np.arange(5, dtype=np.float32)})


@settings(deadline=None)
@given(length=st.integers(0, len(MESSAGE) - 1))
def test_a_truncated_message_is_refused(length: int) -> None:
    with pytest.raises(MessageError, match="not a safetensors message"):
        decode_message(MESSAGE[:length])


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, len(MESSAGE) - 1), value=st.integers(0, 255))
def test_a_damaged_byte_is_refused_or_still_gives_a_whole_message(place: int, value: int) -> None:
    damaged = bytearray(MESSAGE)
    damaged[place] = value
    try:
        header, tensors = decode_message(bytes(damaged))
    except MessageError:
        return
    assert isinstance(header, dict)
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"note": "no header here"},
        {"header": "not JSON"},
        {"header": "[1, 2]"},
        {"header": '"text"'},
        {"header": "null"},
        {"header": "[" * 100_000},
    ],
)
def test_a_message_without_an_object_as_header_is_refused(metadata: dict[str, str] | None) -> None:
    with pytest.raises(MessageError, match="header"):
        decode_message(save({"bias": np.zeros(2, np.float32)}, metadata=metadata))


def test_a_dtype_that_we_do_not_speak_is_refused() -> None:
    table = {
        "__metadata__": {"header": "{}"},
        "bias": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
    }
    head = json.dumps(table).encode()
    with pytest.raises(MessageError):
        decode_message(len(head).to_bytes(8, "little") + head + bytes(4))


# -- Metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "loss_sum", "correct"),
    [
        (-1, 0.0, 0),
        (3, 1.0, 4),
        (3, 1.0, -1),
        (3, float("nan"), 1),
        (3, float("inf"), 1),
        (3, -0.5, 1),
    ],
)
def test_impossible_metrics_are_refused_with_their_values(
    samples: int, loss_sum: float, correct: int
) -> None:
    with pytest.raises(MessageError, match=f"{samples} samples, {correct} correct, loss {loss_sum}"):
        Metrics(samples, loss_sum, correct)
    with pytest.raises(MessageError, match="impossible"):
        read_metrics({"samples": samples, "loss_sum": loss_sum, "correct": correct})


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "samples",
        [],
        {},
        {"samples": 1, "loss_sum": 0.5},
        {"samples": "many", "loss_sum": 0.5, "correct": 1},
        {"samples": None, "loss_sum": 0.5, "correct": 1},
        {"samples": float("inf"), "loss_sum": 0.5, "correct": 1},
        {"samples": 1, "loss_sum": 10**400, "correct": 1},
    ],
)
def test_what_is_not_metrics_is_refused(value: object) -> None:
    with pytest.raises(MessageError, match="metrics"):
        read_metrics(value)


@given(
    parts=st.lists(
        st.builds(
            lambda right, wrong, loss: Metrics(right + wrong, float(loss), right),
            right=st.integers(1, 1000),
            wrong=st.integers(0, 1000),
            loss=st.integers(0, 1000),
        ),
        max_size=6,
    )
)
def test_metrics_add_up_to_those_of_all_samples(parts: list[Metrics]) -> None:
    total = sum(parts, Metrics(0, 0.0, 0))
    assert total.samples == sum(part.samples for part in parts)
    assert total.accuracy * total.samples == pytest.approx(sum(part.correct for part in parts))
    assert total.loss * total.samples == pytest.approx(sum(part.loss_sum for part in parts))


def test_metrics_of_nothing_have_no_loss_and_no_accuracy() -> None:
    assert (Metrics(0, 0.0, 0).loss, Metrics(0, 0.0, 0).accuracy) == (0.0, 0.0)


# -- A run's specification and diary -----------------------------------------------------------------------------

SPEC = RunSpec(
    run="run-7",
    store_url="file:///srv/store",
    sites={"food": SiteSpec("a" * 64, 60, "b" * 64, 12), "旅行": SiteSpec("c" * 64, 36, "d" * 64, 12)},
    heldout_digest="e" * 64,
    champion_digest=None,
    rounds=None,
    deadline_seconds=900,
)


def test_a_specification_comes_out_as_it_went_in() -> None:
    changed = replace(
        SPEC,
        network={"hidden_dim": 32},
        tokenizer={"kind": "characters"},
        vocabulary={"max_size": 500, "min_count": 1},
        training={"rounds": 7},
    )
    resumed = replace(SPEC, champion_digest="f" * 64, rounds=5, seed=3, round_deadline_seconds=2.5)
    for spec in (SPEC, resumed, changed):
        assert RunSpec.from_json(spec.to_json()) == spec


def test_a_specification_without_deadlines_for_sites_gets_ours() -> None:
    fields = json.loads(SPEC.to_json())
    del fields["join_deadline_seconds"], fields["round_deadline_seconds"]
    spec = RunSpec.from_json(json.dumps(fields))
    assert (spec.join_deadline_seconds, spec.round_deadline_seconds) == (180, 60)


ROUND = {
    "number": 1,
    "loss": 0.7,
    "accuracy": 0.5,
    "seconds": 0.1,
    "bytes_up": 10,
    "bytes_down": 20,
    "sites": {"旅行": {"samples": 36, "loss": 0.7, "accuracy": 0.5}},
}


def test_the_diary_tells_where_a_run_stands(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    assert read_progress(path).phase == "starting"
    diary = ProgressLog(path)
    diary.write("missing", {"sites": ["旅行"], "round": 0})
    assert read_progress(path).missing_sites == ("旅行",)
    diary.write("phase", {"phase": "training", "rounds": 2})
    diary.write("round", ROUND)
    diary.write("missing", {"sites": [], "round": 1})
    status = read_progress(path)
    assert (status.phase, status.rounds_planned, status.missing_sites) == ("training", 2, ())
    assert status.rounds[0].sites["旅行"]["samples"] == 36
    diary.write("phase", {"phase": "evaluating"})
    assert (read_progress(path).phase, read_progress(path).rounds_planned) == ("evaluating", 2)
    diary.write("done", {"artifact": "f" * 64, "report": {}})
    status = read_progress(path)
    assert (status.phase, status.result) == ("done", {"artifact": "f" * 64, "report": {}})


def test_a_line_that_is_still_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    ProgressLog(path).write("phase", {"phase": "training", "rounds": 2})
    whole = path.read_bytes()
    ProgressLog(path).write("round", ROUND)
    both = path.read_bytes()
    for length in range(len(whole), len(both)):  # also amid the three bytes of a Chinese character
        path.write_bytes(both[:length])
        assert read_progress(path).rounds == ()
    path.write_bytes(both)
    assert len(read_progress(path).rounds) == 1


def test_a_reason_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    reason = "第一行\u2028第二行\x85第三行\n第四行\r第五行\x1c末行"
    ProgressLog(path).write("failed", {"reason": reason})
    assert read_progress(path).reason == reason


def test_the_diary_tells_what_was_refused_and_from_whom_the_latest_first(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    stranger = Refusal("", "192.0.2.7", 0, 401, "no site has this token", 1_790_000_000.5, 4)
    site = Refusal("旅行", "", 2, 422, "第一行\u2028<b>第二行\n", 1_790_000_060.0)
    diary = ProgressLog(path)
    for refusal in (site, replace(stranger, count=1), stranger, replace(site, round=3, count=2)):
        diary.write("refused", asdict(refusal))
    assert read_progress(path).refusals == (replace(site, round=3, count=2), stranger)
    assert diary.refusals() == read_progress(path).refusals


def test_long_lines_of_several_threads_do_not_mingle(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    diary = ProgressLog(path)
    reason = "长" * 20_000
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: diary.write("failed", {"reason": f"{number} {reason}"}), range(40)))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["reason"] for line in lines) == sorted(f"{n} {reason}" for n in range(40))


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("no site has this token", "no site has this token"),
        ("一行\n二行\t三\u2028四", "一行 二行 三 四"),
        ("\x1b[31m红\u202e反\ud800", "\ufffd[31m红\ufffd反\ufffd"),
        ("长" * 400, "长" * 400),
        ("长" * 401, "长" * 399 + "…"),
    ],
)
def test_a_reason_is_one_short_line_of_characters_that_show(text: str, tidy: str) -> None:
    assert tidy_reason(text) == tidy
