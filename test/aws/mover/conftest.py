"""A piece of AWS on this computer: moto behind a door that can fail, and each director's metadata service."""

import contextlib
import http.server
import importlib.util
import io
import json
import logging
import os
import pathlib
import threading
import time
import urllib.parse

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "host" / "vip-mover.py"
REGION = "eu-central-1"
VIP = "10.255.0.100"
DIRECTORS = {"director-1": "10.20.0.10", "director-2": "10.20.0.11"}
KEYS = {"AccessKeyId": "made-up", "SecretAccessKey": "made-up", "Token": "made-up"}

ERROR = (
    '<?xml version="1.0"?><Response><Errors><Error><Code>{code}</Code><Message>made up</Message></Error>'
    "</Errors><RequestID>0</RequestID></Response>"
)


def module(program=PROGRAM):
    """A program that goes to machines, such as vip-mover, which has no name that can be imported."""
    spec = importlib.util.spec_from_file_location(program.stem.replace("-", "_"), program)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Door:
    """Stands before moto: keeps a log of calls, and does to them what a test has planned."""

    def __init__(self, behind):
        self.behind = behind
        self.calls = []  # (time, action, parameters)
        self.plans = []  # [action, how often, what]
        self.lock = threading.Lock()

    def plan(self, action, times, what):
        """The next calls of this kind: a code to fail with, or a number of seconds to hold them back."""
        with self.lock:
            self.plans.append([action, times, what])

    def planned(self, action):
        with self.lock:
            for plan in self.plans:
                if plan[0] in (action, "*") and plan[1] > 0:
                    plan[1] -= 1
                    return plan[2]
        return None

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        fields = dict(urllib.parse.parse_qsl(body.decode()))
        action = fields.get("Action", "")
        self.calls.append((time.monotonic(), action, fields))
        what = self.planned(action)
        if isinstance(what, str):
            start_response("503 Made Up" if what == "Unavailable" else "403 Made Up", [])
            return [ERROR.format(code=what).encode()]
        if what is not None:
            time.sleep(what)
        return self.behind(environ, start_response)

    def moves(self):
        return [
            (fields["RouteTableId"], fields["NetworkInterfaceId"])
            for _, action, fields in self.calls
            if action == "ReplaceRoute"
        ]


class Metadata(http.server.BaseHTTPRequestHandler):
    """What one director is told about itself, by those who have a token."""

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        self.answer("made-up-token")

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != "made-up-token":
            self.send_error(401)
            return
        told = self.server.told
        path = self.path.removeprefix("/latest/meta-data/")
        if path in told:
            self.answer(told[path])
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(server):
    # How long its end is waited for; the default, half a second, is most of what these tests would take.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()


class World:
    """A VPC with two directors and two route tables that lead the VIP to the first of them."""

    def __init__(self, door, port):
        self.door, self.port = door, port
        self.ec2 = boto3.client(
            "ec2",
            region_name=REGION,
            endpoint_url=self.endpoint(),
            aws_access_key_id="made-up",
            aws_secret_access_key="made-up",
        )
        self.vpc = self.ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.20.0.0/20")["Subnet"]["SubnetId"]
        self.interfaces = {name: self.interface(address) for name, address in DIRECTORS.items()}
        self.tables = [self.table(self.vpc, self.interfaces["director-1"]) for _ in range(2)]
        # Without a route to the VIP, and with one in somebody else's VPC: neither is ours.
        self.ec2.create_route_table(VpcId=self.vpc)
        other = self.ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        self.foreign = self.table(other, self.interfaces["director-1"])
        self.metadata = {}
        door.calls.clear()

    def endpoint(self, host="127.0.0.1"):
        return f"http://{host}:{self.port}"

    def interface(self, address):
        made = self.ec2.create_network_interface(SubnetId=self.subnet, PrivateIpAddress=address)
        name = made["NetworkInterface"]["NetworkInterfaceId"]
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=name, SourceDestCheck={"Value": False})
        return name

    def table(self, vpc, target):
        name = self.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        self.ec2.create_route(RouteTableId=name, DestinationCidrBlock=f"{VIP}/32", NetworkInterfaceId=target)
        return name

    def send(self, table, director):
        self.ec2.replace_route(
            RouteTableId=table,
            DestinationCidrBlock=f"{VIP}/32",
            NetworkInterfaceId=self.interfaces[director],
        )

    def targets(self):
        """The director to which each of our route tables leads."""
        names = {interface: name for name, interface in self.interfaces.items()}
        found = self.ec2.describe_route_tables(RouteTableIds=self.tables)["RouteTables"]
        return [
            names[route["NetworkInterfaceId"]]
            for table in found
            for route in table["Routes"]
            if route["DestinationCidrBlock"] == f"{VIP}/32"
        ]

    def told(self, director):
        """What the director's metadata service says."""
        mac = "06:00:00:00:00:01"
        keys = {**KEYS, "Code": "Success", "Type": "AWS-HMAC", "Expiration": "2099-01-01T00:00:00Z"}
        return {
            "mac": mac,
            "instance-id": f"i-{director}",
            f"network/interfaces/macs/{mac}/vpc-id": self.vpc,
            f"network/interfaces/macs/{mac}/interface-id": self.interfaces[director],
            "iam/security-credentials/": "made-up-role",
            "iam/security-credentials/made-up-role": json.dumps(keys),
        }

    def config(self, director, **changes):
        peer = next(address for name, address in DIRECTORS.items() if name != director)
        return {
            "region": REGION,
            "stack": "made-up",
            "exposure": "vpc",
            "vip": VIP,
            "interface": "ens5",
            "label": "ens5:vip",
            "address": DIRECTORS[director],
            "peer": peer,
            "endpoint": self.endpoint(),
            **changes,
        }


@pytest.fixture
def world():
    door = Door(DomainDispatcherApplication(create_backend_app))
    server = make_server("0.0.0.0", 0, door, threaded=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(server))
        made = World(door, server.server_port)
        for director in DIRECTORS:
            metadata = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Metadata)
            metadata.told = made.told(director)
            stack.enter_context(serving(metadata))
            made.metadata[director] = metadata.server_port
        yield made
    # moto's memory is one for the whole process.
    import moto.backends

    moto.backends.get_backend("ec2").reset()


@pytest.fixture
def as_director(monkeypatch, world):
    """This process asks as a director would: with the keys of its metadata service and no others."""

    def be(name):
        for variable in [variable for variable in os.environ if variable.startswith("AWS_")]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{world.metadata[name]}")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    return be
