"""What the mover decides, against a clock of the test's own, and what it tells AWS, against moto."""

import io
import json
import socket
import subprocess
import sys

import pytest

from conftest import DIRECTORS, PROGRAM, VIP, module

mover = module()


class FakeKernel:
    def __init__(self):
        self.held = False

    def holds(self):
        return self.held


class FakeWay:
    """Route tables that remember who was sent where."""

    def __init__(self, kernel, tables=("rtb-1", "rtb-2")):
        self.kernel = kernel
        self.here = dict.fromkeys(tables, False)
        self.tables = []
        self.calls = []
        self.errors = []  # one for each coming call
        self.during = None

    def look(self):
        self.calls.append("look")
        self.fail()
        self.tables = sorted(self.here)
        return [table for table in self.tables if not self.here[table]]

    def known(self):
        return self.tables

    def fail(self):
        if self.errors and (error := self.errors.pop(0)):
            raise error

    def moves(self, wrong):
        def move(table):
            self.calls.append(table)
            if self.during:
                self.during(table)
            self.fail()
            self.here[table] = True

        return {f"the route in {table}": lambda table=table: move(table) for table in wrong}


class Desk:
    """A mover, its kernel, its AWS and its time."""

    def __init__(self):
        self.now = 1000.0
        self.kernel = FakeKernel()
        self.way = FakeWay(self.kernel)
        self.mover = mover.Mover(self.kernel, self.way, clock=lambda: self.now)

    def live(self, seconds):
        """Lets time go by; the calls that were made meanwhile, each with its moment."""
        start, made = self.now, []
        while self.now < start + seconds:
            before = len(self.way.calls)
            wait = self.mover.step()
            made += [(round(self.now - start, 1), call) for call in self.way.calls[before:]]
            assert 0 <= wait <= mover.TICK
            self.now += max(wait, 0.05)
        return made


@pytest.fixture
def desk():
    return Desk()


def test_who_stands_by_looks_once_a_minute_and_moves_nothing(desk):
    assert [call for _, call in desk.live(150)] == ["look"] * 3
    assert desk.way.here == {"rtb-1": False, "rtb-2": False}


def test_who_gets_the_vip_moves_at_once_without_a_look_and_looks_afterwards(desk):
    desk.live(1)
    desk.kernel.held = True
    made = desk.live(9)
    assert sorted(call for at, call in made if at == 0) == ["rtb-1", "rtb-2"]
    assert [call for at, call in made if at > 0] == ["look"] * 4


def test_a_mover_that_starts_on_the_holder_looks_first(desk):
    desk.kernel.held = True
    made = desk.live(1)
    assert made[0] == (0.0, "look")
    assert sorted(call for _, call in made[1:]) == ["rtb-1", "rtb-2"]


def test_what_was_moved_away_is_moved_back(desk):
    desk.kernel.held = True
    desk.live(60)
    desk.way.here["rtb-2"] = False
    made = [call for _, call in desk.live(11)]
    assert made.count("rtb-2") == 1
    assert "rtb-1" not in made
    assert desk.way.here["rtb-2"]


def test_what_fails_is_tried_again_later_and_later(desk, capsys):
    desk.live(1)
    desk.way.errors = [OSError("made up")] * 40
    desk.kernel.held = True
    desk.live(20)
    moments = [at for at, _ in desk.live(20)]
    pauses = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
    assert max(pauses) <= mover.RETRY_MOST * 1.2 + mover.TICK
    assert len(moments) <= 8
    assert capsys.readouterr().err.count("OSError: made up") == 1
    desk.way.errors = []
    desk.live(7)
    assert desk.way.here == {"rtb-1": True, "rtb-2": True}


def test_of_two_tables_the_one_that_failed_is_tried_again(desk):
    desk.live(1)
    desk.kernel.held = True
    desk.way.during = lambda table: desk.way.errors.append(OSError("made up") if table == "rtb-2" else None)
    desk.live(0.1)
    desk.way.during, desk.way.errors = None, []
    assert desk.way.here == {"rtb-1": True, "rtb-2": False}
    made = [call for _, call in desk.live(2)]
    assert made[:2] == ["look", "rtb-2"]


