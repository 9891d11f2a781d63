#!/usr/bin/env python3
"""The health poller on this very computer, not emulated, against real servers on addresses of 127.0.0.0/8.

    native_fleet.py POLLER CONFIG SECONDS DEATHS DIED

CONFIG is a health.json as rendered. Its addresses and its directory are replaced: server number n answers
on 127.0.x.y, the track files go to a temporary directory. Prints a JSON line for every measurement. Nothing
leaves this computer.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time

PORT = 27860  # on 127.0.x.y, x from 1: nobody else's
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nready\n"


def respond(addresses, orders):
    """Answers for all. `orders` is a pipe: a line n makes the first n silent, 0 lets all answer again."""
    epoll, listeners, clients = select.epoll(), {}, {}
    for number, address in enumerate(addresses):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, PORT))
        listener.listen(128)
        listeners[listener.fileno()] = (number, listener)
        epoll.register(listener, select.EPOLLIN)
    epoll.register(orders, select.EPOLLIN)
    silent = 0
    print("ready", flush=True)
    while True:
        for fd, _ in epoll.poll():
            if fd == orders:
                text = os.read(orders, 100)
                if not text:
                    return
                silent = int(text.split()[-1])
            elif fd in listeners:
                number, listener = listeners[fd]
                client = listener.accept()[0]
                client.setblocking(False)
                clients[client.fileno()] = (number, client)
                epoll.register(client, select.EPOLLIN)
            else:
                number, client = clients[fd]
                got = client.recv(4096)
                if got and number < silent:
                    continue
                if got:
                    client.send(ANSWER)
                del clients[fd]
                client.close()


def used(pid):
    """Seconds of processor of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def out(directory, names):
    """How many of them get no new connections: no weight (drained), or out of the pool."""

    def value(name):
        with open(os.path.join(directory, name), encoding="ascii") as file:
            return file.read().strip()

    return sum(value(name) != "0" or value(f"{name}.down") != "0" for name in names)


def emit(**row):
    print(json.dumps(row), flush=True)


def main():
    program, config_file, seconds, deaths, died = sys.argv[1:]
    seconds, deaths, died = float(seconds), int(deaths), int(died)
    with open(config_file, encoding="utf-8") as file:
        config = json.load(file)
    addresses = [f"127.0.{n // 250 + 1}.{n % 250 + 1}" for n in range(len(config["servers"]))]
    names = [server["name"] for server in config["servers"]]
    for server, address in zip(config["servers"], addresses):
        server.update(address=address, port=PORT)
    with tempfile.TemporaryDirectory() as scratch:
        config["trackDirectory"] = os.path.join(scratch, "track")
        file = os.path.join(scratch, "health.json")
        with open(file, "w", encoding="utf-8") as target:
            json.dump(config, target)
        responder = subprocess.Popen(
            [sys.executable, __file__, "--respond", *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        poller = None
        try:
            responder.stdout.readline()
            with open(os.path.join(scratch, "log"), "wb") as log:
                poller = subprocess.Popen([program, file], stdout=log, stderr=log)
            time.sleep(3)
            if out(config["trackDirectory"], names):
                sys.exit("some of the servers on loopback never became ready")
            for _ in range(5):
                start, begin = used(poller.pid), time.monotonic()
                time.sleep(seconds / 5)
                took, spent = time.monotonic() - begin, used(poller.pid) - start
                polls = took * len(names) / config["interval"]
                emit(
                    event="cpu",
                    servers=len(names),
                    interval_s=config["interval"],
                    poller_share=round(spent / took, 4),
                    poll_us=round(spent / polls * 1e6, 1),
                )
            for number in range(deaths):
                time.sleep(0.3 + 0.05 * number)  # somewhere else in the poller's round each time
                begin = time.monotonic()
                responder.stdin.write(b"%d\n" % died)
                responder.stdin.flush()
                first = None
                while (count := out(config["trackDirectory"], names)) < died:
                    if count and first is None:
                        first = time.monotonic() - begin
                    if time.monotonic() > begin + 30:
                        sys.exit("the poller did not see the deaths within 30 s")
                    time.sleep(0.005)
                took = time.monotonic() - begin
                responder.stdin.write(b"0\n")
                responder.stdin.flush()
                back = time.monotonic()
                while out(config["trackDirectory"], names):
                    if time.monotonic() > back + 30:
                        sys.exit("the servers did not come back within 30 s")
                    time.sleep(0.005)
                emit(
                    event="deaths",
                    servers=len(names),
                    died=died,
                    first_s=round(first or took, 3),
                    all_s=round(took, 3),
                    back_s=round(time.monotonic() - back, 3),
                )
        finally:
            for process in (poller, responder):
                if process is not None:
                    process.kill()
                    process.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--respond"]:
        respond(sys.argv[2:], 0)
    else:
        main()
