#!/usr/bin/python3 -IS
"""Keeps traffic on a cluster and writes down what became of every single request. Runs on the lab's client.

    load-client --target 192.168.1.100:7860 --sources 192.168.1.200-192.168.1.249 [--duration S] [options]

Four kinds of traffic, each attempt one JSON line as it ends (opened up front, flushed):

    request     GET --path, a new connection each, --rate a second, from the next source address in turn: the
                scheduler `mh` hashes the client address, so every real server's share is covered
    kept        the same over --kept connections that stay open, one request every --kept-interval each
    stream      --streams event streams of the page (/gradio_api/heartbeat/...), held open
    synthesis   --syntheses lanes of POST /v1/audio/speech, one after the other, never from the cache, each of
                a text of its own; the answer must be a whole WAV

    {"kind", "source", "start", "end", "result", "why", "node", "status", ...}

    start, end  s of CLOCK_MONOTONIC: in the lab one clock for all machines
    result      ok; slow: a whole answer, later than --slow; lost: anything else, `why` says what;
                cut: this program ended it because its own time was over
    why         refused | reset | timeout | unreachable | closed (without a byte) | incomplete | status |
                tls | wrong, then a colon and details
    node        X-Served-By
    synthesis   also "name" (X-Result-Name), "bytes", "sha256" of the answer
    stream      also "beats", the events that came

With --https all of that goes through TLS, as standard input says, JSON: {"serverName", "fingerprint", "key"}.
The other end must show the certificate with that fingerprint (SHA-256), for whom clients trust is not known
here; the key, or null, lets one in.

Nothing is tried again. Requests start on a fixed grid whatever became of those before. When this program
itself was late (the machine is busy), a line {"kind": "stall", "start", "end"} says so: what was not sent
then is not known. The first line is {"kind": "begin", ...} with the options, the last one {"kind": "end"}: a
log without it is cut off. SIGTERM and SIGINT end it like the end of --duration: nothing new is started, what
is under way may end, within the time limits.
"""

import argparse
import errno
import hashlib
import heapq
import ipaddress
import json
import os
import select
import signal
import socket
import sys
import time

IP_BIND_ADDRESS_NO_PORT = 24
STALL = 0.3  # s that the loop may be late before it is said
BEAT = 15.0  # s between two events of gradio's heartbeat stream
WHY = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


def addresses(text):
    """A comma-separated list of addresses and ranges FIRST-LAST."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = (
            int(ipaddress.IPv4Address(first)),
            int(ipaddress.IPv4Address(last or first)),
        )
        found += [str(ipaddress.IPv4Address(number)) for number in range(low, high + 1)]
    if not found:
        raise ValueError("no address")
    return found


class Answer:
    """An HTTP answer as it comes in. The body is not kept, but for the start of an error's."""

    def __init__(self, hashed=False):
        self.head = b""
        self.status = None
        self.headers = {}
        self.length = None  # of the body; None: until the connection closes, or chunked
        self.size = 0  # of the body so far
        self.start = b""  # of the body
        self.hash = hashlib.sha256() if hashed else None
        self.beats = 0

    def feed(self, data):
        if self.status is None:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                if len(self.head) > 65536:
                    raise ValueError("no end of headers in 64 KiB")
                return
            lines = head.decode("latin-1").split("\r\n")
            words = lines[0].split()
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
                raise ValueError(f"no HTTP: {lines[0][:60]!r}")
            for line in lines[1:]:
                name, _, value = line.partition(":")
                self.headers[name.strip().lower()] = value.strip()
            self.status = int(words[1])
            if "content-length" in self.headers:
                self.length = int(self.headers["content-length"])
        if len(self.start) < 300:
            self.start += data[: 300 - len(self.start)]
        self.size += len(data)
        self.beats += data.count(b"ALIVE")
        if self.hash:
            self.hash.update(data)

    @property
    def whole(self):
        return self.length is not None and self.size >= self.length

    @property
    def closing(self):
        return self.headers.get("connection", "").lower() == "close"


