#!/usr/bin/python3 -IS
"""Frees a director from a keepalived that hangs. Installed on directors.

    vrrp-guard /etc/cosyvoice-lvs/vrrp-guard.json

The configuration: {"interface", "label", "vip", "address", "peer", "virtualRouterId", "advertInterval": s,
                    "multicast": bool, "routed": bool, "services": [{"port", "door": bool, "quorum"}],
                    "table": null | {"forwarding": "DR" | "TUN" | "NAT", "trackDirectory",
                    "servers": [{"name", "address", "weight"}]}}

Two things are watched, because keepalived itself watches neither (no version up to 2.4.3 has a watchdog):

1. A keepalived that hangs (SIGSTOP, a deadlock) keeps the VIP while the peer takes it, and both answer for
   it. The guard listens for adverts of the peer. A peer that stands by sends none, so this costs nothing. One
   is heard while this machine has the VIP: then the guard looks at what leaves. No advert of this director in
   three intervals (0.5 s at the least) means that its keepalived does not do its work. Then the VIP is taken
   off, keepalived is killed, and systemd starts it anew, as a backup. A director that serves alone is left
   alone: as long as nobody else has the VIP, a hung keepalived does no harm (the kernel forwards), and taking
   the VIP away would. What leaves is seen by a packet socket, which has the kernel copy each packet: it is
   only there while there is a doubt.
   One that hangs while it stands by is found out when it is needed: for ten intervals (3 s at the least) it
   has not taken the VIP, and the peer does not say that it has it. It is killed, and the next one takes it.

2. With the health poller: a checker process that hangs no longer brings the poller's track files into the
   kernel's table. If they differ for three seconds on end, the checker alone is killed; keepalived starts
   another at once, which leaves the table as it finds it, so nobody notices. For the same reason it does not
   take out what died meanwhile (keepalived only removes what it put there): the guard brings the table in
   line. A keepalived that crashed leaves such a table as well.

Time is only counted while the guard itself was awake: after a machine stood still, or had no processor time
to give, nobody is judged by it.
"""

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TICK = 0.5  # s between two looks when all is well
STALL = 3.0  # s that the table may differ from the track files
KILL_AGAIN = 30.0  # s between two kills of the same kind; the table is put right all the same
RESPAWN = 10.0  # s that keepalived may take for a new checker

VRRP = 112
GROUP = "224.0.0.18"
CGROUP = "/sys/fs/cgroup/system.slice/keepalived.service/cgroup.procs"
CHECKER_PIDS = ("/run/checkers.pid", "/run/keepalived/checkers.pid")

SIOCGIFFLAGS, SIOCGIFADDR = 0x8913, 0x8915
IFF_UP_AND_RUNNING = 0x41
RTM_DELADDR, NLM_F_REQUEST, NLM_F_ACK, IFA_LOCAL = 21, 1, 4, 2
SO_ATTACH_FILTER, SOL_PACKET, PACKET_STATISTICS = 26, 263, 6
ETH_P_ALL, ETH_P_IP, PACKET_OUTGOING = 3, 0x0800, 4


class Wrong(Exception):
    """The configuration cannot be used."""


