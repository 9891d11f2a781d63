"""The turns, as they are kept (turns.py) and taken (turn.py): real processes on the loopback interface, and a
made-up kernel table."""

import contextlib
import importlib.util
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import AS_NOBODY, NOBODY, needs_network_and_mounts, needs_root

HOST = pathlib.Path(__file__).resolve().parent.parent
VIP, PORT = "192.0.2.100", 7860
SCALE = 0.1  # of all times of the two programs
DIRECTORS = ("127.0.1.1", "127.0.1.2")
IPVSADM = r"""
import json, pathlib, sys
root, words = pathlib.Path(ROOT), sys.argv[1:]
with open(root / "ipvsadm", "a") as log:
    log.write(" ".join(words) + "\n")
set = root / "set"
weights = json.loads(set.read_text()) if set.exists() else {}
weights[words[words.index("-r") + 1].split(":")[0]] = int(words[words.index("-w") + 1])
set.write_text(json.dumps(weights))
"""


def free_port():
    """A port that no connection gets by chance: below those that the kernel gives out."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


def load_turn(monkeypatch, root):
    """The program turn as a module, on a machine below `root`."""
    monkeypatch.setenv("COSYVOICE_LVS_ROOT", str(root))
    spec = importlib.util.spec_from_file_location("turn", HOST / "turn.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(weights):
    lines = ["IP Virtual Server version 1.2.1 (size=4096)", "Prot LocalAddress:Port Scheduler Flags"]
    lines += ["  -> RemoteAddress:Port Forward Weight ActiveConn InActConn"]
    if weights is not None:
        lines += [f"TCP  {socket.inet_aton(VIP).hex().upper()}:{PORT:04X} mh  "]
        for address, weight in weights.items():
            target = f"{socket.inet_aton(address).hex().upper()}:{PORT:04X}"
            lines += [f"  -> {target}      Route   {weight}      0          0         "]
    return "\n".join(lines) + "\n"


class Node:
    """A real server: its service, which follows the drain file, and its clients."""

    def __init__(self, number, folder):
        self.name, self.address, self.root = f"rs-{number}", f"127.0.2.{number}", folder / f"rs-{number}"
        self.root.mkdir()
        self.drain = self.root / "run/cosyvoice-lvs/drain"
        self.port, self.listener = free_port(), None
        self.jobs, self.deaf, self.healthy = 0, False, True
        self.start()

    @property
    def draining(self):
        return self.drain.exists() and not self.deaf

    @property
    def weight(self):
        """What the directors' tables say of it; None: not in them."""
        if self.listener is None or not self.healthy:
            return None
        return 0 if self.draining else 1

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.since = time.time()
        threading.Thread(target=self.serve, args=(self.listener,), daemon=True).start()

    def stop(self):
        listener, self.listener = self.listener, None
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def restart(self):
        self.stop()
        time.sleep(0.3)
        self.start()

    def serve(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    if connection.recv(4096):
                        queue = {"waiting": max(0, self.jobs - 1), "running": min(1, self.jobs), "limit": 20}
                        body = json.dumps({"queue": queue, "since": self.since}).encode()
                        status = b"503 X" if self.draining or not self.healthy else b"200 OK"
                        connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n" + body)


class Director:
    """The daemon, and a kernel table that follows the nodes like a poller and keepalived."""

    def __init__(self, number, folder, port):
        self.name, self.address, self.root = (
            f"director-{number}",
            DIRECTORS[number - 1],
            folder / f"d{number}",
        )
        self.port, self.process, self.before = port, None, []
        (self.root / "proc/net").mkdir(parents=True)
        (self.root / "etc/cosyvoice-lvs").mkdir(parents=True)
        (self.root / "run/cosyvoice-lvs/track").mkdir(parents=True)
        self.config = self.root / "etc/cosyvoice-lvs/turns.json"
        self.follows, self.shown = True, {}
        (self.root / "bin").mkdir()
        program = self.root / "bin/ipvsadm"
        program.write_text(f"#!{sys.executable} -IS\n" + IPVSADM.replace("ROOT", repr(str(self.root))))
        program.chmod(0o755)

    def configure(self, nodes, **more):
        config = {
            "address": self.address,
            "port": self.port,
            "vip": VIP,
            "servicePorts": [PORT],
            "forwarding": "DR",
            "drain": "readyz",
            "maxUnavailable": 1,
            "patience": 600,
            "directors": [{"name": f"director-{i + 1}", "address": a} for i, a in enumerate(DIRECTORS)],
            "realServers": [{"name": n.name, "address": n.address} for n in nodes],
        }
        self.config.write_text(json.dumps({**config, **more}))

    def show(self, weights):
        """Puts a table in the kernel."""
        self.shown = weights
        file = self.root / "proc/net/ip_vs"
        file.with_suffix(".new").write_text(table(weights))
        os.replace(file.with_suffix(".new"), file)

    def holds_vip(self, holds):
        text = (
            f"     |-- {VIP}\n        /32 host LOCAL\n"
            if holds
            else "     |-- 127.0.0.1\n        /32 host LOCAL\n"
        )
        (self.root / "proc/net/fib_trie").write_text(text)

    def launch(self, scale=SCALE):
        environment = {
            **os.environ,
            "COSYVOICE_LVS_ROOT": str(self.root),
            "COSYVOICE_LVS_TIME_SCALE": str(scale),
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
        }
        with open(self.root / "log", "a") as log:
            command = [*self.before, sys.executable, "-IS", HOST / "turns.py", self.config]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def start(self):
        self.launch()
        self.up()

    def up(self):
        wait(lambda: "listening" in self.said() or self.process.poll() is not None)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def said(self):
        return (self.root / "log").read_text()


class Client:
    """The program turn, with the applier's hands."""

    def __init__(self, arguments, root, scale):
        environment = {
            **os.environ,
            "COSYVOICE_LVS_ROOT": str(root),
            "COSYVOICE_LVS_TIME_SCALE": str(scale),
            "PATH": f"{root}/bin:{os.environ['PATH']}",
        }
        command = [sys.executable, "-IS", HOST / "turn.py", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
        )
        self.lines, self.times = [], {}
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.times.setdefault(line.split()[0], time.monotonic())
            self.lines.append(line.rstrip("\n"))

    @property
    def went(self):
        return "go" in self.lines

    def go(self, within=15.0):
        wait(lambda: self.went or self.process.poll() is not None, within, self)
        assert self.went, self.lines
        return self

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.close()

    def done(self):
        self.tell("done")
        return self.end(0)

    def end(self, code, within=20.0):
        assert self.process.wait(within) == code, self.lines
        wait(lambda: self.process.stdout.closed or not alive(self), 1)
        return self.lines

    def heard(self, text, within=10.0):
        wait(lambda: any(text in line for line in self.lines), within, self)

    def __repr__(self):
        return repr(self.lines)


def alive(client):
    time.sleep(0.05)  # for its last line to be read
    return False


def wait(condition, within=10.0, about=""):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, about
        time.sleep(0.01)


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.port, self.scale = free_port(), SCALE
        self.nodes, self.clients = [], []
        self.directors = [Director(number, folder, self.port) for number in (1, 2)]
        self.stopping = False
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        while not self.stopping:
            for director in self.directors:
                set_here = director.root / "set"
                weights = {n.address: n.weight for n in self.nodes if n.weight is not None}
                if set_here.exists():
                    with contextlib.suppress(ValueError):
                        weights.update(
                            {a: w for a, w in json.loads(set_here.read_text()).items() if a in weights}
                        )
                if director.follows and weights != director.shown:
                    director.show(weights)
            time.sleep(0.03)

    def begin(self, nodes=3, directors=(1, 2), **config):
        self.nodes = [Node(number, self.folder) for number in range(1, nodes + 1)]
        for director in self.directors:
            director.configure(self.nodes, **config)
            director.holds_vip(director is self.directors[0])
            if director.name[-1] in map(str, directors):
                director.launch(self.scale)
        for director in self.directors:
            if director.process:
                director.up()
        wait(lambda: all(len(d.shown) == nodes for d in self.directors))
        return self.nodes

    def targets(self):
        return ",".join(f"{d.address}:{self.port}" for d in self.directors)

    def ask(self, node, what="release abc", drain_limit=20):
        arguments = ["real-server", node.name, "--address", node.address, "--directors", self.targets()]
        arguments += ["--what", what, "--drain-limit", drain_limit, "--port", node.port]
        self.clients.append(Client(arguments, node.root, self.scale))
        return self.clients[-1]

    def ask_director(self, director, what="keepalived.conf", pool=None, directors=None, drain_limit=20):
        """pool and directors: those after the change. None: the same as before."""
        pool = self.nodes if pool is None else pool
        targets = ",".join(f"{d.address}:{self.port}" for d in directors or self.directors)
        arguments = ["director", director.name, "--address", director.address, "--directors", targets]
        arguments += ["--what", what, "--vip", VIP, "--port", PORT, "--services", PORT]
        arguments += ["--drain-limit", drain_limit, "--pool", ",".join(n.address for n in pool)]
        self.clients.append(Client(arguments, director.root, self.scale))
        return self.clients[-1]

    def end(self):
        self.stopping = True
        for client in self.clients:
            client.process.kill()
            client.process.wait()
        for director in self.directors:
            if director.process:
                director.process.kill()
                director.process.wait()


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.end()


def together(clients):
    return sum(1 for client in clients if client.went and client.process.poll() is None)


# -- real servers


def test_drained_changed_and_back_in_this_order(cluster):
    a, _, _ = cluster.begin()
    a.jobs = 3
    client = cluster.ask(a)
    wait(a.drain.exists)
    assert a.drain.read_text() == "deployment: release abc\n"
    assert (a.drain.stat().st_mode & 0o777, a.drain.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    client.heard("say drains: 3 in the queue")
    wait(lambda: all(d.shown.get(a.address) == 0 for d in cluster.directors))
    time.sleep(0.4)
    assert not client.went
    a.jobs = 1
    client.heard("say drains: 1 in the queue")
    assert not client.went
    a.jobs = 0
    client.go()
    time.sleep(0.4)
    assert a.drain.exists()  # until the old process is gone
    a.stop()
    wait(lambda: not a.drain.exists())
    client.tell("done")
    time.sleep(0.5)
    assert client.process.poll() is None  # it is not back yet
    a.start()
    assert client.end(0)[-1] == "go"
    assert cluster.directors[1].shown[a.address] == 1


def test_what_does_not_drain_in_time_is_changed_all_the_same(cluster):
    a = cluster.begin()[0]
    a.jobs = 2
    client = cluster.ask(a, drain_limit=0.7).go()
    assert "say goes on with 2 in the queue: 0.7 s are over" in client.lines
    client.tell("failed it does not start")
    client.end(0)
    assert not a.drain.exists()


def test_one_at_a_time_first_come_first_served(cluster):
    nodes = cluster.begin()
    clients = []
    for node in nodes:
        clients.append(cluster.ask(node))
        wait(lambda: clients[-1].lines or clients[-1].went, about=clients)
    for index, (node, client) in enumerate(zip(nodes, clients)):
        client.go()
        assert together(clients) == 1
        if index == 0:
            clients[2].heard("say waits for its turn: rs-1 has its turn")
        node.restart()
        client.done()
    assert clients[0].times["go"] < clients[1].times["go"] < clients[2].times["go"]


def test_two_at_a_time(cluster):
    nodes = cluster.begin(4, maxUnavailable=2)
    clients = [cluster.ask(node) for node in nodes]
    wait(lambda: together(clients) == 2)
    time.sleep(0.5)
    assert together(clients) == 2
    first = [(n, c) for n, c in zip(nodes, clients) if c.went]
    for node, client in first:
        node.restart()
        client.done()
    wait(lambda: sum(1 for c in clients if c.went) == 4)


def test_a_node_that_does_not_serve_has_its_turn_at_once_and_counts(cluster):
    a, b, c = cluster.begin()
    first = cluster.ask(a).go()
    b.healthy = False
    wait(lambda: b.address not in cluster.directors[0].shown)
    second = cluster.ask(b).go()
    assert together([first, second]) == 2
    third = cluster.ask(c)
    third.heard("waits for its turn: rs-1, rs-2 have their turn")
    a.restart()
    first.done()
    third.heard("waits for its turn: rs-2 has its turn")
    b.stop()
    b.healthy = True
    b.start()
    second.done()
    third.go()


def test_a_failure_refuses_those_who_wait_for_the_same(cluster):
    a, b, c = cluster.begin()
    first = cluster.ask(a).go()
    same, other = cluster.ask(b), cluster.ask(c, what="service's environment")
    same.heard("waits")
    other.heard("waits")
    first.tell("failed the unit did not come up")
    assert same.end(1)[-1] == "no not tried: release abc failed on rs-1: the unit did not come up"
    assert first.end(0)[-1] == "go"
    other.go()
    other.done()
    cluster.ask(b).go().done()  # who asks later starts clean


def test_one_that_does_not_come_back_has_failed(cluster):
    cluster.scale = 0.05
    a, b, _ = cluster.begin()
    first = cluster.ask(a).go()
    second = cluster.ask(b)
    second.heard("waits")
    cluster.directors[1].follows = False
    a.restart()
    first.tell("done")
    lines = first.end(1, within=20)
    assert lines[-1].startswith("no rs-1 is not back in the pool of director-2 after 3 s; see its /readyz")
    assert second.end(1)[-1].startswith(
        "no not tried: release abc failed on rs-1: rs-1 is not back in the pool"
    )


def test_a_broken_node_blocks_and_waiting_ends_with_what_to_do(cluster):
    a, b, _ = cluster.begin(patience=1.5)
    b.healthy = False
    wait(lambda: all(b.address not in d.shown for d in cluster.directors))
    began = time.monotonic()
    client = cluster.ask(a)
    client.heard("say waits for its turn: rs-2 does not serve")
    assert client.end(1)[-1] == (
        "no for 1.5 s rs-2 has been out of service, and at most 1 may be; repair that, or raise "
        "service.maxUnavailable above 1"
    )
    assert time.monotonic() - began > 1.4
    assert not a.drain.exists()


# -- ways out


@pytest.mark.parametrize("way", ["eof", "SIGTERM", "SIGKILL"])
def test_every_way_out_ends_the_drain_and_the_lease(cluster, way):
    a, b, _ = cluster.begin()
    a.jobs = int(way == "SIGTERM")
    first = cluster.ask(a)
    wait(a.drain.exists)
    if way != "SIGTERM":
        first.go()
    second = cluster.ask(b)
    second.heard("rs-1 has its turn")
    first.process.send_signal(signal.SIGHUP)
    if way == "eof":
        first.process.stdin.close()
    else:
        first.process.send_signal(getattr(signal, way))
    first.end(-9 if way == "SIGKILL" else 1)
    wait(lambda: not a.drain.exists(), 2)
    if way == "eof":  # after "go" it may be half-way
        assert second.end(1)[-1] == "no not tried: release abc failed on rs-1: interrupted"
    else:
        second.go()


def test_a_drain_of_somebody_else_stays(cluster):
    a = cluster.begin()[0]
    a.drain.parent.mkdir(parents=True)
    a.drain.write_text("repairs\n")
    wait(lambda: cluster.directors[0].shown.get(a.address) == 0)
    client = cluster.ask(a).go()
    a.restart()
    lines = client.done()
    assert lines[-1].startswith("say rs-1 stays out of the pool: ")
    assert a.drain.read_text() == "repairs\n"


def test_a_restart_between_two_looks_is_seen(cluster):
    a = cluster.begin()[0]
    client = cluster.ask(a).go()
    a.since += 1
    wait(lambda: not a.drain.exists(), 3)
    client.done()


def test_a_service_that_is_down_is_not_drained(cluster):
    a = cluster.begin()[0]
    a.stop()
    client = cluster.ask(a).go()
    assert not a.drain.exists()
    a.start()
    client.done()


def test_a_service_that_does_not_know_the_drain_file(cluster):
    a = cluster.begin()[0]
    a.deaf = True
    client = cluster.ask(a).go()
    assert any("does not follow the drain file" in line for line in client.lines)


def test_a_director_that_goes_on_sending_stops_the_change(cluster):
    a = cluster.begin()[0]
    cluster.directors[1].follows = False
    client = cluster.ask(a)
    line = client.end(1, within=20)[-1]
    assert line.startswith("no director-2 still sends requests to rs-1 3 s after its drain began; see what")
    assert not a.drain.exists()


def test_the_caller_may_say_that_the_drain_is_over(cluster):
    a = cluster.begin()[0]
    client = cluster.ask(a).go()
    client.process.stdin.write("changed\n")
    wait(lambda: not a.drain.exists(), 2)
    client.done()


# -- directors that are not there


def test_without_any_director_the_change_begins_at_once(cluster):
    a = cluster.begin(directors=())[0]
    began = time.monotonic()
    client = cluster.ask(a).go()
    assert time.monotonic() - began < 4
    assert sum("goes on without it" in line for line in client.lines) == 2
    client.done()


BESIDE = r"""
import socket, sys, time
what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
while what == "look":
    with socket.socket() as sock:
        sock.settimeout(0.1)
        sock.connect_ex((address, port))
    time.sleep(0.1)
if what == "keep":
    with socket.create_server((address, port)) as server:
        while True:
            sock, _ = server.accept()
            sock.recv(4096)
            sock.sendall(b'{"heard":"director-1"}\n{"go":true}\n')
            time.sleep(0.1)
"""


@needs_network_and_mounts
@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("", ["go"]),
        # Another one than the directors looks, or they look at something else.
        ("python look.py look 192.0.2.101 7860 --from-elsewhere", ["go"]),
        ("python look.py look 192.0.2.101 7861", ["go"]),
        ("python look.py look 192.0.2.101 7860", ["asks them again", "no the directors send requests"]),
        (
            "python look.py look 192.0.2.101 7860 & sleep 3; python look.py keep 192.0.2.11 7946",
            ["asks them again", "go"],
        ),
        # They are being removed.
        ("timeout 4 python look.py look 192.0.2.101 7860", ["asks them again", "go"]),
    ],
)
def test_where_directors_send_requests_a_change_does_not_begin_without_them(tmp_path, beside, said):
    (tmp_path / "look.py").write_text(BESIDE)
    if "--from-elsewhere" in beside:
        beside = "ip address add 192.0.2.12/24 dev there; ip address del 192.0.2.11/24 dev there; " + beside
    script = f"""
        set -eu
        mount -t tmpfs none /run
        ip link add here type veth peer name there
        unshare -n sleep 60 & other=$!
        sleep 0.2
        ip link set there netns $other
        ip link set lo up; ip link set here up; ip address add 192.0.2.101/24 dev here
        nsenter -t $other -n sh -c 'ip link set there up; ip address add 192.0.2.11/24 dev there'
        cat >beside <<'EOF'
        {beside.replace("python", sys.executable)}
EOF
        nsenter -t $other -n sh beside &
        sleep 0.5
        sleep 30 | timeout 40 {sys.executable} -IS {HOST / "turn.py"} real-server rs-1 --what made-up \
            --directors 192.0.2.11:7946 --port 7860 --drain-limit 1 || true
        """
    with subprocess.Popen(
        ["unshare", "-rnm", "--fork", "--pid", "--mount-proc", "--kill-child", "sh", "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSYVOICE_LVS_TIME_SCALE": "0.2"},
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line.startswith(("go", "no ")):
                break
        process.kill()
    for words in said:
        assert any(words in line for line in lines), lines
    assert len(said) == sum("again" in line or line.startswith(("go", "no ")) for line in lines), lines


def test_one_director_is_enough(cluster):
    nodes = cluster.begin(directors=(2,))
    clients = [cluster.ask(node) for node in nodes[:2]]
    wait(lambda: together(clients) == 1)
    clients[0].heard(f"say director 127.0.1.1:{cluster.port} does not answer (Connection refused)")
    time.sleep(0.5)
    assert together(clients) == 1


def test_a_director_that_hangs_is_left_out_and_one_that_comes_back_knows_who_has_a_turn(cluster):
    a, b, _ = cluster.begin()
    one = cluster.directors[0]
    first = cluster.ask(a).go()
    one.process.send_signal(signal.SIGSTOP)
    second = cluster.ask(b)
    second.heard(f"say director 127.0.1.1:{cluster.port} does not answer (no answer): goes on without it")
    second.heard("waits for its turn: rs-1 has its turn")  # the other one knows
    first.heard("director director-1 is lost (", 15)
    one.process.send_signal(signal.SIGCONT)
    wait(lambda: "rs-1: has its turn still: release abc" in one.said())
    a.restart()
    first.done()
    second.go()


def test_a_restart_of_the_daemon_in_the_middle_of_a_turn(cluster):
    cluster.scale = 0.2
    nodes = cluster.begin(directors=(1,))
    first = cluster.ask(nodes[0]).go()
    others = []
    for node in nodes[1:]:
        others.append(cluster.ask(node))
        others[-1].heard("rs-1 has its turn")
    one = cluster.directors[0]
    nodes[0].restart()  # back in the table, and not yet done: only the lease says that it is not its end
    wait(lambda: nodes[0].weight == 1 and one.shown.get(nodes[0].address) == 1)
    first.process.send_signal(signal.SIGSTOP)  # it is slow to come back
    one.kill()
    time.sleep(0.1)
    one.launch(cluster.scale)
    wait(lambda: one.said().count("listening") == 2)
    time.sleep(0.4)
    assert together(others) == 0
    first.process.send_signal(signal.SIGCONT)
    wait(lambda: "rs-1: has its turn still" in one.said())
    time.sleep(1.5)
    assert together(others) == 0
    first.done()
    others[0].go()  # whoever asked first before the restart
    assert together(others) == 1


def test_the_virtual_service_is_away_for_a_moment(cluster):
    a = cluster.begin(directors=(1,))[0]
    one = cluster.directors[0]
    one.follows = False
    one.show(None)
    client = cluster.ask(a)
    client.heard("waits for its turn: the kernel has no virtual service at the moment")
    assert not client.went
    one.follows = True
    client.go()
    assert a.drain.exists()
    client.tell("failed x")
    client.end(0)
    one.follows = False
    one.show(None)
    cluster.ask(a).go()  # nobody is sent here by that director


# -- weights


@pytest.mark.parametrize(("forwarding", "flag"), [("TUN", "-i"), ("NAT", "-m")])
def test_the_daemon_keeps_the_forwarding_method(cluster, forwarding, flag):
    a = cluster.begin(1, directors=(1,), drain="weight", forwarding=forwarding)[0]
    cluster.ask(a).go()
    log = (cluster.directors[0].root / "ipvsadm").read_text()
    assert log == f"-e -t {VIP}:{PORT} -r {a.address}:{PORT} {flag} -w 0\n"


def test_the_daemon_sets_the_weight_at_every_port(cluster):
    a = cluster.begin(1, directors=(1,), drain="weight", servicePorts=[PORT, 443])[0]
    client = cluster.ask(a).go()
    root = cluster.directors[0].root
    ports = [line.split(":")[1].split()[0] for line in (root / "ipvsadm").read_text().splitlines()]
    assert ports == ["443", str(PORT)]
    client.done()


def test_the_table_of_a_director_counts_the_connections_to_all_ports(tmp_path, monkeypatch):
    turn = load_turn(monkeypatch, tmp_path)
    vip = socket.inet_aton(VIP).hex().upper()
    first, second = (socket.inet_aton(a).hex().upper() for a in ("127.0.2.1", "127.0.2.2"))
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/ip_vs").write_text(
        f"TCP  {vip}:0050 mh\n  -> {first}:0050 Route 0 7 0\n"
        f"TCP  {vip}:{PORT:04X} mh\n  -> {first}:{PORT:04X} Route 3 4 0\n"
        f"TCP  {vip}:01BB mh\n  -> {first}:01BB Route 0 2 0\n  -> {second}:01BB Route 5 1 0\n"
    )
    options = {"--vip": VIP, "--port": "1", "--services": f"{PORT},443", "--pool": "", "--what": "x"}
    options |= {"--directors": "127.0.1.1:1", "--drain-limit": "1", "--address": "127.0.1.1"}
    director = turn.Director("director-1", options)
    assert director.table() == {"127.0.2.1": (3, 6), "127.0.2.2": (5, 1)}


