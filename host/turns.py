#!/usr/bin/python3 -IS
"""Keeps the turns: which machine may be taken out of service now. Runs on every director.

    turns /etc/cosyvoice-lvs/turns.json

The configuration: {"address", "port": where it listens, "vip", "servicePorts": [n], "maxUnavailable": n,
                    "patience": s, "forwarding": "DR" | "TUN" | "NAT", "drain": "readyz" | "weight",
                    "directors": [{"name", "address"}], "realServers": [{"name", "address"}]}

A machine that is to be changed connects (turn, the applier's companion) and speaks in lines of JSON. The
connection is the lease: whoever is gone holds nothing. Only the addresses of the configuration are heard.

    from the machine                                     from here
    {"ask": "realServer" | "director", "name", "what",   {"heard": name of this director}
     "waited": s since it asked first, "holds": it has   {"stranger": address}: not in the configuration
     the VIP, "holding": it had its turn before the      {"wait": why}
     connection broke}                                   {"go": true, "drain": "readyz" | "weight"}
    {"beat": true, "holds": ...}  every 2 s              {"drained": true}
    {"end": "done" | "failed" | "none", "reason"}        {"refused": why, "blocked": nobody had a turn}
                                                         {"over": true}
    {"ask": "leave"}: this one is no director any more   {"beat": true}  every 2 s

A real server gets its turn when, without it, fewer than maxUnavailable are out of service: not in the
kernel's table (that of the first of servicePorts) with a weight above 0, or holding a turn. First come,
first served. One that does not serve anyway gets it at once. `drained` is said when the table says so; with
drain "weight" (nobody follows /readyz) it is done from here, by ipvsadm, and taken back when the turn ends.
A turn that ended "done" is over when the table has the machine again. Directors go one at a time, and the
one with the VIP lets the standby go first.

A standby that got a new password of VRRP hears the other director no more, and would take the VIP. So the
deployment has it stand down; that is over with the other director's next turn, or after PAUSE seconds.

A turn that ended "failed" refuses those who wait with the same `what`: what broke one need not break all.
When nobody holds a turn and the same machines have been out for `patience` seconds, waiting is given up.

The kernel's table (/proc/net/ip_vs) is read only while somebody waits for it, four times a second. A lease
that was lost without an end, also by the end of this program, stands for GRACE seconds more: whoever has it
comes back. SIGHUP reads the configuration again; a wrong one is reported and the old one kept.

It runs as a user of its own and shares its directory with root, whose files there (stand-down is keepalived's
and the applier's, too) it may replace and not write to.

Environment, for tests: COSYVOICE_LVS_ROOT is put in front of /proc/net/ip_vs and of /run,
COSYVOICE_LVS_TIME_SCALE is what all times but `patience` are multiplied with.
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
TABLE = ROOT + "/proc/net/ip_vs"
STATE = (
    ROOT + "/run/cosyvoice-lvs/turns/state.json"
)  # who has a turn, and weights that were set to 0 from here
# keepalived follows it: anything but 0, and this director gives the VIP away, until a boot or a deployment.
STAND_DOWN = ROOT + "/run/cosyvoice-lvs/turns/stand-down"
# What it says on a standby that hears nobody: it has the password of VRRP that the other one will have.
PAUSED = "3"
PAUSE = 120 * SCALE  # s that this lasts at most
BEAT, SILENCE = 2 * SCALE, 10 * SCALE  # s
GRACE = 6 * SCALE  # s
STANDBY_FIRST = 3 * SCALE  # s for the standby to ask, while the director with the VIP waits
ABSENT = 3 * SCALE  # s without the virtual service until it is believed: keepalived may be starting
TICK = 0.25 * SCALE  # s
LINE, BUFFER = 4096, 65536  # bytes
CONNECTIONS, PER_ADDRESS = 2000, 8
FORWARDING = {"DR": "-g", "TUN": "-i", "NAT": "-m"}
BEAT_TEXT = b'{"beat":true}\n'


class Wrong(Exception):
    """The configuration cannot be used."""


def read_config(path):
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
        config = {
            "listen": (str(raw["address"]), int(raw["port"])),
            "service": (str(raw["vip"]), int(raw["servicePorts"][0])),
            "ports": [int(port) for port in raw["servicePorts"]],
            "forwarding": FORWARDING[raw["forwarding"]],
            "drain": raw["drain"],
            "maxUnavailable": int(raw["maxUnavailable"]),
            "patience": float(raw["patience"]),
        }
        for key in ("directors", "realServers"):
            config[key] = {str(machine["address"]): str(machine["name"]) for machine in raw[key]}
        for address in (raw["address"], raw["vip"], *config["directors"], *config["realServers"]):
            socket.inet_aton(address)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Wrong(f"{path}: {type(error).__name__}: {error}") from error
    if config["drain"] not in ("readyz", "weight"):
        raise Wrong(f'{path}: drain is {config["drain"]!r} and must be "readyz" or "weight"')
    if config["maxUnavailable"] < 1:
        raise Wrong(f"{path}: maxUnavailable is {config['maxUnavailable']} and must be at least 1")
    config["self"] = config["directors"].get(raw["address"], str(raw["address"]))
    return config


def say(text):
    print(text, flush=True)


def notify(text):
    """Tells systemd (sd_notify), without ever waiting for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                pass  # it is said again with the next beat


