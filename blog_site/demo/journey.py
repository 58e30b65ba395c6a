"""The whole loop once, without a person: sign up, comment, correct, retrain, roll out, over HTTP and real commands."""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from django.conf import settings
from django.utils.translation import gettext as _
from rich.console import Console

from blog_site.demo.browser import VisitFailed, Visitor
from blog_site.demo.preparation import FirstModel
from blog_site.demo.seeding import DEMO_PASSWORD
from blog_site.demo.services import Addresses
from blog_site.demo.traffic import Traffic
from blog_site.labels.models import Sample
from blog_site.training.models import ModelVersion, Run

PREDICTION_SECONDS = 30
LABEL_SECONDS = 60
RETRAINING_SECONDS = 900
MIN_REQUESTS_DURING_SWAP = 200

# What the visitor writes, and what a moderator says of it.
BY_FORM = (
    ("照着做了一遍，酱汁收得刚刚好，家里人都说好吃。", "positive"),
    ("步骤写得太含糊了，火候完全没说清楚，我做糊了两次，很失望。", "negative"),
    ("请问这里的一小勺大概是多少克？", "neutral"),
    ("文章写得真好，读着读着就饿了，已经收藏。", "positive"),
    ("图文不符，和标题说的根本不是一回事，浪费时间。", "negative"),
    ("排队两个小时，上来的面是凉的，服务员态度还很差。", "negative"),
)
BY_API = (
    ("这家店我也去过，老板人很好，下次还来！", "positive"),
    ("价格翻了一倍，分量却少了一半，再也不会去了。", "negative"),
    ("我记得周三不营业，去之前最好打个电话确认。", "neutral"),
    ("推荐得太准了，周末带爸妈去，他们特别满意。", "positive"),
    ("味道一般，环境嘈杂，完全不值这个价。", "negative"),
    ("地址好像搬到街对面了，有人知道吗？", "neutral"),
)

T = TypeVar("T")


class StageFailed(Exception):
    """A stage of the journey did not hold."""


