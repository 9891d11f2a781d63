"""A new password of VRRP, on two real keepaliveds one after the other, as a deployment brings it."""

import os
import pathlib
import re
import subprocess

from conftest import needs_keepalived

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CASE = ROOT / "test" / "golden" / "texts" / "classic-article"

pytestmark = needs_keepalived

# Two directors, each in a network of its own, with a cable between them. 1 holds the VIP all the time.
WORLD = """
set -eu
mount -t tmpfs tmpfs /run
ip link set lo up
unshare -n sh -c 'touch /run/ready; exec sleep 120' &
other=$!
until [ -e /run/ready ]; do sleep 0.05; done
ip link add eth0 type veth peer name eth0 netns $other
on() {
    director=$1
    shift
    if [ "$director" = 1 ]; then "$@"; else nsenter -t $other -n "$@"; fi
}
holds() { on "$1" ip -4 -o address show dev eth0 | grep -qF " 192.168.1.100/"; }
start() {
    mkdir /run/"$1"
    cp "$CASE/cosyvoice-lvs-auth.conf" /run/"$1"/
    sed -e /lvs_sync_daemon/d -e "s,/run/cosyvoice-lvs/turns/,/run/$1/," \\
        "$CASE/keepalived-director-$1.conf" >/run/"$1"/keepalived.conf
    on "$1" keepalived --vrrp --dont-fork --log-console --pid /run/"$1"/pid --vrrp_pid /run/"$1"/vrrp-pid \\
        --use-file /run/"$1"/keepalived.conf >/run/"$1"/log 2>&1 &
}
# The step of the layer that brings the password.
step() {
    if on "$1" sh -c "$UNLESS"; then
        echo "$1 goes on"
    else
        echo "$1 leaves the VIP"
        [ "$PAUSE" = no ] || { echo 3 >/run/new && mv -fT /run/new /run/"$1"/stand-down; }
    fi
}
change() {
    sed -i s/made-up1/made-up2/ /run/"$1"/cosyvoice-lvs-auth.conf
    step "$1"
    kill -HUP "$(cat /run/"$1"/pid)"
}
watched() {
    for _ in $(seq "$2"); do
        holders=
        for director in 1 2; do if holds $director; then holders="$holders$director"; fi; done
        echo "$1: held by ${holders:-nobody}"
        sleep 0.1
    done
}
for director in 1 2; do
    on $director ip address add 192.168.1.1$director/24 dev eth0
    on $director ip link set eth0 up
done
trap 'kill $(cat /run/1/pid /run/2/pid) $other' EXIT
step 1 2>/dev/null || true
start 1
tries=0
until holds 1; do tries=$((tries + 1)); [ $tries -lt 600 ] || { cat /run/1/log; exit 1; }; sleep 0.1; done
start 2
watched before 5
change 2
watched between 45
[ "$PAUSE" = yes ] || exit 0
change 1
watched both 5
rm -f /run/2/stand-down
watched after 45
# And who now has the VIP gives it to one that hears it.
kill "$(cat /run/1/pid)"
tries=0
until holds 2; do tries=$((tries + 1)); [ $tries -lt 600 ] || { cat /run/2/log; exit 1; }; sleep 0.1; done
"""


def change(pause):
    """Who held the VIP in each part, and what the step did."""
    active = "! systemctl -q is-active keepalived.service || "
    unless = (CASE / "no-standby.sh").read_text()
    assert unless.startswith(active)
    environment = {
        **os.environ,
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "CASE": str(CASE),
        "PAUSE": pause,
        "UNLESS": unless.removeprefix(active),
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
    held = {}
    for part, who in re.findall(r"^(\w+): held by (\w+)$", run.stdout, re.MULTILINE):
        held.setdefault(part, set()).add(who)
    return held, re.findall(r"^\d (?:goes on|leaves the VIP)$", run.stdout, re.MULTILINE)


def test_one_director_has_the_vip_while_the_two_have_different_passwords():
    held, steps = change("yes")
    assert held == {part: {"1"} for part in ("before", "between", "both", "after")}
    # Before anybody holds it nobody leaves it to another one; nor does the one that has it.
    assert steps == ["1 goes on", "2 leaves the VIP", "1 goes on"]


def test_both_would_have_it_if_the_standby_did_not_leave_it():
    held, _ = change("no")
    assert "12" in held["between"]
