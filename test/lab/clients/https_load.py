"""Asks by HTTPS until there is a file STOP: https_load.py VIP CA FIRST LAST SECONDS STOP

Runs on the lab's client machine, so with the standard library only. A request every half second, each a
connection of its own from the next of the addresses FIRST to LAST of 192.168.1.0/24, each checked against
the CA and with the key that standard input has, so that no process list does; and an event stream of the
page that stays open. After SECONDS it ends in any case.
Prints one JSON object: {"asked", "failed": [why], "certificates": {fingerprint: how often shown},
"stream": "open" or how it ended}.
"""

import hashlib
import http.client
import json
import os
import ssl
import sys
import threading
import time

vip, ca, first, last, seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
headers, stop = {"Authorization": f"Bearer {sys.stdin.read().strip()}"}, sys.argv[6]
context = ssl.create_default_context(cafile=ca)
failed, shown, stream = [], {}, ["not opened"]


def connect(source):
    connection = http.client.HTTPSConnection(
        vip, 443, timeout=30, context=context, source_address=(source, 0)
    )
    connection.connect()
    return connection


def ask(source):
    try:
        connection = connect(source)
        certificate = hashlib.sha256(connection.sock.getpeercert(True)).hexdigest()
        shown[certificate] = shown.get(certificate, 0) + 1
        connection.request("GET", "/healthz", headers=headers)
        status = connection.getresponse().status
        if status != 200:
            failed.append(f"answered {status}")
        connection.close()
    except OSError as error:
        failed.append(f"{source}: {type(error).__name__}: {error}")


def hold():
    try:
        connection = connect(f"192.168.1.{first}")
        connection.sock.settimeout(None)
        connection.request("GET", "/gradio_api/heartbeat/made-up-session", headers=headers)
        answer = connection.getresponse()
        stream[0] = "open" if answer.status == 200 else f"answered {answer.status}"
        while answer.read1(65536):
            pass
        stream[0] = "ended"
    except OSError as error:
        stream[0] = f"{type(error).__name__}: {error}"


threading.Thread(target=hold, daemon=True).start()
asked, threads, end = 0, [], time.monotonic() + seconds
while time.monotonic() < end and not os.path.exists(stop):
    source = f"192.168.1.{first + asked % (last - first + 1)}"
    threads.append(threading.Thread(target=ask, args=(source,)))
    threads[-1].start()
    asked += 1
    time.sleep(0.5)
for thread in threads:
    thread.join()
print(json.dumps({"asked": asked, "failed": failed, "certificates": shown, "stream": stream[0]}))
