#!/usr/bin/python3 -IS
"""Asks every real server how it is and tells keepalived, by two track files a server. Installed on directors.

    health-poller /etc/cosyvoice-lvs/health.json

The configuration: {"interval": s, "timeout": s, "failures": n, "silence": s, "trackDirectory": path,
                    "weights": null or {"base": n, "rampUp": s},
                    "door": null or {"port", "path"},
                    "servers": [{"name", "address", "port", "path", "weight"}]}

    answer to GET path           NAME      NAME.down  for keepalived (FILE_CHECK)
    200                          0         0          serves with its weight in keepalived's configuration
    503                          -1000000  0          drain: weight 0, whatever it was; what runs finishes
    a connection, and no answer, -1000000  0          drain, for `silence` seconds: it may only be slow
    `failures` times in a row                         (not the last that serves: slow is better than nobody)
    anything else, or nothing,   -1000000  1          dead: out of the pool; back with the first 200 or 503
    `failures` times in a row

Two files and not one with a great negative number, because keepalived 2.2.7 never gives its weight back to a
server that was dead in that way when keepalived started. And a dead server has no weight either, because
every reload of keepalived puts it back for a moment, with the weight that it had.

Every poll is a connection of its own: an accept queue that nobody empties is a way to be dead. Polls start
`interval` apart whether or not the one before has ended, so a server that swallows packets is found out
interval * (failures - 1) + timeout after its first lost poll. Files are replaced, never truncated, and only
when something changed. A server without files is dead until its first answer; files that are there when the
poller starts are believed, so its restart moves nobody. SIGHUP reads the configuration again; a wrong one is
reported and the old one kept. While there is a file NAME.drain, a 200 counts as 503: that server is about to
leave this director's pool.

The directory is the poller's own, who is not root. Root's files in it (a new server's first ones, and
NAME.drain) it replaces and deletes.

With `weights` a server's weight follows its queue, which it tells in the header `X-Queue: N` of its 200
(absent: 0). keepalived's configuration then has base * weight for it, the most it ever gets, and NAME says
what to take off:

    weight = base * weight / (1 + N), times 10 % to 100 % in the `rampUp` seconds after it came into service

The ramp is for a node with cold caches, which would otherwise be the one with the shortest queue. The file is
written when the weight has changed by a tenth of what it is, or is whole again, and at most once a second:
keepalived acts on every write.

With `door` every real server is asked at that port, too, where nginx answers by itself: NAME.door holds 0
while it does, and 1 after `failures` refusals in a row or `silence` seconds without an answer. keepalived
follows it for the ports behind nginx only.

A plain epoll loop and not asyncio, which took a sixth of a core of the emulated lab for three servers.
"""

import errno
import heapq
import json
import os
import select
import signal
import socket
import sys
import time

DRAIN = -1000000  # beyond any weight: keepalived adds it to the weight and takes less than 0 for 0
RAMP_START = 0.1  # share of its weight that a server begins with
WEIGHT_STEP = 0.1  # smallest change of a weight that is worth telling, as a share of it
WEIGHT_PAUSE = 1.0  # s between two changes of a weight
HEADERS = 8192  # bytes of an answer that are looked at
GRACE = (
    30.0  # s until the files of a server that was taken out go: keepalived reads a missing file as "serve"
)


class Wrong(Exception):
    """The configuration cannot be used."""


