"""The benchmark of the blog: what it says of latencies, what it takes for an answer, what it weighs."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from blog_site.bench.__main__ import main
from blog_site.bench.traffic import ask, percentile, write_get, write_post
from blog_site.bench.weight import weigh_page
from ml.bench.processes import BenchError

PAGES = {
    "/page": (
        "text/html",
        '<link rel="stylesheet" href="/a.css"><script src="/a.js"></script><img src="/b.png">',
    ),
    "/a.css": ("text/css", "body{color:red}" * 20),
    "/a.js": ("text/javascript", 'import "./b.js"; export const a = 1;'),
    "/b.js": ("text/javascript", 'import {a} from "./a.js";'),
}


class Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, text = PAGES.get(self.path.partition("?")[0], ("text/plain", ""))
        self.send_response(200 if text else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A reader who has what they wanted hangs up."""


@pytest.fixture
def port() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_percentile_is_a_latency_that_was_measured() -> None:
    latencies = [float(number) for number in range(1, 101)]

    assert (percentile(latencies, 50), percentile(latencies, 99), percentile([7.0], 99)) == (50, 99, 7)


def test_readers_ask_for_what_they_were_given_until_they_have_their_answers(port: int) -> None:
    traffic = ask(port, [write_get("/page", q="豆腐 a&b")], clients=2, seconds=30, at_most=20)

    assert len(traffic.latencies_ms) == 20
    assert traffic.rate > 0


def test_an_answer_that_is_no_page_ends_the_measurement(port: int) -> None:
    with pytest.raises(BenchError, match=r"GET /elsewhere HTTP/1\.1 was answered with 404, not 200"):
        ask(port, [write_get("/elsewhere")], clients=1, seconds=1)


def test_a_comment_is_sent_as_a_form_of_somebody_who_has_signed_in() -> None:
    head, body = write_post("/articles/豆/comments/", "好 & 坏", {"sessionid": "s"}, "t" * 32).split(
        b"\r\n\r\n"
    )

    assert head.startswith(b"POST /articles/%E8%B1%86/comments/ HTTP/1.1\r\n")
    assert b"Cookie: sessionid=s; csrftoken=" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body == b"text=%E5%A5%BD+%26+%E5%9D%8F"


def test_a_page_weighs_what_it_loads_before_its_pictures_each_file_once(port: int) -> None:
    def kb(*paths: str) -> float:
        return round(sum(len(gzip.compress(PAGES[path][1].encode(), 5)) for path in paths) / 1000, 1)

    assert weigh_page(f"http://127.0.0.1:{port}/page") == {
        "html": kb("/page"),
        "css": kb("/a.css"),
        "js": kb("/a.js", "/b.js"),
    }


def test_the_command_refuses_a_number_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--articles", "many"])

    assert ended.value.code == 2
    assert "expected a number of articles" in capsys.readouterr().err