def test_directors_that_differ_are_both_heard(cluster):
    """As they do while the kind of check is being changed on one after the other."""
    a = cluster.begin()[0]
    two = cluster.directors[1]
    two.configure(cluster.nodes, drain="weight")
    two.process.send_signal(signal.SIGHUP)
    wait(lambda: "configuration read" in two.said())
    client = cluster.ask(a).go()
    assert a.drain.exists(), "one of them follows /readyz"
    client.done()


def test_where_nobody_follows_readyz_the_daemon_sets_the_weight(cluster):
    a, b, _ = cluster.begin(directors=(1,), drain="weight")
    one = cluster.directors[0]
    client = cluster.ask(a).go()
    assert not a.drain.exists()
    assert one.shown[a.address] == 0
    second = cluster.ask(b)
    second.heard("waits")
    client.done()
    assert one.shown[a.address] == 1
    service = f"-e -t {VIP}:{PORT} -r {a.address}:{PORT} -g"
    assert (one.root / "ipvsadm").read_text().splitlines()[:2] == [f"{service} -w 0", f"{service} -w 1"]
    second.go()
    second.process.kill()  # and the weight comes back all the same, even across a restart
    one.kill()
    one.start()
    wait(lambda: one.shown[b.address] == 1)
    wait(lambda: not any(json.loads((one.root / "run/cosyvoice-lvs/turns/state.json").read_text()).values()))


