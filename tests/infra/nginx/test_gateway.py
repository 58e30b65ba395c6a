"""The gateway: nginx before the blog, as the image starts it."""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from PIL import Image

from blog_site.media.uploads import ADDRESSES, FORM_BYTES
from federated.http_store import HttpStore
from ml.artifact import WrittenArtifact
from ml.export import export_artifact
from ml.model import initial_parameters
from ml.model_config import ModelConfig
from ml.tokenizer import TokenizerSettings, make_tokenizer
from ml.vocabulary import build_vocabulary, count_tokens
from tests.infra.nginx.servers import (
    AS_ROOT,
    BLOG_TOKEN,
    READ_TOKEN,
    ROOT,
    START,
    Nginx,
    running_blog,
    running_nginx,
    running_store,
)
from tests.infra.nginx.upstream import BREAK_OFF, Names, Upstream, running_upstream
from tests.servers import find_free_port, is_there, running_server, wait_until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def running_gateway(folder: Path, web: str, **environment: str) -> Iterator[Nginx]:
    """The gateway before the web processes at `web`, which is looked up every second."""
    (folder / "static").mkdir(parents=True, exist_ok=True)
    settings = {"WEB_ADDRESS": web, "STATIC_ROOT": str(folder / "static"), "WEB_LOOKUP_SECONDS": "1"}
    with running_nginx("gateway", folder / "nginx", {**settings, **environment}) as nginx:
        yield nginx


def log_lines(nginx: Nginx, path: str) -> list[dict[str, object]]:
    """The access log's lines about a path, once there is one: nginx answers first and writes then."""
    deadline = time.monotonic() + 20
    while True:
        lines = [json.loads(line) for line in nginx.log.read_text().splitlines() if line.startswith("{")]
        found = [line for line in lines if line["path"] == path]
        if found:
            return found
        assert time.monotonic() < deadline, f"nothing about {path} in the log"
        time.sleep(0.05)


# -- Before a real gunicorn ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inference_port() -> int:
    """Where the blog looks for the inference service."""
    return find_free_port()


@pytest.fixture(scope="module")
def blog_environment(tmp_path_factory: pytest.TempPathFactory, inference_port: int) -> dict[str, str]:
    """What the blog's processes are told."""
    folder = tmp_path_factory.mktemp("blog")
    (folder / "var").mkdir()
    return {
        "ENV_FILE": "/dev/null",
        "DEBUG": "0",
        "SECRET_KEY": "only-for-the-gateways-tests",
        "ALLOWED_HOSTS": "127.0.0.1",
        "VAR_DIR": str(folder / "var"),
        "STATIC_ROOT": str(folder / "var" / "static"),
        "DATABASE_URL": f"sqlite:///{folder / 'var' / 'db.sqlite3'}",
        "CELERY_BROKER_URL": "folder://localhost//",
        "INFERENCE_URL": f"http://127.0.0.1:{inference_port}",
        "EXPLANATION_TIMEOUT_SECONDS": "30",
    }


def manage(environment: dict[str, str], *command: str) -> str:
    ended = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.fixture(scope="module")
def web_port() -> int:
    return find_free_port()


@pytest.fixture(scope="module")
def blog(
    tmp_path_factory: pytest.TempPathFactory, blog_environment: dict[str, str], web_port: int
) -> Iterator[Nginx]:
    """The gateway before the blog, with the static files that both images hold."""
    folder = tmp_path_factory.mktemp("gateway")
    quietly = ("--no-input", "--verbosity", "0")
    manage(blog_environment, "migrate", *quietly)
    # Only the blog's own: to compress all of the admin's takes ten seconds.
    others = [word for name in ("admin", "unfold", "rest_framework") for word in ("--ignore", name)]
    manage(blog_environment, "collectstatic", *quietly, *others)
    with (
        running_blog(folder / "blog", blog_environment, port=web_port),
        running_gateway(
            folder, f"127.0.0.1:{web_port}", STATIC_ROOT=blog_environment["STATIC_ROOT"]
        ) as nginx,
    ):
        yield nginx


