"""The guard: its decisions with made-up looks, its sockets in a network namespace with a real peer."""

import importlib.util
import io
import json
import pathlib
import shlex
import subprocess
import sys

import pytest
from conftest import needs_network_and_mounts

GUARD = pathlib.Path(__file__).resolve().parent.parent / "vrrp-guard.py"
SPEC = importlib.util.spec_from_file_location("vrrp_guard", GUARD)
guard = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(guard)

CONFIG = {
    "interface": "here",
    "label": "here:vip",
    "vip": "192.0.2.100",
    "address": "192.0.2.11",
    "peer": "192.0.2.12",
    "virtualRouterId": 51,
    "advertInterval": 0.1,
    "multicast": False,
    "routed": False,
    "services": [{"port": 7860, "door": False, "quorum": 0}, {"port": 443, "door": True, "quorum": 0}],
    "table": None,
}


# -- who has the VIP


class Looks:
    """Gives a judge one look after the other, on time unless told otherwise."""

    def __init__(self, advert=0.1):
        self.judge, self.now = guard.Judge(advert), 1000.0

    def look(self, holds=True, peer=0, own=0, after=None):
        self.now += after or (self.judge.step if self.judge.verdict == guard.DOUBT else guard.TICK)
        return self.judge.look(self.now, holds, peer, own)

    def looks(self, seconds, **seen):
        """The verdicts of so many seconds."""
        end, found = self.now + seconds, []
        while self.now < end:
            found.append(self.look(**seen))
            if found[-1] in (guard.HUNG, guard.ASLEEP):
                break
        return found


def test_a_master_whose_peer_is_silent_is_left_alone_hung_or_not():
    looks = Looks()
    assert set(looks.looks(60)) == {guard.CALM}


def test_a_standby_that_hears_its_peer_is_left_alone():
    looks = Looks()
    assert set(looks.looks(60, holds=False, peer=3)) == {guard.CALM}


def test_a_peer_that_sends_while_this_director_does_not_has_taken_over():
    looks = Looks()
    looks.looks(5)
    began = looks.now
    found = looks.looks(5, peer=1)
    assert found[0] == guard.DOUBT
    assert found[-1] == guard.HUNG
    assert 0.5 <= looks.now - began - guard.TICK <= 0.61


def test_the_limit_follows_the_advert_interval():
    looks = Looks(advert=1)
    looks.look()
    began = looks.now
    assert looks.looks(9, peer=1)[-1] == guard.HUNG
    assert 3 <= looks.now - began - guard.TICK <= 3.61


def test_two_masters_that_both_send_are_for_keepalived_to_sort_out():
    looks = Looks()
    looks.look()
    assert set(looks.looks(4, peer=1, own=1)) == {guard.DOUBT}
    assert not looks.judge.split()
    looks.looks(2, peer=1, own=1)
    assert looks.judge.split()
    assert not looks.judge.split()  # said once
    assert looks.look(holds=False, peer=1) == guard.CALM


def test_a_late_advert_starts_the_count_anew():
    looks = Looks()
    looks.look()
    for _ in range(20):
        assert guard.HUNG not in looks.looks(0.35, peer=1)
        assert looks.look(peer=1, own=1) == guard.DOUBT


def test_the_last_words_of_the_master_before_raise_no_doubt():
    looks = Looks()
    looks.looks(3, holds=False, peer=3)
    assert looks.look(peer=3) == guard.CALM
    assert looks.look(peer=0) == guard.CALM


def test_a_doubt_ends_when_the_peer_falls_silent():
    looks = Looks()
    looks.look()
    assert looks.look(peer=1) == guard.DOUBT
    # This director does send: else it would be hung in the same time.
    assert looks.looks(0.65, own=1)[-1] == guard.CALM


@pytest.mark.parametrize("asleep", [3, 60, 86400])
def test_who_overslept_looks_again(asleep):
    looks = Looks()
    looks.look()
    looks.look(peer=1)
    looks.look(peer=1)
    assert looks.look(peer=1, after=asleep) == guard.DOUBT
    assert looks.look(peer=1, own=1) == guard.DOUBT  # keepalived was asleep as well
    looks = Looks()
    looks.look(holds=False)
    assert looks.look(holds=False, after=asleep) == guard.CALM


def test_a_clock_that_runs_backwards_is_no_silence():
    looks = Looks()
    looks.look()
    looks.look(peer=1)
    for _ in range(20):
        assert looks.look(peer=1, after=-3600) == guard.DOUBT


def test_an_interface_that_is_down_says_nothing_about_keepalived():
    looks = Looks()
    looks.look()
    looks.look(peer=1)
    assert set(looks.looks(10, holds=None)) == {guard.CALM}
    assert looks.look(peer=1) == guard.CALM  # and begins anew
    assert looks.look(peer=1) == guard.DOUBT


