#!/usr/bin/python3 -I
"""Leads the VIP's traffic to the director that holds it, on AWS, where no ARP does. Installed on directors.

    vip-mover run /etc/cosyvoice-lvs/vip-mover.json     the unit
    vip-mover poke                                      keepalived, when this director becomes the master
    vip-mover check /etc/cosyvoice-lvs/vip-mover.json   what AWS says, as JSON; findings to stderr

The configuration: {"region", "stack", "exposure": "vpc" | "internet", "vip", "interface", "label", "address",
                    "peer"} and, where the API is not at its usual place, "endpoint".

vpc       The VIP lies outside the VPC. Every route table of the VPC that has a route to it (the deployment
          made those) is to lead it to this director's interface: ec2:ReplaceRoute.
internet  The VIP is a secondary address in the directors' subnet, with an Elastic IP. It is to be on this
          director's interface: ec2:AssignPrivateIpAddresses; the Elastic IP comes along, or is sent after it.

Who holds the VIP is asked of the kernel twice a second and at every poke: this director does when
keepalived has put it on the interface. Only the holder moves anything, and asks the kernel again before
every call. What failed is tried again, after 0.2 s at first and at most 5 s later, for as long as it holds
the VIP. What was moved is looked at every 2 s for half a minute and every 10 s after that, and moved again
when it is not where it should be: of two directors that became master shortly after each other, the first
one's call may come last.

check also reads the addresses of the machines that forward packets or answer for foreign addresses, JSON on
standard input: {"unchecked": ["10.20.0.10", ...]}. AWS must not check the source and destination of their
packets. With "port" too, the director that stands by connects to that port of the VIP: a client in the
cluster's own subnet, which a real server must be able to answer with the VIP's address. (The holder has the
VIP itself.) A finding is {"address", "what", "fix"}: that of the machine that it is about, or null.
Exit status: 0 all is well, 1 findings, 2 wrong call.
"""

import concurrent.futures
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
import urllib.request

SOCKET = "/run/cosyvoice-lvs/vip-mover/socket"
TICK = 0.5  # s between two looks at who holds the VIP
LOOK, LOOK_EARLY, EARLY = 10.0, 2.0, 30.0  # s between two looks at AWS; how long after a move they are closer
LOOK_STANDBY = 60.0  # s, for the one that stands by: it must know the route tables when it is its turn
RETRY_FIRST, RETRY_MOST = 0.2, 5.0  # s
CONNECT_LIMIT, READ_LIMIT = 1.0, 4.0  # s, for one call
CLIENT_LIMIT = 5.0  # s, for a connection to the VIP
METADATA = "http://169.254.169.254"
REFRESH = "run pulumi up --refresh"
AT_ONCE = 200  # values that AWS takes in one filter
SIOCGIFADDR = 0x8915


def say(text):
    print(text, file=sys.stderr, flush=True)


class Kernel:
    """What this machine itself says."""

    def __init__(self, config):
        self.vip = socket.inet_aton(config["vip"])
        self.request = struct.pack("256s", config["label"].encode()[:15])
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def holds(self):
        """Whether keepalived has put the VIP on the interface."""
        try:
            return fcntl.ioctl(self.socket, SIOCGIFADDR, self.request)[20:24] == self.vip
        except OSError:
            return False