def test_a_page_comes_through_with_the_blog_s_headers_once(blog: Nginx) -> None:
    answer = httpx.get(blog.url + "/", headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert "回声" in answer.text
    for name in (
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "cross-origin-opener-policy",
    ):
        assert len(answer.headers.get_list(name)) == 1, name
    assert answer.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in answer.headers["vary"]
    assert answer.headers["server"] == "nginx"  # and no version


def test_static_files_come_from_the_gateway_for_ever_by_their_hashed_names(blog: Nginx) -> None:
    page = httpx.get(blog.url + "/").text
    path = re.search(r"/static/css/site\.[0-9a-f]{12}\.css", page)
    assert path, page[:2000]
    packed = httpx.get(blog.url + path[0], headers={"Accept-Encoding": "gzip"})
    plain = httpx.get(blog.url + path[0], headers={"Accept-Encoding": "identity"})
    assert packed.status_code == 200
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert "content-encoding" not in plain.headers
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert plain.headers["content-type"] == "text/css; charset=utf-8"
    assert plain.headers.get_list("x-content-type-options") == ["nosniff"]
    again = httpx.get(blog.url + path[0], headers={"If-None-Match": packed.headers["etag"]})
    assert again.status_code == 304
    assert not log_lines(blog, path[0])[0]["upstream"]
    unhashed = httpx.get(blog.url + "/static/css/site.css")
    assert unhashed.headers["cache-control"] == "public, max-age=300"


def test_what_is_no_static_file_is_the_blog_s_own_404(blog: Nginx) -> None:
    for path in ("/static/css/none.css", "/static/../nginx.conf", "/static/css/", "/static/"):
        answer = httpx.get(blog.url + path)
        assert answer.status_code == 404
        assert "nginx</center>" not in answer.text


def test_signing_up_works_through_the_gateway(blog: Nginx) -> None:
    """Cookies, the token against forged requests, and redirects all depend on the host that is passed on."""
    with httpx.Client(base_url=blog.url, follow_redirects=True, timeout=30) as browser:
        form = browser.get("/sign-up/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
        assert token
        fields = {"username": "reader-li", "display_name": "", "csrfmiddlewaretoken": token[1]}
        fields |= dict.fromkeys(("password1", "password2"), "a-Long-passphrase-1")
        answer = browser.post("/sign-up/", data=fields, headers={"Origin": blog.url})
        assert answer.status_code == 200
        assert str(answer.url).startswith(blog.url + "/")
        assert "reader-li" in browser.get("/").text
    assert log_lines(blog, "/sign-up/")[-1]["status"] == 302


def test_a_picture_comes_in_at_its_address_alone_and_is_served_from_the_gateway(blog: Nginx) -> None:
    # Noise can hardly be compressed: a photograph that is larger than a form may be.
    content = make_noise(1400, 1000)
    assert 2 * 1024**2 < len(content) < 10 * 1024**2
    with httpx.Client(base_url=blog.url, timeout=60) as browser:
        form = browser.get("/sign-up/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
        assert token
        fields = {"username": "writer-zhao", "display_name": "", "csrfmiddlewaretoken": token[1]}
        fields |= dict.fromkeys(("password1", "password2"), "a-Long-passphrase-1")
        assert browser.post("/sign-up/", data=fields).status_code == 302
        headers = {"X-CSRFToken": browser.cookies["csrftoken"], "Origin": blog.url}
        taken = browser.post("/media/images/", files={"file": ("a.jpg", content)}, headers=headers)
        assert taken.status_code == 201, taken.text
        assert browser.post("/write/", files={"file": ("a.jpg", content)}, headers=headers).status_code == 413
        large = b"x" * (11 * 1024**2)
        refused = browser.post("/media/images/", files={"file": ("a.jpg", large)}, headers=headers)
        assert refused.status_code == 413

    for path in (taken.json()["url"], taken.json()["thumbnail"]):
        answers = [
            httpx.get(blog.url + path, headers={"Accept-Language": language}) for language in ("zh", "en")
        ]
        for answer in answers:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/webp"
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers.get_list("content-security-policy") == ["default-src 'none'; sandbox"]
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
            assert not {"vary", "set-cookie", "content-language"} & answer.headers.keys()
        assert answers[0].content == answers[1].content
        wait_until(lambda path=path: len(log_lines(blog, path)) == 2, "both being in the log")
        assert [bool(line["upstream"]) for line in log_lines(blog, path)] == [True, False]
    assert httpx.get(f"{blog.url}/media/images/{'0' * 32}.webp").status_code == 404
    assert httpx.get(f"{blog.url}/media/../var/db.sqlite3").status_code == 404


def test_a_picture_that_was_removed_is_soon_gone_from_the_gateway_too(
    blog: Nginx, blog_environment: dict[str, str], web_port: int, tmp_path: Path
) -> None:
    name = f"{'a' * 32}.webp"
    file = Path(blog_environment["VAR_DIR"]) / "media" / "images" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"a picture")
    with running_gateway(tmp_path, f"127.0.0.1:{web_port}", PICTURE_FRESH_SECONDS="1") as nginx:
        address = f"{nginx.url}/media/images/{name}"

        def asked() -> set[str]:
            assert httpx.get(address).content == b"a picture"
            return {line["upstream_status"] for line in log_lines(nginx, f"/media/images/{name}")}

        wait_until(lambda: asked() >= {"200", "", "304"}, "its being asked for whether it is still there")
        file.unlink()
        wait_until(lambda: httpx.get(address).status_code == 404, "its being gone")


def make_noise(width: int, height: int) -> bytes:
    """A JPEG of random pixels."""
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(1).randbytes(width * height * 3)).save(
        out, "JPEG", quality=98, subsampling=0
    )
    return out.getvalue()


def test_what_the_gateway_takes_is_what_the_blog_takes() -> None:
    script = (ROOT / "infra" / "nginx" / "start.sh").read_text(encoding="utf-8")
    configuration = (ROOT / "infra" / "nginx" / "gateway.conf").read_text(encoding="utf-8")
    megabytes = re.search(r"MAX_IMAGE_SIZE=\$\{MAX_IMAGE_SIZE:-(\d+)m\}", script)
    assert megabytes
    assert int(megabytes[1]) * 1024**2 == settings.IMAGE_MAX_BYTES + FORM_BYTES
    [taken] = re.findall(r"location ~ (\^/\S+) \{\n\s+client_max_body_size @MAX_IMAGE_SIZE@", configuration)
    assert all(re.match(taken, address) for address in ADDRESSES)
    assert not re.match(taken, "/write/")


SCORED_COMMENT = """
from blog_site.articles.models import Article
from blog_site.comments.services import post_comment, score_comments
from tests.comments.rows import make_article, make_user
comment = post_comment(article=make_article(), author=make_user("reader-wang"), text="味道真好，强烈推荐")
[prediction] = score_comments(comments=[comment])
print(comment.pk, comment.article.slug, prediction.model_digest)
"""


def test_a_comment_s_judgement_comes_all_the_way_from_the_store(
    blog: Nginx, blog_environment: dict[str, str], inference_port: int, tmp_path: Path
) -> None:
    """Reader → gateway → blog → inference service → artifact store, each a process of its own."""
    artifact = export_untrained(tmp_path)
    command = [sys.executable, "-m", "ml.serve", "--port", str(inference_port)]
    command += ["--cache", str(tmp_path / "cache")]
    with running_store(tmp_path) as store:
        writer = HttpStore(store.url, BLOG_TOKEN)
        writer.put_artifact(artifact.digest, artifact.path)
        writer.point_to_champion(artifact.digest)
        told = ["env", f"ARTIFACT_STORE_URL={store.url}", f"ARTIFACT_STORE_TOKEN={READ_TOKEN}"]
        ready = f"http://127.0.0.1:{inference_port}/readyz"
        with running_server([*told, *command], log=tmp_path / "serve.log", answers=lambda: is_there(ready)):
            said = manage(blog_environment, "shell", "--no-imports", "-c", SCORED_COMMENT)
            pk, slug, digest = said.split()
            assert digest == artifact.digest
            page = httpx.get(f"{blog.url}/articles/{slug}/", timeout=30)
            assert page.status_code == 200
            assert f"/comments/{pk}/explanation/" in page.text
            explained = httpx.get(f"{blog.url}/comments/{pk}/explanation/", timeout=60)
            assert explained.status_code == 200
            assert log_lines(blog, f"/comments/{pk}/explanation/")[0]["upstream_status"] == "200"


def export_untrained(folder: Path) -> WrittenArtifact:
    """A real artifact of a small network that knows nothing."""
    tokenizer = TokenizerSettings()
    counts = count_tokens(["味道真好，强烈推荐", "太差了"], make_tokenizer(tokenizer))
    vocabulary = build_vocabulary(counts, max_size=50, min_count=1)
    config = ModelConfig(len(vocabulary), embedding_dim=8, hidden_dim=8)
    weights = {name: value.detach().numpy() for name, value in initial_parameters(config, 1).items()}
    return export_artifact(
        folder, weights=weights, config=config, tokenizer=tokenizer, vocabulary=vocabulary, max_length=32
    )


def test_the_gateway_says_that_it_lives_and_not_how_the_database_is(blog: Nginx) -> None:
    assert httpx.get(blog.url + "/livez").text == "ok\n"
    assert httpx.get(blog.url + "/readyz").status_code == 404


def test_a_body_that_is_too_large_is_refused_with_a_page(blog: Nginx) -> None:
    answer = httpx.post(blog.url + "/sign-in/", content=b"x" * (2 * 1024**2 + 1))
    assert answer.status_code == 413
    assert "提交的内容太大" in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert answer.headers["x-content-type-options"] == "nosniff"


# -- What is passed on ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Upstream]]:
    """A gateway that trusts nobody, before a web process that records what it is asked."""
    port = find_free_port()
    with (
        running_upstream(port) as upstream,
        running_gateway(tmp_path_factory.mktemp("recorded"), f"127.0.0.1:{port}") as nginx,
    ):
        yield nginx, upstream


def test_a_request_keeps_its_id_and_its_trace(recorded: tuple[Nginx, Upstream]) -> None:
    nginx, upstream = recorded
    given = {"X-Request-Id": "abc/123:x", "traceparent": TRACE, "tracestate": "vendor=1"}
    answer = httpx.get(nginx.url + "/kept?token=secret", headers=given)
    assert answer.headers.get_list("x-request-id") == ["abc/123:x"]
    headers = upstream.requests[-1][2]
    assert (headers["x-request-id"], headers["traceparent"]) == ("abc/123:x", TRACE)
    assert headers["tracestate"] == "vendor=1"
    line = log_lines(nginx, "/kept")[0]
    assert (line["request_id"], line["traceparent"], line["status"]) == ("abc/123:x", TRACE, 200)
    assert "secret" not in nginx.log.read_text()


@pytest.mark.parametrize(
    "given", [{}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 129}, {"X-Request-Id": '"}{'}]
)
def test_a_request_without_a_usable_id_gets_one(
    recorded: tuple[Nginx, Upstream], given: dict[str, str]
) -> None:
    nginx, upstream = recorded
    answer = httpx.get(
        nginx.url + "/made", headers={**given, "traceparent": "00-0-0-00", "tracestate": "a=1"}
    )
    made = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    headers = upstream.requests[-1][2]
    assert headers["x-request-id"] == made
    assert "traceparent" not in headers
    assert "tracestate" not in headers


