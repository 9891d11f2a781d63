"""What `scripts/cluster doctor`, `logs` and `prove` send along, run on this machine."""

import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent


def run(program, *arguments, **more):
    command = [sys.executable, "-IS", "-", *arguments]
    text = (HOST / program).read_text()
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True, **more)


def test_examine_tells_the_clock_the_disks_and_who_can_be_reached():
    with socket.create_server(("0.0.0.0", 0)) as reachable, socket.create_server(("127.0.0.1", 0)) as not_so:
        found = json.loads(run("examine.py").stdout)
        ports = {entry["port"]: entry for entry in found["listens"]}
        port = reachable.getsockname()[1]
        assert ports[port]["address"] == "0.0.0.0"
        assert ports[port]["program"].startswith(("pytest", "python"))
        assert not_so.getsockname()[1] not in ports
    assert abs(found["clock"] - time.time()) < 30
    root = next(disk for disk in found["disks"] if disk["path"] == "/")
    assert 0 < root["free"] <= root["size"]


FLUSHED = """
set -e
for file in firewall watch; do nft -f $DIRECTORY/$file.nft; done
python3 -IS -c "$PROGRAM"
nft flush ruleset
nft -f $DIRECTORY/watch.nft
python3 -IS -c "$PROGRAM"
"""


def test_examine_tells_of_a_packet_filter_that_something_else_has_flushed(tmp_path):
    probe = ["unshare", "-rn", "nft", "list", "tables"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no nft here, or no namespaces")
    for name in ("firewall", "watch"):
        table = f"table inet cosyvoice_lvs_{name}"
        (tmp_path / f"{name}.nft").write_text(f"{table}\ndelete {table}\n{table} {{\n}}\n")
    program = (HOST / "examine.py").read_text().replace('"/etc/cosyvoice-lvs"', repr(str(tmp_path)))
    program = program.replace("    main()\n", "    print(json.dumps(filters()))\n")
    environment = {**os.environ, "DIRECTORY": str(tmp_path), "PROGRAM": program}
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", FLUSHED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    there, flushed = map(json.loads, done.stdout.splitlines())
    assert there == []
    assert flushed == [{"unit": "cosyvoice-firewall.service", "table": "table inet cosyvoice_lvs_firewall"}]


def test_journal_reads_the_service_s_own_logs_newer_than_asked_and_of_one_request(tmp_path):
    lines = [
        {"time": "2026-01-31T02:00:00.500Z", "node": "rs-1", "request_id": "one"},
        {"time": "2026-01-31T03:00:00.250Z", "node": "rs-1", "request_id": "two"},
        {"time": "2026-01-31T03:00:01.000Z", "node": "rs-1", "request_id": "three"},
    ]
    log = "cut off at the fro\n" + "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "jobs.rs-1.log").write_text(log)
    (tmp_path / "jobs.rs-2.log").write_text(log)  # another node's, which it tells itself
    text = (HOST / "journal.py").read_text().replace("/root/CosyVoice/outputs", str(tmp_path))

    def ask(*arguments):
        command = [sys.executable, "-IS", "-", "rs-1", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    since = "1769828000"  # 02:53:20
    found = [line for line in ask(since) if line["source"] == "jobs"]
    assert [line["at"] for line in found] == [1769828400.25, 1769828401.0]
    assert [json.loads(line["text"])["request_id"] for line in ask("0", "three")] == ["three"]


class Speaks(http.server.BaseHTTPRequestHandler):
    """Sound for a sentence, a page for anything else."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = b"RIFF made up" if self.path == "/v1/audio/speech" and asked["input"] else b"<html>"
        self.send_response(200)
        self.send_header("X-Served-By", "rs-1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_say_tells_who_spoke_and_takes_nothing_else_for_sound():
    with http.server.HTTPServer(("127.0.0.1", 0), Speaks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert run("say.py", url + "/v1/audio/speech").stdout == "rs-1 12 bytes\n"
        command = [sys.executable, "-IS", "-", url + "/"]
        text = (HOST / "say.py").read_text()
        other = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
    assert other.returncode == 1
