"""What a run concludes with: the artifact, its evaluation beside the champion's, and the pictures."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from federated.protocol import RoundRecord, RunSpec, Tensors
from federated.store import Store
from ml.artifact import Artifact, load_artifact
from ml.data import Example
from ml.export import export_artifact
from ml.label_set import LABELS
from ml.metrics import Evaluation, evaluate_predictions
from ml.model_config import ModelConfig
from ml.predict import Predictor
from ml.tokenizer import TokenizerSettings
from ml.training_config import TrainingConfig
from ml.vocabulary import Vocabulary


def conclude_run(
    *,
    spec: RunSpec,
    store: Store,
    heldout: Sequence[Mapping[str, str]],
    parameters: Tensors,
    model_config: ModelConfig,
    training_config: TrainingConfig,
    tokenizer: TokenizerSettings,
    vocabulary: Vocabulary,
    champion: Artifact | None,
    start: Artifact | None,
    rounds: Sequence[RoundRecord],
) -> dict[str, Any]:
    """Export the artifact, evaluate it and the champion on the same held-out samples, and keep the report beside it.

    Both are evaluated as they would be served, through ONNX Runtime. Returns {"artifact": digest, "report": …}.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = export_artifact(
            Path(folder),
            weights=parameters,
            config=model_config,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            max_length=training_config.max_length,
            validation=[Example(sample["text"], sample["label"]) for sample in heldout],
        )
        store.put_artifact(written.digest, written.path)
        candidate = load_artifact(written.path, written.digest)
        evaluation = evaluate_artifact(candidate, heldout)
        size_bytes = sum(file.stat().st_size for file in written.path.iterdir())
    report = {
        "run": spec.run,
        "artifact": written.digest,
        "size_bytes": size_bytes,
        "quantization": asdict(candidate.quantization),
        "champion": None if champion is None else champion.digest,
        "start": None if start is None else start.digest,  # whose weights the run went on from
        "tokenizer": tokenizer.to_json(),
        "candidate_evaluation": evaluation,
        "champion_evaluation": None if champion is None else evaluate_artifact(champion, heldout),
        "train_samples": sum(site.samples for site in spec.sites.values()),
        "heldout_samples": len(heldout),
        "vocabulary_size": len(vocabulary),
        "parameters": int(sum(value.size for value in parameters.values())),
        "training": training_config.to_json(),
        "seconds": sum(record.seconds for record in rounds),
        "bytes_up": sum(record.bytes_up for record in rounds),
        "bytes_down": sum(record.bytes_down for record in rounds),
    }
    curves = {"rounds": [asdict(record) for record in rounds]}
    for name, picture in draw_pictures(report, rounds).items():
        store.put_report(written.digest, name, picture)
    document = json.dumps({**report, **curves}, ensure_ascii=False, indent=1)
    store.put_report(written.digest, "report.json", document.encode())
    return {"artifact": written.digest, "report": report}


def read_heldout(content: bytes) -> list[dict[str, str]]:
    """Held-out samples, {"text", "label", "site"} each, of a shard's content."""
    return [json.loads(line) for line in content.decode().split("\n") if line]


def evaluate_artifact(artifact: Artifact, heldout: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The evaluation over all held-out samples, and the accuracy at each site."""
    predictions = Predictor(artifact).predict([sample["text"] for sample in heldout])
    truth = np.array([LABELS.index(sample["label"]) for sample in heldout], dtype=np.int64)
    predicted = np.array([LABELS.index(prediction.label) for prediction in predictions], dtype=np.int64)
    chosen = [
        prediction.probabilities[sample["label"]]
        for prediction, sample in zip(predictions, heldout, strict=True)
    ]
    loss = float(-np.log(np.maximum(chosen, 1e-9)).mean()) if chosen else 0.0
    evaluation: Evaluation = evaluate_predictions(truth, predicted, loss=loss)
    owners = np.array([sample["site"] for sample in heldout])
    sites = {
        str(site): {
            "samples": int((owners == site).sum()),
            "accuracy": float((truth == predicted)[owners == site].mean()),
        }
        for site in np.unique(owners)
    }
    return {**evaluation.to_json(), "sites": sites}


# -- Pictures ----------------------------------------------------------------------------------------------------
# Their words are English: the fonts that matplotlib brings have no Chinese characters.


def draw_pictures(report: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> dict[str, bytes]:
    """PNG pictures by file name: curves, confusion, classes, sites."""
    # The object interface draws without a display and without pyplot's global state.
    evaluation = report["candidate_evaluation"]
    return {
        "curves.png": draw_curves(rounds),
        "confusion.png": draw_confusion(np.array(evaluation["confusion"])),
        "classes.png": draw_classes(evaluation["per_class"]),
        "sites.png": draw_sites(evaluation["sites"]),
    }


def draw_curves(rounds: Sequence[RoundRecord]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [record.number for record in rounds]
    for axes, name in ((left, "loss"), (right, "accuracy")):
        values = [getattr(record, name) for record in rounds]
        axes.plot(numbers, values, color="#b9c4d6", linewidth=0.8, label="each round")
        axes.plot(numbers, smooth(values), color="#2456a6", label="smoothed")
        axes.set(xlabel="round", title=f"training {name}")
        axes.grid(alpha=0.3)
    measured = [
        (record.number, record.validation_accuracy)
        for record in rounds
        if record.validation_accuracy is not None
    ]
    if measured:
        right.plot(
            *zip(*measured, strict=True), "o-", color="#c2562d", markersize=3, label="validation, all sites"
        )
    right.legend(loc="lower right", fontsize=8)
    return as_png(figure)


def smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else weight * smoothed[-1] + (1 - weight) * value)
    return smoothed


def draw_confusion(confusion: np.ndarray) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.8), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.5 else "black",
        )
    ticks = range(len(LABELS))
    axes.set(
        xticks=ticks, yticks=ticks, xticklabels=LABELS, yticklabels=LABELS, xlabel="predicted", ylabel="true"
    )
    axes.set_title("held-out samples")
    return as_png(figure)


def draw_classes(per_class: Mapping[str, Mapping[str, float]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(per_class))
    for offset, (name, color) in enumerate(
        (("precision", "#8fb3e0"), ("recall", "#2456a6"), ("f1", "#c2562d"))
    ):
        axes.bar(
            positions + 0.27 * (offset - 1),
            [quality[name] for quality in per_class.values()],
            0.25,
            label=name,
            color=color,
        )
    labels = [f"{label}\n({quality['support']:.0f})" for label, quality in per_class.items()]
    axes.set(xticks=positions, xticklabels=labels, ylim=(0, 1), title="per class (held-out samples)")
    axes.legend(fontsize=8, loc="lower right")
    return as_png(figure)


def draw_sites(sites: Mapping[str, Mapping[str, float]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    names = [f"{site}\n({values['samples']:.0f})" for site, values in sites.items()]
    bars = axes.bar(names, [values["accuracy"] for values in sites.values()], color="#2456a6")
    axes.bar_label(bars, fmt="%.3f", fontsize=8)
    axes.set(ylim=(0, 1.05), title="accuracy per site (held-out samples)")
    return as_png(figure)


def as_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
