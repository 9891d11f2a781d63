#!/usr/bin/python3 -IS
"""Writes what node_exporter cannot know into a file that it reads (its textfile collector).

    exporter director /etc/cosyvoice-lvs/exporter.json   on a director: keepalived, the VIP, our units
    exporter gpu INTERVAL                                on a real server: nvidia-smi and the kernel's log
    exporter door INTERVAL URL                           on a real server: nginx (its stub_status)
    exporter sentence /etc/cosyvoice-lvs/sentence.json   on the monitoring machine: a sentence through the VIP

The configuration of `director`: {"interval": s, "vip", "units": [name], "realServers": [{"name", "address"}]}
and of `sentence`: {"interval": s, "vip", "port", "sentence", "timeout": s,
                    "https": null or {"serverName", "certificate": path, "key": path or null}}.

director   keepalived is told by a signal to write what it knows (JSON, 2.2.7 and later), which only one
           that works does: when nothing comes, keepalived_up is 0 and there is no state. Whether this
           machine has the VIP, and how often it got it, is the kernel's word: keepalived counts from 0
           again when it is started again, as it is in a failover that somebody asks for.
gpu        The names are those of the public nvidia_gpu_exporter. Without nvidia-smi there is no file. XID
           errors are in the kernel's log only, and there from its start on.
door       The names are those of the public nginx-prometheus-exporter.
sentence   Through the VIP, of this minute, past every cache. 1 only for a sound that is one.

A file is replaced whole, and goes when the program ends: what is no longer read must not be taken for true.
Exit status: 2 for a wrong call or configuration, else it runs until it is told to end.
"""

import errno
import http.client
import importlib.machinery
import importlib.util
import json
import os
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import urllib.request

METRICS = "/run/cosyvoice-metrics"
KEEPALIVED_PID = "/run/keepalived.pid"
KEEPALIVED_JSON = "/tmp/keepalived.json"
ANSWER = 2.0  # s that keepalived has to write what it was asked for
OUTPUT = 2**20  # bytes that are heard of what a program says; then it is cut off, and fails
NVIDIA_SMI_LIMIT = 10  # s; one that hangs is a GPU that is lost


class Text:
    """Prometheus' text format, a family at a time."""

    def __init__(self):
        self.families = {}

    def add(self, name, value, labels=(), kind="gauge", about=""):
        """One sample; the kind and the words count the first time that the name comes."""
        lines = self.families.setdefault(name, [f"# HELP {name} {about or name}", f"# TYPE {name} {kind}"])
        quoted = ",".join(f'{key}="{escape(text)}"' for key, text in dict(labels).items())
        lines.append(f"{name}{{{quoted}}} {value:.17g}" if quoted else f"{name} {value:.17g}")

    def __str__(self):
        return "".join(f"{line}\n" for lines in self.families.values() for line in lines)


def escape(text):
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


# Programs that did not end, by their names: one that waits for a lost device cannot be killed.
stuck = {}


def command(*argv, limit=10.0):
    """Exit status and standard output of a program; (None, "") when it is not there or does not end."""
    before = stuck.get(argv[0])
    if before is not None and before.poll() is None:
        return None, ""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None, ""
    said, end = b"", time.monotonic() + limit
    with process.stdout as pipe:
        while len(said) < OUTPUT and select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            part = os.read(pipe.fileno(), 65536)
            if not part:
                break
            said += part
    try:
        status = process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        stuck[argv[0]] = process
        return None, ""
    return status, said.decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------- a director

COUNTERS = {
    "advert_rcvd": ("advertisements_received", "VRRP adverts heard"),
    "advert_sent": ("advertisements_sent", "VRRP adverts sent"),
    "become_master": ("become_master", "Times this director took the VIP"),
    "release_master": ("release_master", "Times this director gave the VIP away"),
    "pri_zero_rcvd": ("priority_zero_received", "Adverts by which the other director stepped back"),
    "pri_zero_sent": ("priority_zero_sent", "Adverts by which this director stepped back"),
}


