"""The cluster in network namespaces: made, broken and looked at. Runs as root in the benchmark's machine.

Every machine is a network namespace with one interface, eth0, whose other end (v-NAME) is on the bridge br0
of the virtual machine: `link` takes that end down, which is the unplugged cable. A director's programs
share a control group, which ends all of them at once.
"""

import argparse
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

BENCH = "/bench"
CLIENT = "192.168.1.50"
SOURCES = [
    f"192.168.1.{n}" for n in range(200, 250)
]  # the client's further addresses: one hashes to one real server
PREFIX = 16


def emit(**row):
    """One result, for the program outside."""
    print(json.dumps(row), flush=True)


def note(text):
    """One line about the progress."""
    print(json.dumps({"note": text}), flush=True)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def load(name):
    """A cluster's description, as the program outside sent it."""
    return json.loads(read(f"{BENCH}/specs/{name}.json"))


def options(**defaults):
    """The command line's numbers, --NAME N each."""
    parser = argparse.ArgumentParser()
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser.parse_args()


def wait(what, seconds, test):
    """Until it is true; ends the program when that takes too long."""
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            sys.exit(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def ip(lines, netns=None):
    """Several commands of ip(8) in one process: each process costs some 30 ms under emulation."""
    command = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True)


def inside(netns, *command):
    """A command line for a program in a network namespace."""
    return ["nsenter", f"--net=/run/netns/{netns}", *command]


def inside_this(netns, work, *arguments):
    """Calls `work` in a network namespace, in a process of its own, and returns what it returns (as JSON)."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with open(f"/run/netns/{netns}") as space:
                ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0)
            with open(write_end, "w") as out:
                json.dump(work(*arguments), out)
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end) as answer:
        text = answer.read()
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"{work.__name__} failed in {netns}")
    return json.loads(text)


def sysctls(values):
    return "".join(f"{name} = {value}\n" for name, value in values.items())


def mac(address):
    """Fixed, so that a machine that comes back is the same to its neighbours."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def link(name, up):
    """Plugs a machine's cable in or out, without a process: the moment is known to the millisecond."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        device = f"v-{name}".encode()
        flags = struct.unpack("16sH", fcntl.ioctl(sock, 0x8913, struct.pack("16sH", device, 0)))[1]
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH", device, flags | 1 if up else flags & ~1))


def make_bridge():
    """The network; what an earlier program left of it goes first."""
    left = [name for name in os.listdir("/sys/class/net") if name == "br0" or name.startswith("v-")]
    ip([f"link delete {name}" for name in left])
    subprocess.run(["rm", "-rf", f"{BENCH}/state"], check=True)
    # Named namespaces of this run alone: this program has a mount namespace of its own.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)
    ip(
        [
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"address add 192.168.0.1/{PREFIX} dev br0",
            "link set br0 up",
        ]
    )


def make_namespaces(machines, vip=None):
    """machines: (name, addresses) of each. vip: an address that all of them get on lo."""
    ip(
        [
            line
            for name, addresses in machines
            for line in (
                f"netns add {name}",
                f"link add v-{name} type veth peer name eth0 address {mac(addresses[0])} netns {name}",
                f"link set v-{name} master br0 up",
            )
        ]
    )
    for name, addresses in machines:
        ip(
            [
                "link set lo up",
                *([f"address add {vip}/32 dev lo label lo:vip scope host"] if vip else []),
                *(f"address add {address}/{PREFIX} dev eth0" for address in addresses),
                "link set eth0 up",
            ],
            netns=name,
        )


def compile_programs():
    for name in ("responder", "pulse", "flood"):
        subprocess.run(["tcc", "-o", f"{BENCH}/{name}", f"{BENCH}/{name}.c"], check=True)


class Director:
    """One director: a namespace, its programs and what they say."""

    def __init__(self, spec, index):
        self.spec = spec
        self.name = spec["directors"][index]["name"]
        self.address = spec["directors"][index]["address"]
        self.state = f"{BENCH}/state/{self.name}"
        self.process = None

    def make(self):
        """A fresh namespace: the kernel of a machine that was switched on knows nothing of before."""
        make_namespaces([(self.name, [self.address])])

    def start(self):
        """Its programs, with the texts that our renderers made."""
        subprocess.run(["rm", "-rf", self.state], check=True)
        os.makedirs(f"{self.state}/etc/cosyvoice-lvs")
        files = next(d["files"] for d in self.spec["directors"] if d["name"] == self.name)
        for path, text in files.items():
            write(self.state + path, text)
        write(f"{self.state}/sysctl.conf", sysctls(self.spec["directorSysctls"]))
        self.process = subprocess.Popen([f"{BENCH}/director", self.name], stdin=subprocess.DEVNULL)

    def kill(self):
        """kill -9 for everything that it runs, at the same instant."""
        write(f"/sys/fs/cgroup/{self.name}/cgroup.kill", "1")
        self.process.wait()

    def power_cut(self):
        """The cable first, or the kernel would say good-bye (FIN, RST) for the processes."""
        link(self.name, False)
        self.kill()

    def remove(self):
        # The interface by itself: connections that nobody answers keep the namespace for a minute or two.
        ip([f"link delete v-{self.name}", f"netns delete {self.name}"])

    def log(self):
        try:
            return read(f"{self.state}/keepalived.log")
        except FileNotFoundError:
            return ""

    def vrrp_state(self):
        """MASTER, BACKUP, FAULT, or None before its first word."""
        said = re.findall(r"Entering (\w+) STATE", self.log())
        return said[-1] if said else None

    def pid(self):
        return int(read(f"{self.state}/keepalived.pid"))

    def table(self):
        """The addresses in the kernel's table that get new connections, with their weights."""
        try:
            text = read(f"/proc/{self.pid()}/net/ip_vs")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return {}
        servers = {}
        for number, weight in re.findall(r"-> ([0-9A-F]{8}):\w+ +\w+ +(\d+)", text):
            if weight != "0":
                servers[socket.inet_ntoa(bytes.fromhex(number))] = int(weight)
        return servers

    def cpu(self):
        """Seconds of processor that its processes have used."""
        return int(re.search(r"usage_usec (\d+)", read(f"/sys/fs/cgroup/{self.name}/cpu.stat"))[1]) / 1e6