# -- directors


def test_the_standby_goes_first(cluster):
    cluster.begin()
    one, two = cluster.directors
    holder = cluster.ask_director(one)
    holder.heard("waits for its turn: it holds the VIP: the standby may go first")
    standby = cluster.ask_director(two).go()
    holder.heard("waits for its turn: director-2 has its turn")
    assert not holder.went
    standby.done()
    holder.go().done()


def test_the_holder_of_the_vip_does_not_wait_for_ever(cluster):
    cluster.begin()
    cluster.ask_director(cluster.directors[0]).go().done()


def test_the_holder_of_the_vip_is_not_changed_while_the_other_one_cannot_be_reached(cluster):
    """Seen in the lab: the standby's network was cut, and a restart of the only keepalived was an outage."""
    cluster.scale = 0.05
    cluster.begin()
    one, two = cluster.directors
    two.process.send_signal(signal.SIGSTOP)
    line = cluster.ask_director(one).end(1, within=10)[-1]
    assert line.startswith(
        f"no director-1 holds the VIP and director 127.0.1.2:{cluster.port} does not answer (no"
    )
    one.holds_vip(False)
    cluster.ask_director(one).go().done()


def test_the_holder_of_the_vip_is_changed_beside_a_director_that_is_being_made(cluster):
    cluster.begin(directors=(1,))
    client = cluster.ask_director(cluster.directors[0]).go()
    client.heard(
        f"say director 127.0.1.2:{cluster.port} does not answer (Connection refused): goes on without it"
    )
    client.done()


