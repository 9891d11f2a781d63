#!/usr/bin/python3 -IS
"""Gets this machine its turn to be changed, and stands by until that is done. The applier's companion.

    turn real-server NAME --directors A:PORT,B:PORT --what TEXT --port PORT --drain-limit S [--address A]
    turn director    NAME --directors A:PORT,B:PORT --what TEXT --vip VIP --port PORT --drain-limit S
                          --services PORT,... --pool A,B,... [--address A]
    turn version

NAME = this machine in the configuration; --directors = where turns are kept (turns), asked one after the
other in this order, so that two askers never wait for each other; --what = what the change is, equal on all
machines that get the same; --address = this machine's own address, by which the directors know it.

Standard output, one line each: "say TEXT" (progress), "go" (the change may begin), "no TEXT" (refused,
given up, or not back in the pool afterwards; exit status 1). Standard input, after "go":

    changed       the service runs as it is to be; whatever keeps it from serving may go (may be left out)
    done          waits until this machine is back in service wherever its turn was granted (60 s)
    failed TEXT   the change was taken back; those who wait for their turn with the same --what are refused
    end of file   whoever called is gone: "failed interrupted"

A real server with its turn is drained before "go": the file /run/cosyvoice-lvs/drain makes its /readyz
answer 503, the directors stop sending, and what is in its queue gets `drain-limit` seconds. The file goes
when the service does, so that its next process starts ready, and on every other way out; a process beside
this one sees to it even after a SIGKILL. A file there that is not ours is somebody's own drain and is left
alone. Where the directors do not follow /readyz they set the weight to 0 themselves, and there is no file.

A director that does not answer is left out. If none does, and none looks whether this machine serves either
(5 s), nobody is sent here, and the change begins. If one looks, only its keeper of turns is missing, and
without turns all real servers would be changed together: the directors are asked anew as long as one looks,
for 60 s, and then the turn is refused. A director that is lost while its answer is awaited is asked anew for
10 s; one that is lost during the turn, for as long as it lasts.

A director's turn is over when its own kernel table has as many servers in service as before, of those still
configured. Before "go" it sees to those who leave with this change. Real servers that are in its table and
not in --pool are drained (a file NAME.drain for the poller, or the weight), and where it has the VIP it
waits, for `drain-limit` seconds at most, until their queues are empty, then up to a minute until their
connections have ended. A director that is in its present configuration and not in --directors is told to
give the VIP away, or two would hold it until that one's layers are removed.

Environment, for tests: COSYVOICE_LVS_ROOT is put in front of /run, /proc/net and /etc;
COSYVOICE_LVS_TIME_SCALE is what all times but --drain-limit are multiplied with.
"""

import errno
import json
import os
import select
import signal
import socket
import sys
import time

ROOT = os.environ.get("COSYVOICE_LVS_ROOT", "")
SCALE = float(os.environ.get("COSYVOICE_LVS_TIME_SCALE", "1"))
DRAIN = ROOT + "/run/cosyvoice-lvs/drain"
MARK = "deployment: "  # what our drain file begins with
BEAT, SILENCE = 2 * SCALE, 10 * SCALE  # s; as in turns
CONNECT, FIRST_WORD = 2 * SCALE, 5 * SCALE  # s for a director that may not be there, and for one that is
LOST = 10 * SCALE  # s until a director that was heard of is given up
ALONE = 30 * SCALE  # s that the holder of the VIP waits for the other one, without which it is not changed
RETRY = 0.5 * SCALE  # s between two attempts to reach one
FOLLOWED = 30 * SCALE  # s for the directors to follow a drain
DEAF = 10 * SCALE  # s after which a service that still says 200 does not know the drain file
SETTLE = 3 * SCALE  # s that a director whom nobody can ask gets to follow a drain
BACK = 60 * SCALE  # s to be back in service
LOOKED_AT = 5 * SCALE  # s in which a director that sends here has looked whether this machine serves
KEEPERS = 60 * SCALE  # s for keepers of turns to come, where directors send here without them
PAUSE = 0.2 * SCALE  # s between two looks at the service
LINGER = 60 * SCALE  # s for connections to a real server that leaves and has nothing left to do
CONFIG = ROOT + "/etc/cosyvoice-lvs/turns.json"  # of the director as it is before the change
TRACK = ROOT + "/run/cosyvoice-lvs/track"
FORWARDING = {"DR": "-g", "TUN": "-i", "NAT": "-m"}