def test_a_standby_that_does_not_take_over_is_asleep():
    looks = Looks()
    looks.looks(5, holds=False, peer=1)
    began = looks.now
    assert looks.looks(30, holds=False)[-1] == guard.ASLEEP
    assert 3 <= looks.now - began <= 3.6
    assert looks.look(holds=True) == guard.CALM
    looks = Looks(advert=1)
    assert set(looks.looks(9, holds=False)) == {guard.CALM}
    assert looks.looks(2, holds=False)[-1] == guard.ASLEEP


# -- the pool


TABLE = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0000263:1EB4 rr
  -> C0000201:1EB4      Route   9      0          0
TCP  C0000264:1EB4 mh
  -> C0000266:1EB4      Route   0      2          1
  -> C0000265:1EB4      Route   1      0          0
UDP  C0000264:1EB4 rr
  -> C0000201:1EB4      Route   7      0          0
"""


def test_the_kernels_table_is_read():
    vip = bytes([192, 0, 2, 100])
    assert guard.parse_table(TABLE, vip, 7860) == {"192.0.2.101": 1, "192.0.2.102": 0}
    assert guard.parse_table(TABLE, vip, 80) is None
    assert guard.parse_table(TABLE, bytes([192, 0, 2, 99]), 7860) == {"192.0.2.1": 9}
    assert guard.parse_table("", vip, 7860) is None


def test_what_keepalived_makes_of_the_track_files():
    assert guard.wanted_weight(1, 0, 0) == 1
    assert guard.wanted_weight(1, -1000000, 0) == 0
    assert guard.wanted_weight(100, -60, 0) == 40
    assert guard.wanted_weight(1, 0, 1) is None
    wanted = {"a": 1, "b": 0, "c": None, "d": None, "e": 1}
    assert guard.differences(wanted, {"a": 1, "b": 1, "c": 1, "f": 1}) == {
        "b": (0, 1),
        "c": (None, 1),
        "e": (1, None),
    }


def test_only_a_difference_that_stays_counts():
    follower, gone = guard.Follower(), {"a": (None, 1)}
    assert [bool(follower.look(now, gone)) for now in range(5)] == [False, False, False, True, True]
    assert not follower.look(5, {})
    assert not follower.look(6, gone)
    # Another one, and a guard that overslept.
    assert follower.look(7, {**gone, "b": (1, 0)}) == {}
    assert follower.look(1000, gone) == {}
    assert follower.look(1001, gone) == gone
    follower.forget()
    assert follower.look(1002, gone) == {}


class Keepalived:
    """Stands in for the processes."""

    def __init__(self):
        self.running, self.checking, self.killed = [1, 2, 3], 2, []

    def processes(self):
        return self.running

    def checker(self):
        return self.checking

    def kill(self, processes):
        self.killed += processes

    def kill_all(self):
        self.killed.append("all")
        return len(self.running)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A guard of three without sockets: `differ` is what differs, `called` what ipvsadm was asked."""
    watch = guard.Guard.__new__(guard.Guard)
    servers = [{"name": f"rs-{n}", "address": f"192.0.2.10{n}", "weight": 1} for n in (1, 2, 3)]
    table = {"forwarding": "DR", "trackDirectory": str(tmp_path), "servers": servers}
    (tmp_path / "guard.json").write_text(json.dumps({**CONFIG, "table": table}))
    watch.config = guard.Config(tmp_path / "guard.json")
    watch.keepalived = Keepalived()
    watch.follower, watch.may_kill, watch.killed = guard.Follower(), 0.0, None
    watch.differ, watch.called, watch.now = {}, [], 100.0
    monkeypatch.setattr(watch, "drift", lambda: watch.differ)
    monkeypatch.setattr(guard, "ipvsadm", lambda *arguments: watch.called.append(" ".join(arguments)))
    monkeypatch.setattr(guard.time, "monotonic", lambda: watch.now)

    def seconds(count):
        for _ in range(count):
            watch.now += 1
            watch.watch_pool()

    watch.seconds = seconds
    return watch


def test_a_checker_that_does_not_follow_is_replaced_and_the_table_put_right(pool, capsys):
    pool.differ = {
        (7860, "192.0.2.101"): (None, 1),
        (443, "192.0.2.102"): (0, 1),
        (7860, "192.0.2.103"): (1, None),
    }
    pool.seconds(3)
    assert (pool.keepalived.killed, pool.called) == ([], [])
    pool.seconds(1)
    assert pool.keepalived.killed == [2]
    assert pool.called == [
        "-d -t 192.0.2.100:7860 -r 192.0.2.101:7860",
        "-e -t 192.0.2.100:443 -r 192.0.2.102:443 -g -w 0",
    ]
    assert "192.0.2.101:7860 None instead of 1" in capsys.readouterr().out
    # One that comes back as bad as before is not killed every few seconds.
    pool.keepalived.checking = 4
    pool.seconds(20)
    assert pool.keepalived.killed == [2]
    assert len(pool.called) > 4


