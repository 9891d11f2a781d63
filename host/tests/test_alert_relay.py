"""The relay of alerts, as Alertmanager calls it, in front of made-up robots that answer as documented."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent

ALERTS = {
    "status": "firing",
    "groupLabels": {"alertname": "PoolDegraded"},
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "PoolDegraded", "severity": "warning", "node": "rs-3"},
            "annotations": {
                "summary": "rs-3 is out of the pool.",
                "runbook": "docs/runbooks/PoolDegraded.md",
            },
        },
        {
            "status": "resolved",
            "labels": {"alertname": "PoolDegraded", "severity": "warning", "node": "rs-1"},
            "annotations": {
                "summary": "rs-1 is out of the pool.",
                "runbook": "docs/runbooks/PoolDegraded.md",
            },
        },
    ],
}


class Robot(http.server.ThreadingHTTPServer):
    """A made-up other side: keeps what it gets, answers what it is told to."""

    def __init__(self):
        self.got, self.status, self.answer, self.location = [], 200, b'{"errcode": 0, "errmsg": "ok"}', None
        self.logins = []
        robot = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                robot.got.append((self.path, body))
                robot.logins.append(self.headers["Authorization"])
                self.send_response(robot.status)
                if robot.location:
                    self.send_header("Location", robot.location)
                self.end_headers()
                self.wfile.write(robot.answer)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/planted"


@pytest.fixture
def robot():
    server = Robot()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def relay(tmp_path):
    """(send, credentials, log): a relay that runs."""
    port, log = free_port(), tmp_path / "log"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, HOST / "alert-relay.py", str(port)],
            stdout=out,
            stderr=out,
            env={"CREDENTIALS_DIRECTORY": str(credentials), "http_proxy": "http://127.0.0.1:9"},
        )

    def send(path, body=ALERTS):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    try:
        yield send, credentials, log
    finally:
        process.kill()
        process.wait()


def test_wecom_gets_markdown(relay, robot):
    send, credentials, _ = relay
    (credentials / "receivers_group").write_text(f"{robot.url}?key=1")
    assert send("/wecom/group") == (200, "delivered\n")
    path, body = robot.got[0]
    assert path == "/planted?key=1"
    assert json.loads(body) == {
        "msgtype": "markdown",
        "markdown": {
            "content": "### PoolDegraded: 1 firing, 1 resolved\n"
            "- **warning** rs-3 is out of the pool.\n"
            "  docs/runbooks/PoolDegraded.md\n"
            "- **resolved** rs-1 is out of the pool."
        },
    }


def test_dingtalk_gets_a_title_and_a_signature_of_this_moment(relay, robot):
    send, credentials, _ = relay
    (credentials / "receivers_robot").write_text(f"{robot.url}?access_token=1 SECmade-up")
    assert send("/dingtalk/robot")[0] == 200
    path, body = robot.got[0]
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
    stamp = query["timestamp"]
    assert query["access_token"] == "1"
    assert abs(int(stamp) / 1000 - time.time()) < 60
    digest = hmac.new(b"SECmade-up", f"{stamp}\nSECmade-up".encode(), hashlib.sha256).digest()
    assert query["sign"] == base64.b64encode(digest).decode()
    markdown = json.loads(body)["markdown"]
    assert markdown["title"] == "PoolDegraded: 1 firing, 1 resolved"
    assert markdown["text"].startswith("### PoolDegraded")


def test_a_webhook_gets_what_alertmanager_said(relay, robot):
    send, credentials, _ = relay
    robot.answer = b"anything"
    (credentials / "receivers_hook").write_text(robot.url)
    assert send("/webhook/hook", b"{ as it is }")[0] == 200
    assert robot.got == [("/planted", b"{ as it is }")]


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, b'{"errcode": 310000, "errmsg": "sign not match"}', "errcode 310000"),
        (200, b"<html>", "does not answer as a robot does"),
        (500, b"", "answers 500"),
    ],
)
def test_what_the_other_side_refuses_is_tried_again(relay, robot, status, answer, words):
    send, credentials, log = relay
    robot.status, robot.answer = status, answer
    (credentials / "receivers_robot").write_text(f"{robot.url} SECplanted")
    code, said = send("/dingtalk/robot")
    assert code == 502
    assert words in said
    assert "planted" not in said + log.read_text()


def test_a_redirect_does_not_carry_the_secret_on(relay, robot):
    send, credentials, _ = relay
    robot.status, robot.location = 302, robot.url
    (credentials / "receivers_hook").write_text(robot.url)
    assert send("/webhook/hook")[0] == 502
    assert len(robot.got) == 1


def test_a_user_in_the_url_logs_in_and_is_never_said(relay, robot):
    send, credentials, log = relay
    host = robot.url.removeprefix("http://")
    (credentials / "receivers_hook").write_text(f"http://made-up:planted%40x@{host}")
    assert send("/webhook/hook")[0] == 200
    assert robot.got[0][0] == "/planted"
    assert robot.logins == [f"Basic {base64.b64encode(b'made-up:planted@x').decode()}"]
    (credentials / "receivers_team").write_text(f"http://made-up@{host}")
    assert send("/wecom/team")[0] == 200
    assert robot.logins[1] == f"Basic {base64.b64encode(b'made-up:').decode()}"
    assert "planted" not in log.read_text()


def test_one_that_speaks_no_http_is_tried_again(relay):
    send, credentials, log = relay
    with socket.create_server(("127.0.0.1", 0)) as other:

        def babble():
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"planted\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        (credentials / "receivers_hook").write_text(f"http://127.0.0.1:{other.getsockname()[1]}/")
        assert send("/webhook/hook") == (502, "the receiver cannot be reached (BadStatusLine)\n")
    assert "planted" not in log.read_text()


def test_one_that_is_not_there_and_one_that_nobody_knows(relay):
    send, credentials, log = relay
    (credentials / "receivers_gone").write_text(f"http://127.0.0.1:{free_port()}/planted")
    assert send("/webhook/gone")[0] == 502
    assert send("/webhook/nobody") == (502, "there is no credential nobody\n")
    assert send("/webhook/../etc")[0] == 404
    assert send("/wecom/gone", b"no JSON")[0] == 502
    assert "planted" not in log.read_text()


def test_long_news_are_cut_between_characters(relay, robot):
    send, credentials, _ = relay
    (credentials / "receivers_group").write_text(robot.url)
    alert = {**ALERTS["alerts"][0], "annotations": {"summary": "声" * 3000}}
    assert send("/wecom/group", {**ALERTS, "alerts": [alert]})[0] == 200
    content = json.loads(robot.got[0][1])["markdown"]["content"]
    assert len(content.encode()) <= 4096
    assert content.endswith("声\n...")
    (credentials / "receivers_team").write_text(robot.url)
    alert = {**ALERTS["alerts"][0], "annotations": {"summary": "声" * 9000}}
    assert send("/dingtalk/team", {**ALERTS, "alerts": [alert]})[0] == 200
    assert 17000 < len(robot.got[-1][1]) <= 20000
