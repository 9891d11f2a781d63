#!/usr/bin/python3 -IS
"""Writes down when this director holds the VIP and whom its kernel's table sends connections to.

    director-sampler VIP [INTERVAL]         INTERVAL: s between two looks, default 0.02

    {"t": s, "holds": true}                 the VIP came or went
    {"t": s, "pool": {"ADDRESS": weight}}   the real servers of the VIP's virtual services changed
    {"t": s, "alive": true}                 twice a second: up to here nothing was missed

The time is CLOCK_MONOTONIC, which all machines of the lab share. A look is a few system calls (whoever can
bind to an address has it), and the table is read at every fifth one: no processes, or it would weigh on what
it watches.
"""

import json
import os
import signal
import socket
import sys
import time


def holds(vip):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((vip, 0))
        except OSError:
            return False
    return True


def dotted(word):
    return ".".join(str(byte) for byte in bytes.fromhex(word.partition(":")[0]))


def pool(vip):
    """Weight by address, of all virtual services of the VIP; None without IPVS."""
    found, inside = {}, False
    try:
        with open("/proc/net/ip_vs", encoding="ascii") as table:
            for line in table:
                words = line.split()
                if words[0] in ("TCP", "UDP"):
                    inside = dotted(words[1]) == vip
                elif words[0] == "->" and inside:
                    found[dotted(words[1])] = int(words[3])
    except OSError:
        return None
    return found


def main(arguments):
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: director-sampler VIP [INTERVAL]\n")
        return 2
    vip, interval = arguments[0], float(arguments[1]) if len(arguments) > 1 else 0.02
    # No child of the nsenter that brought it here: a machine that shuts down stops all its processes, nsenter
    # then stops itself, nobody wakes it, and the machine waits for it for ever.
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    held = table = said = None
    looks = 0

    def say(**line):
        nonlocal said
        said = now
        print(json.dumps({"t": round(now, 3), **line}), flush=True)

    while True:
        now = time.monotonic()
        if (has := holds(vip)) != held:
            held = has
            say(holds=has)
        if looks % 5 == 0 and (found := pool(vip)) != table:
            table = found
            say(pool=found)
        if said is None or now - said >= 0.5:
            say(alive=True)
        looks += 1
        time.sleep(max(0.0, now + interval - time.monotonic()))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        sys.exit(1)