def test_who_loses_the_vip_stops_trying(desk):
    desk.live(1)
    desk.way.errors = [OSError("made up")] * 40
    desk.kernel.held = True
    desk.live(3)
    desk.kernel.held = False
    desk.way.calls.clear()
    assert [call for _, call in desk.live(30) if call.startswith("rtb")] == []


def test_the_kernel_is_asked_again_before_every_call(desk):
    desk.live(1)
    asked = []

    def holds():
        asked.append(1)
        return len(asked) == 1

    desk.kernel.holds = holds
    desk.mover.step()
    assert desk.way.here == {"rtb-1": False, "rtb-2": False}


# ------------------------------------------------------------------------------------------ against moto


def cloud(world, as_director, name, **changes):
    as_director(name)
    return mover.Cloud(world.config(name, **changes))


def test_it_finds_itself_and_the_route_tables_of_its_vpc_only(world, as_director):
    found = cloud(world, as_director, "director-2")
    assert (found.vpc, found.interface) == (world.vpc, world.interfaces["director-2"])
    assert found.route_tables() == dict.fromkeys(world.tables, world.interfaces["director-1"])


def test_it_sends_the_vip_to_itself_in_all_of_them(world, as_director):
    way = mover.ByRoute(cloud(world, as_director, "director-2"))
    assert way.look() == sorted(world.tables)
    kernel = FakeKernel()
    kernel.held = True
    mover.Mover(kernel, way).step()
    assert world.targets() == ["director-2", "director-2"]
    assert {table for table, _ in world.door.moves()} == set(world.tables)
    assert way.look() == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("UnauthorizedOperation", "the role of the directors lacks this right; run pulumi up"),
        ("RequestLimitExceeded", "RequestLimitExceeded"),
        ("Unavailable", "Unavailable"),
    ],
)
def test_an_error_of_the_api_is_said_with_what_to_do_and_tried_again(world, as_director, capsys, code, said):
    way = mover.ByRoute(cloud(world, as_director, "director-2"))
    kernel = FakeKernel()
    kernel.held = True
    subject = mover.Mover(kernel, way)
    world.door.plan("ReplaceRoute", 2, code)
    subject.step()
    assert world.targets() == ["director-1", "director-1"]
    assert said in capsys.readouterr().err
    subject.next_look = 0
    subject.step()
    assert world.targets() == ["director-2", "director-2"]


def test_a_call_that_hangs_ends_within_its_limit(world, as_director, capsys, monkeypatch):
    monkeypatch.setattr(mover, "READ_LIMIT", 0.5)
    way = mover.ByRoute(cloud(world, as_director, "director-2"))
    kernel = FakeKernel()
    kernel.held = True
    subject = mover.Mover(kernel, way)
    world.door.plan("DescribeRouteTables", 1, 3)
    subject.step()
    assert "ReadTimeout" in capsys.readouterr().err
    assert subject.failures == 1


def test_a_vpc_without_a_route_to_the_vip_is_said(world, as_director, capsys):
    for table in world.tables:
        world.ec2.delete_route(RouteTableId=table, DestinationCidrBlock=f"{VIP}/32")
    mover.Mover(FakeKernel(), mover.ByRoute(cloud(world, as_director, "director-1"))).step()
    assert "has a route to the VIP; run pulumi up" in capsys.readouterr().err


def test_the_address_and_its_elastic_ip_are_taken(world, as_director):
    """moto leaves a moved address on the old interface as well, so what counts is that the new one has it."""
    vip = "10.20.0.100"
    made = world.ec2.allocate_address(Domain="vpc")
    tags = [{"Key": "cosyvoice-lvs:stack", "Value": "made-up"}, {"Key": "cosyvoice-lvs:part", "Value": "vip"}]
    world.ec2.create_tags(Resources=[made["AllocationId"]], Tags=tags)
    way = mover.ByAddress(cloud(world, as_director, "director-2", exposure="internet", vip=vip))
    assert way.look() == ["address"]
    kernel = FakeKernel()
    kernel.held = True
    subject = mover.Mover(kernel, way)
    subject.step()
    assert way.cloud.holders_of_address() == [world.interfaces["director-2"]]
    # With AWS it would have come along.
    assert way.look() == ["elastic"]
    subject.next_look = 0
    subject.step()
    _, _, asked = next(call for call in world.door.calls if call[1] == "AssociateAddress")
    assert asked["AllocationId"] == made["AllocationId"]
    assert asked["NetworkInterfaceId"] == world.interfaces["director-2"]
    # moto forgets which of the interface's addresses it was for.
    assert (asked["PrivateIpAddress"], asked["AllowReassociation"]) == (vip, "true")


