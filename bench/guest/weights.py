#!/usr/bin/python3
"""One of three real servers is slow: how long do clients wait with fixed weights, and with some that follow?

    weights.py --spec fixed|following --round N --seconds S

Both clusters are wlc; following weights are agentWeights. Clients ask at random moments, the same in both,
for 70 % of what the three can do together. Prints a JSON line for each request after the first fifth of the
time.
"""

import random
import selectors
import socket
import sys
import time

sys.path.insert(0, "/bench")
from world import (
    BENCH,
    CLIENT,
    SOURCES,
    RealServers,
    compile_programs,
    emit,
    inside_this,
    load,
    make_bridge,
    make_namespaces,
    note,
    options,
    start_directors,
)

FAST, SLOW = 0.4, 1.6  # s for one text
LOAD = 0.7  # of what all of them can do
LIMIT = 60  # s until a request is given up


def ask(service, seconds, seed):
    """An open loop of requests: (start, source, seconds it took or None, node) of each."""
    chance = random.Random(seed)
    rate = LOAD * (2 / FAST + 1 / SLOW)
    began = time.monotonic()
    moments, at = [], 0.0
    while at < seconds:
        at += chance.expovariate(rate)
        moments.append(at)
    selector, done = selectors.DefaultSelector(), []
    while moments or selector.get_map():
        now = time.monotonic() - began
        while moments and moments[0] <= now:
            start = moments.pop(0)
            source = chance.choice(SOURCES)
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((source, 0))
            sock.connect_ex(service)
            selector.register(sock, selectors.EVENT_WRITE, (start, source))
        wait = min(moments[0] - now if moments else 1.0, 1.0)
        for key, _ in selector.select(max(wait, 0)):
            start, source = key.data
            try:
                if key.events == selectors.EVENT_WRITE:
                    key.fileobj.send(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\n\r\n")
                    selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                    continue
                text = key.fileobj.recv(4096).decode()
                node = text.split("X-Served-By: ")[1].split("\r")[0]
                done.append((start, source, time.monotonic() - began - start, node))
            except (OSError, IndexError):
                done.append((start, source, None, None))
            selector.unregister(key.fileobj)
            key.fileobj.close()
        for key in list(selector.get_map().values()):
            if time.monotonic() - began - key.data[0] > LIMIT:
                done.append((*key.data, None, None))
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return done


def speaker(port, slowest):
    """What runs on the real server with a name."""

    def command(name):
        seconds = SLOW if name == slowest else FAST
        return ["python3", f"{BENCH}/node.py", str(port), name, str(seconds)]

    return command


def main():
    asked = options(spec="fixed", round=1, seconds=60)
    spec = load(asked.spec)
    compile_programs()
    make_bridge()
    make_namespaces([("client", [CLIENT, *SOURCES])])
    slowest = spec["realServers"][-1]["name"]
    RealServers(spec, program=speaker(spec["port"], slowest))
    start_directors(spec)
    time.sleep(spec["rampUp"] + 2)  # until a node that has just come has its whole weight
    note("clients ask")
    rows = inside_this("client", ask, (spec["vip"], spec["port"]), asked.seconds, asked.round)
    for start, _, took, node in rows:
        if start >= asked.seconds / 5:
            seconds = took and round(took, 3)
            emit(weights=asked.spec, round=asked.round, seconds=seconds, slow=node == slowest)


main()