@dataclass
class Journey:
    addresses: Addresses
    console: Console
    posted: dict[int, str] = field(default_factory=dict)  # comment id → what a moderator says of it
    prediction_seconds: list[float] = field(
        default_factory=list
    )  # from posting to the prediction in the API's answer

    # -- As a reader -------------------------------------------------------------------------------------------------

    def sign_up(self, visitor: Visitor) -> None:
        name, password = f"visitor-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        visitor.submit("/sign-up/", {"username": name, "password1": password, "password2": password})
        if name not in visitor.open("/").text:
            raise StageFailed(f"after signing up, the home page does not greet {name}")

    def post_comments(self, visitor: Visitor) -> None:
        articles = visitor.api("GET", "/api/v1/articles/")["results"]
        article = next((a["slug"] for a in articles if a["category"]["slug"] == "food"), articles[0]["slug"])
        page, address = f"/articles/{article}/", f"/api/v1/articles/{article}/comments/"
        for text, sentiment in BY_FORM:
            answer = visitor.submit(page, {"text": text}, action=f"{page}comments/")
            number = answer.request.url.fragment.removeprefix("comment-") or find_fragment(answer)
            self._wait_for_prediction(visitor, int(number), sentiment)
        for text, sentiment in BY_API:
            comment = visitor.api("POST", address, {"text": text})
            self._wait_for_prediction(visitor, int(comment["id"]), sentiment)

    def _wait_for_prediction(self, visitor: Visitor, comment_id: int, sentiment: str) -> None:
        began = time.monotonic()
        self.posted[comment_id] = sentiment

        def look() -> bool:
            return visitor.api("GET", f"/api/v1/comments/{comment_id}/")["prediction"] is not None

        wait_for(look, PREDICTION_SECONDS, f"the prediction of comment {comment_id}", every_seconds=0.05)
        self.prediction_seconds.append(time.monotonic() - began)

    def wait_for_labels(self, visitor: Visitor) -> int:
        def labelled() -> bool:
            return all(self.comment(visitor, comment_id)["label"] is not None for comment_id in self.posted)

        wait_for(labelled, LABEL_SECONDS, "a label for every posted comment")
        return len(self.posted)

    def comment(self, visitor: Visitor, comment_id: int) -> dict[str, Any]:
        answer: dict[str, Any] = visitor.api("GET", f"/api/v1/comments/{comment_id}/")
        return answer

    # -- As a moderator ----------------------------------------------------------------------------------------------

    def correct_labels(self, visitor: Visitor) -> int:
        """Correct, in the admin and in bulk, every posted comment that the labeller got wrong or left open."""
        chosen: dict[str, list[int]] = {}
        for comment_id, sentiment in self.posted.items():
            said = self.comment(visitor, comment_id)["label"]["sentiment"]
            if said != sentiment or sentiment == "neutral":
                chosen.setdefault(sentiment, []).append(comment_id)
        page = "/admin/comments/comment/"
        with Visitor(self.addresses.web) as moderator:
            moderator.sign_in("/admin/login/", "moderator", DEMO_PASSWORD)
            for sentiment, comment_ids in chosen.items():
                fields = {
                    "action": f"mark_{sentiment}",
                    "_selected_action": [str(number) for number in comment_ids],
                }
                moderator.submit(page, fields)
        corrected = sum(len(comment_ids) for comment_ids in chosen.values())
        for sentiment, comment_ids in chosen.items():
            for comment_id in comment_ids:
                label = self.comment(visitor, comment_id)["label"]
                if label != {"sentiment": sentiment, "source": "moderator"}:
                    raise StageFailed(
                        f"comment {comment_id} was corrected to {sentiment}, the API says {label}"
                    )
        if not corrected:
            raise StageFailed("the labeller left nothing for the moderator to correct")
        return corrected

    # -- As an operator ----------------------------------------------------------------------------------------------

    def retrain(self, old_model: str) -> tuple[Run, Traffic]:
        """Trigger training from the command line and keep asking the inference service while it changes models."""
        command = [
            sys.executable,
            "manage.py",
            "trigger_training",
            "--min-labels",
            "1",
            "--noinput",
            "--json",
        ]
        outcome = subprocess.run(
            command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120, check=False
        )
        if outcome.returncode != 0:
            raise StageFailed(f"trigger_training ended with {outcome.returncode}: {outcome.stderr[-500:]}")
        run_id = json.loads(outcome.stdout)["run"]
        traffic = Traffic(self.addresses.inference, [text for text, _sentiment in BY_FORM[:2]])
        wait_for(
            lambda: Run.objects.get(pk=run_id).state != Run.State.CUTTING, 60, "the worker to take the run"
        )
        with self.console.status(_("再训练进行中")) as status:

            def near_the_swap() -> bool:
                run = Run.objects.get(pk=run_id)
                status.update(f"{run.get_state_display()} {run.rounds.count()}/{run.rounds_planned or '…'}")
                return run.has_ended() or run.state in (Run.State.EVALUATING, Run.State.REGISTERED)

            wait_for(near_the_swap, RETRAINING_SECONDS, "the run to finish its rounds")
            traffic.start()
            try:
                wait_for(lambda: Run.objects.get(pk=run_id).has_ended(), RETRAINING_SECONDS, "the run to end")
                run = Run.objects.select_related("model_version").get(pk=run_id)
                if run.state != Run.State.PROMOTED or run.model_version is None:
                    raise StageFailed(f"the run ended as {run.state}: {run.state_reason}")
                new_model = run.model_version.digest

                def traffic_went_over() -> bool:
                    enough = traffic.requests >= MIN_REQUESTS_DURING_SWAP
                    return enough and traffic.swapped(old_model, new_model)

                wait_for(traffic_went_over, 60, f"every client to see {new_model[:12]} answer")
            finally:
                traffic.stop()
        return run, traffic

    def served_model(self) -> str:
        answer = httpx.post(
            f"{self.addresses.inference}/v1/predict",
            json={"texts": ["现在是谁在回答？"]},
            timeout=10,
            trust_env=False,
        )
        return str(answer.raise_for_status().json()["model"])


def find_fragment(answer: httpx.Response) -> str:
    """The comment's number from the redirect that followed the form, …/#comment-7."""
    for response in [*answer.history, answer]:
        location = response.headers.get("location", "")
        if "#comment-" in location:
            return str(location.rsplit("#comment-", 1)[1])
    raise StageFailed(f"posting a comment led to {answer.url}, which names no comment")