def test_a_director_that_lost_its_pool_has_failed(cluster):
    cluster.scale = 0.05
    cluster.begin()
    one, two = cluster.directors
    standby = cluster.ask_director(two).go()
    holder = cluster.ask_director(one)
    holder.heard("director-2 has its turn")
    two.follows = False
    two.show({n.address: 1 for n in cluster.nodes[:2]})
    standby.tell("done")
    line = standby.end(1, within=20)[-1]
    assert line.startswith("no director-2 has 2 real servers in service 3 s after the change, and had 3; see")
    assert holder.end(1)[-1].startswith(
        "no not tried: keepalived.conf failed on director-2: director-2 has 2"
    )


def test_a_director_need_not_bring_back_what_is_no_longer_configured(cluster):
    nodes = cluster.begin()
    two = cluster.directors[1]
    nodes[2].drain.parent.mkdir(parents=True)
    nodes[2].drain.touch()
    client = cluster.ask_director(two, pool=nodes[:2]).go()
    two.follows = False
    two.show({n.address: 1 for n in nodes[:2]})
    client.done()


# -- the daemon by itself


class Raw:
    """A machine that speaks the protocol itself."""

    def __init__(self, address, port):
        self.socket = socket.socket()
        self.socket.bind((address, 0))
        self.socket.settimeout(10)
        self.socket.connect((DIRECTORS[0], port))
        self.text = b""

    def send(self, message):
        self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def until(self, key):
        """The first message with that key."""
        while True:
            while b"\n" in self.text:
                line, _, self.text = self.text.partition(b"\n")
                message = json.loads(line)
                if key in message:
                    return message
            text = self.socket.recv(65536)
            assert text, f"closed without {key}"
            self.text += text


