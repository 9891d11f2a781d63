#!/usr/bin/python3
"""Many real servers: what their health costs a director, how soon the pool follows, how long a reload takes.

    fleet.py --spec NAME --seconds S --deaths N --reloads N

Prints a JSON line for every measurement.
"""

import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, "/bench")
from world import (
    BENCH,
    CLIENT,
    SOURCES,
    Pulse,
    RealServers,
    busy,
    compile_programs,
    emit,
    link,
    load,
    make_bridge,
    make_namespaces,
    note,
    options,
    read,
    start_directors,
    wait,
    write,
)


def cpu_of(pid):
    """Seconds of processor that a process has used."""
    fields = read(f"/proc/{pid}/stat").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def checkers(director):
    """keepalived's processes."""
    pids = read(f"/sys/fs/cgroup/{director.name}/keepalived/cgroup.procs").split()
    return [pid for pid in pids if read(f"/proc/{pid}/comm").strip() == "keepalived"]


def idle(director, servers, seconds, health):
    """Processor time while nothing happens."""
    poller = read(f"{director.state}/poller.pid").strip()
    others = checkers(director)
    begin, start, rest, everything = time.monotonic(), cpu_of(poller), sum(map(cpu_of, others)), busy()
    time.sleep(seconds)
    took = time.monotonic() - begin
    polls = took * servers / health["interval"]
    used = cpu_of(poller) - start
    emit(
        event="cpu",
        servers=servers,
        interval_s=health["interval"],
        poller_share=round(used / took, 4),
        poll_us=round(used / polls * 1e6, 1),
        keepalived_share=round((sum(map(cpu_of, others)) - rest) / took, 4),
        whole_share=round((busy()["all"] - everything["all"]) / took, 3),
    )


def deaths(director, spec, count):
    """A third of them die at once: seconds until the table is right; then they come back."""
    victims = spec["realServers"][:: max(len(spec["realServers"]) // count, 1)][:count]
    everybody = len(spec["realServers"])
    start = time.monotonic()
    for server in victims:
        link(server["name"], False)
    cut = time.monotonic() - start
    first = None
    while len(table := director.table()) > everybody - count:
        if first is None and len(table) < everybody:
            first = time.monotonic() - start
        if time.monotonic() > start + 120:
            sys.exit("the pool did not follow within 120 s")
        time.sleep(0.02)
    gone = time.monotonic() - start
    wrong = sum(server["address"] in table for server in victims)
    for server in victims:
        link(server["name"], True)
    back = time.monotonic()
    wait("everybody is back", 120, lambda: len(director.table()) == everybody)
    emit(
        event="deaths",
        servers=everybody,
        died=count,
        cables_s=round(cut, 3),
        first_s=round(first or gone, 3),
        all_s=round(gone, 3),
        wrong=wrong,
        back_s=round(time.monotonic() - back, 3),
    )


def reload(director, spec, number):
    """One weight changes, and keepalived is told."""
    path = f"{director.state}/etc/keepalived/keepalived.conf"
    weight = number + 2
    last = spec["realServers"][-1]["address"]
    before, after = read(path).rsplit(f"real_server {last} ", 1)
    write(path, f"{before}real_server {last} " + re.sub(r"weight \d+", f"weight {weight}", after, count=1))
    pulse = Pulse(spec["vip"], spec["port"], 5, 6)
    time.sleep(1)
    everybody, smallest = len(spec["realServers"]), len(spec["realServers"])
    begin = time.monotonic()
    os.kill(director.pid(), signal.SIGHUP)
    while (table := director.table()).get(last) != weight:
        smallest = min(smallest, len(table))
        if time.monotonic() > begin + 60:
            sys.exit("keepalived did not take the new weight within 60 s")
        time.sleep(0.005)
    took = time.monotonic() - begin
    failures, summary = pulse.finish()
    # What was lost before keepalived was told is not its doing.
    failures = [failure for failure in failures if failure[0] >= begin - pulse.interval]
    emit(
        event="reload",
        servers=everybody,
        seconds=round(took, 3),
        fewest_in_table=min(smallest, len(director.table())),
        vrrp=director.vrrp_state(),
        lost=len(failures),
        # After keepalived was told.
        lost_from_s=round(min(f[0] for f in failures) - begin, 3) if failures else None,
        lost_to_s=round(max(f[0] for f in failures) - begin, 3) if failures else None,
        reasons=sorted({f[3] for f in failures}),
        **summary,
    )


def main():
    asked = options(spec="fleet", seconds=10.0, deaths=1, died=100, reloads=2)
    spec = load(asked.spec)
    few = load(f"{asked.spec}-few")
    health = spec["directors"][0]["files"]["/etc/cosyvoice-lvs/health.json"]
    health = {"interval": float(re.search(r'"interval": ([\d.]+)', health)[1])}
    compile_programs()
    make_bridge()
    make_namespaces([("client", [CLIENT, *SOURCES])])
    note(f"making {len(spec['realServers'])} real servers")
    RealServers(spec, together=True)
    for cluster in (few, spec):
        count = len(cluster["realServers"])
        note(f"{count} real servers: the director starts")
        begin = time.monotonic()
        [director] = start_directors(cluster, count=1)
        emit(event="start", servers=count, seconds=round(time.monotonic() - begin, 2))
        time.sleep(2)
        note(f"{count} real servers: processor time")
        idle(director, count, asked.seconds, health)
        for number in range(asked.reloads):
            note(f"{count} real servers: reload {number + 1}")
            reload(director, cluster, number)
        if cluster is spec:
            for number in range(asked.deaths):
                note(f"{asked.died} of {count} real servers die: {number + 1} of {asked.deaths}")
                deaths(director, cluster, min(asked.died, count // 3))
                time.sleep(2)
        changes = len(re.findall(r" -> ", read(f"{director.state}/poller.log")))
        emit(event="poller", servers=count, changes=changes)
        director.kill()
        director.remove()
        subprocess.run(["rm", "-rf", f"{BENCH}/state/{director.name}"], check=True)


main()