class Attempt:
    """One request on a connection, its own or a kept one."""

    def __init__(self, kind, source, text, limit, slow=None, sock=None):
        self.kind, self.source, self.limit, self.slow = kind, source, limit, slow
        self.start = time.monotonic()
        self.unsent = text
        self.answer = Answer(hashed=kind == "synthesis")
        self.over = False
        self.connecting = sock is None
        self.socket = sock

    def open(self, target):
        """Connects; the number of an error, or 0."""
        sock = self.socket = socket.socket(
            socket.AF_INET,
            socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.kind in ("stream", "synthesis"):
            # These wait for long in silence: probes tell within 11 s that nobody is there any more.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        if self.source:
            # The port is chosen at connect(), so that they do not run out.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.source, 0))
        number = sock.connect_ex(target)
        return 0 if number == errno.EINPROGRESS else number


class Tls:
    """What makes HTTPS of HTTP, as {"serverName", "fingerprint", "key"} say."""

    def __init__(self, https):
        import ssl  # not loaded where it is not used: that takes long on a slow machine

        self.server_name, self.fingerprint, self.key = (
            https[name] for name in ("serverName", "fingerprint", "key")
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.error = ssl.SSLError
        self.wants_read, self.wants_write = ssl.SSLWantReadError, ssl.SSLWantWriteError
        self.not_yet = (self.wants_read, self.wants_write)

    def over(self, sock):
        """TLS over a connection, which stays the same file; that itself, where it is there already."""
        if hasattr(sock, "do_handshake"):
            return sock
        return self.context.wrap_socket(sock, server_hostname=self.server_name, do_handshake_on_connect=False)

    def shake_hands(self, sock):
        """Goes on as far as that goes without waiting: the event that it waits for, or None when done."""
        try:
            sock.do_handshake()
        except self.wants_read:
            return select.EPOLLIN
        except self.wants_write:
            return select.EPOLLOUT
        shown = hashlib.sha256(sock.getpeercert(True)).hexdigest()
        if shown != self.fingerprint:
            raise ValueError(f"shows a certificate (SHA-256 {shown[:16]}...) that was not deployed")
        return None


class Client:
    """All attempts under way, and what is due when."""

    def __init__(self, options, out):
        self.options, self.out = options, out
        address, _, port = options.target.partition(":")
        self.target = (address, int(port))
        self.sources = addresses(options.sources) if options.sources else [None]
        self.tls = Tls(json.load(sys.stdin)) if options.https else None
        self.host = f"{self.tls.server_name}:{port}" if self.tls else options.target
        self.not_yet = (BlockingIOError, *(self.tls.not_yet if self.tls else ()))
        self.epoll = select.epoll()
        self.attempts = {}  # by file number
        self.idle = {}  # kept connections between two requests, by file number: (socket, lane)
        self.due, self.entries = [], 0
        self.next_source = self.texts = self.spoken = 0
        self.stopping = False
        self.stop_asked = False
        self.lines = []

    # What is due.

    def at(self, moment, action, *arguments):
        self.entries += 1
        heapq.heappush(self.due, (moment, self.entries, action, arguments))

    def log(self, **line):
        self.lines.append(json.dumps({k: v for k, v in line.items() if v is not None}, ensure_ascii=False))

    def flush(self):
        if self.lines:
            self.out.write("\n".join(self.lines) + "\n")
            self.out.flush()
            self.lines.clear()

    def source(self, lane=None):
        """The next source address in turn, or always the same one for a lane."""
        if lane is None:
            self.next_source += 1
            lane = self.next_source
        return self.sources[lane % len(self.sources)]

    def head(self, method, path, *headers):
        """The head of a request."""
        given = [f"Host: {self.host}", "User-Agent: cosyvoice-lvs-load", *headers]
        if self.tls and self.tls.key:
            given.append(f"Authorization: Bearer {self.tls.key}")
        return "\r\n".join([f"{method} {path} HTTP/1.1", *given, "", ""]).encode()

    def ask(self, path, close=True):
        return self.head("GET", path, *(["Connection: close"] if close else []))

    def request(self, number, begin):
        if self.stopping:
            return
        self.at(begin + (number + 1) / self.options.rate, self.request, number + 1, begin)
        attempt = Attempt(
            "request",
            self.source(),
            self.ask(self.options.path),
            self.options.timeout,
            self.options.slow,
        )
        self.begin(attempt)

    def kept(self, lane):
        """The next request of a kept connection, which is opened when there is none."""
        if self.stopping:
            return
        sock = None
        for number, (candidate, owner) in self.idle.items():
            if owner == lane:
                sock = candidate
                del self.idle[number]
                break
        # Lanes are spread over the addresses.
        source = self.source(lane * 7)
        text = self.ask(self.options.path, close=False)
        attempt = Attempt("kept", source, text, self.options.timeout, self.options.slow, sock)
        attempt.lane = lane
        self.begin(attempt)

    def stream(self, lane):
        if self.stopping:
            return
        path = f"/gradio_api/heartbeat/load{os.getpid()}x{lane}x{self.entries}"
        attempt = Attempt("stream", self.source(lane * 11 + 3), self.ask(path), None)
        attempt.lane = lane
        self.begin(attempt)
        self.at(attempt.start + self.options.timeout * 3, self.time_out_first, attempt)

    def time_out_first(self, attempt):
        """An event stream begins with an event."""
        if not attempt.over and not attempt.answer.beats:
            self.end(attempt, "lost", "timeout: no first event")

    def synthesis(self, lane):
        most = self.options.most
        if self.stopping or (most and self.texts >= most):
            return
        self.texts += 1
        # Different on every run, so that each result is a file of its own.
        begin = f"Number {self.texts} of lane {lane}, {os.getpid()} {int(time.time())}. "
        words = begin + "The quick brown fox jumps over the lazy dog. " * (self.options.characters // 45 + 1)
        text = words[: max(self.options.characters, len(begin))]
        body = json.dumps({"model": "cosyvoice", "input": text, "voice": "en"}).encode()
        head = self.head(
            "POST",
            "/v1/audio/speech",
            "Content-Type: application/json",
            "Cache-Control: no-cache",
            "Connection: close",
            f"Content-Length: {len(body)}",
        )
        attempt = Attempt(
            "synthesis",
            self.source(lane * 13 + self.texts),
            head + body,
            self.options.synthesis_timeout,
            self.options.synthesis_timeout,
        )
        attempt.lane = lane
        self.begin(attempt)

    # The way of an attempt.

    def begin(self, attempt):
        if attempt.connecting:
            try:
                number = attempt.open(self.target)
            except OSError as error:
                number = error.errno
            if number:
                self.end(attempt, "lost", self.why(attempt, number))
                return
            self.epoll.register(attempt.socket, select.EPOLLOUT)
        else:
            self.epoll.modify(attempt.socket, select.EPOLLOUT)
        self.attempts[attempt.socket.fileno()] = attempt
        if attempt.limit:
            self.at(attempt.start + attempt.limit, self.time_out, attempt)

    def time_out(self, attempt):
        if not attempt.over:
            where = "connecting" if attempt.connecting else "answer"
            self.end(attempt, "lost", f"timeout: {where}, {attempt.limit:g} s")

    def why(self, attempt, number):
        where = "connecting" if attempt.connecting else f"after {attempt.answer.size} bytes of the answer"
        return f"{WHY.get(number, 'error')}: {where}: {os.strerror(number)}"

    def go_on(self, number, events):
        if number in self.idle:  # closed by the other side between two requests: not a loss
            sock, _ = self.idle.pop(number)
            sock.close()
            return
        attempt = self.attempts.get(number)
        if attempt is None:
            return
        try:
            if events & select.EPOLLERR and attempt.connecting:
                # (An error later than that comes with send and recv.)
                error = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
            if self.tls and attempt.connecting:
                attempt.socket = self.tls.over(attempt.socket)
                awaited = self.tls.shake_hands(attempt.socket)
                self.epoll.modify(number, awaited or select.EPOLLOUT)
                if awaited:
                    return
                events |= select.EPOLLOUT
            if events & select.EPOLLOUT and attempt.unsent:
                attempt.connecting = False
                attempt.unsent = attempt.unsent[attempt.socket.send(attempt.unsent) :]
                if not attempt.unsent:
                    self.epoll.modify(attempt.socket, select.EPOLLIN)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                # (With TLS that is one record, which is shorter: none stays behind unseen.)
                data = attempt.socket.recv(262144)
                if data:
                    attempt.answer.feed(data)
                self.look(attempt, closed=not data)
        except self.not_yet:
            pass
        except OSError as error:
            if self.tls and isinstance(error, self.tls.error):
                self.end(attempt, "lost", f"tls: {error.reason or error}")
            else:
                self.end(attempt, "lost", self.why(attempt, error.errno or 0))
        except ValueError as error:
            self.end(attempt, "lost", f"wrong: {error}")

    def look(self, attempt, closed):
        """Whether the answer is complete, and what it is worth."""
        answer = attempt.answer
        if answer.whole:
            problem = self.problem(attempt)
            late = attempt.slow is not None and time.monotonic() - attempt.start > attempt.slow
            self.end(attempt, "lost" if problem else "slow" if late else "ok", problem)
        elif closed:
            if answer.status is None:
                said = "incomplete: in the headers" if answer.head else "closed: without a byte"
            elif attempt.kind == "stream":
                said = self.problem(attempt) or f"closed: after {answer.beats} events"
            else:
                said = f"incomplete: {answer.size} of {answer.length} bytes"
            self.end(attempt, "lost", said)

    def problem(self, attempt):
        answer = attempt.answer
        if answer.status != 200:
            return f"status: {answer.status} {answer.start.decode(errors='replace')}"
        if attempt.kind == "synthesis":
            said = int.from_bytes(answer.start[4:8], "little") + 8
            if answer.start[:4] + answer.start[8:12] != b"RIFFWAVE" or said != answer.size:
                return f"wrong: {answer.size} bytes are no whole WAV: {answer.start[:16]!r}"
        return None

    def end(self, attempt, result, why=None):
        if attempt.over:
            return
        attempt.over = True
        now = time.monotonic()
        keep = False
        if attempt.socket is not None:
            number = attempt.socket.fileno()
            self.attempts.pop(number, None)
            keep = attempt.kind == "kept" and result in ("ok", "slow") and not attempt.answer.closing
            if keep and not self.stopping:
                self.idle[number] = (attempt.socket, attempt.lane)
            else:
                attempt.socket.close()
        answer, extra = attempt.answer, {}
        if attempt.kind == "synthesis" and result in ("ok", "slow"):
            extra = {
                "name": answer.headers.get("x-result-name"),
                "bytes": answer.size,
                "sha256": answer.hash.hexdigest(),
            }
        elif attempt.kind == "stream":
            extra = {"beats": answer.beats}
        self.log(
            kind=attempt.kind,
            source=attempt.source,
            start=round(attempt.start, 4),
            end=round(now, 4),
            result=result,
            why=why,
            node=answer.headers.get("x-served-by"),
            status=answer.status,
            **extra,
        )
        if attempt.kind == "kept":
            self.at(
                max(attempt.start + self.options.kept_interval, now),
                self.kept,
                attempt.lane,
            )
        elif attempt.kind == "stream":
            self.at(now + 1, self.stream, attempt.lane)
        elif attempt.kind == "synthesis":
            # After an error not at once: a cluster that refuses is not to be flooded.
            pause = self.options.pause if why is None else max(1.0, self.options.pause)
            self.at(now + pause, self.synthesis, attempt.lane)
            self.spoken += 1
            if self.spoken == self.options.most:
                self.stop()

    # The whole.

    def stop(self, *_):
        """Nothing new; what is under way may end."""
        if self.stopping:
            return
        self.stopping = True
        for attempt in list(self.attempts.values()):
            if attempt.kind == "stream":
                alive = attempt.answer.beats > 0 and attempt.answer.status == 200
                self.end(attempt, "ok" if alive else "cut")
        for sock, _ in self.idle.values():
            sock.close()
        self.idle.clear()
        self.at(time.monotonic() + self.options.finish, self.cut)

    def cut(self):
        for attempt in list(self.attempts.values()):
            self.end(attempt, "cut")

    def run(self):
        options, now = self.options, time.monotonic()
        self.log(kind="begin", start=round(now, 4), options=vars(options))
        self.flush()
        for lane in range(options.streams):
            self.at(now + 0.2 * lane, self.stream, lane)
        for lane in range(options.syntheses):
            self.at(now + 0.5 + 0.3 * lane, self.synthesis, lane)
        for lane in range(options.kept):
            self.at(now + options.kept_interval * lane / options.kept, self.kept, lane)
        if options.rate:
            self.at(now, self.request, 0, now)
        if options.duration:
            self.at(now + options.duration, self.stop)
        while not self.stopping or self.attempts:
            if self.stop_asked:
                self.stop()
            now = time.monotonic()
            if self.due and self.due[0][0] < now - STALL:
                self.log(kind="stall", start=round(self.due[0][0], 4), end=round(now, 4))
            while self.due and self.due[0][0] <= now:
                _, _, action, arguments = heapq.heappop(self.due)
                action(*arguments)
            # A signal does not end the wait, so it is short.
            wait = min(self.due[0][0] - time.monotonic(), 0.5) if self.due else 0.5
            for number, events in self.epoll.poll(max(wait, 0)):
                self.go_on(number, events)
            self.flush()
        self.log(kind="end", start=round(time.monotonic(), 4))
        self.flush()


def arguments(given):
    parser = argparse.ArgumentParser(
        prog="load-client",
        description="Keeps traffic on a cluster and writes down what became of it.",
    )
    seconds = {"type": float, "metavar": "S"}
    parser.add_argument("--target", required=True, help="ADDRESS:PORT")
    parser.add_argument(
        "--https", action="store_true", help="by TLS, as JSON on standard input says (see above)"
    )
    parser.add_argument(
        "--sources",
        default="",
        help="own addresses to use in turn: A,B-C (default: the system's)",
    )
    parser.add_argument("--path", default="/healthz", help="what a light request asks for (%(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="light requests a second (%(default)s)")
    parser.add_argument("--kept", type=int, default=2, help="kept connections (%(default)s)")
    parser.add_argument(
        "--kept-interval",
        default=0.5,
        **seconds,
        help="between two requests of one (%(default)s)",
    )
    parser.add_argument("--streams", type=int, default=3, help="event streams held open (%(default)s)")
    parser.add_argument(
        "--syntheses",
        type=int,
        default=1,
        help="syntheses at the same time (%(default)s)",
    )
    parser.add_argument(
        "--most",
        type=int,
        default=0,
        help="syntheses in all, and then the end; 0: as many as there is time for (%(default)s)",
    )
    parser.add_argument("--pause", default=1.0, **seconds, help="between two of a lane (%(default)s)")
    parser.add_argument(
        "--characters",
        type=int,
        default=1500,
        help="of a synthesis's text (%(default)s)",
    )
    parser.add_argument("--timeout", default=5.0, **seconds, help="of a light request (%(default)s)")
    parser.add_argument("--slow", default=0.9, **seconds, help="a later answer is slow (%(default)s)")
    parser.add_argument(
        "--synthesis-timeout",
        default=90.0,
        **seconds,
        help="of a synthesis (%(default)s)",
    )
    parser.add_argument("--duration", default=0.0, **seconds, help="0: until SIGTERM (%(default)s)")
    parser.add_argument(
        "--finish",
        default=20.0,
        **seconds,
        help="how long what runs at the end may take (%(default)s)",
    )
    parser.add_argument("--log", default="-", help="file for the lines; -: standard output")
    return parser.parse_args(given)


def main(given):
    options = arguments(given)
    try:
        # Open for as long as this runs.
        out = sys.stdout if options.log == "-" else open(options.log, "a", encoding="utf-8")  # noqa: SIM115
        client = Client(options, out)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"load-client: {error}\n")
        return 2

    def note(*_):
        client.stop_asked = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    try:
        client.run()
    except BrokenPipeError:
        os._exit(1)  # nobody reads on
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