def ask(name, **more):
    return {"ask": "realServer", "name": name, "what": "x", **more}


def test_three_hundred_wait_and_each_gets_its_turn(cluster):
    director = cluster.directors[0]
    director.follows = False
    machines = [(f"rs-{i}", f"127.0.{3 + i // 200}.{1 + i % 200}") for i in range(300)]
    director.configure([], realServers=[{"name": n, "address": a} for n, a in machines], maxUnavailable=3)
    director.show({a: 1 for _, a in machines})
    director.start()
    peers = []
    for name, address in machines:
        peers.append(Raw(address, cluster.port))
        peers[-1].send(ask(name))
    began = time.monotonic()
    for index, peer in enumerate(peers):
        peer.until("go")
        for other in peers[index:]:
            other.send({"beat": True})
            if time.monotonic() - began > 20:
                pytest.fail(f"only {index} turns in 20 s")
        peer.send({"end": "done"})
        peer.until("over")
        peer.socket.close()
    assert director.process.poll() is None
    order = [line.split(":")[0] for line in director.said().splitlines() if "has its turn" in line]
    assert order == [name for name, _ in machines]


def test_who_is_not_in_the_configuration_is_not_heard(cluster):
    cluster.begin(1, directors=(1,))
    stranger = Raw("127.0.9.9", cluster.port)
    stranger.send(ask("rs-1"))
    assert stranger.until("stranger") == {"stranger": "127.0.9.9"}
    impostor = Raw("127.0.2.1", cluster.port)
    impostor.send({**ask("director-1"), "ask": "director"})
    assert impostor.until("stranger") == {"stranger": "127.0.2.1"}


