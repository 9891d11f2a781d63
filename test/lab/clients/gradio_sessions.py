"""Sessions of the page, by the real gradio_client: gradio_sessions.py URL CLIENTS CALLS [PAUSE]

CLIENTS sessions at once, each with CALLS calls one after the other, PAUSE seconds between them (default 0).
Prints one JSON object: {"calls", "failed": [what went wrong], "nodes": by node, how many results it made}.
"""

import json
import re
import secrets
import sys
import threading
import time
from collections import Counter

from gradio_client import Client

url, clients, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
token = secrets.token_hex(3)
failed, nodes = [], Counter()


def session(number):
    try:
        # Emulated processors, and seven machines to a pair of them, are slower than its 5 s at times.
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 30})
    except Exception as error:
        failed.append(f"session {number}: {type(error).__name__}: {error}")
        return
    for call in range(calls):
        try:
            path, status = client.predict(
                f"Session {number}, call {call}, {token}.", "auto", 1.0, 1, api_name="/generate"
            )
            with open(path, "rb") as file:
                assert file.read(4) == b"RIFF", path
            nodes[re.search(r"by <b>([^<]*)</b>", status).group(1)] += 1
        except Exception as error:
            failed.append(f"session {number}, call {call}: {type(error).__name__}: {error}")
        time.sleep(pause)


threads = [threading.Thread(target=session, args=(number,)) for number in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"calls": clients * calls, "failed": failed, "nodes": nodes}))