# ------------------------------------------------------------------------------------------ the check


def checked(world, as_director, unchecked, **changes):
    as_director("director-2")
    return mover.check(world.config("director-2", **changes), {"unchecked": unchecked})


def test_a_cluster_that_is_as_it_should_be_has_no_finding(world, as_director):
    result = checked(world, as_director, list(DIRECTORS.values()))
    assert (result["holder"], result["findings"]) == (False, [])


def test_a_route_to_the_wrong_director_and_a_check_that_is_on_are_found(world, as_director):
    world.send(world.tables[1], "director-2")
    world.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=world.interfaces["director-1"], SourceDestCheck={"Value": True}
    )
    findings = checked(world, as_director, [*DIRECTORS.values(), "10.20.0.99"])["findings"]
    assert [(found["address"], found["fix"][:12]) for found in findings] == [
        ("10.20.0.10", "run pulumi u"),
        ("10.20.0.99", "run pulumi u"),
        ("10.20.0.10", "journalctl -"),
    ]
    what = [found["what"] for found in findings]
    assert what[0].startswith("AWS checks source and destination of 10.20.0.10 (eni-")
    assert what[1] == f"no interface of {world.vpc} has the address 10.20.0.99"
    assert what[2].startswith(f"the route in {world.tables[1]} leads {VIP} to eni-")
    assert "and 10.20.0.10 holds it" in what[2]


def test_what_is_found_is_told_to_people_and_to_programs(world, as_director, monkeypatch, capsys, tmp_path):
    as_director("director-2")
    # As it is, it looks again for half a minute.
    monkeypatch.setattr(mover, "check_until", mover.check)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"unchecked": ["10.20.0.99"]}'))
    config = tmp_path / "vip-mover.json"
    config.write_text(json.dumps(world.config("director-2")))
    assert mover.main(["check", str(config)]) == 1
    said = capsys.readouterr()
    what = f"no interface of {world.vpc} has the address 10.20.0.99"
    assert said.err == f"{what}: run pulumi up --refresh\n"
    assert json.loads(said.out)["findings"] == [
        {"address": "10.20.0.99", "what": what, "fix": "run pulumi up --refresh"}
    ]


def test_the_one_that_stands_by_is_a_client_who_must_be_answered(world, as_director):
    as_director("director-2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = world.config("director-2", vip="127.0.0.1")
        assert mover.served(config, port) == []
    found = mover.check(config, {"unchecked": [], "port": port})["findings"][-1]
    assert found["what"].startswith(f"127.0.0.1:{port} does not answer this director, a client in the")
    assert found["address"] == "10.20.0.11"
    # The holder would ask itself.
    holder = dict(config, label="lo")
    assert mover.check(holder, {"unchecked": [], "port": port})["holder"]
    assert not any(
        "a client" in found["what"]
        for found in mover.check(holder, {"unchecked": [], "port": port})["findings"]
    )


def test_a_wrong_call_says_how_to_call_it():
    result = subprocess.run(
        [sys.executable, "-I", PROGRAM, "move"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (
        2,
        "usage: vip-mover run|check CONFIG.json, vip-mover poke\n",
    )


def test_a_poke_without_a_mover_fails_and_says_so():
    result = subprocess.run(
        [sys.executable, "-I", PROGRAM, "poke"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "the mover does not listen" in result.stderr


def test_the_config_of_the_renderer_is_the_one_it_reads(world):
    golden = PROGRAM.parents[1] / "test" / "golden" / "texts" / "aws" / "vip-mover-director-1.json"
    assert set(json.loads(golden.read_text())) == set(world.config("director-1")) - {"endpoint"}