class Refused(Exception):
    """The turn is not given, or came to nothing. `blocked`: not because of another one's failure."""

    def __init__(self, text, blocked=False):
        super().__init__(text)
        self.blocked = blocked


class Interrupted(Exception):
    """Whoever called is gone, or this program is to end."""


def tell(word, text=""):
    """A line for the caller. One that is gone shows itself on standard input."""
    line = " ".join(f"{word} {text}".split()) + "\n"
    try:
        os.write(1, line.encode("utf-8", "replace"))
    except OSError:
        pass


class Link:
    """One director: the connection to it, and how far it has come with us."""

    def __init__(self, turn, target):
        self.turn = turn
        address, _, port = target.rpartition(":")
        self.target = address, int(port)
        self.name = target
        self.socket, self.phase = None, "idle"  # dialing, asked, up, down
        self.input = b""
        self.heard = self.granted = self.drained = self.over = False
        self.out = False  # left out for good
        self.why = ""  # the reason of the last failure
        self.missing = False  # granted, and not to be reached any more
        self.weight = False  # it drains by itself
        self.began = self.dialed = self.listened = self.spoke = self.retry = 0.0
        self.lost_at = None

    @property
    def machine_answers(self):
        """Whether it is there and only the keeper of the turns is not, as on a machine that is being made."""
        return self.why == os.strerror(errno.ECONNREFUSED)

    @property
    def counts(self):
        """Whether it has granted the turn and can still be asked about it."""
        return self.granted and not self.missing and not self.out

    def begin(self, now):
        self.began = now
        self.dial(now)

    def dial(self, now):
        self.dialed, self.input, self.phase = now, b"", "dialing"
        self.socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        if self.turn.address:
            try:
                self.socket.bind((self.turn.address, 0))
            except OSError:
                pass  # behind address translation: the directors see another one
        code = self.socket.connect_ex(self.target)
        if code not in (0, errno.EINPROGRESS):
            self.fail(os.strerror(code), now)
            return
        self.turn.poll.register(self.socket, select.POLLOUT)
        self.turn.by_number[self.socket.fileno()] = self

    def close(self):
        if self.socket is not None:
            self.turn.by_number.pop(self.socket.fileno(), None)
            try:
                self.turn.poll.unregister(self.socket)
            except KeyError:
                pass
            self.socket.close()
            self.socket = None

    def fail(self, why, now):
        self.close()
        self.phase, self.retry, self.why = "down", now + RETRY, why
        if self.heard and self.lost_at is None:
            self.lost_at = now

    def send(self, message):
        if self.socket is None or self.phase not in ("asked", "up"):
            return
        self.spoke = time.monotonic()
        try:
            self.socket.send(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError as error:  # so little always has room, unless nobody reads
            self.fail(error.strerror, self.spoke)

    def ready(self, now):
        """Goes on with what the socket is ready for."""
        if self.phase == "dialing":
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.fail(os.strerror(code), now)
                return
            self.turn.poll.modify(self.socket, select.POLLIN)
            self.phase, self.listened, self.dialed = "asked", now, now
            self.send(self.turn.question(self.granted))
            return
        try:
            text = self.socket.recv(65536)
        except OSError as error:
            self.fail(error.strerror, now)
            return
        if not text:
            self.fail("it closed the connection", now)
            return
        self.listened = now
        *lines, self.input = (self.input + text).split(b"\n")
        for line in lines:
            if self.socket is None:
                return
            try:
                message = json.loads(line)
            except ValueError:
                self.fail("it does not speak our language", now)
                return
            self.take(message)

    def take(self, message):
        if "heard" in message:
            self.name = str(message["heard"])
            self.heard, self.lost_at, self.missing, self.phase = True, None, False, "up"
        elif "wait" in message:
            self.turn.say(f"waits for its turn: {message['wait']}")
        elif "go" in message:
            self.granted, self.weight = True, message.get("drain") == "weight"
            if self.turn.final is not None:  # it did not hear it, or has forgotten it
                self.send(self.turn.final)
        elif "drained" in message:
            self.drained = True
        elif "over" in message:
            self.over = True
            self.close()
            self.phase = "over"
        elif "stranger" in message:
            self.heard = True
            self.leave_out(f"does not know this machine ({message['stranger']}) yet")
        elif "refused" in message:
            self.close()
            self.phase, self.out = "over", True
            raise Refused(str(message["refused"]), blocked=message.get("blocked") is True)

    def leave_out(self, why):
        self.close()
        self.phase, self.out = "over", True
        if not self.turn.quiet:
            self.turn.say(f"director {self.name} {why}: goes on without it")

    def mind(self, now):
        """What time brings about: beats, silence, another attempt."""
        limit = {"dialing": CONNECT, "asked": FIRST_WORD}.get(self.phase)
        if limit and now - self.dialed > limit:
            self.fail("no answer", now)
        elif self.phase == "up" and now - self.listened > SILENCE:
            self.fail("silent", now)
        elif self.phase == "up" and now - self.spoke >= BEAT:
            self.send(self.turn.beat(self.granted))
        if self.phase == "down":
            since, limit = (
                (self.began, self.turn.patience(self)) if self.lost_at is None else (self.lost_at, LOST)
            )
            if now - since >= limit:
                if not self.granted:
                    self.turn.mind_silence(self)
                    self.leave_out(f"does not answer ({self.why})")
                    return
                if not self.missing:
                    self.missing = True
                    self.turn.say(f"director {self.name} is lost ({self.why})")
            if now >= self.retry:
                self.dial(now)


class Turn:
    """What both kinds of machine have in common."""

    kind = ""

    def __init__(self, name, options):
        self.name, self.what = name, options["--what"]
        self.address = options.get("--address", "")
        self.poll, self.by_number = select.poll(), {}
        self.links = [Link(self, target) for target in options["--directors"].split(",")]
        self.began = time.monotonic()
        self.input, self.words = b"", []
        self.said, self.final = "", None
        self.stopped = False  # by a signal
        self.quiet = False  # about directors that do not answer
        self.wakeup, written = socket.socketpair()
        for end in (self.wakeup, written):
            end.setblocking(False)
        self.written = written
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        self.poll.register(self.wakeup, select.POLLIN)
        self.poll.register(0, select.POLLIN)
        self.listening = True  # to standard input

    def say(self, text):
        if text != self.said:
            self.said = text
            tell("say", text)

    def question(self, holding):
        return {
            "ask": self.kind,
            "name": self.name,
            "what": self.what,
            "waited": round(time.monotonic() - self.began, 3),
            "holding": holding,
        }

    def beat(self, _holding):
        return {"beat": True}

    def patience(self, _link):
        """Seconds that a director may be silent before it is left out."""
        return CONNECT

    def mind_silence(self, link):
        """Before a director is left out."""

    # -- waiting

    def step(self, limit):
        """Waits for `limit` seconds at most, and takes what comes."""
        now = time.monotonic()
        for link in self.links:
            link.mind(now)
        for number, _ in self.poll.poll(max(0, min(limit, RETRY)) * 1000):
            if number == 0:
                self.hear_caller()
            elif number == self.wakeup.fileno():
                self.wakeup.recv(64)
            elif number in self.by_number:
                self.by_number[number].ready(time.monotonic())

    def until(self, condition, limit=float("inf"), mind_caller=True):
        """Whether the condition came true in time."""
        deadline = time.monotonic() + limit
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if mind_caller:
                self.mind_caller()
            self.step(left)
        return True

    def hear_caller(self):
        text = os.read(0, 65536)
        *lines, self.input = (self.input + text).split(b"\n")
        self.words += [line.decode("utf-8", "replace").strip() for line in lines]
        if not text:
            self.poll.unregister(0)
            self.listening = False

    def mind_caller(self):
        """Before "go" the caller has nothing to say but that it is gone."""
        if self.stopped:
            raise Interrupted("stopped by a signal")
        if not self.listening:
            raise Interrupted("interrupted")

    # -- the course of things

    def run(self):
        """Exit status."""
        code = 1
        try:
            for link in self.links:
                link.begin(time.monotonic())
                self.until(lambda link=link: link.granted or link.out)
            self.prepare()
            tell("go")
            outcome, reason = self.await_end()
            if outcome == "done" and self.stays_out():
                self.conclude({"end": "none"}, CONNECT)
            elif outcome == "done":
                self.check()
                self.conclude({"end": "done"}, BACK)
                self.check_back()
            else:
                self.conclude({"end": "failed", "reason": reason}, CONNECT)
            code = 0
        except Refused as refusal:
            # One that gives up with a turn in hand must not let the others try the same for as long.
            how = "failed" if refusal.blocked else "none"
            tell("no", str(refusal))
            self.conclude({"end": how, "reason": str(refusal)}, CONNECT)
        except Interrupted as reason:
            how = "failed" if self.changing else "none"
            self.conclude({"end": how, "reason": str(reason)}, CONNECT)
        finally:
            self.tidy()
        return code

    changing = False  # "go" was said

    def prepare(self):
        """Before the change."""

    def await_end(self):
        """How the change ended, as the caller tells it: ("done" | "failed", reason)."""
        self.changing = True
        while True:
            while self.words:
                word, _, text = self.words.pop(0).partition(" ")
                if word == "changed":
                    self.tidy()
                elif word == "done":
                    self.tidy()
                    return "done", ""
                elif word == "failed":
                    self.tidy()
                    return "failed", text or "no reason given"
            self.mind_caller()
            self.mind_change()

    def mind_change(self):
        self.step(RETRY)

    def stays_out(self):
        """Whether this machine is not to come back into service."""
        return False

    def check(self):
        """After the change."""

    def check_back(self):
        late = [link.name for link in self.links if link.counts and not link.over]
        if late:
            raise Refused(self.late(" and ".join(late)), blocked=True)

    def late(self, directors):
        return f"{self.name}: {directors} did not confirm the end of the turn within {BACK:g} s"

    def conclude(self, final, limit):
        """Tells every director that granted something, and waits for its last word."""
        self.final = final
        for link in self.links:
            if not link.granted:
                link.close()
                link.phase, link.out = "over", True
            elif not link.over:
                link.send(final)
        try:
            self.until(lambda: self.stopped or all(k.over or not k.counts for k in self.links), limit, False)
        except Refused:
            pass  # it has nothing left to refuse

    def tidy(self):
        """Takes back what was done to this machine."""


def ask_readyz(address, port, leaving=False):
    """(HTTP status, "down" when nobody listens; jobs in the queue; since); None for what is not told.

    leaving: it is told that the directors are about to forget it, and ends its clients' kept connections with
    their next answers: a request that came after that on one of them would be reset.
    """
    deadline, text = time.monotonic() + CONNECT, b""
    try:
        with socket.create_connection((address, port), CONNECT) as sock:
            told = b"X-Leaving: 1\r\n" if leaving else b""
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n" % told)
            while len(text) < 65536:
                sock.settimeout(max(0.01, deadline - time.monotonic()))
                more = sock.recv(65536)
                if not more:
                    break
                text += more
    except ConnectionRefusedError:
        return "down", None, None
    except OSError:
        pass
    head, _, body = text.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else None
    try:
        said = json.loads(body)
        queue = int(said["queue"].get("waiting", 0)) + int(said["queue"].get("running", 0))
        return status, queue, float(said["since"]) if "since" in said else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return status, None, None


class RealServer(Turn):
    kind = "realServer"

    def __init__(self, name, options):
        super().__init__(name, options)
        self.port, self.drain_limit = int(options["--port"]), float(options["--drain-limit"])
        self.guard = None  # the process that takes the drain file away if this one cannot: (pid, pipe)
        self.since = None  # the service's own word on when its state last changed, once it is drained
        self.looks = 0

    def prepare(self):
        if not any(link.heard for link in self.links) and self.is_looked_at():
            self.await_keepers()
        granted = [link for link in self.links if link.granted]
        if not granted:
            return
        # While the kind of check is being changed the two directors may differ.
        weight = all(link.weight for link in granted)
        state = self.ask_service()[0]
        if state != "down" and not weight:
            self.begin_drain()
        began, deaf = time.monotonic(), False
        while state != "down" and not deaf and any(k.counts and not k.drained for k in granted):
            self.until(lambda: all(k.drained or not k.counts for k in granted), 0.5 * SCALE)
            self.mind_caller()
            past = time.monotonic() - began
            if past > FOLLOWED:
                names = " and ".join(k.name for k in granted if k.counts and not k.drained)
                raise Refused(
                    f"{names} still sends requests to {self.name} {FOLLOWED:g} s after its drain began; "
                    "see what keepalived.service and cosyvoice-turns.service say there"
                )
            state = self.ask_service()[0]
            deaf = self.guard is not None and state == 200 and past > DEAF
        if deaf:
            self.say("the service does not follow the drain file (an older version): goes on all the same")
        elif self.guard and any(link.out or link.missing for link in self.links):
            self.until(lambda: False, max(0, began + SETTLE - time.monotonic()))
        self.empty_queue()

    def is_looked_at(self):
        """Whether a director asks the service how it is: it sends here then, whatever it does not answer."""
        directors = {socket.inet_aton(link.target[0]) for link in self.links}
        try:
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        except OSError:
            return False  # not root's machine: a test
        deadline = time.monotonic() + LOOKED_AT
        with wire:
            while (left := deadline - time.monotonic()) > 0:
                self.mind_caller()
                wire.settimeout(min(left, RETRY))
                try:
                    packet, (interface, _, direction, *_) = wire.recvfrom(64)
                except OSError:
                    continue
                if interface == "lo" or direction == socket.PACKET_OUTGOING or packet[12:16] not in directors:
                    continue
                header = 4 * (packet[0] & 15)
                port = int.from_bytes(packet[header + 2 : header + 4], "big")
                if packet[9] == socket.IPPROTO_TCP and port == self.port:
                    return True
        return False

    def await_keepers(self):
        self.say("the directors send requests here, and none of them answers for turns: asks them again")
        self.quiet, deadline = True, time.monotonic() + KEEPERS
        while True:
            for link in self.links:
                link.out = False
                link.begin(time.monotonic())
                self.until(lambda link=link: link.granted or link.out)
            if any(link.heard for link in self.links) or not self.is_looked_at():
                return
            if time.monotonic() > deadline:
                why = ", ".join(f"{link.name}: {link.why}" for link in self.links)
                raise Refused(
                    f"the directors send requests to {self.name}, and none answers for turns ({why}); "
                    "see cosyvoice-turns.service there, and packet filters on the way",
                    blocked=True,
                )

    def empty_queue(self):
        """Until the service says twice that it has nothing to do: a request may be on its way to it."""
        deadline, idle, silent = time.monotonic() + self.drain_limit, 0, None
        while True:
            state, queue, self.since = self.ask_service()
            now = time.monotonic()
            idle = idle + 1 if queue == 0 else 0
            silent = None if queue is not None else silent or now
            if idle == 2 or state == "down" or (silent and now - silent > DEAF):
                return
            if now > deadline:
                left = "an unknown number" if queue is None else str(queue)
                self.say(f"goes on with {left} in the queue: {self.drain_limit:g} s are over")
                return
            if queue:
                self.say(f"drains: {queue} in the queue")
            self.until(lambda: False, min(0.5 * SCALE, max(0.01, deadline - now)))

    def mind_change(self):
        """Takes the drain file away as soon as the process that it was for is gone."""
        if self.guard is None:
            self.step(RETRY)
            return
        self.step(PAUSE)
        self.looks += 1
        if self.looks % 5:
            gone = not self.service_listens()
        else:  # a restart between two looks shows itself in what the service says
            state, _, since = self.ask_service()
            gone = state == "down" or (since is not None and self.since is not None and since > self.since)
        if gone:
            self.tidy()

    def stays_out(self):
        if not os.path.exists(DRAIN):
            return False
        self.say(f"{self.name} stays out of the pool: {DRAIN} is somebody's own drain")
        return True

    def late(self, directors):
        return (
            f"{self.name} is not back in the pool of {directors} after {BACK:g} s; see its /readyz, and "
            "cosyvoice-health.service and keepalived.service there"
        )

    # -- the service

    def service_listens(self):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(CONNECT)
            return sock.connect_ex(("127.0.0.1", self.port)) != errno.ECONNREFUSED

    def ask_service(self):
        """As `ask_readyz`, on this machine."""
        return ask_readyz("127.0.0.1", self.port)

    # -- the drain file

    def begin_drain(self):
        if not ours(DRAIN, absent=True):
            self.say(f"{DRAIN} is there already and stays: somebody else drains this node")
            return
        self.guard = start_guard(lambda: take_away(DRAIN))
        os.makedirs(os.path.dirname(DRAIN), mode=0o755, exist_ok=True)
        with open(DRAIN + ".new", "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(f"{MARK}{self.what}\n")
        os.replace(DRAIN + ".new", DRAIN)

    def tidy(self):
        if self.guard is None:
            return
        guard, self.guard = self.guard, None
        take_away(DRAIN)
        end_guard(guard)


def ours(path, absent):
    """Whether a drain file is ours; `absent` is the answer when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(len(MARK)) == MARK
    except FileNotFoundError:
        return absent


def take_away(path):
    if ours(path, absent=False):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def start_guard(undo):
    """A process that calls `undo` when this one has ended in whatever way: a node would else drain for ever.
    Returns its number and the pipe whose end it waits for."""
    wait, hold = os.pipe()
    pid = os.fork()
    if pid:
        os.close(wait)
        return pid, hold
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(wait, 0)
        os.closerange(1, 4096)  # a connection or a pipe that stays open here would tell others that we live
        os.read(0, 1)
        undo()
    finally:
        os._exit(0)


def end_guard(guard):
    pid, pipe = guard
    os.close(pipe)
    os.waitpid(pid, 0)


class Director(Turn):
    kind = "director"

    def __init__(self, name, options):
        super().__init__(name, options)
        self.vip, self.port = options["--vip"], int(options["--port"])
        self.services = [int(port) for port in options["--services"].split(",")]
        self.pool = set(options["--pool"].split(","))
        self.staying = {target.rpartition(":")[0] for target in options["--directors"].split(",")}
        self.drain_limit = float(options["--drain-limit"])
        self.before = set()
        self.config = self.read_config()
        self.weights = {}  # by address, of those whose weight was set to 0 from here
        self.guard = None

    def question(self, holding):
        return {**super().question(holding), "holds": self.has_vip()}

    def beat(self, holding):
        return {"beat": True} if holding else {"beat": True, "holds": self.has_vip()}

    def alone(self, link):
        """Whether the service hangs on this machine: it holds the VIP, and the other one is out of reach."""
        return self.has_vip() and not link.machine_answers

    def patience(self, link):
        return ALONE if self.alone(link) else CONNECT

    def mind_silence(self, link):
        if self.alone(link):
            raise Refused(
                f"{self.name} holds the VIP and director {link.name} does not answer ({link.why}): with "
                "nobody to take over, a change here could interrupt the service. See why it cannot be "
                "reached from here, then deploy again"
            )

    def has_vip(self):
        """Whether the VIP is an address of this machine at the moment."""
        try:
            with open(ROOT + "/proc/net/fib_trie", encoding="ascii") as lines:
                before = ""
                for line in lines:
                    if before == f"|-- {self.vip}" and line.strip() == "/32 host LOCAL":
                        return True
                    before = line.strip()
        except OSError:
            pass
        return False

    def read_config(self):
        """turns.json as it is now; without one there is nobody who could leave."""
        try:
            with open(CONFIG, encoding="utf-8") as file:
                raw = json.load(file)
            return {
                "directors": {m["address"]: m["name"] for m in raw["directors"]},
                "realServers": {m["address"]: m["name"] for m in raw["realServers"]},
                "drain": raw["drain"],
                "forwarding": FORWARDING[raw["forwarding"]],
                "port": raw["port"],
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {"directors": {}, "realServers": {}, "drain": "readyz", "forwarding": "-g", "port": 0}

    def prepare(self):
        table = self.table()
        self.before = {address for address, (weight, _) in table.items() if weight > 0}
        leaving = {a: self.config["realServers"].get(a, a) for a in table if a not in self.pool}
        if leaving:
            self.drain_leaving(leaving, table)
        # With nobody in service here, this director could not take over.
        for address, name in self.config["directors"].items():
            if self.before and address not in self.staying and address != self.address:
                self.dismiss(address, name)

    # -- real servers that leave

    def drain_leaving(self, leaving, table):
        self.guard = start_guard(self.undo_drains)
        for address, name in leaving.items():
            if self.config["drain"] == "weight":
                self.set_weight(address, 0)
                self.weights[address] = table[address][0]
            else:
                # The directory is the poller's: no link of its making is followed, and no pipe waited for.
                safely = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                os.close(os.open(self.drain_file(name), safely, 0o644))
        names = " and ".join(leaving.values())
        self.say(f"drains {names}, which leave{'s' if len(leaving) == 1 else ''} the pool")
        if not self.until(lambda: all(self.table().get(a, (0, 0))[0] == 0 for a in leaving), FOLLOWED):
            raise Refused(
                f"{self.name} still sends requests to {names} {FOLLOWED:g} s after their drain began; "
                "see cosyvoice-health.service and keepalived.service there"
            )
        if not self.has_vip():
            return
        deadline, idle = time.monotonic() + self.drain_limit, dict.fromkeys(leaving, 0)
        while any(count < 2 for count in idle.values()):
            for address in leaving:
                queue = ask_readyz(address, self.port, leaving=True)[1]
                idle[address] = 0 if queue else idle[address] + 1
            if time.monotonic() > deadline:
                self.say(f"goes on although {names} still work: {self.drain_limit:g} s are over")
                return
            self.until(lambda: False, 0.5 * SCALE)
        deadline = time.monotonic() + LINGER
        while not self.until(lambda: not any(self.table().get(a, (0, 0))[1] for a in leaving), 2 * SCALE):
            if time.monotonic() > deadline:
                return  # what is left are event streams, which do not end by themselves
            for address in leaving:
                ask_readyz(address, self.port, leaving=True)

    def drain_file(self, name):
        return f"{TRACK}/{name}.drain"

    def set_weight(self, address, weight):
        for port in self.services:
            command = ["ipvsadm", "-e", "-t", f"{self.vip}:{port}", "-r", f"{address}:{port}"]
            command += [self.config["forwarding"], "-w", str(weight)]
            pid = os.posix_spawnp(command[0], command, os.environ)
            os.waitpid(pid, 0)  # one that is no longer in the table needs no weight

    def undo_drains(self):
        """A real server that stays after all serves again; one that has left does not notice."""
        for name in self.config["realServers"].values():
            try:
                os.unlink(self.drain_file(name))
            except OSError:
                pass
        for address, weight in self.weights.items():
            self.set_weight(address, weight)

    def tidy(self):
        if self.guard is not None:
            guard, self.guard = self.guard, None
            self.undo_drains()
            end_guard(guard)

    # -- a director that leaves

    def dismiss(self, address, name):
        self.say(f"tells {name} ({address}), which is no longer a director, to give the VIP away")
        try:
            source = (self.address, 0) if self.address else None
            with socket.create_connection((address, self.config["port"]), CONNECT, source) as sock:
                sock.settimeout(FIRST_WORD)
                sock.sendall(b'{"ask":"leave"}\n')
                if b'"over"' not in sock.recv(4096):
                    raise OSError("it refused")
        except OSError as error:
            self.say(f"{name} ({address}) was not told to give the VIP away: {error}; see that it is off")
            return
        self.until(lambda: False, SETTLE)

    # -- after the change

    def check(self):
        if self.until(self.whole, BACK, mind_caller=False):
            return
        raise Refused(
            f"{self.name} has {len(self.serving())} real servers in service {BACK:g} s after the change, and "
            f"had {len(self.before)}; see what keepalived.service and cosyvoice-health.service say there",
            blocked=True,
        )

    def whole(self):
        """As many in service as before, of those that are still configured."""
        return len(self.serving()) >= len(self.before & self.pool)

    def serving(self):
        return {address for address, (weight, _) in self.table().items() if weight > 0}

    def table(self):
        """The kernel's: address to weight, in the first of the services that has it, and active connections
        to all of them."""
        found, here = {}, None
        vip = socket.inet_aton(self.vip).hex().upper()
        services = [f"{vip}:{port:04X}" for port in self.services]
        try:
            with open(ROOT + "/proc/net/ip_vs", encoding="ascii") as lines:
                for line in lines:
                    words = line.split()
                    if words[:1] == ["->"]:
                        if here is not None:
                            address = socket.inet_ntoa(bytes.fromhex(words[1].split(":")[0]))
                            found.setdefault(address, []).append((here, int(words[3]), int(words[4])))
                    else:
                        service = words[1] if len(words) > 1 else ""
                        here = services.index(service) if service in services else None
        except FileNotFoundError:
            pass
        return {a: (min(rows)[1], sum(row[2] for row in rows)) for a, rows in found.items()}


KINDS = {
    "real-server": (RealServer, ("--directors", "--what", "--port", "--drain-limit")),
    "director": (
        Director,
        ("--directors", "--what", "--vip", "--port", "--services", "--pool", "--drain-limit"),
    ),
}
USAGE = """usage: turn real-server NAME --directors A:PORT,B:PORT --what TEXT --port PORT --drain-limit S
       turn director NAME --directors A:PORT,B:PORT --what TEXT --vip VIP --port PORT --drain-limit S
            --services PORT,... --pool A,B,...
       both: [--address A]
"""


def main(arguments):
    if arguments == ["version"]:
        print("cosyvoice-lvs turn 1")
        return 0
    kind, needed = KINDS.get(arguments[0] if arguments else "", (None, ()))
    pairs = dict(zip(arguments[2::2], arguments[3::2]))
    if not kind or len(arguments) % 2 or set(pairs) - {"--address"} != set(needed):
        sys.stderr.write(USAGE)
        return 2
    try:
        turn = kind(arguments[1], pairs)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"turn: {error}\n{USAGE}")
        return 2

    def note(_number, _frame):
        turn.stopped = True

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    try:
        return turn.run()
    except OSError as error:
        tell("no", f"{type(error).__name__}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