class Director:
    def __init__(self, config):
        self.vip, self.units, self.servers = config["vip"], config["units"], config["realServers"]
        self.arrivals = Arrivals(self.vip)
        self.signal = None

    def read(self):
        text = Text()
        self.keepalived(text)
        held = holds(self.vip)
        if held is not None:
            text.add("lvs_vip_held", held, about="1 when this machine has the VIP")
        taken, about = self.arrivals.count(), "Times this machine got the VIP, since this program runs"
        text.add("lvs_vip_taken_total", taken, kind="counter", about=about)
        text.add("lvs_expected_real_servers", len(self.servers), about="Real servers in the configuration")
        for server in self.servers:
            labels = {"server": server["name"], "remote_address": server["address"]}
            text.add("lvs_real_server_info", 1, labels, about="1; the name that belongs to an address")
        self.unit_states(text)
        return text

    def keepalived(self, text):
        instances = self.instances()
        text.add("keepalived_up", instances is not None, about="1 when keepalived says what it knows")
        for instance in instances or ():
            data, stats = instance["data"], instance["stats"]
            labels = {"iname": data["iname"], "intf": data["ifp_ifname"], "vrid": data["vrid"]}
            about = "State of VRRP: 0 init, 1 backup, 2 master, 3 fault"
            text.add("keepalived_vrrp_state", data["state"], labels, about=about)
            for key, (name, words) in COUNTERS.items():
                text.add(f"keepalived_{name}_total", stats[key], labels, "counter", words)

    def instances(self):
        """What keepalived knows of its VRRP instances, or None when it does not say."""
        try:
            with open(KEEPALIVED_PID, encoding="ascii") as file:
                pid = int(file.read())
            if self.signal is None:
                self.signal = int(command("keepalived", "--signum=JSON")[1])
            before = written(KEEPALIVED_JSON)
            # While it starts, the signal would end it (seen with 2.2.7): the VIP would move for a reading.
            if not all(takes(one, self.signal) for one in [pid, *children(pid)]):
                return None
            os.kill(pid, self.signal)
        except (OSError, ValueError):
            return None
        end = time.monotonic() + ANSWER
        while time.monotonic() < end:
            time.sleep(0.05)
            if written(KEEPALIVED_JSON) == before:
                continue
            try:
                found = json.loads(read_as_roots(KEEPALIVED_JSON))
                return [i for i in found if i["data"]["iname"] and i["stats"]["become_master"] >= 0]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # it is still being written
        return None

    def unit_states(self, text):
        _, said = command("systemctl", "show", "--property=Id,ActiveState,NRestarts", "--", *self.units)
        for block in said.strip().split("\n\n"):
            state = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "Id" not in state:
                continue
            labels = {"unit": state["Id"]}
            active = state.get("ActiveState") in ("active", "reloading")
            text.add("lvs_unit_active", active, labels, about="1 when a unit that a director needs runs")
            restarts = state.get("NRestarts", "")
            if restarts.isdigit():
                about = "Times systemd started it again by itself"
                text.add("lvs_unit_restarts_total", int(restarts), labels, "counter", about)


class Arrivals:
    """How often this machine got an IPv4 address. The kernel keeps the news until somebody asks."""

    GROUP = 0x10  # RTMGRP_IPV4_IFADDR
    NEW, GONE, LOCAL = 20, 21, 2  # RTM_NEWADDR, RTM_DELADDR, IFA_LOCAL

    def __init__(self, address):
        self.address, self.times = socket.inet_aton(address), 0
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self.socket.bind((0, self.GROUP))
        self.there = bool(holds(address))

    def count(self):
        while True:
            try:
                news, (sender, _) = self.socket.recvfrom(65536)
            except BlockingIOError:
                return self.times
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than it keeps: what came then is lost
                    raise
                continue
            if sender == 0:
                self.read(news)

    def read(self, news):
        while len(news) >= 16:
            length, kind = struct.unpack_from("=IH", news)
            if length < 16:
                return
            if kind in (self.NEW, self.GONE) and self.address in local_addresses(news[24:length]):
                # It is told again when something about it changes.
                self.times += kind == self.NEW and not self.there
                self.there = kind == self.NEW
            news = news[length + 3 & ~3 :]


def local_addresses(attributes):
    """The values of IFA_LOCAL among a message's attributes."""
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if length < 4:
            return
        if kind == Arrivals.LOCAL:
            yield attributes[4:length]
        attributes = attributes[length + 3 & ~3 :]


def takes(pid, number):
    """Whether a process has made arrangements for a signal whose default is to end it."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        masks = [
            int(line.split()[1], 16) for line in file if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:"))
        ]
    return any(mask >> (number - 1) & 1 for mask in masks)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def written(path):
    """What changes when a file is written again."""
    try:
        found = os.stat(path, follow_symlinks=False)
        return found.st_ino, found.st_mtime_ns
    except OSError:
        return None


def read_as_roots(path):
    """The text of root's own file where others may put theirs. OSError says that it is not root's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, encoding="utf-8") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(f"{path} is not root's own file")
        return file.read()