MALFORMED = [
    b"hello\n",
    b"[]\n",
    b"{}\n",
    b'{"ask":"x"}\n',
    b'{"ask":"realServer"}\n',
    b'{"end":"never"}\n',
    b'{"ask":"realServer","name":"a","what":"b","waited":"NaN?"}\n',
    b'{"ask":"realServer","name":"a","what":"b","waited":[]}\n',
    b"[" * 3000 + b"\n",
    b"x" * 5000,
    b"\xff\xfe\n",
]


def test_malformed_lines_end_the_connection_and_nothing_else(cluster):
    cluster.begin(1, directors=(1,))
    for text in MALFORMED:
        bad = Raw("127.0.2.1", cluster.port)
        bad.send(text)
        with contextlib.suppress(ConnectionResetError):
            while bad.socket.recv(4096):
                pass
    good = Raw("127.0.2.1", cluster.port)
    good.send(ask("rs-1"))
    assert good.until("heard") == {"heard": "director-1"}
    assert "Traceback" not in cluster.directors[0].said()


def test_a_silent_peer_loses_its_turn(cluster):
    a, _ = cluster.begin(2, directors=(1,))
    silent = Raw(a.address, cluster.port)
    silent.send(ask("rs-1"))
    silent.until("go")
    other = Raw("127.0.2.2", cluster.port)
    other.send(ask("rs-2"))
    assert other.until("wait") == {"wait": "rs-1 has its turn"}
    said, broke = cluster.directors[0].said, None
    while "rs-1: its turn ended: it did not come back" not in said():
        other.send({"beat": True})
        time.sleep(0.05)
        if "rs-1: the connection broke in the middle of its turn (silent for 1 s)" in said():
            broke = broke or time.monotonic()
        assert not broke or time.monotonic() < broke + 5
    other.until("go")
    assert time.monotonic() - broke > 0.3  # it might have come back


