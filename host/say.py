#!/usr/bin/python3 -IS
"""Asks a cluster for a sentence, for `scripts/cluster prove`: say URL

Prints the real server that answered and how many bytes of sound came. Exits with 1 when it was no sound.
"""

import json
import sys
import urllib.request

LIMIT = 60  # s

request = urllib.request.Request(
    sys.argv[1],
    json.dumps({"model": "cosyvoice", "input": "It is proved."}).encode(),
    {"Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=LIMIT) as answer:
    sound = answer.read()
    print(answer.headers.get("X-Served-By"), len(sound), "bytes")
sys.exit(not sound.startswith(b"RIFF"))