def holds(address, table="/proc/net/fib_trie"):
    """Whether the kernel takes an address for one of this machine's own; None when it does not say."""
    try:
        with open(table, encoding="ascii") as file:
            lines = [line.strip() for line in file]
    except OSError:
        return None
    leaf = f"|-- {address}"
    return any(line == leaf and lines[i + 1] == "/32 host LOCAL" for i, line in enumerate(lines[:-1]))


# ------------------------------------------------------------------------------------------------------ a GPU

# Field of nvidia-smi, name, factor to the name's unit, words.
GPU_FIELDS = (
    ("utilization.gpu", "utilization_gpu_ratio", 0.01, "Part of the time in which a kernel ran"),
    ("utilization.memory", "utilization_memory_ratio", 0.01, "Part of the time in which memory was used"),
    ("memory.used", "memory_used_bytes", 2**20, "Memory that is taken"),
    ("memory.total", "memory_total_bytes", 2**20, "Memory that there is"),
    ("temperature.gpu", "temperature_gpu", 1, "Temperature of the core in degrees Celsius"),
    ("power.draw", "power_draw_watts", 1, "Power that it takes"),
    ("enforced.power.limit", "enforced_power_limit_watts", 1, "Power that it may take"),
)
GPU_IDENTITY = ("uuid", "pci.bus_id", "index", "name", "driver_version")
XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+)")


class Gpu:
    def __init__(self, kernel_log="/dev/kmsg"):
        self.kernel_log, self.log = kernel_log, None
        self.xids = {}  # (bus, number): (how often, when last)

    def read(self):
        query = ",".join([*GPU_IDENTITY, *(field for field, *_ in GPU_FIELDS)])
        code, said = command(
            "nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", limit=NVIDIA_SMI_LIMIT
        )
        if code is None and not any(
            os.access(os.path.join(directory, "nvidia-smi"), os.X_OK) for directory in os.get_exec_path()
        ):
            return None
        text = Text()
        about = "Exit status of nvidia-smi; -1 when it did not end"
        text.add("nvidia_smi_command_exit_code", -1 if code is None else code, about=about)
        cards = {}
        for line in said.splitlines() if code == 0 else ():
            values = [value.strip() for value in line.split(",")]
            if len(values) != len(GPU_IDENTITY) + len(GPU_FIELDS):
                continue
            uuid, bus, index, name, driver = values[: len(GPU_IDENTITY)]
            uuid = uuid.removeprefix("GPU-").lower()
            try:
                known = bus_key(bus)
            except ValueError:
                continue  # "[Unknown Error]": the others are told of all the same
            cards[known] = uuid
            labels = {"uuid": uuid, "index": index, "name": name, "driver_version": driver, "pci_bus_id": bus}
            text.add("nvidia_smi_gpu_info", 1, labels, about="1; what GPU it is")
            for (_, metric, factor, words), value in zip(GPU_FIELDS, values[len(GPU_IDENTITY) :]):
                try:
                    text.add(f"nvidia_smi_{metric}", float(value) * factor, {"uuid": uuid}, about=words)
                except ValueError:
                    pass  # "[N/A]": this GPU does not know
        self.read_xids()
        for (bus, number), (count, last) in sorted(self.xids.items()):
            labels = {"uuid": cards.get(bus, bus), "xid": number}
            text.add("nvidia_smi_xid_errors_total", count, labels, "counter", "Errors in the kernel's log")
            text.add(
                "nvidia_smi_xid_last_timestamp_seconds", last, labels, about="When the last one was logged"
            )
        return text

    def read_xids(self):
        """Counts what the kernel's log has got since the last time, from its start on the first time."""
        try:
            if self.log is None:
                self.log = os.open(self.kernel_log, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return
        boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
        while True:
            try:
                record = os.read(self.log, 8192).decode("utf-8", "replace")
            except BrokenPipeError:
                continue  # the oldest records were overwritten; the next read goes on with what is there
            except OSError:
                return
            if not record:
                return
            head, _, message = record.partition(";")
            found = XID.search(message)
            if found is None:
                continue
            when = boot + int(head.split(",")[2]) / 1e6
            key = (bus_key(found[1]), found[2])
            self.xids[key] = (self.xids.get(key, (0, 0.0))[0] + 1, when)


def bus_key(bus):
    """One form for 00000000:01:00.0 (nvidia-smi) and 0000:01:00 (the kernel)."""
    domain, number, device = bus.lower().split(".")[0].split(":")
    return f"{int(domain, 16):x}:{number}:{device}"


# -------------------------------------------------------------------------------------------------- its nginx

# Line of stub_status, names of the numbers in it with kind and words.
DOOR_LINES = (
    (r"Active connections: (\d+)", (("connections_active", "gauge", "Connections that are open"),)),
    (
        r"server accepts handled requests\s+(\d+) (\d+) (\d+)",
        (
            ("connections_accepted", "counter", "Connections that were taken"),
            ("connections_handled", "counter", "Connections that were not dropped for want of room"),
            ("http_requests_total", "counter", "Requests"),
        ),
    ),
    (
        r"Reading: (\d+) Writing: (\d+) Waiting: (\d+)",
        (
            ("connections_reading", "gauge", "Connections of which a request is being read"),
            ("connections_writing", "gauge", "Connections that wait for an answer or get it"),
            ("connections_waiting", "gauge", "Connections without a request"),
        ),
    ),
)


class Door:
    def __init__(self, url):
        self.url = url

    def read(self):
        text = Text()
        try:
            # No proxy of the environment.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(self.url, timeout=5) as answer:
                page = answer.read(4096).decode("ascii", "replace")
        except (OSError, ValueError, http.client.HTTPException):
            page = ""
        found = [re.search(pattern, page) for pattern, _ in DOOR_LINES]
        text.add("nginx_up", all(found), about="1 when nginx says what it does")
        for match, (_, numbers) in zip(found, DOOR_LINES):
            for value, (name, kind, words) in zip(match.groups() if all(found) else (), numbers):
                text.add(f"nginx_{name}", int(value), kind=kind, about=words)
        return text


# ------------------------------------------------------------------------------------------------- a sentence


class Sentence:
    def __init__(self, config):
        self.config = config
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "verify")
        loader = importlib.machinery.SourceFileLoader("verify", path)
        self.verify = importlib.util.module_from_spec(importlib.util.spec_from_loader("verify", loader))
        loader.exec_module(self.verify)

    def read(self):
        config, text = self.config, Text()
        start = time.monotonic()
        try:
            way = config["port"], secured(config["https"])
            node, sound = self.verify.speak(config["vip"], way, config["sentence"], None, config["timeout"])
            fault = self.verify.fault_of_sound(sound)
        except (OSError, ValueError) as error:
            node, fault = "", str(error)
        took = time.monotonic() - start
        if fault is not None:
            print(f"no sentence after {took:.1f} s: {node} {fault}", flush=True)
        text.add("tts_probe_success", fault is None, about="1 when a sentence came through the VIP")
        text.add("tts_probe_duration_seconds", took, about="Time from the question to the last of the sound")
        text.add("tts_probe_timestamp_seconds", time.time(), about="When it was asked for")
        if node:
            text.add("tts_probe_served_by_info", 1, {"server": node}, about="1; who spoke")
        return text


