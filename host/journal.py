#!/usr/bin/python3 -IS
"""Reads one machine's logs for `scripts/cluster logs`. Sent over SSH; it changes nothing.

journal NODE SINCE [REQUEST]

SINCE is seconds since 1970. Prints a JSON line each: {"at": seconds since 1970, "source", "text"}, of the
cluster's units in systemd's journal and, on a real server, of the service's own logs of jobs and requests;
with REQUEST only what has that id in it. At most the newest MOST lines.
"""

import calendar
import json
import os
import re
import subprocess
import sys
import time

UNITS = ("keepalived", "cosyvoice*")
OUTPUTS = "/root/CosyVoice/outputs"
MOST = 5000


def journal(since, wanted):
    command = ["journalctl", "--quiet", "--no-pager", "--output=json", f"--since=@{since:.0f}"]
    command += ["--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER", f"--lines={MOST}"]
    for unit in UNITS:
        command.append(f"--unit={unit}")
    if wanted:  # among the newest of those that have it, and not of a door's thousands of others
        command.append(f"--grep={re.escape(wanted)}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=50, check=False)
    for line in done.stdout.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        text = entry.get("MESSAGE") or ""
        if isinstance(text, list):  # bytes that are no UTF-8
            text = bytes(text).decode("utf-8", "replace")
        at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        if at >= since and wanted in text:
            unit = entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or entry.get("SYSLOG_IDENTIFIER") or "?"
            yield {"at": at, "source": unit.removesuffix(".service"), "text": text}


def service_logs(node, since, wanted):
    """The lines of this node's own logs, which lie on the share that all nodes see."""
    for kind in ("jobs", "gradio.access"):
        try:
            with open(f"{OUTPUTS}/{kind}.{node}.log", encoding="utf-8", errors="replace") as file:
                # What is asked for is recent, and the share is slow: the end of it.
                file.seek(max(0, os.fstat(file.fileno()).st_size - (4 << 20)))
                lines = file.readlines()
        except OSError:
            continue
        for line in lines:
            try:
                at = seconds(json.loads(line)["time"])
            except (ValueError, KeyError, TypeError):
                continue  # cut off at the front
            if at >= since and wanted in line:
                yield {"at": at, "source": kind, "text": line.strip()}


def seconds(text):
    """Seconds since 1970 of "2026-11-25T22:00:00.123Z"."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (rest or "0"))


def main(node, since, wanted=""):
    found = [*journal(float(since), wanted), *service_logs(node, float(since), wanted)]
    for entry in sorted(found, key=lambda entry: entry["at"])[-MOST:]:
        print(json.dumps(entry))


if __name__ == "__main__":
    main(*sys.argv[1:])
