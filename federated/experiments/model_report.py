"""The report of `make experiment-model`: model.json, model.png, and model.md, whose tables alone are made anew.

What stands in model.md outside the markers is written by hand and stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from federated.experiments.baseline import STRENGTHS
from federated.report import as_png
from federated.store import write_whole

# matplotlib's own fonts have no Chinese characters.
ENGLISH: Final = {
    "书籍": "books",
    "平板": "tablets",
    "手机": "phones",
    "水果": "fruit",
    "洗发水": "shampoo",
    "热水器": "water heaters",
    "蒙牛": "Mengniu dairy",
    "衣服": "clothes",
    "计算机": "computers",
    "酒店": "hotels",
}
TEMPLATE: Final = """# The network, trained federatedly, centrally, and a linear baseline

<!-- begin: summary-zh -->
<!-- end: summary-zh -->

Made by `make experiment-model`. Between the markers everything is generated; the rest is written by hand.

## Conclusions

(To be written.)

## Figures

<!-- begin: figures -->
<!-- end: figures -->
"""

Row = tuple[str, ...]


def write_report(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write the report's three files; of a model.md that is there, only what stands between the markers."""
    text = json.dumps(figures, ensure_ascii=False, indent=1) + "\n"
    write_whole(folder / "model.json", text.encode())
    write_whole(folder / "model.png", draw(figures))
    page = folder / "model.md"
    text = page.read_text(encoding="utf-8") if page.exists() else TEMPLATE
    for block, content in (("summary-zh", summarize(figures)), ("figures", describe(figures))):
        text = fill(text, block, content)
    write_whole(page, text.encode())


