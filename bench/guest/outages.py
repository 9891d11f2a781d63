#!/usr/bin/python3
"""How long clients notice that something broke: director power-cuts, black-holed and wedged real servers.

    outages.py --spec NAME --cuts N --holes N --wedges N --failover S --patience S --spread S --batch N

After a director's power-cut the client goes on for `failover` seconds, after a real server's fault for
`patience`; `batch` of them break together, each at a random moment of `spread` seconds. Prints a JSON line
for every event.
"""

import random
import sys
import time

sys.path.insert(0, "/bench")
from world import (
    CLIENT,
    SOURCES,
    Pulse,
    RealServers,
    compile_programs,
    emit,
    link,
    load,
    make_bridge,
    make_namespaces,  # fmt: skip
    note,
    options,
    start_directors,
    wait,
)

INTERVAL = 5  # ms between two attempts of the client


def cut(spec, holder, standby, patience):
    """One power-cut of the director that holds the VIP. Returns the two in their new roles."""
    pulse = Pulse(spec["vip"], spec["port"], INTERVAL, 1 + patience)
    time.sleep(1 + random.random() * 0.2)  # somewhere between two adverts
    moment = time.monotonic()
    holder.power_cut()
    failures, summary = pulse.finish()
    early = [failure for failure in failures if failure[0] < moment - 0.001]
    reasons = {}
    for *_, reason in failures:
        reasons[reason] = reasons.get(reason, 0) + 1
    emit(
        event="cut",
        outage_ms=pulse.outage(failures),
        lost=len(failures),
        early=len(early),
        reasons=reasons,
        **summary,
    )
    if standby.vrrp_state() != "MASTER":
        sys.exit(f"{standby.name} did not take the VIP within {patience} s")
    holder.remove()
    holder.make()
    holder.start()
    everybody = len(spec["realServers"])
    wait(
        f"{holder.name} is back",
        60,
        lambda: holder.vrrp_state() == "BACKUP" and len(holder.table()) == everybody,
    )
    time.sleep(1)
    return standby, holder


def broken_servers(kind, spec, servers, holder, names, patience, spread):
    """Breaks real servers, each at a random moment, and says how long each took to get no more attempts."""
    pulse = Pulse(spec["vip"], spec["port"], INTERVAL, 1 + spread + patience)
    began = time.monotonic()
    # Every source has met its server by then.
    due = sorted((began + 0.8 + random.random() * spread, name) for name in names)
    broken, gone = {}, {}
    end = began + 1 + spread + patience
    while time.monotonic() < end:
        while due and time.monotonic() >= due[0][0]:
            name = due.pop(0)[1]
            broken[name] = time.monotonic()
            if kind == "hole":
                link(name, False)
            else:
                servers.wedge(name, True)
        table = holder.table()
        for name in broken:
            if name not in gone and servers.address(name) not in table:
                gone[name] = time.monotonic() - broken[name]
        time.sleep(0.02)
    failures, summary = pulse.finish()
    for name in names:
        # Where several are broken, who answered last names the culprit. That needs a scheduler that leaves
        # the other clients where they are: mh moves some when a server goes, perhaps to another broken one.
        mine = [f for f in failures if f[0] >= broken[name] - 0.001 and (len(names) == 1 or f[2] == name)]
        last = max((f[0] for f in mine), default=None)
        emit(
            event=kind,
            # Never: it still lost attempts when the client gave up watching.
            out_ms=None if name not in gone else round((last - broken[name]) * 1000, 1) if last else 0.0,
            table_ms=round(gone[name] * 1000, 1) if name in gone else None,
            lost=len(mine),
            watched_s=round(end - broken[name], 1),
        )
    others = [f for f in failures if f[2] not in names] if len(names) > 1 else []
    emit(event=f"{kind}-client", others_lost=len(others), **summary)
    for name in names:
        if kind == "hole":
            link(name, True)
        else:
            servers.wedge(name, False)
    wait("everybody is back", 60, lambda: len(holder.table()) == len(spec["realServers"]))
    time.sleep(1)


def main():
    asked = options(
        spec="defaults", cuts=2, holes=4, wedges=4, patience=4.0, spread=1.0, failover=3.0, batch=1
    )
    spec = load(asked.spec)
    compile_programs()
    make_bridge()
    make_namespaces([("client", [CLIENT, *SOURCES])])
    servers = RealServers(spec)
    holder, standby = start_directors(spec)
    # The first connections wait for ARP, which is not what is measured.
    Pulse(spec["vip"], spec["port"], INTERVAL, 2).finish()
    quiet, summary = Pulse(spec["vip"], spec["port"], INTERVAL, 5).finish()
    emit(event="quiet", lost=len(quiet), **summary)
    for number in range(asked.cuts):
        note(f"{asked.spec}: power-cut {number + 1} of {asked.cuts}")
        holder, standby = cut(spec, holder, standby, asked.failover)
    for kind, count in (("hole", asked.holes), ("wedge", asked.wedges)):
        done = 0
        while done < count:
            names = random.sample(servers.names(), min(asked.batch, count - done))
            note(f"{asked.spec}: {kind} {done + 1} to {done + len(names)} of {count}")
            broken_servers(kind, spec, servers, holder, names, asked.patience, asked.spread)
            done += len(names)


main()
