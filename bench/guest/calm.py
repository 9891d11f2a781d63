#!/usr/bin/python3
"""Nothing breaks, but both cores are busy: does anything move that should not?

    calm.py --minutes M

Prints a JSON line for every minute.
"""

import re
import subprocess
import sys

sys.path.insert(0, "/bench")
from world import (
    CLIENT,
    SOURCES,
    Pulse,
    RealServers,
    busy,
    compile_programs,
    emit,
    load,
    make_bridge,
    make_namespaces,
    note,
    options,
    read,
    start_directors,
)

INTERVAL = 50  # ms between two connections of the client


def main():
    asked = options(minutes=1, seconds=60)
    spec = load("defaults3")
    compile_programs()
    make_bridge()
    make_namespaces([("client", [CLIENT, *SOURCES])])
    RealServers(spec)
    directors = start_directors(spec)
    Pulse(spec["vip"], spec["port"], 5, 2).finish()

    def changes():
        """So far: changes of who holds the VIP, of who serves, lines that the guards said."""
        vrrp = sum(len(re.findall(r"Entering \w+ STATE", d.log())) for d in directors)
        pool = sum(len(re.findall(r" -> ", read(f"{d.state}/poller.log"))) for d in directors)
        guard = sum(len(read(f"{d.state}/guard.log").splitlines()) for d in directors)
        return vrrp, pool, guard

    vrrp, pool, guard = changes()
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2)]
    try:
        for minute in range(asked.minutes):
            note(f"minute {minute + 1} of {asked.minutes}")
            before = busy()
            failures, summary = Pulse(spec["vip"], spec["port"], INTERVAL, asked.seconds).finish()
            now_vrrp, now_pool, now_guard = changes()
            emit(
                minute=minute + 1,
                vrrp_transitions=now_vrrp - vrrp,
                pool_changes=now_pool - pool,
                guard_lines=now_guard - guard,
                busy_cores=round((busy()["all"] - before["all"]) / asked.seconds, 2),
                lost=len(failures),
                **summary,
            )
            vrrp, pool, guard = now_vrrp, now_pool, now_guard
    finally:
        for hog in hogs:
            hog.kill()


main()