def fill(text: str, block: str, content: str) -> str:
    """Put content between a block's markers; text without them stays as it is."""
    pattern = re.compile(rf"(<!-- begin: {block} -->\n).*?(<!-- end: {block} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


# -- Words and tables --------------------------------------------------------------------------------------------


def summarize(figures: Mapping[str, Any]) -> str:
    """Say the result in Chinese, in a few lines."""
    serving, seeds = figures["serving"], len(figures["federated"]["seeds"])
    scale = "（快速试跑，数值不作数）" if figures["quick"] else ""
    return f"""**摘要**{scale}：语料的 {len(figures["corpus"]["sites"])} 个类别各为一个站点，\
按梯度平均（FedSGD）联邦训练。测试集宏平均 F1（{seeds} 个随机种子）：\
联邦 {macro_f1(figures["federated"])}，集中 {macro_f1(figures["central"])}，\
线性基线（字符 1–3 元 TF-IDF + 逻辑回归）{macro_f1(figures["baseline"])}。\
单核单条预测中位数 {serving["median_ms"]:.2f} 毫秒，含分词。"""


def describe(figures: Mapping[str, Any]) -> str:
    """Give all tables as Markdown."""
    corpus, serving, training = figures["corpus"], figures["serving"], figures["training"]
    ways = {
        "simulated": "its sites computed one after another in one process, which makes the same sums and steps "
        "as processes do, bit for bit where as many threads compute a site's gradient",
        "processes": "with a real aggregator and a trainer's process for each site",
    }
    quick = "**A quick trial: too few samples and rounds for its figures to mean anything.**\n\n"
    parts = [
        (
            f"{quick if figures['quick'] else ''}{corpus['train']:,} training, {corpus['validation']:,} validation and "
            f"{corpus['test']:,} test samples; macro-F1 over the two classes, mean over seeds."
        ),
        as_markdown(tabulate(figures)),
        (
            f"Federated minus central: {figures['federated_minus_central']:+.4f}; federated minus baseline: "
            f"{figures['federated_minus_baseline']:+.4f}. Federated training: {ways[figures['federated_way']]}."
        ),
        "![Curves and categories](model.png)",
        "Each seed, macro-F1 on the test set:",
        as_markdown(tabulate_seeds(figures)),
        f"Each category of the test set, federated, seed {figures['federated']['seeds'][0]['seed']}:",
        as_markdown(tabulate_categories(figures)),
        (
            f"Serving, one text a call on one core, tokenising included ({serving['calls']:,} calls, "
            f"{serving['characters_median']:.0f} characters in the median): median {serving['median_ms']:.3f} ms, "
            f"p95 {serving['p95_ms']:.3f} ms. The artifact is {serving['size_bytes'] / 1e6:.1f} MB, of which the ONNX "
            f"graph is {serving['onnx_bytes'] / 1e6:.1f} MB."
        ),
        (
            f"The network: {figures['parameters']:,} parameters in training, {figures['vocabulary_size']:,} tokens; "
            f"{settings_line(figures['network'])}. Training: {settings_line(training)}."
        ),
        (
            f"The baseline: {figures['baseline']['features']:,} features, C = {figures['baseline']['C']:g}, the best "
            f"of {', '.join(f'{one:g}' for one in STRENGTHS)} on the validation set."
        ),
    ]
    return "\n\n".join(parts)


def tabulate(figures: Mapping[str, Any]) -> list[Row]:
    """Give the main table, its header first."""
    rows: list[Row] = [
        ("model", "validation macro-F1", "validation accuracy", "test macro-F1", "test accuracy", "seconds")
    ]
    for name, title in (
        ("federated", f"federated, {len(figures['corpus']['sites'])} sites"),
        ("central", "central"),
        ("baseline", "linear baseline"),
    ):
        found = figures[name]
        numbers = [
            f"{found[part][figure]:.4f}"
            for part in ("validation", "test")
            for figure in ("macro_f1", "accuracy")
        ]
        seconds = sum(one["seconds"] for one in found.get("seeds", [found])) / len(found.get("seeds", [1]))
        rows.append((title, *numbers, f"{seconds:,.0f}"))
    return rows


def tabulate_seeds(figures: Mapping[str, Any]) -> list[Row]:
    """Give a row for each seed."""
    pairs = zip(figures["federated"]["seeds"], figures["central"]["seeds"], strict=True)
    rows: list[Row] = [("seed", "federated", "central", "difference")]
    for ours, theirs in pairs:
        one, other = ours["test"]["macro_f1"], theirs["test"]["macro_f1"]
        rows.append((str(ours["seed"]), f"{one:.4f}", f"{other:.4f}", f"{one - other:+.4f}"))
    return rows


def tabulate_categories(figures: Mapping[str, Any]) -> list[Row]:
    """Give a row for each category."""
    rows: list[Row] = [("category", "training samples", "test samples", "macro-F1", "accuracy")]
    for category, found in figures["federated"]["seeds"][0]["test"]["by_category"].items():
        title = f"{category} ({ENGLISH[category]})" if category in ENGLISH else category
        samples = figures["corpus"]["sites"].get(category, 0)
        rows.append(
            (
                title,
                f"{samples:,}",
                f"{found['samples']:,}",
                f"{found['macro_f1']:.4f}",
                f"{found['accuracy']:.4f}",
            )
        )
    return rows


def macro_f1(found: Mapping[str, Any]) -> str:
    return f"{found['test']['macro_f1']:.4f}"


def settings_line(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def as_markdown(rows: list[Row]) -> str:
    """Lay a table, its header first, as Markdown: the first column to the left, numbers to the right."""
    header, *body = rows
    rule = ("---", *("---:" for _ in header[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))


# -- The picture -------------------------------------------------------------------------------------------------


def draw(figures: Mapping[str, Any]) -> bytes:
    """Draw validation accuracy against rounds, and the categories of the test set, of the first seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, color in (("federated", "#2456a6"), ("central", "#c2562d")):
        training = figures[name]["seeds"][0]
        steps, accuracies = zip(*training["curve"], strict=True)
        left.plot(steps, accuracies, "o-", color=color, markersize=3, linewidth=1, label=name)
        final = training["validation"]["accuracy"]
        left.plot(
            training["rounds"], final, "*", color=color, markersize=12, label=f"{name}, averaged parameters"
        )
    left.axhline(
        figures["baseline"]["validation"]["accuracy"],
        color="#707a8a",
        linestyle="--",
        linewidth=1,
        label="linear baseline",
    )
    left.set(xlabel="round", title="validation accuracy")
    left.grid(alpha=0.3)
    left.legend(loc="lower right", fontsize=8)

    found = figures["federated"]["seeds"][0]["test"]["by_category"]
    names = [f"{ENGLISH.get(category, category)} ({scored['samples']})" for category, scored in found.items()]
    bars = right.barh(names, [scored["macro_f1"] for scored in found.values()], color="#2456a6")
    right.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
    right.invert_yaxis()  # the first category on top, as in the table
    right.set(xlim=(0, 1.1), title="federated, macro-F1 per category (test samples)")
    return as_png(figure)
