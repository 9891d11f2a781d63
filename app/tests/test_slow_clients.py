"""Clients that take their time, or never come to an end: whoever else asks does not notice."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from conftest import Server

#: More than a handful, and less than a process may open.
MANY = 300


@contextlib.contextmanager
def held(server: Server, said: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    """Connections that have said so much and say no more."""
    address = server.http.base_url.host, server.http.base_url.port or 80
    with contextlib.ExitStack() as all_of_them:
        connections = []
        for _ in range(count):
            connections.append(all_of_them.enter_context(socket.create_connection(address, timeout=10)))
            connections[-1].sendall(said)
        yield connections


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["nothing", "half a header", "half a body", "half a chunk"],
)
def test_hundreds_of_them_keep_nobody_else_from_being_served(server: Server, said: bytes) -> None:
    with held(server, said):
        began = time.monotonic()
        assert server.http.get("/readyz").status_code == 200
        answer = server.say(f"Said beside {len(said)} bytes that are going nowhere.")
        assert (answer.status_code, answer.content[:4]) == (200, b"RIFF")
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "said",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 300_000,
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 10_000,
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["long header", "long path", "zeros", "huge body", "negative body", "two lengths"],
)
def test_what_is_no_request_is_refused(server: Server, said: bytes) -> None:
    address = server.http.base_url.host, server.http.base_url.port or 80
    with socket.create_connection(address, timeout=10) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(said)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
                if b"\r\n\r\n" in answer:
                    break
    assert not answer or answer.split(b" ")[1].startswith(b"4"), answer[:200]
    assert server.http.get("/readyz").status_code == 200