def secured(https):
    """What verify takes for HTTPS, read anew: certificate and key change without a word. ValueError: none."""
    if https is None:
        return None
    import hashlib
    import ssl

    with open(https["certificate"], encoding="ascii") as file:
        chain = file.read()
    first = chain[chain.index(ssl.PEM_HEADER) : chain.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
    key = None
    if https["key"]:
        with open(https["key"], encoding="ascii") as file:
            key = file.read().strip()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    return {"serverName": https["serverName"], "fingerprint": fingerprint, "key": key}


# --------------------------------------------------------------------------------------------------- the loop


def publish(path, text):
    """Puts the file in place, or takes it away when there is nothing to say."""
    if text is None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        return
    new = f"{path}.new"
    try:
        os.unlink(new)  # of one that was killed, or somebody's who is not us
    except FileNotFoundError:
        pass
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(str(text))
        os.fchmod(descriptor, 0o644)
    os.replace(new, path)


def run(reader, path, interval):
    def end(*_):
        publish(path, None)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while True:
        start = time.monotonic()
        publish(path, reader.read())
        time.sleep(max(0.1, interval - (time.monotonic() - start)))


def main(argv):
    try:
        verb, given, *more = argv
        if verb == "gpu" and not more:
            reader, interval = Gpu(), float(given)
        elif verb == "door":
            (url,) = more
            reader, interval = Door(url), float(given)
        else:
            with open(given, encoding="utf-8") as file:
                config = json.load(file)
            reader, interval = (
                {"director": Director, "sentence": Sentence}[verb](config),
                float(config["interval"]),
            )
    except (ValueError, KeyError, OSError) as error:
        print(f"exporter: {error!r}. To do: see the text at the top of this program.", file=sys.stderr)
        return 2
    run(reader, os.path.join(METRICS, f"{verb}.prom"), interval)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
