"""Which TCP ports of other machines can be reached from here: reachable.py < {NAME: {"address", "ports"}}

Runs on the lab's client machine, so with the standard library only. Prints {NAME: [ports that took a
connection]}.
"""

import json
import select
import socket
import sys
import time

LIMIT = 5  # s for all: what is dropped says nothing

found, waiting = {}, {}
for name, machine in json.load(sys.stdin).items():
    found[name] = []
    for port in machine["ports"]:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex((machine["address"], port))
        waiting[connection] = name, port
end = time.monotonic() + LIMIT
while waiting and (left := end - time.monotonic()) > 0:
    for connection in select.select([], list(waiting), [], left)[1]:
        name, port = waiting.pop(connection)
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            found[name].append(port)
        connection.close()
print(json.dumps({name: sorted(ports) for name, ports in found.items()}))
