#!/usr/bin/python3 -IS
"""Asks ten times a second for 20 s, for `scripts/cluster prove`, while the VIP moves: silence URL

Prints the longest time without an answer, in milliseconds.
"""

import sys
import time
import urllib.request

SECONDS = 20

last, worst, end = time.monotonic(), 0.0, time.monotonic() + SECONDS
while time.monotonic() < end:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=0.5).read()
        worst, last = max(worst, time.monotonic() - last), time.monotonic()
    except OSError:
        pass
    time.sleep(0.1)
worst = max(worst, time.monotonic() - last)
print(round(worst * 1000))