def test_a_port_behind_nginx_wants_a_living_nginx(tmp_path, monkeypatch):
    watch = guard.Guard.__new__(guard.Guard)
    servers = [{"name": f"rs-{n}", "address": f"192.0.2.10{n}", "weight": 2} for n in (1, 2)]
    table = {"forwarding": "DR", "trackDirectory": str(tmp_path), "servers": servers}
    (tmp_path / "guard.json").write_text(json.dumps({**CONFIG, "table": table}))
    watch.config = guard.Config(tmp_path / "guard.json")
    for name, number in (("rs-1", 0), ("rs-1.down", 0), ("rs-1.door", 1), ("rs-2", 0), ("rs-2.door", 0)):
        (tmp_path / name).write_text(f"{number}\n")
    text = "".join(
        f"TCP  C0000264:{port:04X} mh\n"
        + "".join(f"  -> C00002{65 + n:02d}:{port:04X}      Route   2      0          0\n" for n in (0, 1))
        for port in (443, 7860)
    )
    monkeypatch.setattr("builtins.open", opening(text))
    assert watch.drift() == {(443, "192.0.2.101"): (None, 2)}
    # A sorry server stands in where the quorum is not met, which concerns that port alone.
    watch.config.services = [(7860, False, 5), (443, True, 0)]
    (tmp_path / "rs-2.down").write_text("1\n")
    assert watch.drift() == {(443, "192.0.2.101"): (None, 2), (443, "192.0.2.102"): (None, 2)}


def opening(text):
    """`open`, with a kernel's table of this text."""
    real = open

    def opened(path, *arguments, **options):
        return io.StringIO(text) if path == "/proc/net/ip_vs" else real(path, *arguments, **options)

    return opened


def test_a_keepalived_that_starts_no_new_checker_is_replaced(pool):
    pool.differ = {(7860, "192.0.2.101"): (None, 1)}
    pool.seconds(4)
    pool.differ, pool.keepalived.checking = {}, None
    pool.seconds(10)
    assert pool.keepalived.killed == [2]
    pool.seconds(1)
    assert pool.keepalived.killed == [2, "all"]
    pool.seconds(30)
    assert pool.keepalived.killed == [2, "all"]


def test_a_keepalived_that_is_not_there_is_nobodys_fault(pool):
    pool.keepalived.running, pool.keepalived.checking = [], None
    pool.differ = {(7860, "192.0.2.101"): (None, 1)}
    pool.seconds(60)
    assert (pool.keepalived.killed, pool.called) == ([], [])
    # Stopped after its checker was killed: the one that starts later has all its time.
    pool.keepalived.running, pool.keepalived.checking = [1, 2, 3], 2
    pool.seconds(1)
    assert pool.keepalived.killed == [2]
    pool.differ, pool.keepalived.running, pool.keepalived.checking = {}, [], None
    pool.seconds(60)
    pool.keepalived.running = [5]
    pool.seconds(5)
    assert pool.keepalived.killed == [2]