def put(path, text):
    """Puts a file in the place of one that may be root's; so may one that was left half-made."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    new = path + ".new"
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    with open(new, "x", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(new, path)


def names(machines):
    machines = sorted(machines)
    return ", ".join(machines[:4]) + (f" and {len(machines) - 4} more" if len(machines) > 4 else "")


class Table:
    """The kernel's word on who serves."""

    def __init__(self):
        self.read_at, self.weights, self.seen = -1e9, {}, time.monotonic()
        self.absent = False  # the virtual service has not been there for ABSENT seconds

    def look(self, service, now):
        """Weights by address. Not more often than once a tick."""
        if now - self.read_at < TICK * 0.9:
            return
        if now - self.read_at > ABSENT:
            self.seen = now  # nobody looked for a while: what was seen then is no evidence
        self.read_at = now
        there, self.weights = False, {}
        wanted = f"{socket.inet_aton(service[0]).hex().upper()}:{service[1]:04X}"
        try:
            with open(TABLE, encoding="ascii") as lines:
                for line in lines:
                    words = line.split()
                    if words[:2] == ["TCP", wanted]:
                        there = True
                    elif there and words[:1] == ["->"]:
                        address = socket.inet_ntoa(bytes.fromhex(words[1].split(":")[0]))
                        self.weights[address] = int(words[3])
                    elif there:
                        break
        except FileNotFoundError:
            pass  # the kernel module is not even loaded
        if there:
            self.seen = now
        self.absent = now - self.seen >= ABSENT
        if not there and not self.absent:
            self.weights = None  # not known yet

    def serves(self, address):
        return self.weights is None or self.weights.get(address, 0) > 0


class Lease:
    """One connection, from its first word to its end."""

    def __init__(self, sock, address, now):
        self.socket, self.address = sock, address
        self.input, self.output = b"", b""
        self.heard = self.spoke = self.arrived = now
        self.kind = None  # nothing asked yet
        self.name = self.what = ""
        self.state = "new"  # waiting, granted, ending, over, closed
        self.holds = self.drained = False
        self.since = now  # when it asked first, here or elsewhere
        self.reason = None  # for waiting, as it was told


