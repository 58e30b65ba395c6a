from __future__ import annotations

import re
from dataclasses import asdict, replace
from http import HTTPStatus

import pytest
from django.test import Client
from django.urls import reverse

from blog_site.training.models import ModelVersion, Rollout, Round, Run, RunSite, Site
from blog_site.training.services import make_spec, sync_sites
from federated.protocol import PodStatus, Refusal
from infra.setup.compile_messages import compile_messages
from tests.training.doors import make_rounds
from tests.training.rows import (
    import_opinions,
    make_artifact,
    make_digest,
    make_report,
    make_run,
    make_sites,
    make_version,
)

pytestmark = pytest.mark.django_db
LIST = reverse("admin:training_run_changelist")
START = reverse("admin:training_run_start")
ATTACK = '<script>alert("回声")</script>'


def page_of(run: Run, part: str = "change") -> str:
    return reverse(f"admin:training_run_{part}", args=[run.pk])


def file_of(run: Run, name: str) -> str:
    return reverse("admin:training_run_file", args=[run.pk, name])


@pytest.fixture
def training_run() -> Run:
    """A run in the midst of its rounds, with a site that has dropped out."""
    make_sites(("food", "film"))
    sync_sites()
    run = make_run(state=Run.State.TRAINING, rounds_planned=6, missing_sites=["film"])
    for site in Site.objects.all():
        RunSite.objects.create(
            run=run, site=site, samples=8, validation_samples=2, class_counts={"negative": 3, "positive": 5}
        )
    for record in make_rounds(3):
        Round.objects.create(run=run, **{**vars(record), "sites": dict(record.sites)})
    return run


@pytest.fixture
def promoted_run(store) -> Run:
    """A run that has ended well; its pictures lie in the store."""
    old = make_version(make_artifact(store.root), macro_f1=0.8123, state=ModelVersion.State.RETIRED)
    version = make_version(make_artifact(store.root), champion=True, parent=old)
    report = make_report(version.digest, 0.9345, champion=old)
    folder = store.report(version.digest)
    folder.mkdir(parents=True)
    (folder / "curves.png").write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    (folder / "secret.txt").write_text("not for anybody")
    return make_run(state=Run.State.PROMOTED, model_version=version, report=report, rounds_planned=3)


# -- The list and the page -------------------------------------------------------------------------------------------


def test_the_list_shows_runs_and_how_to_start_one(people, training_run: Run) -> None:
    page = people["admin"].get(LIST).content.decode()

    assert f"#{training_run.pk}" in page
    assert "训练中" in page
    assert f'action="{START}"' in page


def test_a_moderator_sees_runs_but_no_button(people, training_run: Run) -> None:
    for address in (LIST, page_of(training_run)):
        page = people["moderator"].get(address)
        assert page.status_code == HTTPStatus.OK
        assert START not in page.content.decode()
        assert "/abort/" not in page.content.decode()


def test_the_page_of_a_run_under_way_draws_its_rounds(people, training_run: Run) -> None:
    page = people["admin"].get(page_of(training_run)).content.decode()
    lines = re.findall(r'<polyline class="(raw|smoothed)" points="([^"]*)"', page)

    assert [kind for kind, _points in lines] == ["raw", "smoothed", "raw", "smoothed"]
    assert all(len(points.split()) == 3 for _kind, points in lines)
    assert page.count("<circle") == 1, "one round was measured on the validation samples"
    assert "3 / 6" in page
    assert "缺席" in page
    assert 'data-ended="0"' in page
    assert page_of(training_run, "abort") in page
    assert "/files/" not in page, "there is no picture yet"
    assert "混淆矩阵" not in page