def test_a_new_configuration_is_taken_up_and_a_wrong_one_is_not(cluster):
    nodes = cluster.begin(2, directors=(1,))
    one = cluster.directors[0]
    clients = [cluster.ask(node) for node in nodes]
    wait(lambda: together(clients) == 1)
    one.config.write_text("{")
    one.process.send_signal(signal.SIGHUP)
    wait(lambda: "the configuration is as before: " in one.said())
    one.configure(nodes, maxUnavailable=2)
    one.process.send_signal(signal.SIGHUP)
    wait(lambda: together(clients) == 2)
    one.configure(nodes, port=free_port())
    one.process.send_signal(signal.SIGHUP)
    assert one.process.wait(5) == 1  # systemd starts it anew
    assert "address or port has changed" in one.said()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"vip": "x"}, "OSError"),
        ({"forwarding": "MAC"}, "KeyError: 'MAC'"),
        ({"drain": "no"}, "drain is 'no' and must be"),
        ({"maxUnavailable": 0}, "maxUnavailable is 0 and must be at least 1"),
    ],
)
def test_wrong_configurations(cluster, change, expected):
    one = cluster.directors[0]
    one.configure([], **change)
    one.start()
    assert one.process.wait(5) == 1
    assert expected in one.said()
    assert "Traceback" not in one.said()


def test_it_costs_nothing_while_nobody_asks(cluster):
    cluster.begin(1, directors=(1,))
    one = cluster.directors[0]
    time.sleep(0.5)

    def spent():
        # Voluntary switches: how often it woke up.
        status = pathlib.Path(f"/proc/{one.process.pid}/status").read_text()
        return int(status.split("voluntary_ctxt_switches:")[1].split()[0])

    before = spent()
    time.sleep(1)
    assert spent() - before <= 1


def test_readiness_and_watchdog_are_told(cluster, tmp_path):
    bus = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bus.bind(str(tmp_path / "notify"))
    bus.settimeout(5)
    one = cluster.directors[0]
    one.configure([])
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    one.process = subprocess.Popen([sys.executable, "-IS", HOST / "turns.py", one.config], env=environment)
    heard = [bus.recv(100) for _ in range(4)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]


@pytest.mark.parametrize(
    "arguments", ["", "real-server", "real-server rs-1 --what x", "director d --what x --vip", "x y --what z"]
)
def test_turn_called_wrongly(arguments):
    command = [sys.executable, "-IS", HOST / "turn.py", *arguments.split()]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: turn real-server NAME")


# -- who leaves with a director's change


@pytest.mark.parametrize("end", ["done", "failed broken", None])
def test_a_real_server_that_leaves_is_drained_first(cluster, end):
    a, b, c = cluster.begin(directors=(1,))
    one = cluster.directors[0]
    client = cluster.ask_director(one, pool=[a, b], directors=[one])
    client.heard("say drains rs-3, which leaves the pool")
    drain = one.root / "run/cosyvoice-lvs/track/rs-3.drain"
    wait(drain.exists)
    time.sleep(0.2)
    assert not client.went, "the poller has not told keepalived yet"
    c.drain.parent.mkdir(parents=True, exist_ok=True)
    c.drain.touch()
    client.go()
    assert drain.exists()
    if end is None:
        client.process.kill()
    else:
        client.tell(end)
    wait(lambda: not drain.exists(), about="a server that stays after all must serve again")


def test_a_link_in_the_place_of_a_drain_leads_nowhere(cluster):
    a, b, _ = cluster.begin(directors=(1,))
    one = cluster.directors[0]
    another = one.root / "another"
    another.write_text("whole")
    (one.root / "run/cosyvoice-lvs/track/rs-3.drain").symlink_to(another)
    lines = cluster.ask_director(one, pool=[a, b], directors=[one]).end(1)
    assert "Too many levels of symbolic links" in lines[-1]
    assert another.read_text() == "whole"


