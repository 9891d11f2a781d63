"""The same new text to several real servers within some milliseconds: at_once.py ADDRESS... [--rounds N]

Runs on the lab's client machine, so with the standard library only. Prints one JSON object a round:
{"misses", "hits", "same": whether all got the same audio, "apart": milliseconds from the first request to the
last, "bad": other statuses than 200}.
"""

import argparse
import http.client
import json
import secrets
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("addresses", nargs="+")
parser.add_argument("--rounds", type=int, default=1)
options = parser.parse_args()


def ask(address, text, connection, gate, answers):
    body = json.dumps({"model": "cosyvoice", "input": text})
    gate.wait()
    sent = time.monotonic()
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answers.append((answer.status, answer.headers["X-Cache"], answer.read(), sent))


for _ in range(options.rounds):
    text = (
        "Asked of all at once, " + secrets.token_hex(4) + ". " + "It takes a while to say all of this. " * 6
    )
    gate, answers, threads = threading.Barrier(len(options.addresses)), [], []
    for address in options.addresses:
        connection = http.client.HTTPConnection(address, 7860, timeout=60)
        connection.connect()
        threads.append(threading.Thread(target=ask, args=(address, text, connection, gate, answers)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bad = [status for status, *_ in answers if status != 200]
    sent = [at for *_, at in answers]
    print(
        json.dumps(
            {
                "misses": sum(cache == "miss" for _, cache, *_ in answers),
                "hits": sum(cache == "hit" for _, cache, *_ in answers),
                "same": len({data for _, _, data, _ in answers}) == 1,
                "apart": round((max(sent) - min(sent)) * 1000, 1),
                "bad": bad,
            }
        )
    )