class Config:
    """The configuration, checked as far as a mistake would make the guard act on a healthy director."""

    def __init__(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            self.interface = str(config["interface"])
            self.label = str(config["label"])
            self.vip, self.address, self.peer = (
                socket.inet_aton(config[key]) for key in ("vip", "address", "peer")
            )
            self.router = int(config["virtualRouterId"])
            self.advert = float(config["advertInterval"])
            self.multicast = bool(config["multicast"])
            self.routed = bool(config["routed"])
            self.services = [(int(s["port"]), bool(s["door"]), int(s["quorum"])) for s in config["services"]]
            table = config["table"]
            if table is not None:
                self.forwarding = {"DR": "-g", "TUN": "-i", "NAT": "-m"}[table["forwarding"]]
                self.directory = str(table["trackDirectory"])
                self.servers = [(s["name"], str(s["address"]), int(s["weight"])) for s in table["servers"]]
                for _, address, _ in self.servers:
                    socket.inet_aton(address)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Wrong(f"{path}: {type(error).__name__}: {error}") from error
        if not self.advert > 0:
            raise Wrong(f"{path}: advertInterval is {self.advert:g} and must be more than 0")
        self.follows = table is not None


def say(text):
    print(text, flush=True)


def notify(text):
    """Tells systemd (sd_notify). Never waits for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                pass  # it is said again with the next beat


# -- who has the VIP: decisions

CALM, DOUBT, HUNG, ASLEEP = "calm", "doubt", "hung", "asleep"


class Judge:
    """Says from what was seen whether keepalived hangs. No clock, no sockets: looks are given to it."""

    def __init__(self, advert):
        self.limit = max(3 * advert, 0.5)
        self.step = self.limit / 5  # between two looks in doubt
        self.patience = max(10 * advert, 3.0)
        self.verdict, self.before, self.held = CALM, None, False
        self.silent = self.alone = 0.0  # s in doubt without an advert of this director; of the peer
        self.both = 0.0  # s in doubt
        self.nobody = 0.0  # s without the VIP and without an advert of the peer
        self.told = False

    def look(self, now, holds, peer, own):
        """A look at the monotonic time `now`.

        holds: this machine has the VIP; None: it could not, its interface or keepalived is not up. peer, own:
        adverts since the last look; own counts only in doubt, for nobody listens before.
        """
        # Who slept longer than it wanted to has not watched all that time.
        awake = 2 * (self.step if self.verdict == DOUBT else TICK)
        passed = 0.0 if self.before is None else min(max(now - self.before, 0.0), awake)
        self.before = now
        if not holds:
            self.verdict, self.held, self.told = CALM, False, False
            self.nobody = 0.0 if peer or holds is None else self.nobody + passed
            if self.nobody >= self.patience:
                self.verdict = ASLEEP
            return self.verdict
        self.nobody = 0.0
        # What came before the VIP did were the words of the master that was.
        if not self.held:
            self.verdict, self.held = CALM, True
            return self.verdict
        if self.verdict == CALM:
            if peer:
                self.verdict, self.silent, self.alone, self.both = DOUBT, 0.0, 0.0, 0.0
            return self.verdict
        self.silent = 0.0 if own else self.silent + passed
        self.alone = 0.0 if peer else self.alone + passed
        self.both += passed
        if self.alone >= self.limit:
            self.verdict, self.told = CALM, False
        elif self.silent >= self.limit:
            self.verdict = HUNG
        return self.verdict

    def split(self):
        """True once when both directors have been sending adverts for much longer than an election takes."""
        if self.told or self.verdict != DOUBT or self.both < 10 * self.limit:
            return False
        self.told = True
        return True


# -- the pool: decisions


def wanted_weight(weight, load, down):
    """What keepalived makes of a real server's two track files: its weight, or None for out of the pool."""
    return None if down else max(weight + load, 0)


def differences(wanted, table):
    """Where the kernel's table is not as wanted: {address: (wanted, found)}, None for not there."""
    return {a: (w, table.get(a)) for a, w in wanted.items() if w != table.get(a)}


class Follower:
    """Says what has differed for too long. No clock, no files: looks are given to it."""

    def __init__(self):
        self.since, self.before = {}, None  # s of difference seen, by real server (port and address)

    def look(self, now, found):
        """Takes the differences at the monotonic time `now`; returns those that stayed for too long."""
        passed = 0.0 if self.before is None else min(max(now - self.before, 0.0), 3 * TICK)
        self.before = now
        self.since = {server: self.since.get(server, -passed) + passed for server in found}
        return {s: found[s] for s, seconds in self.since.items() if seconds >= STALL}

    def forget(self):
        self.since, self.before = {}, None


def parse_table(text, vip, port):
    """{address: weight} of the real servers in the text of /proc/net/ip_vs; None without the service."""
    service, servers = ["TCP", f"{vip.hex().upper()}:{port:04X}"], None
    for line in text.splitlines():
        words = line.split()
        if words[0] != "->":
            if servers is not None:
                break
            servers = {} if words[:2] == service else None
        elif servers is not None:
            servers[socket.inet_ntoa(bytes.fromhex(words[1].split(":")[0]))] = int(words[3])
    return servers


# -- the network


def packet_filter(sock, *instructions):
    """Attaches a classic BPF program. A test that fails jumps to the end, which drops the packet.

    instructions: (code, value) loads, (value, "is") and (value, "is not") test what was loaded.
    """
    program = []
    for index, (first, second) in enumerate(instructions):
        end = len(instructions) - index  # to the line after "take it"
        if second == "is":
            program.append((0x15, 0, end, first))
        elif second == "is not":
            program.append((0x15, end, 0, first))
        else:
            program.append((first, 0, 0, second & 0xFFFFFFFF))
    program += [(0x06, 0, 0, 1), (0x06, 0, 0, 0)]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer))
    )


