#!/usr/bin/python3 -IS
"""Captures the packets of one TCP connection on this machine, for `scripts/cluster trace`. Sent over SSH; it
changes nothing.

capture ADDRESS PORT LIMIT < WHAT STAYS OPEN

ADDRESS is this machine's own, PORT the client's, by which the connection is known. First a JSON line
{"interface", "mac"} of the interface with ADDRESS, then what tcpdump says of each packet on it; tcpdump's own
words go to standard error. It ends when its standard input does, or after LIMIT seconds.

Exit status: 0, 3 when there is no tcpdump here, 1 for any other failure, with a line on standard error.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys

MOST = 400  # packets; one request has some thirty
LINGER = 1.0  # s after the end of the request: what is still on its way


def interface_of(address):
    said = subprocess.run(
        ["ip", "-o", "-4", "address", "show"], stdout=subprocess.PIPE, timeout=10, check=True
    ).stdout.decode()
    for line in said.splitlines():
        words = line.split()
        if words[3].split("/")[0] == address:
            return words[1].split("@")[0]
    raise OSError(f"no interface of this machine has {address}")


def expression(port):
    # In a tunnel (IPIP, an outer header without options) the inner TCP header is 40 bytes after the outer.
    return f"(tcp port {port}) or (ip proto 4 and (ip[40:2] = {port} or ip[42:2] = {port}))"


def main(address, port, limit):
    # sbin is not on everybody's path.
    tcpdump = shutil.which("tcpdump", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if tcpdump is None:
        print("tcpdump is not installed", file=sys.stderr)
        return 3
    try:
        interface = interface_of(address)
        with open(f"/sys/class/net/{interface}/address", encoding="ascii") as file:
            mac = file.read().strip()
    except (OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"interface": interface, "mac": mac}), flush=True)
    # No promiscuous mode: what is meant for others is not to be seen here. Absolute numbers, so that a packet
    # is known again elsewhere; each line at once.
    argv = [tcpdump, "-i", interface, "-p", "-n", "-e", "-S", "-tt", "-l", "--immediate-mode"]
    argv += ["-s", "160", "-c", str(MOST), expression(port)]
    capture = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        select.select([sys.stdin], [], [], limit)
        try:
            capture.wait(LINGER)
        except subprocess.TimeoutExpired:
            pass
    finally:
        capture.send_signal(signal.SIGINT)
        code = capture.wait(10)
    return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