def test_the_page_of_a_finished_run_shows_the_report(people, promoted_run: Run) -> None:
    page = people["admin"].get(page_of(promoted_run)).content.decode()

    assert "0.9345" in page
    assert "0.8123" in page, "the champion's figure stands beside the candidate's"
    assert "混淆矩阵" in page
    assert 'data-ended="1"' in page
    assert "/abort/" not in page
    for name in ("curves.png", "confusion.png", "classes.png", "sites.png"):
        assert f'href="{file_of(promoted_run, name)}"' in page


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "zh-hans",
            ("各类别（测试样本）", "精确率", "召回率", "各站点准确率（测试样本）", "负面 精确率 0.9"),
        ),
        (
            "en",
            (
                "By class (held-out samples)",
                "Precision",
                "Accuracy by site (held-out samples)",
                "Negative Precision 0.9",
            ),
        ),
    ],
)
def test_the_charts_of_a_run_speak_the_reader_s_language(
    people, promoted_run: Run, language: str, words: tuple[str, ...]
) -> None:
    compile_messages()
    answer = people["admin"].get(page_of(promoted_run), headers={"Accept-Language": language})
    page = answer.content.decode()

    for word in words:
        assert word in page
    assert "<img" not in page.partition('class="run-curves"')[2]


def test_a_run_that_failed_before_its_first_round_has_a_page(people) -> None:
    page = people["admin"].get(page_of(make_run(state=Run.State.FAILED, state_reason="磁盘已满")))

    assert page.status_code == HTTPStatus.OK
    assert "磁盘已满" in page.content.decode()


@pytest.mark.parametrize("state", [Run.State.FAILED, Run.State.TRAINING])
def test_words_of_others_are_shown_as_words(people, state: str) -> None:
    run = make_run(state=state, state_reason=ATTACK, trigger=ATTACK)

    for address in (LIST, page_of(run), page_of(run, "progress")):
        page = people["admin"].get(address).content.decode()
        assert ATTACK not in page
        assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("number", ["999999", "²", "9" * 40, "x"])
def test_a_run_that_is_not_there_is_no_error(people, number: str) -> None:
    answer = people["admin"].get(f"{LIST}{number}/change/")

    assert answer.status_code == HTTPStatus.FOUND


@pytest.mark.parametrize("number", ["999999", "9" * 40])
def test_parts_of_a_run_that_is_not_there_are_not_found(people, number: str) -> None:
    for part in ("progress/", "files/curves.png"):
        assert people["admin"].get(f"{LIST}{number}/{part}").status_code == HTTPStatus.NOT_FOUND


def refuse(site: str = "", **changes: object) -> dict[str, object]:
    """A refusal as the run's row keeps it."""
    refusal = Refusal(site, "" if site else "192.0.2.7", 3, 401, "no site has this token", 1_790_000_000.0)
    return asdict(replace(refusal, **changes))


def test_the_page_tells_what_was_refused_from_whom_and_how_often(people, training_run: Run) -> None:
    Site.objects.filter(slug="film").update(name="电影")
    training_run.refusals = [
        refuse("film", status=422, reason="site film: output.bias is not finite", count=2),
        refuse(count=8192, round=0),
        refuse(address="", status=404, reason="further reasons"),
        refuse("film", status=599, reason="something new"),
        refuse(status=0, reason="no TLS handshake within 10 s"),
    ]
    training_run.save()
    for address in (page_of(training_run), page_of(training_run, "progress")):
        page = people["moderator"].get(address).content.decode()
        table = re.search(r'<table class="run-refusals">(.*?)</table>', page, re.DOTALL)
        assert table is not None
        rows = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in table[1].split("</tr>")[1:-1]]
        assert rows == [
            "09-21 22:13:20 电影 3 内容不合要求 422 site film: output.bias is not finite 2",
            "09-21 22:13:20 192.0.2.7 – 令牌无效 401 no site has this token 8192",
            "09-21 22:13:20 其他地址 3 地址不存在 404 further reasons 1",
            "09-21 22:13:20 电影 3 拒收 599 something new 1",
            "09-21 22:13:20 192.0.2.7 3 未建立加密连接 no TLS handshake within 10 s 1",
        ]


