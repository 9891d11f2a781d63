#!/usr/bin/python3
"""What many connections cost a director: bytes each in the kernel's table, and time for a new one.

    connections.py --most N

For the table of hash buckets as the kernel's default makes it (2^12) and for 2^20. Entries are made by
segments from the middle of connections, each from another address and port (see flood.c). Prints a JSON
line for every size.
"""

import re
import subprocess
import sys

sys.path.insert(0, "/bench")
from world import (
    BENCH,
    CLIENT,
    SOURCES,
    RealServers,
    compile_programs,
    emit,
    inside,
    load,
    mac,
    make_bridge,
    make_namespaces,
    note,
    options,
    read,
    start_directors,
    write,
)

# The real servers know nothing of these connections. Thrown away where they arrive, the segments cost as
# little as can be.
DROP = """table netdev bench {
  chain ingress { type filter hook ingress device eth0 priority 0; ip saddr 10.0.0.0/8 drop; }
}
"""


RUNS = 5  # of a part each, for every size and kind of segment


def flood(address, hardware, port, first, count):
    """Seconds."""
    command = [f"{BENCH}/flood", "eth0", hardware, address, str(port), str(first), str(count)]
    done = subprocess.run(inside("client", *command), stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout) / 1e9


def memory():
    """Bytes that are available."""
    subprocess.run(["sysctl", "-q", "-w", "vm.drop_caches=3"], check=True)
    return int(re.search(r"MemAvailable: +(\d+)", read("/proc/meminfo"))[1]) * 1024


def slab():
    """Objects and bytes of the kernel's cache for IPVS connections; None where it shares another one's."""
    for line in read("/proc/slabinfo").splitlines():
        # name active objects size objects-per-slab pages-per-slab : tunables ... : slabdata active slabs -
        words = line.split()
        if words[0] == "ip_vs_conn":
            return {
                "objects": int(words[1]),
                "object_bytes": int(words[3]),
                "bytes": int(words[-2]) * int(words[5]) * 4096,
            }
    return None


def entries(director):
    """Connections that the director has scheduled so far, counted by each processor."""
    lines = read(f"/proc/{director.pid()}/net/ip_vs_stats_percpu").splitlines()
    rows = [line.split() for line in lines]
    return sum(int(row[1], 16) for row in rows if row and row[0].isdigit())


def each_us(seconds, count):
    """Median, least and most of several runs, microseconds for each segment."""
    values = sorted(s / count * 1e6 for s in seconds)
    return {
        "median": round(values[len(values) // 2], 2),
        "min": round(values[0], 2),
        "max": round(values[-1], 2),
    }


def main():
    asked = options(most=100_000)
    spec = load("defaults3")
    compile_programs()
    make_bridge()
    make_namespaces([("client", [CLIENT, *SOURCES])])
    servers = RealServers(spec)
    write(f"{BENCH}/state/drop.nft", DROP)
    for name in servers.names():
        subprocess.run(inside(name, "nft", "-f", f"{BENCH}/state/drop.nft"), check=True)
    vip, port = spec["vip"], spec["port"]
    away = mac(servers.spec["realServers"][0]["address"])
    sizes = [size for size in (1000, 10_000, 100_000, 1_000_000) if size <= asked.most]
    for bits in (12, 20):
        subprocess.run(["modprobe", "-r", "ip_vs_mh", "ip_vs"], check=True)
        empty = memory()
        subprocess.run(["modprobe", "ip_vs", f"conn_tab_bits={bits}"], check=True)
        table_bytes = empty - memory()
        [director] = start_directors(spec, count=1)
        here = mac(director.address)
        served = read(f"{director.state}/poller.log").count(" -> ")
        before, base, have = memory(), entries(director), 0
        for size in sizes:
            note(f"2^{bits} buckets: {size} connections")
            # The last runs up to the size show what a new one costs when there are that many.
            part = max(size // 100, 100)
            flood(vip, here, port, have, size - RUNS * part - have)
            firsts = range(size - RUNS * part, size, part)
            new = [flood(vip, here, port, first, part) for first in firsts]
            known = [flood(vip, here, port, first, part) for first in firsts]
            nothing = [flood(vip, away, port, first, part) for first in firsts]
            have = size
            taken = before - memory()
            emit(
                buckets=2**bits,
                connections=size,
                entries=entries(director) - base,
                new_us=each_us(new, part),
                known_us=each_us(known, part),
                without_director_us=each_us(nothing, part),
                taken_bytes=taken,
                bytes_each=round(taken / size, 1),
                table_bytes=table_bytes,
                slab=slab(),
                # One that leaves takes its entries along, and they are made again.
                pool_changes=read(f"{director.state}/poller.log").count(" -> ") - served,
            )
        director.kill()
        director.remove()


main()