def wait_for(holds: Callable[[], bool], seconds: float, what: str, every_seconds: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise StageFailed(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(every_seconds)


def take_journey(
    addresses: Addresses, first: FirstModel, seconds: dict[str, float], console: Console
) -> dict[str, Any]:
    """Walk the loop and report on it; `ok` is true only if every stage held."""
    began = time.monotonic()
    journey = Journey(addresses, console)
    report = begin_report(first, seconds)
    try:
        walk(journey, report)
    except Exception as error:  # whatever it is, the report says that the loop did not hold, and why
        known = isinstance(error, StageFailed | VisitFailed | httpx.HTTPError | subprocess.SubprocessError)
        report["error"] = str(error) if known else traceback.format_exc()
        console.print(f"[red]✗ {error}[/red]")
    report["seconds"]["loop"] = round(time.monotonic() - began, 1)
    return report


def walk(journey: Journey, report: dict[str, Any]) -> None:
    def stage(words: str) -> None:
        journey.console.print(f"  ✓ {words}")

    old_model = journey.served_model()
    counts = report["comments"]
    with Visitor(journey.addresses.web) as visitor:
        journey.sign_up(visitor)
        stage(_("注册了一位读者"))
        journey.post_comments(visitor)
        counts["posted"] = counts["predicted"] = len(journey.posted)
        report["prediction_seconds_median"] = round(statistics.median(journey.prediction_seconds), 3)
        stage(
            _("发表 %(count)d 条评论，预测中位耗时 %(seconds).2f 秒")
            % {"count": counts["posted"], "seconds": report["prediction_seconds_median"]}
        )
        counts["labelled"] = journey.wait_for_labels(visitor)
        counts["corrected"] = journey.correct_labels(visitor)
    counts["samples"] = Sample.objects.filter(comment__in=journey.posted).count()
    stage(_("%(labelled)d 条有标注，审核员改正 %(corrected)d 条") % counts)
    run, traffic = journey.retrain(old_model)
    assert run.model_version is not None
    report["retraining"] = {
        "run": run.pk,
        "state": run.state,
        "new_samples": run.new_samples,
        "rounds": run.rounds.count(),
    }
    report["promotion"] = {"from": old_model, "to": run.model_version.digest}
    report["served_model"] = journey.served_model()
    report["requests_during_swap"] = traffic.requests
    report["failed_requests_during_swap"] = len(traffic.failures)
    stage(
        _("再训练 %(rounds)d 轮，换上 %(model)s，期间 %(requests)d 个请求")
        % {"rounds": report["retraining"]["rounds"], "model": run.model_version, "requests": traffic.requests}
    )
    check(report, traffic)
    report["ok"] = True


def check(report: dict[str, Any], traffic: Traffic) -> None:
    """The stages waited for what they could; this holds the figures against each other."""
    champion = ModelVersion.objects.champion()
    if champion is None or not report["served_model"] == report["promotion"]["to"] == champion.digest:
        raise StageFailed(
            f"served {report['served_model']}, promoted {report['promotion']['to']}, champion {champion}"
        )
    if traffic.failures:
        raise StageFailed(
            f"{len(traffic.failures)} requests failed during the swap, the first with {traffic.failures[0]}"
        )
    if report["comments"]["samples"] < report["comments"]["corrected"]:
        raise StageFailed("a corrected comment did not become a sample")


def begin_report(first: FirstModel, seconds: dict[str, float]) -> dict[str, Any]:
    evaluation = first.report["candidate_evaluation"]
    return {
        "ok": False,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "first_model": {
            "digest": first.version.digest,
            "accuracy": evaluation["accuracy"],
            "macro_f1": evaluation["macro_f1"],
            "rounds": first.rounds,
            "sites": first.sites,
            "train_samples": first.report["train_samples"],
            "test_samples": first.report["heldout_samples"],
        },
        "comments": {"posted": 0, "predicted": 0, "labelled": 0, "corrected": 0, "samples": 0},
        "retraining": {"run": None, "state": None, "new_samples": 0, "rounds": 0},
        "promotion": {"from": None, "to": None},
        "served_model": None,
        "requests_during_swap": 0,
        "failed_requests_during_swap": 0,
    }


def write_report(report: dict[str, Any], path: Path | None, console: Console) -> None:
    text = json.dumps(report, ensure_ascii=False, indent=1)
    if path is None:
        console.print_json(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")
        console.print(_("报告写入 %(path)s") % {"path": path})