def test_what_a_stranger_says_of_where_it_came_from_is_not_believed(recorded: tuple[Nginx, Upstream]) -> None:
    nginx, upstream = recorded
    lies = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil",
        "X-Real-IP": "1.2.3.4",
    }
    httpx.get(nginx.url + "/", headers=lies)
    headers = upstream.requests[-1][2]
    assert (headers["x-forwarded-for"], headers["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert headers["x-forwarded-proto"] == "http"
    assert "x-forwarded-host" not in headers
    assert headers["host"] == f"127.0.0.1:{nginx.port}"


def test_a_trusted_proxy_says_where_a_request_came_from(tmp_path: Path) -> None:
    port = find_free_port()
    with (
        running_upstream(port) as upstream,
        running_gateway(
            tmp_path,
            f"127.0.0.1:{port}",
            TRUSTED_PROXIES="127.0.0.0/8, 10.0.0.0/8",
            WRITES_PER_SECOND="1",
            WRITES_BURST="1",
        ) as nginx,
    ):
        said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7, 10.1.2.3", "X-Forwarded-Proto": "https"}
        httpx.get(nginx.url + "/", headers=said)
        headers = upstream.requests[-1][2]
        assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("203.0.113.7", "https")
        assert log_lines(nginx, "/")[0]["client"] == "203.0.113.7"
        # Each client behind the proxy is counted for itself.
        for client in ("203.0.113.8", "203.0.113.9"):
            answers = [
                httpx.post(nginx.url + "/", headers={"X-Forwarded-For": client}).status_code for _ in range(8)
            ]
            assert answers[:2] == [200, 200]
            assert 429 in answers


def test_connections_to_the_web_processes_are_kept(recorded: tuple[Nginx, Upstream]) -> None:
    nginx, upstream = recorded
    upstream.connections.clear()
    for _ in range(20):
        assert httpx.get(nginx.url + "/").status_code == 200
    assert len(upstream.connections) <= 2


# -- When the web processes do not do well -------------------------------------------------------------------------


def test_a_request_that_may_be_repeated_is_and_one_that_may_not_is_not(tmp_path: Path) -> None:
    port, broken = find_free_port(), []

    def answer(method: str, path: str) -> int:
        if path in broken:
            broken.remove(path)
            return BREAK_OFF
        return 200

    with running_upstream(port, answer) as upstream, running_gateway(tmp_path, f"127.0.0.1:{port}") as nginx:
        for method in ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"):
            upstream.requests.clear()
            broken[:] = ["/page"]
            status = httpx.request(method, nginx.url + "/page", timeout=30).status_code
            if method in ("POST", "PATCH"):
                assert (status, upstream.methods()) == (502, [method])
            else:
                assert (status, upstream.methods()) == (200, [method] * 2)
        broken[:] = ["/page"] * 10  # not for ever
        upstream.requests.clear()
        assert httpx.get(nginx.url + "/page", timeout=30).status_code == 502
        assert upstream.methods() == ["GET"] * 3


def test_no_page_fails_while_one_of_two_processes_is_killed_and_started_again(tmp_path: Path) -> None:
    names = Names(tmp_path / "names")
    names.set("127.0.0.1", "127.0.0.2")
    port = find_free_port()
    script = (
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n"
        "    return [b'ok']\n"
    )
    (tmp_path / "tiny.py").write_text(script)

    @contextmanager
    def process(host: str) -> Iterator[None]:
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--chdir",
            str(tmp_path),
            "tiny",
            "--bind",
            f"{host}:{port}",
        ]
        command += ["--worker-class", "gthread", "--threads", "4", "--no-control-socket"]
        url = f"http://{host}:{port}/"

        def answers() -> bool:
            try:
                return httpx.get(url, timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        with running_server(command, log=tmp_path / f"{host}.log", answers=answers):
            yield

    statuses: list[int] = []
    stop = threading.Event()

    def read(url: str) -> None:
        with httpx.Client(timeout=30) as reader:
            while not stop.is_set():
                statuses.append(reader.get(url).status_code)
                time.sleep(0.005)

    path = f"{names.path}:{os.environ['PATH']}"
    limits = {"PAGES_PER_SECOND": "9999", "PAGES_BURST": "9999"}
    with ExitStack() as stack:
        stack.enter_context(process("127.0.0.1"))
        second = stack.enter_context(ExitStack())
        second.enter_context(process("127.0.0.2"))
        nginx = stack.enter_context(running_gateway(tmp_path, f"web:{port}", PATH=path, **limits))
        reading = threading.Thread(target=read, args=(nginx.url + "/",))
        reading.start()
        try:
            wait_until(lambda: len(statuses) > 20, "the first answers")
            second.close()
            after = len(statuses)
            wait_until(lambda: len(statuses) > after + 30, "answers of the one that is left")
            second.enter_context(process("127.0.0.2"))
            after = len(statuses)
            wait_until(lambda: len(statuses) > after + 30, "answers of both")
        finally:
            stop.set()
            reading.join()
    assert set(statuses) == {200}


def test_the_gateway_follows_the_web_processes_to_another_address(tmp_path: Path) -> None:
    names = Names(tmp_path / "names")
    port = find_free_port()
    path = f"{names.path}:{os.environ['PATH']}"
    with running_gateway(tmp_path, f"web:{port}", PATH=path) as nginx:
        # It starts before the name is known, and says so as long as it is not.
        assert httpx.get(nginx.url + "/").status_code == 502
        assert httpx.get(nginx.url + "/livez").status_code == 200
        for host in ("127.0.0.2", "127.0.0.3"):
            with running_upstream(port, host=host):
                names.set(host)
                wait_until(lambda host=host: httpx.get(nginx.url + "/").text == host, f"an answer of {host}")
                names.set()  # a name that is not known for a moment is no reason to forget the address
                known = nginx.log.read_text().count("is now at")
                time.sleep(2.5)  # two looks later
                assert httpx.get(nginx.url + "/").text == host
                assert nginx.log.read_text().count("is now at") == known


# -- Its own answers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A gateway whose web processes are away."""
    with running_gateway(tmp_path_factory.mktemp("alone"), f"127.0.0.1:{find_free_port()}") as nginx:
        yield nginx


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "页面暂时打不开"),
        ({"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, "页面暂时打不开"),
        ({"Accept-Language": "en-US,en;q=0.9,zh;q=0.8"}, "cannot be opened right now"),
        ({"Accept-Language": "en", "Cookie": "django_language=zh-hans"}, "页面暂时打不开"),
        ({"Accept-Language": "zh-CN", "Cookie": "a=b; django_language=en"}, "cannot be opened right now"),
    ],
)
def test_a_reader_is_told_in_their_language_that_the_blog_is_away(
    alone: Nginx, headers: dict[str, str], said: str
) -> None:
    answer = httpx.get(alone.url + "/some/article/", headers=headers)
    assert answer.status_code == 502
    assert said in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert (answer.headers["cache-control"], answer.headers["retry-after"]) == ("no-store", "5")
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_the_api_is_told_in_json(alone: Nginx) -> None:
    answer = httpx.post(alone.url + "/api/v1/articles/x/comments/", json={"text": "好"})
    assert answer.status_code == 502
    assert "away for a moment" in answer.json()["detail"]


def test_the_error_pages_are_no_pages_of_their_own(alone: Nginx) -> None:
    assert httpx.get(alone.url + "/errors/away.zh.html").status_code in (404, 502)
    assert "页面暂时打不开" not in httpx.get(alone.url + "/errors/../errors/busy.zh.html").text


def test_one_address_gets_only_so_much(tmp_path: Path) -> None:
    port = find_free_port()
    limits = {"PAGES_PER_SECOND": "1", "PAGES_BURST": "4", "SIGN_INS_PER_MINUTE": "1", "SIGN_INS_BURST": "1"}
    with (
        running_upstream(port) as upstream,
        running_gateway(tmp_path, f"127.0.0.1:{port}", **limits) as nginx,
    ):
        (tmp_path / "static" / "mark.svg").write_text("<svg/>")
        with httpx.Client(base_url=nginx.url, timeout=30) as client:
            doors = ("/sign-in/", "/api/v1/auth/token/", "/sign-in/")
            signing_in = [client.post(door).status_code for door in doors]
            assert signing_in[0] == 200
            assert signing_in[-1] == 429
            answers = [client.get("/") for _ in range(40)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert refused
            assert "请求太频繁了" in refused[0].text
            assert refused[0].headers["retry-after"] == "5"
            assert len(upstream.requests) < 40
            # Files from here cost nothing, and neither does the cluster's probe.
            assert {client.get("/static/mark.svg").status_code for _ in range(20)} == {200}
            assert {client.get("/livez").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WEB_ADDRESS": "web"}, "WEB_ADDRESS is 'web': expected host:port"),
        ({"WEB_ADDRESS": "web:80;}"}, "expected host:port"),
        ({"TRUSTED_PROXIES": "all"}, "TRUSTED_PROXIES is 'all': expected addresses"),
        ({"PAGES_PER_SECOND": "0"}, "PAGES_PER_SECOND is '0': expected a whole number above 0"),
        ({"MAX_BODY_SIZE": "2 MB"}, "MAX_BODY_SIZE is '2 MB': expected a size like 2m"),
        ({"WORKERS": "auto"}, "WORKERS is 'auto'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    settings = {"PATH": os.environ["PATH"], "RUN_DIR": str(tmp_path), **environment}
    started = subprocess.run(
        [START, "gateway", "-t", *AS_ROOT], env=settings, capture_output=True, text=True, timeout=60
    )
    assert started.returncode == 64
    assert said in started.stderr