def start_directors(spec, count=2):
    """Both directors serving; the one that holds the VIP comes first."""
    directors = [Director(spec, index) for index in range(count)]
    for director in directors:
        director.make()
        director.start()
    everybody = len(spec["realServers"])
    for director in directors:
        wait(f"{director.name} serves", 120, lambda d=director: len(d.table()) == everybody)
    wait("one holds the VIP", 30, lambda: any(d.vrrp_state() == "MASTER" for d in directors))
    return sorted(directors, key=lambda d: d.vrrp_state() != "MASTER")


class RealServers:
    """The pool: a namespace each, the VIP as on a real machine, and a program that answers."""

    def __init__(self, spec, together=False, program=None):
        """together: one process answers for all, and one process puts the VIP on each, not five.

        program: from a name to what runs on that one instead of the responder.
        """
        self.spec = spec
        self.processes = {}
        machines = [(s["name"], s["address"]) for s in spec["realServers"]]
        if together:
            # New namespaces begin with the first one's values.
            write(f"{BENCH}/state/rs.conf", sysctls(spec["realServerSysctls"]))
            subprocess.run(["sysctl", "-q", "-p", f"{BENCH}/state/rs.conf"], check=True)
        make_namespaces(
            [(name, [address]) for name, address in machines], vip=spec["vip"] if together else None
        )
        names = [name for name, _ in machines]
        port = str(spec["port"])
        if together:
            self.spawn("all", [f"{BENCH}/responder", port, *(f"{name}@{name}" for name in names)])
            return
        write(f"{BENCH}/state/rs.conf", sysctls(spec["realServerSysctls"]))
        for name in names:
            subprocess.run(inside(name, "sysctl", "-q", "-p", f"{BENCH}/state/rs.conf"), check=True)
            vip = [f"{BENCH}/programs/vip-on-lo", "up", spec["vip"], spec["forwarding"]]
            subprocess.run(inside(name, *vip), check=True)
            command = program(name) if program else [f"{BENCH}/responder", port, name]
            self.spawn(name, inside(name, *command))

    def spawn(self, name, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        process.stdout.readline()
        self.processes[name] = process

    def wedge(self, name, on):
        """From now on it accepts connections and never answers, or answers again."""
        self.processes[name].send_signal(signal.SIGUSR1 if on else signal.SIGUSR2)

    def names(self):
        return [s["name"] for s in self.spec["realServers"]]

    def address(self, name):
        return next(s["address"] for s in self.spec["realServers"] if s["name"] == name)


class Pulse:
    """The client: a new connection every few milliseconds, and which of them were lost. See pulse.c."""

    LIMIT = (
        900  # ms: below the second after which a lost SYN is repeated, so that a lost attempt counts as lost
    )
    SLOW = 100  # ms

    def __init__(self, address, port, interval_ms, seconds, netns="client", sources=SOURCES):
        self.interval = interval_ms / 1000
        numbers = [interval_ms * 1000, seconds * 1000, self.LIMIT, self.SLOW]
        command = [f"{BENCH}/pulse", address, str(port), *(str(int(n)) for n in numbers), *sources]
        self.process = subprocess.Popen(
            inside(netns, *command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def finish(self):
        """Waits for its end. Failures as (start s, source, server, reason); counts and latencies in ms."""
        text = self.process.communicate()[0]
        if self.process.returncode != 0:
            sys.exit("pulse failed")
        failures, slow = [], 0
        for line in text.splitlines():
            words = line.split()
            if words[0] == "F":
                failures.append((int(words[1]) / 1e6, words[2], words[3], words[4]))
            elif words[0] == "S":
                slow += 1
            else:
                numbers = [int(word) for word in words[1:]]
        keys = ("attempts", "failed", "skipped", "p50", "p90", "p99", "max", "late")
        summary = dict(zip(keys, numbers[:3] + [n / 1000 for n in numbers[3:]]))
        summary["slow"] = slow
        return failures, summary

    def outage(self, failures):
        """From the first lost attempt to the end of the interval of the last one, ms. 0: none was lost."""
        if not failures:
            return 0.0
        starts = [start for start, *_ in failures]
        return round((max(starts) - min(starts) + self.interval) * 1000, 1)


def busy():
    """Seconds of processor that the virtual machine has used, all cores: by kind."""
    ticks = os.sysconf("SC_CLK_TCK")
    numbers = [int(word) / ticks for word in read("/proc/stat").split("\n")[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = numbers
    return {
        "user": user + nice,
        "system": system,
        "softirq": irq + softirq,
        "all": sum(numbers) - numbers[3] - numbers[4],
    }