def metadata(path):
    """One answer of the machine's own metadata service, version 2."""
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/")

    def ask(url, method, headers):
        request = urllib.request.Request(base + url, method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=CONNECT_LIMIT) as answer:
            return answer.read().decode()

    token = ask("/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    return ask(f"/latest/meta-data/{path}", "GET", {"X-aws-ec2-metadata-token": token})


class Cloud:
    """What AWS says, and is told."""

    def __init__(self, config):
        import boto3
        import botocore.config

        self.config = config
        mac = metadata("mac")
        self.vpc = metadata(f"network/interfaces/macs/{mac}/vpc-id")
        self.interface = metadata(f"network/interfaces/macs/{mac}/interface-id")
        self.ec2 = boto3.client(
            "ec2",
            region_name=config["region"],
            endpoint_url=config.get("endpoint"),
            config=botocore.config.Config(
                connect_timeout=CONNECT_LIMIT, read_timeout=READ_LIMIT, retries={"total_max_attempts": 1}
            ),
        )

    def route_tables(self):
        """{route table: the interface to which it sends the VIP}"""
        destination = f"{self.config['vip']}/32"
        pages = self.ec2.get_paginator("describe_route_tables").paginate(
            Filters=[
                {"Name": "vpc-id", "Values": [self.vpc]},
                {"Name": "route.destination-cidr-block", "Values": [destination]},
            ]
        )
        return {
            table["RouteTableId"]: route.get("NetworkInterfaceId")
            for page in pages
            for table in page["RouteTables"]
            for route in table["Routes"]
            if route.get("DestinationCidrBlock") == destination
        }

    def send_here(self, table):
        self.ec2.replace_route(
            RouteTableId=table,
            DestinationCidrBlock=f"{self.config['vip']}/32",
            NetworkInterfaceId=self.interface,
        )

    def interfaces(self, addresses):
        """The network interfaces of this VPC that have these primary addresses."""
        found = []
        for start in range(0, len(addresses), AT_ONCE):
            pages = self.ec2.get_paginator("describe_network_interfaces").paginate(
                Filters=[
                    {"Name": "vpc-id", "Values": [self.vpc]},
                    {"Name": "addresses.private-ip-address", "Values": addresses[start : start + AT_ONCE]},
                ]
            )
            found += [interface for page in pages for interface in page["NetworkInterfaces"]]
        return found

    def elastic(self):
        """The Elastic IP that belongs to the VIP, or None."""
        answer = self.ec2.describe_addresses(
            Filters=[
                {"Name": "tag:cosyvoice-lvs:stack", "Values": [self.config["stack"]]},
                {"Name": "tag:cosyvoice-lvs:part", "Values": ["vip"]},
            ]
        )
        return answer["Addresses"][0] if answer["Addresses"] else None

    def holders_of_address(self):
        """The directors' interfaces that have the VIP as a secondary address; one, but for a moment."""
        return [
            interface["NetworkInterfaceId"]
            for interface in self.interfaces([self.config["address"], self.config["peer"]])
            if self.config["vip"] in (part["PrivateIpAddress"] for part in interface["PrivateIpAddresses"])
        ]

    def take_address(self):
        self.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=self.interface,
            PrivateIpAddresses=[self.config["vip"]],
            AllowReassignment=True,
        )

    def take_elastic(self, address):
        self.ec2.associate_address(
            AllocationId=address["AllocationId"],
            NetworkInterfaceId=self.interface,
            PrivateIpAddress=self.config["vip"],
            AllowReassociation=True,
        )


class ByRoute:
    """exposure: vpc"""

    def __init__(self, cloud):
        self.cloud = cloud
        self.tables = []  # as of the last look: a move does not wait for one

    def look(self):
        """What is not where it should be for the holder."""
        targets = self.cloud.route_tables()
        self.tables = sorted(targets)
        if not targets:
            raise LookupError(f"no route table of {self.cloud.vpc} has a route to the VIP; run pulumi up")
        return [table for table in self.tables if targets[table] != self.cloud.interface]

    def known(self):
        return self.tables

    def moves(self, wrong):
        return {f"the route in {table}": lambda table=table: self.cloud.send_here(table) for table in wrong}


class ByAddress:
    """exposure: internet"""

    def __init__(self, cloud):
        self.cloud = cloud
        self.address = None

    def look(self):
        wrong = []
        if self.cloud.interface not in self.cloud.holders_of_address():
            wrong.append("address")
        self.address = self.cloud.elastic()
        if self.address is None:
            raise LookupError("no Elastic IP of this stack belongs to the VIP; run pulumi up")
        at = (self.address.get("NetworkInterfaceId"), self.address.get("PrivateIpAddress"))
        if at != (self.cloud.interface, self.cloud.config["vip"]) and not wrong:
            wrong.append("elastic")
        return wrong

    def known(self):
        return ["address"]

    def moves(self, wrong):
        calls = {
            "address": self.cloud.take_address,
            "elastic": lambda: self.cloud.take_elastic(self.address),
        }
        return {{"address": "the address", "elastic": "the Elastic IP"}[part]: calls[part] for part in wrong}