WORD, BYTE, BYTE_AT_X, X_IP_HEADER, ANCILLARY = 0x20, 0x30, 0x50, 0xB1, -0x1000


def number(address):
    return int.from_bytes(address, "big")


class Peer:
    """The adverts of the other director that reach this one."""

    def __init__(self, config):
        self.socket = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, VRRP
        )
        # Time to live: it has crossed no router. keepalived itself asks for that with multicast only.
        unrouted = [] if config.routed else [(BYTE, 8), (255, "is")]
        packet_filter(
            self.socket,
            (WORD, 12), (number(config.peer), "is"),  # source
            *unrouted,
            (X_IP_HEADER, 0),
            (BYTE_AT_X, 1), (config.router, "is"),
            (BYTE_AT_X, 2), (0, "is not"),  # priority 0 is the last word of one that goes
        )  # fmt: skip
        # Room for a few: one says it all, and the standby would have to read every one.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, config.interface.encode() + b"\0")
        if config.multicast:
            index = socket.if_nametoindex(config.interface)
            group = socket.inet_aton(GROUP) + socket.inet_aton("0.0.0.0") + struct.pack("@i", index)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)

    def count(self):
        """Adverts since the last call, as far as there was room."""
        adverts = 0
        while True:
            try:
                self.socket.recv(1)
            except BlockingIOError:
                return adverts
            adverts += 1


