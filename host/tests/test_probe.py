"""probe.py: what it reads of the speech app, its releases and a drain."""

import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest

HOST = Path(__file__).parent.parent


@pytest.fixture
def probe(tmp_path):
    """The program as a module, with its paths below tmp_path."""
    spec = importlib.util.spec_from_file_location("probe", HOST / "probe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.HOME = str(tmp_path / "opt")
    module.DRAIN = str(tmp_path / "drain")
    return module


def ask(probe, status, body):
    """What the probe makes of an answer to GET /readyz."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()
            # In two pieces, as a network may deliver it.
            self.wfile.write(body[:5])
            self.wfile.flush()
            self.wfile.write(body[5:])

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            return probe.readiness(server.server_port)
        finally:
            thread.join()


def answer(state, reason, outputs="ok", **queue):
    return json.dumps({"state": state, "reason": reason, "queue": queue, "outputs": outputs}).encode()


def test_a_ready_node_and_its_queue(probe):
    body = answer("ready", "", waiting=3, running=1, limit=20)
    assert ask(probe, 200, body) == (True, {"waiting": 3, "running": 1}, "ok")


def test_why_a_node_is_not_ready(probe):
    body = answer("draining", "by hand (anna@desk): new fan", waiting=0, running=0)
    queue = {"waiting": 0, "running": 0}
    assert ask(probe, 503, body) == ("draining: by hand (anna@desk): new fan", queue, "ok")
    assert ask(probe, 503, answer("warming", "", waiting=0)) == ("warming", None, None)


def test_a_ready_node_that_cannot_keep_results(probe):
    body = answer("ready", "", outputs="degraded: /made/up did not answer within 5 s", waiting=0, running=0)
    assert ask(probe, 200, body)[2] == "/made/up did not answer within 5 s"


def test_a_node_of_before_that_says_nothing_of_the_share(probe):
    body = json.dumps({"queue": {"waiting": 0, "running": 1}}).encode()
    assert ask(probe, 200, body) == (True, {"waiting": 0, "running": 1}, None)


@pytest.mark.parametrize(
    "body", [b"", b"busy", b"[]", b'{"state": "ready"}', b'{"queue": {"waiting": null}}']
)
def test_an_answer_of_something_else(probe, body):
    assert ask(probe, 200, body) == (True, None, None)
    assert ask(probe, 503, body) == ("HTTP/1.0 503 Service Unavailable", None, None)


def test_nobody_listens(probe):
    with http.server.HTTPServer(("127.0.0.1", 0), None) as server:
        port = server.server_port
    ready, queue, share = probe.readiness(port)
    assert "refused" in ready
    assert (queue, share) == (None, None)


def test_a_drain(probe):
    assert probe.drain() is None
    Path(probe.DRAIN).write_text("by hand (anna@desk): new fan\n")
    found = probe.drain()
    assert found["reason"] == "by hand (anna@desk): new fan"
    assert found["since"] == int(Path(probe.DRAIN).stat().st_mtime)


def test_releases(probe):
    assert probe.releases() is None
    home = Path(probe.HOME)
    for digest in ("b" * 16, "a" * 16):
        (home / "releases" / digest).mkdir(parents=True)
    (home / "releases" / ("a" * 16) / ".complete").touch()
    (home / "current").symlink_to(home / "releases" / ("a" * 16))
    found = probe.releases()
    assert (found["current"], found["previous"]) == ("a" * 16, None)
    assert [(release["digest"], release["complete"]) for release in found["staged"]] == [
        ("a" * 16, True),
        ("b" * 16, False),
    ]
    assert all(isinstance(release["since"], int) for release in found["staged"])


def test_an_engine(probe, tmp_path):
    probe.SERVICE = str(tmp_path / "cosyvoice.env")
    assert probe.engine() is None
    Path(probe.SERVICE).write_text('COSYVOICE_ENGINE="cpu"\n')
    assert probe.engine() == {"name": "cpu", "commit": None}
    Path(probe.SERVICE).write_text("COSYVOICE_ENGINE=cosyvoice\nCOSYVOICE_EDITION=0123\n")
    assert probe.engine() == {"name": "cosyvoice", "commit": None}
    source = Path(probe.HOME) / "engine" / "sets" / "0123" / "source"
    source.parent.mkdir(parents=True)
    source.symlink_to("/opt/cosyvoice/engine/sources/" + "c" * 40)
    assert probe.engine() == {"name": "cosyvoice", "commit": "c" * 40}


def test_gpus(probe, monkeypatch):
    said = "Made up, Model 1, 34, 6123, 15360, 61\nMade up 2, [N/A], 10, 20, 30\n"
    monkeypatch.setattr(probe, "command", lambda *_: said)
    first = {"name": "Made up, Model 1", "utilization": 34, "used": 6123, "total": 15360, "temperature": 61}
    second = {"name": "Made up 2", "utilization": None, "used": 10, "total": 20, "temperature": 30}
    assert probe.gpus() == [first, second]
    monkeypatch.setattr(probe, "command", lambda *_: "")
    assert probe.gpus() is None


def test_a_certificate(probe, tmp_path):
    import subprocess
    import time

    probe.CERTIFICATE = str(tmp_path / "certificate.pem")
    assert probe.certificate() is None
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-keyout", str(tmp_path / "key.pem"), "-out", probe.CERTIFICATE, "-days", "9", "-subj", "/CN=x"]
    subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
    assert 8.9 < (probe.certificate() - time.time()) / 86400 < 9.1