class Mover:
    """Decides what is done when. It never sleeps: `step` says how long it has nothing to do."""

    def __init__(self, kernel, way, clock=time.monotonic):
        self.kernel, self.way, self.clock = kernel, way, clock
        self.held = False
        self.since = 0.0
        self.next_look = 0.0
        self.failures = 0
        self.wrong = None  # what is still to be moved
        self.said = {}

    def step(self):
        now = self.clock()
        holds = self.kernel.holds()
        if holds and not self.held:
            self.since, self.failures = now, 0
            # Without a look: what was known a minute ago is there still, and every call takes its time.
            self.wrong = list(self.way.known()) or None
            self.next_look = now
        elif self.held and not holds:
            say("the VIP has gone to the peer")
            self.wrong, self.next_look = None, now + LOOK_STANDBY
        self.held = holds
        if now >= self.next_look or self.wrong:
            self.act()
        return max(0.0, min(TICK, self.next_look - self.clock()))

    def act(self):
        # What failed waits for its time even when it is known what it is.
        if self.failures and self.clock() < self.next_look:
            return
        try:
            if not self.wrong:
                self.wrong = self.way.look()
            if self.held and self.wrong:
                self.move(self.way.moves(self.wrong))
            self.wrong, self.failures = None, 0
            self.said.clear()
        except Exception as error:  # whatever AWS, its library or the network has to say: try again
            self.failures += 1
            pause = min(RETRY_MOST, RETRY_FIRST * 2 ** min(self.failures - 1, 10)) * random.uniform(0.8, 1.2)
            self.complain(error, pause)
            # A look finds out what of it is left.
            self.wrong = None
            self.next_look = self.clock() + pause
            return
        early = self.clock() - self.since < EARLY
        self.next_look = self.clock() + (LOOK_STANDBY if not self.held else LOOK_EARLY if early else LOOK)

    def move(self, moves):
        start = self.clock()
        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:

            def only_as_holder(call):
                if not self.kernel.holds():
                    return False
                call()
                return True

            running = {what: pool.submit(only_as_holder, call) for what, call in moves.items()}
        errors = [error for task in running.values() if (error := task.exception()) is not None]
        moved = [what for what, task in running.items() if task.exception() is None and task.result()]
        if moved:
            ms = (self.clock() - start) * 1000
            say(f"moved {', '.join(moved)} to this director ({ms:.0f} ms)")
        if errors:
            raise errors[0]

    def complain(self, error, pause):
        """Every error once a minute."""
        text = f"{type(error).__name__}: {error}"
        now = self.clock()
        if self.said.get(text, -60.0) <= now - 60.0:
            self.said[text] = now
            say(f"{text}; again in {pause:.1f} s{advice(text)}")


def advice(text):
    if "UnauthorizedOperation" in text or "AccessDenied" in text:
        return ". To do: the role of the directors lacks this right; run pulumi up"
    if "NoCredentials" in text or "urlopen" in text or "Unable to locate credentials" in text:
        return ". To do: see that the machine has its instance profile, and root reaches the metadata service"
    return ""


# ------------------------------------------------------------------------------------------ the unit


def tell_systemd(text):
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)