def test_the_page_shows_so_many_refusals_and_says_nothing_where_there_are_none(
    people, training_run: Run
) -> None:
    assert "拒收记录" not in people["admin"].get(page_of(training_run)).content.decode()
    training_run.refusals = [refuse(address=f"192.0.2.{number}") for number in range(200)]
    training_run.save()
    page = people["admin"].get(page_of(training_run)).content.decode()
    assert page.count("no site has this token") == 50


def test_what_a_stranger_has_put_into_a_refusal_is_shown_as_words(people, training_run: Run) -> None:
    training_run.refusals = [refuse("film", reason=ATTACK), refuse(ATTACK), refuse(address=ATTACK)]
    training_run.save()
    page = people["admin"].get(page_of(training_run)).content.decode()
    assert ATTACK not in page
    assert page.count("&lt;script&gt;alert") == 3


# -- What the page fetches -------------------------------------------------------------------------------------------


def test_the_progress_is_a_part_of_the_page_and_says_when_to_stop_asking(
    people, training_run: Run, promoted_run: Run
) -> None:
    under_way = people["admin"].get(page_of(training_run, "progress"))
    ended = people["admin"].get(page_of(promoted_run, "progress"))

    assert "<polyline" in under_way.content.decode()
    assert "<html" not in under_way.content.decode()
    assert (under_way["X-Run-Ended"], ended["X-Run-Ended"]) == ("0", "1")


def test_pictures_are_served_by_their_known_names_only(people, promoted_run: Run, store) -> None:
    answer = people["admin"].get(file_of(promoted_run, "curves.png"))
    assert (answer.status_code, answer["Content-Type"]) == (HTTPStatus.OK, "image/png")
    assert answer.getvalue().startswith(b"\x89PNG")

    known_but_missing = people["admin"].get(file_of(promoted_run, "sites.png"))
    assert known_but_missing.status_code == HTTPStatus.NOT_FOUND
    (store.root / "champion.json").write_text("not for anybody")
    base = file_of(promoted_run, "x").removesuffix("x")
    for name in (
        "secret.txt",
        "..%2F..%2Fchampion.json",
        "../../champion.json",
        "%2Fetc%2Fpasswd",
        "CURVES.PNG",
        "",
    ):
        answer = people["admin"].get(base + name, follow=True)
        assert not answer.streaming, name
        assert "not for anybody" not in answer.content.decode(), name


def test_a_run_without_a_model_has_no_pictures(people, training_run: Run) -> None:
    assert people["admin"].get(file_of(training_run, "curves.png")).status_code == HTTPStatus.NOT_FOUND


# -- Who may do what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [("anonymous", 302), ("reader", 302), ("staff", 403), ("moderator", 200), ("admin", 200)],
)
def test_runs_are_seen_by_those_who_may_view_them(people, promoted_run: Run, kind: str, status: int) -> None:
    file = file_of(promoted_run, "curves.png")
    for address in (LIST, page_of(promoted_run), page_of(promoted_run, "progress"), file):
        answer = people[kind].get(address)
        assert answer.status_code == status, address
        if status == HTTPStatus.FOUND:
            assert "/admin/login/" in answer["Location"]
        if answer.streaming:
            assert answer.getvalue()


@pytest.mark.parametrize("kind", ["anonymous", "reader", "staff", "moderator"])
def test_only_an_administrator_starts_or_aborts(people, training_run: Run, kind: str, launcher) -> None:
    import_opinions(90)

    for address in (START, page_of(training_run, "abort")):
        assert people[kind].post(address).status_code in (HTTPStatus.FOUND, HTTPStatus.FORBIDDEN)

    training_run.refresh_from_db()
    assert Run.objects.count() == 1
    assert training_run.state == Run.State.TRAINING
    assert launcher.stopped == []


def test_looking_changes_nothing(people, training_run: Run) -> None:
    """A link, a prefetch, a crawler: only a form may start or abort."""
    for address in (START, page_of(training_run, "abort")):
        assert people["admin"].get(address).status_code == HTTPStatus.METHOD_NOT_ALLOWED

    training_run.refresh_from_db()
    assert training_run.state == Run.State.TRAINING


