#!/usr/bin/python3
"""A real server that speaks one text at a time and takes its time for it: node.py PORT NAME SECONDS

GET /readyz is answered at once, with the length of the queue. Anything else is put into the queue, and
answered when its turn has come and SECONDS are over. Nothing is computed: how long the clients wait is the
balancer's doing.
"""

import collections
import select
import socket
import sys
import time


def main(port, name, seconds):
    listener = socket.create_server(("", port), backlog=1024)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients, queue, ends = {}, collections.deque(), None
    print("ready", flush=True)

    def answer(client, status, extra=""):
        head = f"HTTP/1.1 {status}\r\nX-Served-By: {name}\r\n{extra}"
        try:
            client.send(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        except OSError:
            pass
        client.close()

    while True:
        now = time.monotonic()
        if ends is not None and now >= ends:
            answer(queue.popleft(), "200 OK")
            ends = None
        if ends is None and queue:
            ends = now + seconds
        for number, _ in epoll.poll(-1 if ends is None else max(0.0, ends - now)):
            if number == listener.fileno():
                client = listener.accept()[0]
                clients[client.fileno()] = client
                epoll.register(client, select.EPOLLIN)
                continue
            client = clients.pop(number)
            epoll.unregister(client)
            try:
                asked = client.recv(4096)
            except OSError:
                asked = b""
            if asked.startswith(b"GET /readyz"):
                answer(client, "200 OK", f"X-Queue: {len(queue)}\r\n")
            elif asked:
                queue.append(client)
            else:
                client.close()


main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