class Tap:
    """The adverts of this director that leave the interface. Only counted, never read."""

    def __init__(self, config):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        packet_filter(
            self.socket,
            (WORD, ANCILLARY + 0), (ETH_P_IP, "is"),
            (WORD, ANCILLARY + 4), (PACKET_OUTGOING, "is"),
            (BYTE, 9), (VRRP, "is"),
            (WORD, 12), (number(config.address), "is"),
            (X_IP_HEADER, 0),
            (BYTE_AT_X, 1), (config.router, "is"),
        )  # fmt: skip
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.socket.bind((config.interface, ETH_P_ALL))

    def count(self):
        """Adverts since the last call: the kernel starts anew with every question."""
        return struct.unpack("@II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[0]

    def close(self):
        self.socket.close()


class Address:
    """The VIP on this machine's interface."""

    def __init__(self, config):
        self.config = config
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def held(self):
        """Whether it is there, or None when the interface does not work."""
        request = struct.pack("@16s24x", self.config.interface.encode())
        flags = struct.unpack_from("@H", fcntl.ioctl(self.socket, SIOCGIFFLAGS, request), 16)[0]
        if flags & IFF_UP_AND_RUNNING != IFF_UP_AND_RUNNING:
            return None
        request = struct.pack("@16sHH4s16x", self.config.label.encode(), socket.AF_INET, 0, self.config.vip)
        try:
            return fcntl.ioctl(self.socket, SIOCGIFADDR, request)[20:24] == self.config.vip
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            raise

    def remove(self):
        """Takes it off. OSError when the kernel refuses."""
        body = struct.pack("@BBBBI", socket.AF_INET, 32, 0, 0, socket.if_nametoindex(self.config.interface))
        body += struct.pack("@HH4s", 8, IFA_LOCAL, self.config.vip)
        header = struct.pack("@IHHII", 16 + len(body), RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
            link.settimeout(2)
            link.send(header + body)
            error = -struct.unpack_from("@i", link.recv(4096), 16)[0]
        if error not in (0, errno.EADDRNOTAVAIL):
            raise OSError(error, os.strerror(error))


# -- keepalived


class Keepalived:
    """The processes of keepalived.service."""

    def processes(self):
        try:
            with open(CGROUP, encoding="ascii") as file:
                return [int(line) for line in file]
        except FileNotFoundError:  # the unit is not running
            return []

    def checker(self):
        """The process that keeps the kernel's table, or None."""
        running = self.processes()
        for path in CHECKER_PIDS:
            try:
                with open(path, encoding="ascii") as file:
                    process = int(file.read())
            except (FileNotFoundError, ValueError):
                continue
            if process in running:
                return process
        return None

    def kill(self, processes):
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_all(self):
        """Kills until nobody is left: who dies may just have started another. Returns how many there were."""
        first = self.processes()
        for _ in range(50):
            left = self.processes()
            if not left:
                break
            self.kill(left)
            time.sleep(0.01)
        return len(first)


def ipvsadm(*arguments):
    """Runs ipvsadm; says so when it fails."""
    try:
        result = subprocess.run(
            ["/usr/sbin/ipvsadm", *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"ipvsadm {' '.join(arguments)}: {error}")
        return
    if result.returncode:
        said = " ".join((result.stderr or result.stdout).split())
        say(f"ipvsadm {' '.join(arguments)}: {said}")


# -- the guard


class Guard:
    def __init__(self, config):
        self.config = config
        self.address, self.peer, self.tap = Address(config), Peer(config), None
        self.index = socket.if_nametoindex(config.interface)
        self.keepalived = Keepalived()
        self.judge, self.follower = Judge(config.advert), Follower()
        self.may_kill = self.may_wake = 0.0
        self.killed = None  # the checker that was killed, and when, until there is another
        self.stop_asked = False

    def watch_vip(self):
        """One look at the adverts, and what follows from it."""
        holds, peer = self.address.held(), self.peer.count()
        if holds is False and not peer and not self.keepalived.processes():
            holds = None
        verdict = self.judge.look(time.monotonic(), holds, peer, self.tap.count() if self.tap else 0)
        if verdict == CALM and self.tap:
            self.tap.close()
            self.tap = None
        elif verdict == DOUBT and self.tap is None:
            self.tap = Tap(self.config)
        elif verdict == HUNG:
            self.free()
        elif verdict == ASLEEP:
            self.wake()
        if self.judge.split():
            vip, peer = socket.inet_ntoa(self.config.vip), socket.inet_ntoa(self.config.peer)
            say(f"both directors have {vip} and send adverts: do those of this director reach {peer}?")

    def free(self):
        """Takes the VIP off and lets systemd start keepalived anew."""
        self.address.remove()
        killed = self.clear()
        say(
            f"took {socket.inet_ntoa(self.config.vip)} off: the peer sends adverts, this director none for "
            f"{self.judge.silent:.1f} s; killed {killed} processes of keepalived"
        )
        self.judge = Judge(self.config.advert)
        self.tap.close()
        self.tap = None

    def wake(self):
        """Lets systemd start a keepalived anew that should have taken the VIP."""
        now = time.monotonic()
        if now < self.may_wake:
            return
        self.may_wake = now + KILL_AGAIN
        vip, killed = socket.inet_ntoa(self.config.vip), self.clear()
        say(f"nobody has {vip}, and keepalived does not take it: killed {killed} processes of keepalived")

    def clear(self):
        """Kills keepalived while this machine has no VIP, and returns how many processes that were."""
        killed = self.keepalived.kill_all()
        # Or keepalived would go on with the table of the one before, and never remove what died meanwhile.
        for port, _, _ in self.config.services:
            ipvsadm("-D", "-t", self.service(port))
        return killed

    def service(self, port):
        return f"{socket.inet_ntoa(self.config.vip)}:{port}"

    def read(self, name):
        """The number in a track file, as keepalived reads it: a missing one counts as 0."""
        try:
            with open(os.path.join(self.config.directory, name), encoding="ascii") as file:
                return int(file.read() or 0)
        except FileNotFoundError:
            return 0

    def drift(self):
        """The differences between the track files and the kernel's tables, by port and address."""
        try:
            states = [
                (address, weight, self.read(name), self.read(name + ".down"), self.read(name + ".door"))
                for name, address, weight in self.config.servers
            ]
            with open("/proc/net/ip_vs", encoding="ascii") as file:
                text = file.read()
        except (FileNotFoundError, ValueError):
            return {}
        found = {}
        for port, door, quorum in self.config.services:
            wanted = {
                address: wanted_weight(weight, load, down or (door and closed))
                for address, weight, load, down, closed in states
            }
            table = parse_table(text, self.config.vip, port)
            # No service: keepalived is not up. Less than the quorum: the sorry server is there instead.
            if table is None or sum(weight or 0 for weight in wanted.values()) < quorum:
                continue
            found.update({(port, a): both for a, both in differences(wanted, table).items()})
        return found

    def watch_pool(self):
        """One look at the kernel's table, and what follows from it."""
        now = time.monotonic()
        running = self.keepalived.processes()
        checker = self.keepalived.checker()
        if self.killed is not None and (not running or checker not in (None, self.killed[0])):
            self.killed = None
        if self.killed is not None and now - self.killed[1] > RESPAWN:
            say(f"keepalived has not started a checker for {RESPAWN:g} s: killed all of it")
            self.keepalived.kill_all()
            self.killed = None
        late = self.follower.look(now, self.drift())
        if not late or not running:
            return
        told = ", ".join(f"{a}:{port} {w} instead of {f}" for (port, a), (w, f) in late.items())
        say(f"the pool has not followed the track files for {STALL:g} s (weight of {told}; None: not there)")
        if checker and now >= self.may_kill:
            say(f"killed the checker, process {checker}: keepalived starts another")
            self.keepalived.kill([checker])
            self.may_kill, self.killed = now + KILL_AGAIN, (checker, now)
        for (port, address), (weight, found) in late.items():
            server = ("-t", self.service(port), "-r", f"{address}:{port}")
            if weight is None:
                ipvsadm("-d", *server)
            elif found is not None:
                ipvsadm("-e", *server, self.config.forwarding, "-w", str(weight))
            # What is missing is put there by the new checker.
        self.follower.forget()

    def run(self, watchdog):
        """Until it is told to stop. OSError when what it watches has changed under it: it starts anew."""
        waiter = select.poll()
        waiter.register(self.peer.socket, select.POLLIN)
        beat = pool = 0.0
        notify("READY=1")
        while not self.stop_asked:
            now = time.monotonic()
            if now >= beat:
                beat = now + min(watchdog / 4 if watchdog else 1.0, 1.0)
                notify("WATCHDOG=1")
                if socket.if_nametoindex(self.config.interface) != self.index:
                    raise OSError(errno.ENODEV, f"{self.config.interface} is another interface now")
            if self.config.follows and now >= pool:
                pool = now + 2 * TICK
                self.watch_pool()
            self.watch_vip()
            if self.judge.verdict == DOUBT:
                time.sleep(self.judge.step)
            elif self.judge.held:
                waiter.poll(TICK * 1000)  # a peer that stands by says nothing: the first word wakes
            else:
                time.sleep(TICK)


def main(arguments):
    if len(arguments) != 1:
        sys.stderr.write("usage: vrrp-guard CONFIG.json\n")
        return 2
    try:
        guard = Guard(Config(arguments[0]))

        def stop(_number, _frame):
            guard.stop_asked = True

        for number_of in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number_of, stop)
        guard.run(int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6)
    except Wrong as error:
        sys.stderr.write(f"vrrp-guard: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"vrrp-guard: starting anew: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