# -- the configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vip": "nowhere"}, "OSError"),
        ({"peer": None}, "TypeError"),
        ({"advertInterval": 0}, "advertInterval is 0 and must be more than 0"),
        ({"table": {"forwarding": "XX"}}, "KeyError: 'XX'"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(tmp_path, change, message):
    (tmp_path / "guard.json").write_text(json.dumps({**CONFIG, **change}))
    result = subprocess.run(
        [sys.executable, "-IS", GUARD, tmp_path / "guard.json"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert message in result.stderr


def test_called_wrongly():
    result = subprocess.run([sys.executable, "-IS", GUARD], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "usage: vrrp-guard CONFIG.json\n")


# -- the real thing: two namespaces and a cable


# Sends ten adverts a second, as keepalived does (VRRPv3): SOURCE DESTINATION ROUTER PRIORITY TTL.
SENDER = r"""
import socket, struct, sys, time
source, destination, router, priority, ttl = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
sock.bind((source, 0))
while True:
    advert = struct.pack("!BBBBHH4s", 0x31, router, priority, 1, 10, 0, bytes([192, 0, 2, 100]))
    sock.sendto(advert, (destination, 0))
    time.sleep(0.1)
"""


@pytest.fixture
def cable(tmp_path):
    """Runs a shell program on this director: its peer is at the other end of a cable."""

    def run(program, seconds=20, **changes):
        (tmp_path / "send.py").write_text(SENDER)
        (tmp_path / "guard.json").write_text(json.dumps({**CONFIG, **changes}))
        python = shlex.quote(sys.executable)
        prelude = f"""
            set -u
            # Not this computer's own keepalived.
            mount -t tmpfs none /sys/fs/cgroup
            ip link add here type veth peer name there
            unshare -n sleep 60 & other=$!
            sleep 0.2
            ip link set there netns $other
            ip link set lo up; ip link set here up; ip address add 192.0.2.11/24 dev here
            at_peer() {{ nsenter -t $other -n "$@"; }}
            at_peer ip link set there up; at_peer ip address add 192.0.2.12/24 dev there
            vip() {{ ip address add 192.0.2.100/32 dev here label here:vip; }}
            has() {{
                ip -4 -o address show dev here | grep -q 192.0.2.100 || set -- "$1" " not"
                echo "$1 has${{2-}}"
            }}
            silence() {{ {{ kill -9 "$@"; wait "$@"; }} 2>/dev/null; }}
            send() {{ exec {python} {tmp_path}/send.py "$@"; }}
            send_from_peer() {{ exec nsenter -t $other -n {python} {tmp_path}/send.py "$@"; }}
            peer() {{ send_from_peer 192.0.2.12 "$@"; }}
            guard() {{ exec {python} -IS {GUARD} {tmp_path}/guard.json; }}
            trap 'silence $(jobs -p)' EXIT
            sleep 0.5
        """
        result = subprocess.run(
            ["unshare", "-rnm", "bash", "-c", prelude + program],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert result.stderr == ""
        return result.stdout.splitlines()

    return run


def without_ipvsadm(lines):
    """What was said, without ipvsadm: a computer that tests may have none, and no table either."""
    return [line for line in lines if not line.startswith("ipvsadm ")]


@needs_network_and_mounts
@pytest.mark.parametrize(
    ("multicast", "to"), [(False, "192.0.2.11"), (True, "224.0.0.18")], ids=["unicast", "multicast"]
)
def test_the_vip_is_taken_off_when_the_own_adverts_stop_and_the_peers_begin(cable, multicast, to):
    program = f"""
        vip; guard & sleep 0.5
        send 192.0.2.11 192.0.2.12 51 100 255 & me=$!
        sleep 1
        peer {to} 51 90 255 &
        sleep 2; has both
        silence $me
        sleep 1.5; has alone
    """
    lines = without_ipvsadm(cable(program, multicast=multicast))
    assert lines[0] == "both has"
    assert lines[-1] == "alone has not"
    assert lines[1].startswith("took 192.0.2.100 off: the peer sends adverts, this director none for 0.5 s; ")
    assert len(lines) == 3


@needs_network_and_mounts
def test_what_does_not_speak_for_the_peer_takes_nothing(cable):
    program = """
        vip; guard & sleep 0.5
        peer 192.0.2.11 52 90 255 & a=$!
        peer 192.0.2.11 51 90 254 & b=$!
        peer 192.0.2.11 51 0 255 & c=$!
        at_peer ip address add 192.0.2.13/24 dev there
        sleep 2; has foreign
        silence $a $b $c
        peer 192.0.2.11 51 90 255 &
        sleep 1.5; has peer
    """
    lines = without_ipvsadm(cable(program))
    assert (lines[0], lines[-1]) == ("foreign has", "peer has not")


@needs_network_and_mounts
def test_where_a_router_lies_between_them_the_time_to_live_says_nothing(cable):
    program = """
        vip; guard & sleep 0.5
        peer 192.0.2.11 51 90 254 &
        sleep 1.5; has routed
    """
    assert without_ipvsadm(cable(program, routed=True))[-1] == "routed has not"


@needs_network_and_mounts
def test_only_what_this_director_itself_sends_are_its_adverts(cable):
    program = """
        ip address add 192.0.2.14/24 dev here
        at_peer ip address add 192.0.2.11/32 dev there
        vip; guard & sleep 0.5
        send 192.0.2.11 224.0.0.18 52 100 255 &
        send 192.0.2.14 224.0.0.18 51 100 255 &
        send_from_peer 192.0.2.11 224.0.0.18 51 100 255 &
        sleep 1
        peer 224.0.0.18 51 90 255 &
        sleep 1.5; has impostors
    """
    assert without_ipvsadm(cable(program, multicast=True))[-1] == "impostors has not"


@needs_network_and_mounts
def test_an_address_beside_the_vip_stays(cable):
    program = """
        ip address add 192.0.2.99/32 dev here label here:vip
        vip; guard & sleep 0.5
        peer 192.0.2.11 51 90 255 &
        sleep 2; ip -4 -o address show dev here | awk '{print $4}'
    """
    assert without_ipvsadm(cable(program))[1:] == ["192.0.2.11/24", "192.0.2.99/32"]
