"""The real keepalived with the configuration that the renderers write, in a network of two directors, the
real mover beside it, and moto as AWS. A power-cut takes the cable first, then kills: no farewell gets out."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import DIRECTORS, PROGRAM, ROOT, VIP

GOLDEN = ROOT / "test" / "golden" / "texts"
# Of the machine that runs this: it may have nothing else to do, or four other tests.
PATIENCE = 120.0

pytestmark = pytest.mark.skipif(
    "COSYVOICE_LVS_NETWORK" not in os.environ or shutil.which("keepalived") is None,
    reason="this computer forbids network namespaces, or has no keepalived",
)


def shell(text):
    result = subprocess.run(["sh", "-euc", text], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def until(what, true, seconds=PATIENCE, pause=0.05):
    """Waits for something, and says how long it took."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if true():
            return time.monotonic() - start
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s: {what}")


class Director:
    """A director: a network and a /run of its own, keepalived and the mover. A cable leads to the segment
    that it shares with the other one, or where it has a gateway to this test, which then is a router."""

    def __init__(self, world, name, folder, address=None, gateway=None):
        self.world, self.name = world, name
        self.cable = name
        self.folder = folder / name
        self.folder.mkdir()
        self.processes = []
        self.space = subprocess.Popen(
            [
                *("unshare", "-nm", "sh", "-euc"),
                """
                mount -t tmpfs none /run
                mkdir -p /run/cosyvoice-lvs/vip-mover /run/cosyvoice-lvs/turns
                ip link set lo up
                touch /run/ready
                exec sleep 600
                """,
            ]
        )
        until(
            "the namespace is there", lambda: self.inside("test -e /run/ready", check=False).returncode == 0
        )
        shell(
            f"ip link add {self.cable} type veth peer name ens5 netns {self.space.pid};"
            f"ip link set {self.cable} {'master segment' if gateway is None else ''} up"
        )
        self.inside(f"ip link set ens5 up; ip address add {address or DIRECTORS[name]}/20 dev ens5")
        if gateway is not None:
            shell(f"ip address add {gateway}/20 dev {self.cable}")
            self.inside(f"ip route add default via {gateway}")

    def inside(self, text, check=True):
        return subprocess.run(
            ["nsenter", "-t", str(self.space.pid), "-n", "-m", "sh", "-euc", text],
            check=check,
            capture_output=True,
            text=True,
        )

    def start(self, *command):
        log = open(self.folder / f"{pathlib.Path(command[0]).name}.log", "w")  # noqa: SIM115
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        metadata = f"http://10.20.0.1:{self.world.metadata[self.name]}"
        environment = {**clean, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}
        process = subprocess.Popen(
            ["nsenter", "-t", str(self.space.pid), "-n", "-m", *command],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        self.processes.append(process)

    def start_keepalived(self, case="aws"):
        # Only VRRP: what IPVS does is the lab's to prove, and this computer's kernel may have none.
        config = str(GOLDEN / case / f"keepalived-{self.name}.conf")
        self.start("keepalived", "--vrrp", "--dont-fork", "--log-console", "--use-file", config)

    def start_mover(self):
        config = self.world.config(self.name, endpoint=self.world.endpoint("10.20.0.1"))
        file = self.folder / "vip-mover.json"
        file.write_text(json.dumps(config))
        self.start(sys.executable, "-I", str(PROGRAM), "run", str(file))

    def mover_listens(self):
        listening = "test -S /run/cosyvoice-lvs/vip-mover/socket"
        until("the mover listens", lambda: self.inside(listening, check=False).returncode == 0)

    def holds(self):
        return VIP in self.inside("ip -4 -o address show dev ens5").stdout

    def log(self):
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    def power_cut(self):
        shell(f"ip link set {self.cable} down")
        self.end()

    def end(self):
        for process in [*self.processes, self.space]:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                process.kill()
            process.wait()
        # Its other end goes with the namespace, but not at once.
        subprocess.run(["ip", "link", "delete", self.cable], capture_output=True, check=False)


@pytest.fixture
def pair(world, tmp_path):
    """Two directors, with movers that know AWS; the first holds the VIP, and the routes lead to it."""
    # Where keepalived's notify finds the mover; root's alone, or keepalived would not run it.
    shell("mount -t tmpfs -o mode=755 none /usr/local/lib; mkdir /usr/local/lib/cosyvoice-lvs")
    shutil.copy(PROGRAM, "/usr/local/lib/cosyvoice-lvs/vip-mover")
    os.chmod("/usr/local/lib/cosyvoice-lvs/vip-mover", 0o755)
    # Without an address of its own a bridge has that of a cable, and gets another one when that cable is cut:
    # moto would be away for as long as the directors' ARP caches keep the old one.
    shell(
        "ip link add segment address 02:00:00:00:00:01 type bridge; ip link set segment up;"
        "ip address add 10.20.0.1/20 dev segment"
    )
    directors = []
    try:
        for name in DIRECTORS:
            directors.append(Director(world, name, tmp_path))
            directors[-1].start_mover()
        for director in directors:
            director.mover_listens()
        # Both have looked around: what was known is what a move begins with.
        looks = lambda: [call for call in world.door.calls if call[1] == "DescribeRouteTables"]  # noqa: E731
        until("both movers have looked", lambda: len(looks()) >= 2)
        directors[0].start_keepalived()
        until("the first director holds the VIP", directors[0].holds)
        directors[1].start_keepalived()
        until("the second director stands by", lambda: "Entering BACKUP STATE" in directors[1].log())
        time.sleep(0.7)  # twice as long as it would wait for a peer that is not there
        assert [director.holds() for director in directors] == [True, False], directors[1].log()
        yield directors
    except AssertionError:
        print(*(director.log() for director in directors), sep="\n")
        raise
    finally:
        for director in directors:
            director.end()
        shell("ip link delete segment; umount /usr/local/lib")


def both_lead_to(world, name):
    return lambda: world.targets() == [name, name]


def test_a_power_cut_moves_the_routes_within_seconds(world, pair):
    first, second = pair
    assert world.targets() == ["director-1", "director-1"]
    world.door.calls.clear()
    first.power_cut()
    taken = until("the second director holds the VIP", second.holds)
    moved = until("the routes lead to it", both_lead_to(world, "director-2"))
    print(f"the VIP after {taken:.2f} s, the routes {moved:.2f} s later")
    until("the mover says so", lambda: "moved the route in" in second.log())
    # The one call for each table, and none for a table that is not ours.
    assert sorted(world.door.moves()) == sorted(
        (table, world.interfaces["director-2"]) for table in world.tables
    )


@pytest.mark.skipif(
    os.environ.get("COSYVOICE_LVS_NETWORK") != "root",
    reason="keepalived starts no program where it may not set its groups: run this as root",
)
def test_keepalived_tells_the_mover(pair):
    """Without that it would take until the mover's next look at the kernel."""
    first, second = pair
    program = pathlib.Path("/usr/local/lib/cosyvoice-lvs/vip-mover")
    program.write_text(f'#!/bin/sh\necho "$@" >>/run/told\nexec {sys.executable} -I {PROGRAM} "$@"\n')
    first.power_cut()
    until("the mover was told", lambda: second.inside("cat /run/told || true").stdout == "poke\n")
    assert "does not listen" not in second.log()
    assert "Unsafe permissions" not in second.log()


def test_an_api_that_is_down_delays_the_move_and_no_more(world, pair):
    world.door.plan("ReplaceRoute", 6, "Unavailable")
    pair[0].power_cut()
    until("the second director holds the VIP", pair[1].holds)
    until("the routes lead to it", both_lead_to(world, "director-2"))
    assert "Unavailable" in pair[1].log()
    assert len(world.door.moves()) >= 8


def test_a_late_call_of_the_one_that_lost_the_vip_is_put_right(world, pair):
    pair[0].power_cut()
    until("the routes lead to the second director", both_lead_to(world, "director-2"))
    world.send(world.tables[0], "director-1")
    assert world.targets() != ["director-2", "director-2"]
    until("the reconciler has put it right", both_lead_to(world, "director-2"))


def test_two_that_hold_it_after_another_end_with_one(world, pair):
    """The first gives the VIP away, then its peer dies: back and forth, and each time the routes follow."""
    first, second = pair
    first.inside("echo 1 >/run/cosyvoice-lvs/turns/stand-down")
    until("the second director holds the VIP", second.holds)
    until("the routes lead to it", both_lead_to(world, "director-2"))
    first.inside("echo 0 >/run/cosyvoice-lvs/turns/stand-down")
    time.sleep(1)
    second.power_cut()
    until("the first director holds the VIP", first.holds)
    until("the routes lead to it", both_lead_to(world, "director-1"))


def test_a_router_between_two_zones_keeps_nobody_from_hearing_the_other(world, tmp_path):
    """It takes one from the adverts' time to live, as the router of a VPC may."""
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    first = Director(world, "director-1", tmp_path, "10.20.0.10", "10.20.0.1")
    second = Director(world, "director-2", tmp_path, "10.20.16.11", "10.20.16.1")
    try:
        first.start_keepalived("aws-two-zones")
        until("the first director holds the VIP", first.holds)
        second.start_keepalived("aws-two-zones")
        until("the second director stands by", lambda: "Entering BACKUP STATE" in second.log())
        time.sleep(0.7)  # twice as long as it would wait for a peer that is not there
        assert (first.holds(), second.holds()) == (True, False), second.log()
        first.power_cut()
        until("the second director holds the VIP", second.holds)
    finally:
        first.end()
        second.end()