def test_a_form_of_another_page_starts_nothing(people, training_run: Run) -> None:
    stranger = Client(enforce_csrf_checks=True)
    stranger.cookies = people["admin"].cookies

    for address in (START, page_of(training_run, "abort")):
        assert stranger.post(address).status_code == HTTPStatus.FORBIDDEN
    training_run.refresh_from_db()
    assert (Run.objects.count(), training_run.state) == (1, Run.State.TRAINING)


# -- Starting and aborting -------------------------------------------------------------------------------------------


def test_starting_leads_to_the_new_runs_page(people, settings) -> None:
    settings.TRAINING_MIN_LABELS = 50
    import_opinions(90)

    answer = people["admin"].post(START)

    run = Run.objects.get()
    assert answer["Location"] == page_of(run)
    assert run.trigger == "admin:admin-chen"


def test_too_few_samples_are_said_on_the_list_and_can_be_overruled(people, settings) -> None:
    settings.TRAINING_MIN_LABELS = 1_000
    import_opinions(90)

    refused = people["admin"].post(START, follow=True)
    assert "少于 1000 条" in refused.content.decode()
    assert not Run.objects.exists()

    people["admin"].post(START, {"force": "1"})
    assert Run.objects.get().state == Run.State.CUTTING


def test_starting_twice_starts_once(people, settings) -> None:
    settings.TRAINING_MIN_LABELS = 50
    import_opinions(90)
    people["admin"].post(START)

    again = people["admin"].post(START, {"force": "1"}, follow=True)

    assert "正在进行" in again.content.decode()
    assert Run.objects.count() == 1


def test_aborting_ends_the_run_and_names_who_did_it(people, training_run: Run, launcher) -> None:
    answer = people["admin"].post(page_of(training_run, "abort"))

    training_run.refresh_from_db()
    assert answer["Location"] == page_of(training_run)
    assert training_run.state == Run.State.FAILED
    assert "admin-chen" in training_run.state_reason
    assert launcher.stopped == [training_run.key()]


# -- Model versions, rollouts, sites ---------------------------------------------------------------------------------


def roll_back(browser: Client, *versions: ModelVersion) -> str:
    fields = {"action": "put_back", "_selected_action": [version.pk for version in versions]}
    return browser.post(
        reverse("admin:training_modelversion_changelist"), fields, follow=True
    ).content.decode()


def test_an_administrator_puts_an_earlier_model_back(people, promoted_run: Run, store) -> None:
    champion, earlier = promoted_run.model_version, ModelVersion.objects.get(state=ModelVersion.State.RETIRED)
    assert champion is not None

    page = roll_back(people["admin"], earlier)

    assert "正在换上" in page
    rollout = Rollout.objects.get()
    assert (rollout.model_version, rollout.previous, rollout.actor) == (earlier, champion, "admin:admin-chen")
    assert store.champion() == earlier.digest


def test_what_cannot_be_rolled_back_to_is_said(people, promoted_run: Run, store) -> None:
    champion, earlier = promoted_run.model_version, ModelVersion.objects.get(state=ModelVersion.State.RETIRED)
    assert champion is not None
    never = make_version(make_digest(), state=ModelVersion.State.REFUSED)

    assert "从未在用" in roll_back(people["admin"], never)
    assert "已经在用" in roll_back(people["admin"], champion)
    assert "只选一个" in roll_back(people["admin"], champion, earlier)
    assert ModelVersion.objects.champion() == champion


def test_a_moderator_cannot_roll_back(people, promoted_run: Run) -> None:
    earlier = ModelVersion.objects.get(state=ModelVersion.State.RETIRED)

    page = roll_back(people["moderator"], earlier)

    assert "put_back" not in page
    assert ModelVersion.objects.champion() == promoted_run.model_version
    assert not Rollout.objects.exists()


