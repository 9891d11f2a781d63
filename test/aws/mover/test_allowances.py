"""What a director tells CloudWatch: read from a real driver of the kernel, sent to moto."""

import datetime
import json
import os
import socket
import subprocess
import sys

import boto3
import pytest

from conftest import REGION, ROOT, module

PROGRAM = ROOT / "host" / "allowances.py"
allowances = module(PROGRAM)

needs_network = pytest.mark.skipif(
    "COSYVOICE_LVS_NETWORK" not in os.environ, reason="this computer forbids network namespaces"
)


@pytest.fixture
def cable():
    """A network interface whose driver counts: veth, whose first counter is the number of its other end."""
    subprocess.run(["ip", "link", "add", "here", "type", "veth", "peer", "name", "there"], check=True)
    yield "here"
    subprocess.run(["ip", "link", "delete", "here"], check=True)


def other_end():
    return socket.if_nametoindex("there")


@needs_network
def test_a_drivers_counters_are_read_by_their_names(cable):
    counted = allowances.statistics(cable)
    assert counted["peer_ifindex"] == other_end()
    assert len(counted) > 5, counted


@needs_network
def test_the_counters_of_what_was_held_back_are_summed_up(cable, monkeypatch):
    monkeypatch.setattr(allowances, "SUFFIX", "_ifindex")
    assert allowances.held_back(cable) == other_end()


@needs_network
def test_a_driver_that_is_not_awss_is_said(cable):
    with pytest.raises(LookupError, match="driver of here does not count what AWS holds back"):
        allowances.held_back(cable)


@pytest.fixture
def reporter(world, as_director):
    """A reporter on the first director, that reads what a test says."""
    as_director("director-1")
    made = allowances.Reporter({"region": REGION, "endpoint": world.endpoint()}, lambda: 1000)

    def reads(*values):
        readings = iter(values)
        made.read = lambda: next(readings)
        return made

    return reads


def summed_up(world):
    """What the alarm would see."""
    cloudwatch = boto3.client(
        "cloudwatch",
        region_name=REGION,
        endpoint_url=world.endpoint(),
        aws_access_key_id="made-up",
        aws_secret_access_key="made-up",
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    points = cloudwatch.get_metric_statistics(
        Namespace="cosyvoice-lvs",
        MetricName="NetworkAllowanceExceeded",
        Dimensions=[{"Name": "InstanceId", "Value": "i-director-1"}],
        StartTime=now - hour,
        EndTime=now + hour,
        Period=300,
        Statistics=["Sum"],
    )["Datapoints"]
    return sum(point["Sum"] for point in points)


def test_what_is_new_since_the_last_time_is_sent(world, reporter):
    subject = reporter(1000, 1250, 1250)
    for _ in range(3):
        subject.report()
    assert summed_up(world) == 250


def test_a_driver_that_began_anew_counts_from_nothing(world, reporter):
    reporter(40).report()
    assert summed_up(world) == 40


def test_what_could_not_be_sent_is_sent_with_the_next_one(world, reporter):
    subject = reporter(1100, 1300)
    world.door.plan("PutMetricData", 1, "Unavailable")
    with pytest.raises(Exception, match="Unavailable"):
        subject.report()
    subject.report()
    assert summed_up(world) == 300


def test_a_wrong_call_says_how_to_call_it():
    result = subprocess.run([sys.executable, "-I", PROGRAM], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "usage: allowances CONFIG.json\n")


def test_the_config_of_the_renderer_is_the_one_it_reads():
    golden = json.loads((ROOT / "test" / "golden" / "texts" / "aws" / "allowances.json").read_text())
    assert golden == {"region": REGION, "interface": "ens5"}