def read_config(path):
    """The configuration, checked as far as a mistake would empty the pool or crash the poller."""
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        numbers = {key: float(config[key]) for key in ("interval", "timeout", "failures", "silence")}
        servers = {}
        for server in config["servers"]:
            name = server["name"]
            if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
                raise Wrong(f"{path}: a server cannot be called {name!r}")
            servers[name] = (str(server["address"]), int(server["port"]), str(server.get("path", "/readyz")))
        directory = config["trackDirectory"]
        weights = config.get("weights")
        if weights is not None:
            full = {
                server["name"]: int(weights["base"]) * int(server["weight"]) for server in config["servers"]
            }
            weights = full, float(weights["rampUp"])
        door = config.get("door")
        if door is not None:
            door = int(door["port"]), str(door["path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Wrong(f"{path}: {type(error).__name__}: {error}") from error
    for key, value in numbers.items():
        if not value > 0:
            raise Wrong(f"{path}: {key} is {value:g} and must be more than 0")
    for name, value in weights[0].items() if weights else ():
        if not 1 <= value < -DRAIN:
            raise Wrong(f"{path}: the full weight of {name} is {value} and must be from 1 to {-DRAIN - 1}")
    return numbers, servers, directory, weights, door


def say(text):
    print(text, flush=True)


def notify(text):
    """Tells systemd (sd_notify). Never waits for it: a systemd that is busy must not stop the polls."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                pass  # it is said again with the next beat


def read_number(directory, name):
    try:
        with open(os.path.join(directory, name), encoding="ascii") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def replace_number(directory, name, value):
    path = os.path.join(directory, name)
    new = os.path.join(directory, "." + name + ".new")
    with open(new, "w", encoding="ascii") as file:
        file.write(f"{value}\n")
    os.replace(new, path)


class Door:
    """Whether the nginx of a real server lives, and its file."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.closed = read_number(directory, name + ".door")
        self.failures = self.started = self.counted = 0
        self.silent_since = None
        self.answered = False
        if self.closed is None:
            self.write(1)

    def write(self, closed):
        if closed != self.closed:
            replace_number(self.directory, self.name + ".door", closed)
            self.closed = closed

    def result(self, poll, status, problem, numbers, silent=False):
        if poll < self.counted:
            return
        self.counted, before = poll, self.closed
        why = f"answered {status}" if status else problem
        if status == 200:
            self.failures, self.silent_since = 0, None
            self.write(0)
        else:
            now = time.monotonic()
            self.failures = 0 if silent else self.failures + 1
            if silent and self.silent_since is None:
                self.silent_since = now
            slow = silent and now - self.silent_since < numbers["silence"]
            if not slow and (silent or self.failures >= numbers["failures"]):
                self.write(1)
        self.answered = True
        if self.closed != before:
            say(f"{self.name}: its nginx is {'closed' if self.closed else 'open'} ({why})")


class Server:
    """What is known of one real server, and its two files."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.load, self.down = self.read(name), self.read(name + ".down")
        self.failures = 0
        self.silent_since = None
        self.started = 0  # polls so far
        self.counted = 0  # the newest poll whose result was counted: a late one says nothing new
        self.answered = False
        self.ramp = None  # when it came into service, while its weight still grows
        self.told = 0.0  # when its weight was last written
        if self.down is None:
            self.write(load=DRAIN, down=1)

    @property
    def state(self):
        return "dead" if self.down else "drain" if self.load == DRAIN else "serve"

    def read(self, name):
        return read_number(self.directory, name)

    def write(self, load, down):
        """The weight first: a server that comes back must not serve for a moment when it is to be drained.
        The other way round when it dies: it goes at once, with what is open to it.
        """
        files = [(self.name, self.load, load), (self.name + ".down", self.down, down)]
        for name, before, after in reversed(files) if down else files:
            if after != before:
                replace_number(self.directory, name, after)
        self.load, self.down = load, down

    def lightened(self, full, ramp_up, queue):
        """What NAME is to hold for a server that serves: what its queue and its ramp take off its weight."""
        now = time.monotonic()
        came = self.state != "serve"
        if came:
            self.ramp = now
        share = 1.0
        if self.ramp is not None:
            share = min(1.0, RAMP_START + (1 - RAMP_START) * (now - self.ramp) / ramp_up) if ramp_up else 1.0
            if share == 1.0:
                self.ramp = None
        weight = max(1, round(full * share / (1 + queue)))
        if not came:
            before = full + self.load
            small = abs(weight - before) < WEIGHT_STEP * before and (weight < full or before == full)
            if small or now - self.told < WEIGHT_PAUSE:
                return self.load
        self.told = now
        return weight - full

    def result(self, poll, status, problem, numbers, weights=None, queue=0, silent=False, last=False):
        """Takes the result of a poll: an HTTP status, or None and what went wrong.

        silent: it took the connection and did not answer; last: no other one serves; weights: None, or the
        server's full weight and the seconds of its ramp; queue: what it said of it.
        """
        if poll < self.counted:
            return
        self.counted = poll
        before = self.state
        if status == 200 and os.path.exists(os.path.join(self.directory, self.name + ".drain")):
            status = 503
        if status in (200, 503):
            self.failures, self.silent_since = 0, None
            load = DRAIN if status == 503 else self.lightened(*weights, queue) if weights else 0
            self.write(load=load, down=0)
            why = f"answered {status}"
        else:
            self.failures += 1
            why = f"answered {status}" if status else problem
            now = time.monotonic()
            if silent and self.silent_since is None:
                self.silent_since = now
            if self.failures >= numbers["failures"]:
                why += f", {self.failures} in a row"
                slow = silent and now - self.silent_since < numbers["silence"]
                if not (silent and last and self.state == "serve"):
                    self.write(load=DRAIN, down=self.down if slow else 1)
        self.answered = True
        if self.state != before:
            say(f"{self.name}: {before} -> {self.state} ({why})")


class Poll:
    """One question to one server, from the connection to the status line, or the end of the headers."""

    def __init__(self, server, target, number, headers):
        address, port, path = target
        self.server, self.number, self.text = server, number, b""
        self.enough = b"\r\n\r\n" if headers else b"\n"
        self.over = False
        request = f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: cosyvoice-lvs-health\r\n"
        self.request = (request + "Connection: close\r\n\r\n").encode()
        self.socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self.error = self.socket.connect_ex((address, port))

    def ready(self, events):
        """Goes on with what the socket is ready for: None, or (HTTP status or None, what went wrong)."""
        if self.request:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return None, os.strerror(error)
            self.socket.send(self.request)  # a new connection has room for so little
            self.request = b""
            return None
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return None
        # As much as there is: closing on unread data would reset the connection.
        text = self.socket.recv(65536)
        self.text += text
        if text and self.enough not in self.text and len(self.text) < HEADERS:
            return None
        return self.answer()

    def answer(self):
        """What the text so far says."""
        words = self.text.split(b"\n", 1)[0].split()
        # Three digits: Python refuses to read thousands, and who sends them is not to stop the polls of all.
        http = len(words) > 1 and words[0].startswith(b"HTTP/1.") and len(words[1]) == 3
        if not http or not words[1].isdigit():
            return None, "answered no HTTP" if self.text else "closed the connection"
        return int(words[1]), None

    @property
    def queue(self):
        """The number in the header X-Queue; 0 without one."""
        headers = self.text.split(b"\r\n\r\n", 1)[0].lower()
        start = headers.find(b"\r\nx-queue:")
        value = headers[start + 10 :].split(b"\r", 1)[0].strip() if start >= 0 else b""
        return int(value) if value.isdigit() and len(value) < 7 else 0


class Poller:
    """All servers, the polls under way, and what is due when."""

    def __init__(self, path):
        self.path = path
        self.numbers, self.targets, self.directory, self.weights, self.door = read_config(path)
        self.servers, self.doors, self.polls = {}, {}, {}  # by name; by name; by file number
        self.due, self.entries = [], 0  # heap of (time, number of the entry, action, argument)
        self.epoll = select.epoll()
        self.reload_asked = self.stop_asked = False
        self.status = ""  # what systemd is to know, once every server has answered

    def at(self, moment, action, argument=None):
        self.entries += 1
        heapq.heappush(self.due, (moment, self.entries, action, argument))

    def apply(self):
        """Brings the servers in line with the configuration."""
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        now = time.monotonic()
        for name in [n for n in self.servers if n not in self.targets]:
            del self.servers[name]
        for name in [n for n in self.doors if n not in self.targets or not self.door]:
            del self.doors[name]
        for index, name in enumerate(self.targets):
            # Spread over the interval.
            first = now + self.numbers["interval"] * index / len(self.targets)
            if name not in self.servers:
                self.servers[name] = Server(name, self.directory)
                self.at(first, self.ask, self.servers[name])
            if self.door and name not in self.doors:
                self.doors[name] = Door(name, self.directory)
                self.at(first, self.ask_door, self.doors[name])
        self.at(now + GRACE, self.sweep)

    def sweep(self, _):
        """Deletes the files of servers that are no longer there."""
        wanted = {name + end for name in self.servers for end in ("", ".down", ".drain")}
        wanted |= {name + ".door" for name in self.doors}
        for name in os.listdir(self.directory):
            if name not in wanted:
                os.unlink(os.path.join(self.directory, name))

    def reload(self):
        try:
            numbers, targets, directory, weights, door = read_config(self.path)
        except Wrong as error:
            say(f"the configuration is as before: {error}")
            return
        if directory != self.directory:
            raise Wrong(f"{self.path}: trackDirectory has changed")
        self.numbers, self.targets, self.weights, self.door = numbers, targets, weights, door
        self.apply()
        say(f"configuration read: {len(self.servers)} servers")

    def ask(self, server):
        """Starts a poll, and sees to the next one whatever becomes of this."""
        if self.servers.get(server.name) is not server:
            return
        self.at(time.monotonic() + self.numbers["interval"], self.ask, server)
        self.start(Poll(server, self.targets[server.name], server.started, self.weights is not None))

    def ask_door(self, door):
        """The same for its nginx."""
        if self.doors.get(door.name) is not door:
            return
        self.at(time.monotonic() + self.numbers["interval"], self.ask_door, door)
        port, path = self.door
        self.start(Poll(door, (self.targets[door.name][0], port, path), door.started, False))

    def start(self, poll):
        poll.server.started += 1
        if poll.error not in (0, errno.EINPROGRESS):
            self.end(poll, None, os.strerror(poll.error))
            return
        self.polls[poll.socket.fileno()] = poll
        self.epoll.register(poll.socket, select.EPOLLOUT)
        self.at(time.monotonic() + self.numbers["timeout"], self.time_out, poll)

    def time_out(self, poll):
        if not poll.over and b"\n" in poll.text:  # only its headers have no end
            self.end(poll, *poll.answer())
        elif not poll.over:
            what = "no connection" if poll.request else "no answer"
            self.end(poll, None, "{} within {:g} s".format(what, self.numbers["timeout"]), not poll.request)

    def go_on(self, number, events):
        poll = self.polls[number]
        asking = bool(poll.request)
        try:
            result = poll.ready(events)
        except OSError as error:
            result = None, error.strerror or str(error)
        if result is not None:
            self.end(poll, *result)
        elif asking:
            self.epoll.modify(poll.socket, select.EPOLLIN)

    def end(self, poll, status, problem, silent=False):
        poll.over = True
        self.polls.pop(poll.socket.fileno(), None)
        poll.socket.close()  # which takes it out of the epoll set as well
        server = poll.server
        if self.doors.get(server.name) is server:
            server.result(poll.number, status, problem, self.numbers, silent)
        if self.servers.get(server.name) is not server:
            return
        weights = self.weights and (self.weights[0][server.name], self.weights[1])
        queue = poll.queue if weights else 0
        last = silent and not any(s.state == "serve" for s in self.servers.values() if s is not server)
        server.result(poll.number, status, problem, self.numbers, weights, queue, silent, last)

    def first_round(self):
        """Tells systemd that keepalived may start, once there is a word about every server."""
        if not self.status and all(s.answered for s in [*self.servers.values(), *self.doors.values()]):
            states = [s.state for s in self.servers.values()]
            counts = ", ".join(f"{states.count(s)} {s}" for s in ("serve", "drain", "dead") if s in states)
            self.status = f"READY=1\nSTATUS={counts or 'no servers'}"
            notify(self.status)
            say(f"first round: {counts or 'no servers'}")

    def beat(self, every):
        notify(f"WATCHDOG=1\n{self.status}")
        self.at(time.monotonic() + every, self.beat, every)

    def run(self, watchdog):
        """Until it is told to stop. OSError when the files cannot be written: going on would be a lie."""
        self.apply()
        if watchdog:
            self.at(time.monotonic(), self.beat, watchdog / 4)
        while not self.stop_asked:
            if self.reload_asked:
                self.reload_asked = False
                self.reload()
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, _, action, argument = heapq.heappop(self.due)
                action(argument)
            self.first_round()
            # A signal does not end the wait, so it is short.
            wait = min(self.due[0][0] - time.monotonic(), 0.5) if self.due else 0.5
            for number, events in self.epoll.poll(max(wait, 0)):
                if number in self.polls:
                    self.go_on(number, events)


def main(arguments):
    if len(arguments) != 1:
        sys.stderr.write("usage: health-poller CONFIG.json\n")
        return 2
    try:
        poller = Poller(arguments[0])

        def note(number, _frame):
            if number == signal.SIGHUP:
                poller.reload_asked = True
            else:
                poller.stop_asked = True

        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)
        poller.run(int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6)
    except Wrong as error:
        sys.stderr.write(f"health-poller: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"health-poller: starting anew: {type(error).__name__}: {error}\n")
        return 1
    return 0  # the files stay: keepalived goes on with what was known last


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
