#!/usr/bin/python3 -I
"""Tells CloudWatch how many packets AWS has held back from this machine, so that an alarm can be made of
it. Installed on directors where aws.alarms is set.

    allowances /etc/cosyvoice-lvs/allowances.json

The configuration: {"region", "interface"} and, where the API is not at its usual place, "endpoint".

Every instance type has limits for its network. What is beyond them is queued, then dropped, and nothing but
the driver of the interface counts it (ethtool -S): CloudWatch has no such metric of its own. Once a minute
the sum of the counters, less that of the minute before, is sent as NetworkAllowanceExceeded of this instance.
What could not be sent is sent with the next minute's.
"""

import array
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
import urllib.request

NAMESPACE, METRIC = "cosyvoice-lvs", "NetworkAllowanceExceeded"
INTERVAL = 60.0  # s
LIMIT = 10.0  # s, for one call
METADATA = "http://169.254.169.254"
SUFFIX = "_allowance_exceeded"  # of the names under which the driver counts

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS, ETHTOOL_GSTATS, ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37
ETH_SS_STATS, NAME_LENGTH = 1, 32


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------ the driver


def ask(sock, interface, command):
    """One question to a driver: the command, which it answers in place."""
    buffer = array.array("B", command)
    request = struct.pack("16sP", interface.encode(), buffer.buffer_info()[0]).ljust(40, b"\0")
    fcntl.ioctl(sock, SIOCETHTOOL, request)
    return buffer.tobytes()


def statistics(interface):
    """What the driver counts, by name, as ethtool -S prints it. OSError where it counts nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        info = ask(sock, interface, struct.pack("IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0))
        count = struct.unpack_from("I", info, 16)[0]
        names = ask(
            sock,
            interface,
            struct.pack("III", ETHTOOL_GSTRINGS, ETH_SS_STATS, count) + bytes(NAME_LENGTH * count),
        )
        values = ask(sock, interface, struct.pack("II", ETHTOOL_GSTATS, count) + bytes(8 * count))
    words = [names[12 + NAME_LENGTH * n :][:NAME_LENGTH].split(b"\0")[0].decode() for n in range(count)]
    return dict(zip(words, struct.unpack_from(f"{count}Q", values, 8)))


def held_back(interface):
    """Packets held back since the machine started. LookupError when the driver does not count them."""
    counted = {name: value for name, value in statistics(interface).items() if name.endswith(SUFFIX)}
    if not counted:
        raise LookupError(f"the driver of {interface} does not count what AWS holds back")
    return sum(counted.values())


# ------------------------------------------------------------------------------------------ AWS


def instance():
    """This machine's id, by its own metadata service, version 2."""
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answer(path, method, headers):
        request = urllib.request.Request(base + path, method=method, headers=headers)
        with opener.open(request, timeout=LIMIT) as got:
            return got.read().decode()

    token = answer("/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    return answer("/latest/meta-data/instance-id", "GET", {"X-aws-ec2-metadata-token": token})


class Reporter:
    """Sends what was counted since the last time that it could be sent."""

    def __init__(self, config, read):
        import boto3
        import botocore.config

        self.read = read
        self.before = read()
        self.dimensions = [{"Name": "InstanceId", "Value": instance()}]
        self.cloudwatch = boto3.client(
            "cloudwatch",
            region_name=config["region"],
            endpoint_url=config.get("endpoint"),
            config=botocore.config.Config(
                connect_timeout=LIMIT, read_timeout=LIMIT, retries={"total_max_attempts": 1}
            ),
        )

    def report(self):
        now = self.read()
        # A driver that was loaded anew counts from nothing.
        value = now - self.before if now >= self.before else now
        datum = {"MetricName": METRIC, "Dimensions": self.dimensions, "Unit": "Count", "Value": value}
        self.cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=[datum])
        self.before = now


def run(config):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    reporter, said = None, None
    while True:
        try:
            if reporter is None:
                reporter = Reporter(config, lambda: held_back(config["interface"]))
            reporter.report()
            said = None
        except Exception as error:  # whatever AWS, its library or the network has to say: in a minute again
            text = f"{type(error).__name__}: {error}"
            if text != said:
                say(f"{text}; again every {INTERVAL:.0f} s")
            said = text
        time.sleep(INTERVAL)


def main(arguments):
    if len(arguments) != 1:
        say("usage: allowances CONFIG.json")
        return 2
    with open(arguments[0], encoding="utf-8") as file:
        run(json.load(file))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
