#!/usr/bin/python3 -IS
"""Says what `scripts/cluster doctor` judges of one machine, as one JSON object. It changes nothing.

examine

clock     seconds since 1970
disks     [{"path", "free", "size"}] in bytes, of /, /var and /root/CosyVoice/outputs where they are file
          systems of their own; {"path", "error"} of one that does not answer within 5 s
listens   [{"address", "port", "program"}] of TCP sockets that other machines can reach
filters   [{"unit", "table"}] of our packet filters that are on the disk and not in the kernel
"""

import json
import os
import re
import subprocess
import threading
import time

PLACES = ("/", "/var", "/root/CosyVoice/outputs")
FILTERS = {"firewall": "cosyvoice-firewall", "rules": "cosyvoice-rules", "watch": "cosyvoice-watch-rules"}
LIMIT = 5.0  # s for an answer of a file system: a share whose server is away may hang


def mounts():
    with open("/proc/self/mounts", encoding="utf-8") as lines:
        return {line.split(" ")[1] for line in lines}


def disk(path):
    answer = {"path": path, "error": f"no answer within {LIMIT:g} s"}

    def look():
        try:
            found = os.statvfs(path)
        except OSError as error:
            answer["error"] = os.strerror(error.errno)
            return
        del answer["error"]
        answer.update(free=found.f_bavail * found.f_frsize, size=found.f_blocks * found.f_frsize)

    # A daemon: one that hangs in the kernel must not keep this program.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(LIMIT)
    return dict(answer)


def address(text, version):
    """Dotted or colon text of an address in /proc/net/tcp; None for one that only this machine reaches."""
    import ipaddress

    raw = bytes.fromhex(text)
    packed = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    found = ipaddress.ip_address(packed)
    if version == 6 and found.ipv4_mapped:
        found = found.ipv4_mapped
    return None if found.is_loopback else str(found)


def listeners():
    sockets = {}
    for file, version in (("/proc/net/tcp", 4), ("/proc/net/tcp6", 6)):
        try:
            with open(file, encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        for row in rows:
            where, port = row[1].split(":")
            found = address(where, version)
            if row[3] == "0A" and found is not None:
                sockets[row[9]] = {"address": found, "port": int(port, 16), "program": None}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            for name in os.listdir(f"/proc/{process}/fd"):
                inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{process}/fd/{name}"))
                if inode and inode[1] in sockets:
                    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
                        sockets[inode[1]]["program"] = file.read().strip()
        except OSError:
            pass  # it has ended
    return sorted(sockets.values(), key=lambda socket: (socket["port"], socket["address"]))


def filters(directory="/etc/cosyvoice-lvs"):
    """Our packet filters that something else has taken away, such as another program that loads its own."""
    wanted = {}
    for file, unit in FILTERS.items():
        try:
            with open(f"{directory}/{file}.nft", encoding="utf-8") as lines:
                wanted[next(lines).strip()] = f"{unit}.service"
        except (OSError, StopIteration):
            continue
    if not wanted:
        return []
    try:
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    there = done.stdout.splitlines() if done.returncode == 0 else wanted
    return [{"unit": unit, "table": table} for table, unit in wanted.items() if table not in there]


def main():
    there = mounts()
    print(
        json.dumps(
            {
                "clock": time.time(),
                "disks": [disk(path) for path in PLACES if path in there],
                "listens": listeners(),
                "filters": filters(),
            }
        )
    )


if __name__ == "__main__":
    main()
