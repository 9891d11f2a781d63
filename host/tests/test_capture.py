"""capture.py: when it begins and ends, and what it says when it cannot; tcpdump is a stand-in."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CAPTURE = Path(__file__).parent.parent / "capture.py"

TCPDUMP = """#!/bin/sh
printf '%s\\n' "$*" >"$0.called"
echo 'listening on lo, link-type EN10MB (Ethernet), snapshot length 160 bytes' >&2
echo '1700000000.000001 a packet'
trap 'echo ended; exit 0' INT
while :; do sleep 0.05; done
"""


@pytest.fixture
def machine(tmp_path):
    """PATH of a machine with that tcpdump."""
    program = tmp_path / "tcpdump"
    program.write_text(TCPDUMP)
    program.chmod(0o755)
    return tmp_path


def start(path, address="127.0.0.1", limit=30):
    # As it comes over SSH: its own text first on standard input, which then stays open.
    text = CAPTURE.read_bytes()
    code = f'import sys; exec(compile(sys.stdin.buffer.read({len(text)}), "capture.py", "exec"))'
    process = subprocess.Popen(
        [sys.executable, "-c", code, address, "23456", str(limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": f"{path}:{os.environ['PATH']}"},
    )
    process.stdin.write(text)
    process.stdin.flush()
    return process


def test_it_listens_until_its_input_ends(machine):
    process = start(machine)
    head = json.loads(process.stdout.readline())
    assert head == {"interface": "lo", "mac": "00:00:00:00:00:00"}
    assert b"listening on" in process.stderr.readline()
    assert process.stdout.readline() == b"1700000000.000001 a packet\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.stdout.read() == b"ended\n"
    assert process.wait(10) == 0
    called = (machine / "tcpdump.called").read_text()
    assert called.startswith("-i lo -p -n -e -S -tt ")
    assert "(tcp port 23456) or (ip proto 4 and (ip[40:2] = 23456 or ip[42:2] = 23456))" in called


def test_it_ends_by_itself(machine):
    begin = time.monotonic()
    process = start(machine, limit=0.2)
    assert process.wait(20) == 0
    assert time.monotonic() - begin < 20


def test_a_machine_without_tcpdump(tmp_path, monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("capture", CAPTURE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    assert module.main("127.0.0.1", 23456, 1) == 3


def test_an_address_of_another_machine(machine):
    process = start(machine, address="192.0.2.1")
    assert process.wait(10) == 1
    assert b"no interface of this machine has 192.0.2.1" in process.stderr.read()