def test_the_list_of_models_names_figures_and_the_run(people, promoted_run: Run) -> None:
    page = people["admin"].get(reverse("admin:training_modelversion_changelist")).content.decode()

    assert "0.8123" in page
    assert f'href="{page_of(promoted_run)}"' in page


@pytest.mark.parametrize("model", ["run", "modelversion", "rollout", "site"])
def test_not_even_an_administrator_adds_or_deletes_what_services_write(
    people, promoted_run: Run, model: str
) -> None:
    make_sites(("food",))
    sync_sites()
    rows = {"run": promoted_run, "modelversion": promoted_run.model_version, "site": Site.objects.get()}

    assert people["admin"].get(reverse(f"admin:training_{model}_changelist")).status_code == HTTPStatus.OK
    assert people["admin"].get(reverse(f"admin:training_{model}_add")).status_code == HTTPStatus.FORBIDDEN
    if row := rows.get(model):
        delete = reverse(f"admin:training_{model}_delete", args=[row.pk])
        assert people["admin"].post(delete, {"post": "yes"}).status_code == HTTPStatus.FORBIDDEN
        row.refresh_from_db()


def test_an_administrator_takes_a_site_out_of_training(people) -> None:
    make_sites(("food",))
    sync_sites()
    site = Site.objects.get()
    form = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": str(site.pk), "_save": "1"}

    people["admin"].post(reverse("admin:training_site_changelist"), form)

    site.refresh_from_db()
    assert site.active is False


def test_an_administrator_lets_a_stopped_run_go_on(people, training_run: Run, launcher, store) -> None:
    Run.objects.filter(pk=training_run.pk).update(heldout_digest="a" * 64)
    launcher.start(make_spec(training_run))
    client = people["admin"]
    client.post(page_of(training_run, "abort"))
    address = page_of(training_run, "resume")
    assert address in client.get(page_of(training_run)).content.decode()

    client.post(address)

    training_run.refresh_from_db()
    assert training_run.state == Run.State.TRAINING
    assert launcher.resumed == [training_run.key()]
    assert people["moderator"].post(address).status_code == 403


# -- Pods --------------------------------------------------------------------------------------------------------


def read_page(browser: Client, run: Run, language: str) -> str:
    return browser.get(page_of(run), headers={"Accept-Language": language}).content.decode()


def seen_pod(name: str = "run-1-aggregator-x", site: str = "", **changes: object) -> dict[str, object]:
    """A pod as the run's row keeps it."""
    return asdict(replace(PodStatus(name, site, "running", 1_790_000_000.0), **changes))


@pytest.mark.parametrize(
    ("language", "heading", "state", "gone"),
    [("zh-hans", "容器组", "等待中", "已删除"), ("en", "Pods", "Waiting", "deleted")],
)
def test_the_page_says_how_each_pod_fares_and_keeps_those_that_are_gone(
    people, training_run: Run, language: str, heading: str, state: str, gone: str
) -> None:
    reason = "ImagePullBackOff: no such image"
    lost = seen_pod(
        "run-1-film-y",
        "film",
        phase="failed",
        reason="trainer ended with 137 (OOMKilled)",
        log=("<b>last</b>",),
    )
    training_run.pods = [
        seen_pod(phase="pending", reason=reason, failures=2, node="node-7"),
        {**lost, "gone": True},
    ]
    training_run.save()
    page = read_page(people["admin"], training_run, language)
    table = re.search(r'<table class="run-pods">(.*?)</table>', page, re.DOTALL)
    assert table is not None
    assert all(
        words in table[1]
        for words in (heading, state, gone, reason, "node-7", "run-1-film-y", "137 (OOMKilled)")
    )
    assert "&lt;b&gt;last&lt;/b&gt;" in table[1]


def test_a_run_on_this_machine_has_no_table_of_pods(people, training_run: Run) -> None:
    assert "run-pods" not in read_page(people["admin"], training_run, "en")