def connect(config):
    """Waits for AWS: a director that boots may well be faster than its network."""
    pause = RETRY_FIRST
    while True:
        try:
            cloud = Cloud(config)
            return ByRoute(cloud) if config["exposure"] == "vpc" else ByAddress(cloud)
        except (OSError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
            say(f"{text}; again in {pause:.1f} s{advice(text)}")
        tell_systemd("WATCHDOG=1")
        time.sleep(pause)
        pause = min(RETRY_MOST, pause * 2)


def run(config):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path = config.get("socket", SOCKET)
    if os.path.exists(path):
        os.unlink(path)
    pokes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    pokes.bind(path)
    pokes.setblocking(False)
    # keepalived is not to wait for AWS, nor a deployment.
    tell_systemd("READY=1")
    mover = Mover(Kernel(config), connect(config))
    while True:
        wait = mover.step()
        tell_systemd("WATCHDOG=1")
        if select.select([pokes], [], [], wait)[0]:
            pokes.recv(64)


def poke(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(path)
            sock.send(b"1")
        except OSError as error:
            # The unit looks by itself within half a second of its start.
            say(f"the mover does not listen ({error})")
            return 1
    return 0


# ------------------------------------------------------------------------------------------ the check


def finding(what, fix, address=None):
    return {"address": address, "what": what, "fix": fix}


def check(config, expected):
    """What AWS says, and every finding."""
    cloud = Cloud(config)
    holds = Kernel(config).holds()
    address = config["address"] if holds else config["peer"]
    asked = sorted({*expected["unchecked"], config["address"], config["peer"]})
    interfaces = {found["PrivateIpAddress"]: found for found in cloud.interfaces(asked)}
    should = interfaces.get(address, {}).get("NetworkInterfaceId")
    findings = []
    for machine in expected["unchecked"]:
        if machine not in interfaces:
            findings.append(
                finding(f"no interface of {cloud.vpc} has the address {machine}", REFRESH, machine)
            )
        elif interfaces[machine]["SourceDestCheck"]:
            what = (
                f"AWS checks source and destination of {machine}"
                f" ({interfaces[machine]['NetworkInterfaceId']}), which drops what it forwards or answers for"
                " the VIP"
            )
            findings.append(finding(what, REFRESH, machine))
    if config["exposure"] == "vpc":
        targets = {f"the route in {table}": target for table, target in cloud.route_tables().items()}
        if not targets:
            findings.append(finding(f"no route table of {cloud.vpc} has a route to the VIP", REFRESH))
    else:
        elastic = cloud.elastic() or {}
        targets = {
            "the address": next(iter(cloud.holders_of_address()), None),
            "the Elastic IP": elastic.get("NetworkInterfaceId"),
        }
    for what, target in sorted(targets.items()):
        if target != should:
            findings.append(
                finding(
                    f"{what} leads {config['vip']} to {target}, and {address} holds it ({should})",
                    "journalctl -u cosyvoice-vip-mover there says why it was not moved",
                    address,
                )
            )
    if "port" in expected and not holds:
        findings += served(config, expected["port"])
    return {"holder": holds, "interface": cloud.interface, "targets": targets, "findings": findings}


def served(config, port):
    """The finding when this director cannot connect as a client."""
    try:
        socket.create_connection((config["vip"], port), timeout=CLIENT_LIMIT).close()
    except OSError as error:
        client = "this director, a client in the cluster's subnet"
        what = f"{config['vip']}:{port} does not answer {client} ({error})"
        return [finding(what, "see that real servers are in the table (ipvsadm -Ln)", config["address"])]
    return []


def check_until(config, expected, limit=30.0):
    """A move may be under way: what is found is looked at again for a while."""
    end = time.monotonic() + limit
    while True:
        result = check(config, expected)
        if not result["findings"] or time.monotonic() >= end:
            return result
        time.sleep(2)


def main(arguments):
    if arguments == ["poke"]:
        return poke(SOCKET)
    if len(arguments) != 2 or arguments[0] not in ("run", "check"):
        say("usage: vip-mover run|check CONFIG.json, vip-mover poke")
        return 2
    with open(arguments[1], encoding="utf-8") as file:
        config = json.load(file)
    if arguments[0] == "run":
        return run(config)
    result = check_until(config, json.load(sys.stdin))
    for found in result["findings"]:
        say(f"{found['what']}: {found['fix']}")
    print(json.dumps(result, indent=1))
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
