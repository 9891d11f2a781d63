"""alerts.py: what it makes of Alertmanager's answer."""

import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "alerts.py"


@pytest.fixture
def alerts():
    spec = importlib.util.spec_from_file_location("alerts", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(alerts, answer, login=None):
    """What the program makes of that answer, which only that login gets: its exit status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/v2/alerts?inhibited=false"
            assert self.headers["Authorization"] == login
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            return alerts.main(server.server_port)
        finally:
            thread.join()


def alert(name, severity, silenced=()):
    return {
        "labels": {"alertname": name, "severity": severity},
        "annotations": {"summary": f"{name} it is"},
        "startsAt": "2026-01-31T18:05:09.000Z",
        "status": {"silencedBy": list(silenced)},
    }


def test_the_critical_ones_first_and_no_watchdog(alerts, capsys):
    found = [alert("B", "warning", ["x"]), alert("Watchdog", "watchdog"), alert("A", "critical")]
    assert ask(alerts, json.dumps(found).encode()) == 0
    since = "2026-01-31T18:05:09.000Z"
    assert json.loads(capsys.readouterr().out) == [
        {"name": "A", "severity": "critical", "summary": "A it is", "since": since, "silenced": False},
        {"name": "B", "severity": "warning", "summary": "B it is", "since": since, "silenced": True},
    ]


def test_something_else_answers(alerts, capsys):
    assert ask(alerts, b"<html>") == 1
    assert "does not answer" in capsys.readouterr().err


def test_nobody_answers(alerts, capsys):
    with http.server.HTTPServer(("127.0.0.1", 0), None) as server:
        port = server.server_port
    assert alerts.main(port) == 1
    assert f"Alertmanager at port {port} does not answer" in capsys.readouterr().err


def test_the_password_of_those_who_watch_is_given(alerts, tmp_path, capsys):
    alerts.PASSWORD = str(tmp_path / "password")
    (tmp_path / "password").write_text("made-up")
    assert ask(alerts, b"[]", login="Basic YWRtaW46bWFkZS11cA==") == 0
    assert json.loads(capsys.readouterr().out) == []