class Keeper:
    """All leases, and who is next."""

    def __init__(self, path):
        self.path = path
        self.config = read_config(path)
        self.epoll = select.epoll()
        self.leases = {}  # by file number
        self.lost = {}  # (kind, address): (name, until): broken off without an end
        self.taken, self.tried = {}, {}
        self.table = Table()
        self.blocked, self.blocked_since = None, time.monotonic()
        self.state = None  # as it was last written
        self.recall()
        self.changed = False  # something that may decide over a turn
        self.reload_asked = self.stop_asked = False
        self.listener = self.listen()

    def listen(self):
        """Opens the door, also before the network has our address: at boot this comes first."""
        listener = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        listener.bind(self.config["listen"])
        listener.listen(1024)
        self.epoll.register(listener, select.EPOLLIN)
        return listener

    def reload(self):
        try:
            config = read_config(self.path)
        except Wrong as error:
            say(f"the configuration is as before: {error}")
            return
        if config["listen"] != self.config["listen"]:
            raise Wrong(f"{self.path}: address or port has changed")  # systemd starts it anew
        self.config, self.changed = config, True
        say(f"configuration read: {len(config['realServers'])} real servers")

    # -- connections

    def accept(self):
        for _ in range(64):
            try:
                sock, (address, _) = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                say(f"a connection could not be taken: {error}")
                time.sleep(0.1)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self.leases) >= CONNECTIONS:
                sock.close()
                continue
            known = address in self.config["directors"] or address in self.config["realServers"]
            same = sum(1 for lease in self.leases.values() if lease.address == address)
            lease = self.leases[sock.fileno()] = Lease(sock, address, time.monotonic())
            self.epoll.register(sock, select.EPOLLIN)
            if not known or same >= PER_ADDRESS:
                self.close(lease, {"stranger": address})

    def send(self, lease, message):
        self.send_text(lease, json.dumps(message).encode() + b"\n")

    def send_text(self, lease, text):
        if lease.state == "closed":
            return
        lease.spoke = time.monotonic()
        waiting = bool(lease.output)
        lease.output += text
        if not waiting:
            self.flush(lease)
        if len(lease.output) > BUFFER:
            self.drop(lease, "does not read")

    def flush(self, lease):
        waiting = bool(lease.output)
        try:
            lease.output = lease.output[lease.socket.send(lease.output) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self.drop(lease, error.strerror)
            return
        if waiting:
            self.epoll.modify(lease.socket, select.EPOLLIN | (select.EPOLLOUT if lease.output else 0))

    def drop(self, lease, why=None):
        """Ends a connection. With a reason it was not asked for, and a turn stands for a while."""
        if lease.state == "closed":
            return
        if lease.state in ("granted", "ending") and why:
            self.lost[lease.kind, lease.address] = lease.name, time.monotonic() + GRACE
            say(f"{lease.name}: the connection broke in the middle of its turn ({why})")
        elif why and lease.state == "new":
            say(f"{lease.address}: {why}")
        lease.state = "closed"
        self.changed = True
        self.leases.pop(lease.socket.fileno(), None)
        lease.socket.close()  # which takes it out of the epoll set as well

    def close(self, lease, message):
        """The last word. The other side hangs up: if this one did, what it has not read would undo that."""
        lease.state, self.changed = "over", True
        self.send(lease, message)

    def go_on(self, number, events):
        lease = self.leases.get(number)
        if lease is None:
            return
        if events & select.EPOLLOUT:
            self.flush(lease)
        if lease.state == "closed" or not events & ~select.EPOLLOUT:
            return
        try:
            text = lease.socket.recv(BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            self.drop(lease, error.strerror)
            return
        if not text:
            self.drop(lease, "closed")
            return
        if lease.state != "over":  # who does not hang up then is cut off in the end
            lease.heard = time.monotonic()
        *lines, lease.input = (lease.input + text).split(b"\n")
        for line in lines:
            if lease.state in ("over", "closed"):
                return
            if line + b"\n" != BEAT_TEXT:
                self.take(lease, line)
        if len(lease.input) > LINE:
            self.drop(lease, "sent a line without an end")

    def take(self, lease, line):
        """One line of a machine."""
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("no object")
            if "ask" in message:
                self.ask(lease, message)
            elif "end" in message:
                self.end(lease, str(message["end"]), str(message.get("reason", ""))[:2000])
            elif "holds" in message:
                lease.holds, self.changed = message["holds"] is True, True
            elif "beat" not in message:
                raise ValueError("nothing that is known")
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            self.drop(lease, f"sent what cannot be read ({type(error).__name__}: {error})"[:200])

    def ask(self, lease, message):
        if lease.kind is not None:
            raise ValueError("asked twice")
        kind = message["ask"]
        if kind == "leave" and lease.address in self.config["directors"]:
            peer = self.config["directors"][lease.address]
            say(f"{peer} says that this is no director any more: gives the VIP away")
            put(STAND_DOWN, "1")
            self.close(lease, {"over": True})
            return
        if kind not in ("realServer", "director"):
            raise ValueError("asks for what is not known")
        if lease.address not in self.config[kind + "s"]:
            self.close(lease, {"stranger": lease.address})
            return
        now = time.monotonic()
        lease.kind, lease.name, lease.what = kind, str(message["name"])[:64], str(message["what"])[:500]
        lease.holds = message.get("holds") is True
        lease.since = now - min(max(float(message.get("waited", 0)), 0.0), 1e6)
        lease.state, self.changed = "waiting", True
        self.send(lease, {"heard": self.config["self"]})
        if message.get("holding") is True:
            self.grant(lease, "has its turn still")

    # -- turns

    def grant(self, lease, words="has its turn"):
        lease.state, lease.reason, self.changed = "granted", None, True
        self.lost.pop((lease.kind, lease.address), None)
        say(f"{lease.name}: {words}: {lease.what}")
        drain = self.config["drain"] if lease.kind == "realServer" else "readyz"
        self.send(lease, {"go": True, "drain": drain})
        if lease.kind == "director":
            lease.drained = True
            self.send(lease, {"drained": True})

    def end(self, lease, how, reason):
        if how not in ("done", "failed", "none"):
            raise ValueError("ends in a way that is not known")
        if lease.state != "granted" or how != "done":
            say(f"{lease.name}: its turn ended: {how}{' (' + reason + ')' if reason else ''}")
        if how == "failed":
            why = f"not tried: {lease.what} failed on {lease.name}: {reason}"
            for other in list(self.leases.values()):
                if (other.state, other.kind, other.what) == ("waiting", lease.kind, lease.what):
                    self.close(other, {"refused": why, "blocked": False})
        if how == "done" and lease.kind == "director" and lease.address != self.config["listen"][0]:
            self.mind_pause(over=True)
        if how == "done" and lease.state in ("granted", "ending") and lease.kind == "realServer":
            lease.state, self.changed = "ending", True
        else:
            self.close(lease, {"over": True})

    def wait(self, lease, reason):
        if reason != lease.reason:
            lease.reason = reason
            self.send(lease, {"wait": reason})

    def holders(self, kind):
        """Address to name of those who have a turn, and of those who lost their connection in it."""
        found = {address: name for (of, address), (name, _) in self.lost.items() if of == kind}
        for lease in self.leases.values():
            if lease.kind == kind and lease.state in ("granted", "ending"):
                found[lease.address] = lease.name
        return found

    def decide(self):
        """Whatever can be decided now."""
        now = time.monotonic()
        for key in [key for key, (_, until) in self.lost.items() if until <= now]:
            say(f"{self.lost.pop(key)[0]}: its turn ended: it did not come back")
        if self.needs_table():
            self.table.look(self.config["service"], now)
            self.mind_weights(now)
            for lease in list(self.leases.values()):
                if lease.state == "granted" and not lease.drained and not self.table.serves(lease.address):
                    lease.drained = True
                    self.send(lease, {"drained": True})
                elif lease.state == "ending" and self.is_back(lease.address):
                    say(f"{lease.name}: its turn ended: done")
                    self.close(lease, {"over": True})
        waiting = sorted((x for x in self.leases.values() if x.state == "waiting"), key=lambda x: x.since)
        if waiting:
            self.decide_real_servers([x for x in waiting if x.kind == "realServer"], now)
            self.decide_directors([x for x in waiting if x.kind == "director"], now)
        self.remember()

    def is_back(self, address):
        if self.table.absent or address not in self.config["realServers"]:
            return True  # nobody is sent there by this director, so there is nothing to come back to
        return self.table.weights is not None and self.table.weights.get(address, 0) > 0

    def decide_real_servers(self, waiting, now):
        out = {a: n for a, n in self.config["realServers"].items() if not self.table.serves(a)}
        holders = self.holders("realServer")
        blocked = frozenset(out) if out and not holders else None
        if blocked != self.blocked:
            self.blocked, self.blocked_since = blocked, now
        first = True
        for lease in waiting:
            if lease.state != "waiting":
                continue  # a grant before it has closed it
            if not self.table.serves(lease.address):
                self.grant(lease, "does not serve, and has its turn")
                holders[lease.address] = lease.name
                continue
            others = {**out, **holders}
            others.pop(lease.address, None)
            unknown = self.table.weights is None
            if first and not unknown and len(others) < self.config["maxUnavailable"]:
                self.grant(lease)
                holders[lease.address] = lease.name
                continue
            held = [n for a, n in holders.items() if a != lease.address]
            broken = [n for a, n in out.items() if a not in holders and a != lease.address]
            if blocked and now - max(self.blocked_since, lease.arrived) >= self.config["patience"]:
                self.close(lease, {"refused": self.hopeless(broken), "blocked": True})
                continue
            reasons = [f"{names(held)} {'has its' if len(held) == 1 else 'have their'} turn"] if held else []
            reasons += [f"{names(broken)} {'does' if len(broken) == 1 else 'do'} not serve"] if broken else []
            if unknown:
                reasons = ["the kernel has no virtual service at the moment"]
            self.wait(lease, "; ".join(reasons) or "others asked before")
            first = False

    def hopeless(self, broken):
        most = self.config["maxUnavailable"]
        return (
            f"for {self.config['patience']:g} s {names(broken)} {'has' if len(broken) == 1 else 'have'} been "
            f"out of service, and at most {most} may be; repair that, or raise service.maxUnavailable above "
            f"{len(broken)}"
        )

    def decide_directors(self, waiting, now):
        for lease in sorted(waiting, key=lambda x: (x.holds, x.since)):
            held = [name for address, name in self.holders("director").items() if address != lease.address]
            if held:
                self.wait(lease, f"{names(held)} has its turn")
            elif lease.holds and now - lease.since < STANDBY_FIRST:
                self.wait(lease, "it holds the VIP: the standby may go first")
            else:
                self.grant(lease)

    # -- what outlives this process

    def recall(self):
        try:
            with open(STATE, encoding="utf-8") as file:
                state = json.load(file)
            self.taken = {str(address): int(weight) for address, weight in state["taken"].items()}
            until = time.monotonic() + GRACE
            self.lost = {(str(kind), str(a)): (str(name), until) for kind, a, name in state["held"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            say(f"{STATE} is not believed: {type(error).__name__}: {error}")

    def remember(self):
        held = [[k, a, name] for k in ("director", "realServer") for a, name in self.holders(k).items()]
        state = json.dumps({"held": held, "taken": self.taken}, sort_keys=True)
        if state == self.state:
            return
        put(STATE, state)
        self.state = state

    # -- weights that are set from here

    def mind_weights(self, now):
        """Takes the weight of those who are to be drained, and gives it back when their turn has ended."""
        weights = self.table.weights
        if weights is None or (not self.taken and self.config["drain"] == "readyz"):
            return
        held = set(self.holders("realServer"))
        for lease in self.leases.values():
            if lease.kind != "realServer" or lease.state not in ("granted", "ending"):
                continue
            if lease.state == "ending":
                held.discard(lease.address)
            elif self.config["drain"] == "weight" and not lease.drained and weights.get(lease.address, 0) > 0:
                if self.taken.get(lease.address) != weights[lease.address]:
                    self.taken[lease.address] = weights[lease.address]
                    self.remember()  # before it is done: whoever is killed in between must give it back
                self.set_weight(lease.address, 0, now)
        for address in [a for a in self.taken if a not in held]:
            # Where keepalived has put it back or taken it out meanwhile, that stands.
            if weights.get(address) != 0 or self.set_weight(address, self.taken[address], now):
                del self.taken[address]

    def set_weight(self, address, weight, now):
        """Whether ipvsadm did it."""
        if now - self.tried.get((address, weight), -1e9) < BEAT:
            return False
        self.tried[address, weight] = now
        vip, first = self.config["service"]
        # The first one last: by it is seen whether it is done.
        for port in reversed(self.config["ports"]):
            command = ["ipvsadm", "-e", "-t", f"{vip}:{port}", "-r", f"{address}:{port}"]
            command += [self.config["forwarding"], "-w", str(weight)]
            try:
                pid = os.posix_spawnp(command[0], command, os.environ)
                code = os.waitpid(pid, 0)[1]
            except OSError as error:
                code = error.strerror
            # Of the others it may be out while its nginx is dead.
            if code and port == first:
                say(f"{' '.join(command)}: failed ({code}); tried again soon")
                return False
        say(f"{self.config['realServers'].get(address, address)}: weight {weight}")
        self.table.weights[address] = weight
        return True

    def mind_pause(self, over=False):
        """Whether this director stands down for a while; it does no more when that is over or has lasted."""
        try:
            with open(STAND_DOWN, encoding="ascii") as file:
                if file.read().strip() != PAUSED:
                    return False
                age = time.time() - os.fstat(file.fileno()).st_mtime
            if not over and 0 <= age < PAUSE:
                return True
            os.unlink(STAND_DOWN)
        except (OSError, ValueError):
            return False
        say(f"takes part in VRRP again after {age:.0f} s{'' if over else ': the other director had no turn'}")
        return False

    # -- the loop

    def needs_table(self):
        if self.taken:
            return True
        for lease in self.leases.values():
            waits = lease.state in ("waiting", "ending") or (lease.state == "granted" and not lease.drained)
            if waits and lease.kind == "realServer":
                return True
        return False

    def keep_up(self, now):
        """Beats, and the end of those who are silent."""
        for lease in list(self.leases.values()):
            if now - lease.heard > SILENCE:
                self.drop(lease, f"silent for {SILENCE:g} s")
            elif now - lease.spoke >= BEAT and lease.state not in ("new", "over"):
                self.send_text(lease, BEAT_TEXT)

    def run(self, watchdog, wakeup):
        self.epoll.register(wakeup, select.EPOLLIN)
        notify("READY=1")
        say(f"listening: {len(self.config['realServers'])} real servers")
        told, ticked = -1e9, -1e9
        while not self.stop_asked:
            if self.reload_asked:
                self.reload_asked = False
                self.reload()
            now = time.monotonic()
            if watchdog and now - told >= watchdog / 4:
                told = now
                notify("WATCHDOG=1")
            if self.leases or self.lost or self.taken:
                if self.changed or now - ticked >= TICK:
                    self.changed = False
                    self.decide()
                if now - ticked >= TICK:
                    ticked = now
                    self.keep_up(now)
                wait = TICK if self.needs_table() else min(1.0, BEAT / 2)
            else:
                wait = 3600.0
            if self.mind_pause():
                wait = min(wait, 1.0)
            if watchdog:
                wait = min(wait, watchdog / 4)
            for number, events in self.epoll.poll(wait):
                if number == self.listener.fileno():
                    self.accept()
                elif number == wakeup.fileno():
                    wakeup.recv(64)
                else:
                    self.go_on(number, events)


def main(arguments):
    if len(arguments) != 1:
        sys.stderr.write("usage: turns CONFIG.json\n")
        return 2
    try:
        keeper = Keeper(arguments[0])

        def note(number, _frame):
            if number == signal.SIGHUP:
                keeper.reload_asked = True
            else:
                keeper.stop_asked = True

        wakeup, written = socket.socketpair()
        for end in (wakeup, written):
            end.setblocking(False)
        signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)
        keeper.run(int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6, wakeup)
    except Wrong as error:
        sys.stderr.write(f"turns: {error}\n")
        return 1
    except OSError as error:
        what = f"{type(error).__name__}: {error}"
        if error.errno == errno.EADDRINUSE:
            what += "; something else listens on the port of the turns"
        sys.stderr.write(f"turns: starting anew: {what}\n")
        return 1
    return 0  # those who hold a turn notice, and ask the next process


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