def test_a_real_server_that_leaves_is_told_to_end_its_kept_connections(cluster):
    a, b, c = cluster.begin(directors=(1,))
    one, heard = cluster.directors[0], []

    def answer(listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(4096))
                    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"queue": {"waiting": 0, "running": 0}}')

    with socket.create_server((c.address, PORT)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        c.drain.parent.mkdir(parents=True, exist_ok=True)
        c.drain.touch()
        cluster.ask_director(one, pool=[a, b], directors=[one]).go()
        listener.shutdown(socket.SHUT_RDWR)
    assert len(heard) >= 2
    assert all(b"\r\nX-Leaving: 1\r\n" in text for text in heard)


def test_a_drain_that_keepalived_does_not_follow_stops_the_change(cluster):
    a, b, _ = cluster.begin(directors=(1,))
    one = cluster.directors[0]
    lines = cluster.ask_director(one, pool=[a, b], directors=[one]).end(1)
    assert lines[-1].startswith("no director-1 still sends requests to rs-3 3 s after their drain began")
    assert not (one.root / "run/cosyvoice-lvs/track/rs-3.drain").exists()


def test_by_weight_what_leaves_has_none_and_gets_it_back_when_the_change_fails(cluster):
    a, b, c = cluster.begin(directors=(1,), drain="weight", forwarding="TUN")
    one = cluster.directors[0]
    client = cluster.ask_director(one, pool=[a, b], directors=[one]).go()
    assert one.shown[c.address] == 0
    client.tell("failed broken")
    client.end(0)
    wait(lambda: one.shown[c.address] == 1)
    assert "-i -w 0" in (one.root / "ipvsadm").read_text()


def test_a_director_that_leaves_gives_the_vip_away(cluster):
    cluster.begin()
    one, two = cluster.directors
    client = cluster.ask_director(one, directors=[one])
    client.heard("say tells director-2 (127.0.1.2), which is no longer a director, to give the VIP away")
    client.go().done()
    assert (two.root / "run/cosyvoice-lvs/turns/stand-down").read_text() == "1\n"
    assert not (one.root / "run/cosyvoice-lvs/turns/stand-down").exists()


def test_a_standby_that_has_the_new_password_takes_part_again_when_the_other_director_has_it(cluster):
    cluster.begin()
    one, two = cluster.directors
    stand_down = two.root / "run/cosyvoice-lvs/turns/stand-down"
    stand_down.parent.mkdir(exist_ok=True)
    client = cluster.ask_director(two).go()
    stand_down.write_text("3\n")
    client.done()
    cluster.ask_director(one).go().tell("failed broken")
    time.sleep(0.5)
    assert stand_down.exists(), "neither its own turn nor one that failed is what it waits for"
    cluster.ask_director(one).go().done()
    wait(lambda: not stand_down.exists())
    # Who is no director any more stays out of it.
    stand_down.write_text("1\n")
    cluster.ask_director(one).go().done()
    time.sleep(0.5)
    assert stand_down.read_text() == "1\n"


def test_a_standby_takes_part_again_after_a_while_also_when_the_other_director_never_has_its_turn(cluster):
    cluster.begin()
    two = cluster.directors[1]
    stand_down = two.root / "run/cosyvoice-lvs/turns/stand-down"
    stand_down.parent.mkdir(exist_ok=True)
    stand_down.write_text("3\n")
    before = time.time() - 200 * SCALE
    two.kill()
    two.start()
    time.sleep(2)
    assert stand_down.exists()
    os.utime(stand_down, (before, before))
    wait(lambda: not stand_down.exists())
    wait(lambda: "the other director had no turn" in two.said())


@needs_root
def test_as_a_user_of_its_own_it_goes_on_with_what_root_left(cluster):
    one, two = cluster.directors
    kept = two.root / "run/cosyvoice-lvs/turns"
    kept.mkdir()
    os.chown(kept, 0, NOBODY)
    kept.chmod(0o775)
    (kept / "state.json").write_text('{"held": [["realServer", "127.0.2.1", "rs-1"]], "taken": {}}')
    (kept / "state.json.new").write_text("half of")
    two.before = AS_NOBODY
    cluster.begin()
    client = cluster.ask(cluster.nodes[1])
    client.heard("rs-1 has its turn")
    client.go().done()
    wait(lambda: (kept / "state.json").stat().st_uid == NOBODY)
    # The deployment's word and keepalived's are root's.
    (kept / "stand-down").write_text("3\n")
    cluster.ask_director(one).go().done()
    wait(lambda: not (kept / "stand-down").exists())
    (kept / "stand-down").write_text("2\n")
    (kept / "stand-down").chmod(0o600)
    cluster.ask_director(one, directors=[one]).go().done()
    wait(lambda: (kept / "stand-down").read_text() == "1\n")
    assert os.stat(kept).st_uid == 0


def test_a_director_that_leaves_and_is_off_holds_nothing_up(cluster):
    cluster.begin(directors=(1,))
    one = cluster.directors[0]
    client = cluster.ask_director(one, directors=[one])
    client.heard("director-2 (127.0.1.2) was not told to give the VIP away")
    client.go().done()
