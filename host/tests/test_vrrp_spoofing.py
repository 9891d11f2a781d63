"""Adverts of a machine that is no director, before the real keepalived with a director's configuration."""

import os
import pathlib
import subprocess

import pytest
from conftest import needs_keepalived

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "test" / "golden" / "texts"
ADVERTS = ROOT / "test" / "lab" / "clients" / "vrrp_adverts.py"

pytestmark = needs_keepalived

# A network with a director and, at the other end of the cable, a network with whoever is to send.
WORLD = """
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/cosyvoice-lvs/turns /run/cosyvoice-lvs/track
ip link set lo up
unshare -n sh -c 'touch /run/ready; exec sleep 120' &
other=$!
until [ -e /run/ready ]; do sleep 0.05; done
ip link add $INTERFACE type veth peer name far netns $other
ip address add $DIRECTOR/8 dev $INTERFACE
ip link set $INTERFACE up
nsenter -t $other -n sh -euc "ip link set far up; for a in $SENDERS; do ip address add \\$a/8 dev far; done"
keepalived --vrrp --dont-fork --log-console --pid /run/k.pid --vrrp_pid /run/v.pid --use-file "$CONFIG" \\
    >/run/log 2>&1 &
keepalived=$!
trap 'kill $keepalived $other; cat /run/log' EXIT
holds() { ip -4 -o address show dev $INTERFACE | grep -qF " $VIP/"; }
tries=0
until holds; do tries=$((tries + 1)); [ $tries -lt 600 ] || { echo never took it; exit 1; }; sleep 0.1; done
for sender in $SENDERS; do
    nsenter -t $other -n python3 "$ADVERTS" $sender $DIRECTOR $VIP 51 255 3 >/dev/null &
    sending=$!
    gone=no
    while kill -0 $sending 2>/dev/null; do holds || gone=yes; sleep 0.05; done
    echo "after $sender: gave way $gone"
done
"""


@pytest.mark.parametrize(
    ("case", "interface", "vip", "director", "peer", "real_server"),
    [
        ("default", "eth0", "192.168.1.100", "192.168.1.11", "192.168.1.12", "192.168.1.101"),
        ("aws-two-zones", "ens5", "10.255.0.100", "10.20.0.10", "10.20.16.11", "10.20.1.10"),
    ],
)
def test_a_real_server_is_not_heard_and_the_peer_is(case, interface, vip, director, peer, real_server):
    environment = {
        **os.environ,
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "INTERFACE": interface,
        "DIRECTOR": director,
        "SENDERS": f"{real_server} {peer}",
        "VIP": vip,
        "CONFIG": str(GOLDEN / case / "keepalived-director-1.conf"),
        "ADVERTS": str(ADVERTS),
    }
    run = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", WORLD],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"after {real_server}: gave way no" in run.stdout
    assert f"after {peer}: gave way yes" in run.stdout
