"""What the verification makes of the network's answers. The questions themselves are asked in the lab."""

import contextlib
import hashlib
import importlib.util
import math
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
import time

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


@pytest.fixture
def https(tmp_path):
    """A server that speaks, by HTTPS and for those with a key: its port and its certificate's fingerprint."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=x"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    sound = wav([9000] * 8000)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                    asked = connection.recv(65536).decode()
                    known = "\r\nAuthorization: Bearer made-up-key\r\n" in asked
                    status = "200 OK" if known else "401 No"
                    head = f"HTTP/1.0 {status}\r\nX-Served-By: rs-1\r\n\r\n"
                    connection.sendall(head.encode() + (sound if known else b"no"))

    threading.Thread(target=serve, daemon=True).start()
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    port = listener.getsockname()[1]
    yield {
        "port": port,
        "serverName": "localhost",
        "fingerprint": hashlib.sha256(der).hexdigest(),
        "key": "made-up-key",
    }
    listener.close()


def test_https_is_asked_with_the_key_and_the_certificate_that_was_deployed(https):
    def ask(tls):
        return verify.speak("127.0.0.1", (https["port"], tls), "x", None, 10)

    assert ask(https) == ("rs-1", wav([9000] * 8000))
    with pytest.raises(ValueError, match="401"):
        ask({**https, "key": None})
    with pytest.raises(ValueError, match=r"shows a certificate .* that was not deployed"):
        ask({**https, "fingerprint": "0" * 64})


@pytest.mark.parametrize(
    ("piece", "pause", "message"),
    [
        (b"x" * 65536, 0, "answers with more than 1000000 bytes"),
        (b"x", 0.05, "does not come to an end|timed out"),
    ],
    ids=["endless", "slowly"],
)
def test_a_real_server_in_other_hands_is_not_listened_to_for_ever(monkeypatch, piece, pause, message):
    monkeypatch.setattr(verify, "ANSWER", 1000000)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while True:
                connection.sendall(piece)
                time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises((ValueError, OSError), match=message):
        verify.speak("127.0.0.1", (listener.getsockname()[1], None), "x", None, 1)
    listener.close()


def test_the_ways_to_ask():
    tls = {"port": 443}
    assert verify.ways_of({"port": 7860, "https": None}) == [(7860, None)]
    assert verify.ways_of({"port": 7860, "https": tls}) == [(7860, None), (443, tls)]
    assert verify.ways_of({"port": None, "https": tls}) == [(443, tls)]


def test_silence_by_https_says_so(https):
    expected = {**EXPECTED, "vip": "127.0.0.1", "port": None, "sentence": "x", "timeout": 1}
    way = (https["port"], {**https, "fingerprint": "0" * 64})
    expected["realServers"] = [{"name": "rs-1", "address": "127.0.0.1"}]
    findings, served, _ = verify.check_speech(expected, way)
    assert served == {"rs-1": 0}
    assert len(findings) == 1
    assert f"Nothing answers at 127.0.0.1:{https['port']} by HTTPS: shows a certificate" in findings[0]
