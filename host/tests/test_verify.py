"""What the verification makes of the network's answers. The questions themselves are asked in the lab."""

import importlib.util
import math
import pathlib
import struct

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("verify", HOST / "verify.py")
verify = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify)

VIP = "192.0.2.100"
EXPECTED = {
    "vip": VIP,
    "directors": [
        {"name": "director-1", "address": "192.0.2.11"},
        {"name": "director-2", "address": "192.0.2.12"},
    ],
    "realServers": [{"name": "rs-1", "address": "192.0.2.101"}],
}
MACS = {"192.0.2.11": {"aa:01"}, "192.0.2.12": {"aa:02"}, "192.0.2.101": {"bb:01"}}


@pytest.mark.parametrize(
    ("claims", "holder", "words"),
    [
        ({"aa:01"}, "director-1", []),
        ({"aa:02"}, "director-2", []),
        (set(), None, ["No director answers ARP for the VIP 192.0.2.100"]),
        ({"aa:01", "aa:02"}, None, ["director-1 and director-2 both hold the VIP"]),
        ({"aa:01", "bb:01"}, "director-1", ["rs-1 answers ARP for the VIP 192.0.2.100, past the directors"]),
        ({"bb:01"}, None, ["rs-1 answers ARP", "No director answers"]),
        ({"aa:01", "cc:09"}, "director-1", ["an unknown machine (cc:09) answers ARP"]),
    ],
)
def test_who_may_claim_the_vip(claims, holder, words):
    findings, found = verify.judge_claims(EXPECTED, {VIP: claims, **MACS})
    assert found == holder
    assert len(findings) == len(words)
    for word in words:
        assert any(word in finding and "To do: " in finding for finding in findings)


def wav(samples, rate=16000):
    data = struct.pack(f"<{len(samples)}h", *samples)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def test_what_counts_as_sound():
    tone = [int(9000 * math.sin(i / 5)) for i in range(8000)]
    assert verify.fault_of_sound(wav(tone)) is None
    assert verify.fault_of_sound(wav([0] * 8000)) == "is silent"
    assert "shorter than 0.2 s" in verify.fault_of_sound(wav(tone[:1000]))
    assert "is not a WAV file" in verify.fault_of_sound(b'{"error": "no"}')
    assert "is not a WAV file" in verify.fault_of_sound(b"")
    assert "shorter than 0.2 s" in verify.fault_of_sound(wav(tone)[:40])
