#!/usr/bin/python3
"""Balancers compared in the same place: requests, connections, latency, processor time.

    throughput.py --rounds N --seconds S

One after the other, round by round, in the namespace of one director: nobody (clients ask the real
servers), LVS-DR and LVS-NAT as this project configures them (keepalived and the health poller run), nginx
and haproxy, each as a proxy of connections and of HTTP requests. Prints a JSON line for every measurement.
"""

import os
import re
import subprocess
import sys
import time

sys.path.insert(0, "/bench")
from world import (
    BENCH,
    CLIENT,
    SOURCES,
    Director,
    Pulse,
    RealServers,
    busy,
    compile_programs,
    emit,
    inside,
    ip,
    load,
    make_bridge,
    make_namespaces,
    note,
    options,
    read,
    sysctls,
    wait,
    write,
)

CLIENTS = [
    f"192.168.1.{n}" for n in (60, 61, 62, 63)
]  # one wrk each: by default one address is one real server's
CONNECTIONS = 8  # of each wrk
RATE_INTERVAL = (
    5  # ms between two connections where latency and processor time are measured: far from the limit
)

NGINX = """daemon off; worker_processes 2; pid /tmp/nginx.pid; error_log /tmp/nginx.log;
events {{ worker_connections 8192; }}
"""
NGINX_STREAM = """load_module /usr/lib/nginx/modules/ngx_stream_module.so;
stream {{ access_log off;
  upstream pool {{ {servers} }}
  server {{ listen {vip}:{port} reuseport backlog=4096; proxy_pass pool; }} }}
"""
NGINX_HTTP = """http {{ access_log off; keepalive_requests 1000000;
  upstream pool {{ {servers} keepalive 64; keepalive_requests 1000000; }}
  server {{ listen {vip}:{port} reuseport backlog=4096;
    location / {{ proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""
HAPROXY = """global
  maxconn 8192
  nbthread 2
defaults
  mode {mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind {vip}:{port} backlog 4096
  default_backend pool
backend pool
  balance roundrobin
  option httpchk GET /readyz
"""


class Proxy:
    """nginx or haproxy in the director's namespace, with the VIP on its interface."""

    def __init__(self, spec, name, kind):
        self.spec, self.name, self.kind = spec, name, kind

    def start(self):
        address = {"vip": self.spec["vip"], "port": self.spec["port"]}
        targets = [f"{s['address']}:{address['port']}" for s in self.spec["realServers"]]
        servers = " ".join(f"server {target};" for target in targets)
        if self.kind == "nginx-stream":
            load_module, rest = NGINX_STREAM.split("\n", 1)
            text = load_module + "\n" + (NGINX + rest).format(servers=servers, **address)
        elif self.kind == "nginx-http":
            text = (NGINX + NGINX_HTTP).format(servers=servers, **address)
        else:
            text = HAPROXY.format(mode=self.kind.split("-")[1], **address)
            # As often as our poller asks.
            text += "".join(f"  server s{i} {t} check inter 500ms\n" for i, t in enumerate(targets))
        file = f"{BENCH}/state/{self.kind}.conf"
        write(file, text)
        program = ["haproxy", "-db", "-f", file] if self.kind.startswith("haproxy") else ["nginx", "-c", file]
        ip([f"address add {self.spec['vip']}/32 dev eth0"], netns=self.name)
        self.group = f"/sys/fs/cgroup/{self.kind}"
        os.makedirs(self.group, exist_ok=True)
        enter = f'echo $$ >{self.group}/cgroup.procs; exec "$@"'
        self.process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *inside(self.name, *program)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self):
        write(f"{self.group}/cgroup.kill", "1")
        self.process.wait()
        ip([f"address delete {self.spec['vip']}/32 dev eth0"], netns=self.name)

    def cpu(self):
        return int(re.search(r"usage_usec (\d+)", read(f"{self.group}/cpu.stat"))[1]) / 1e6


class Lvs:
    """A director as deployed."""

    def __init__(self, spec):
        self.director = Director(spec, 0)

    def start(self):
        self.director.start()
        everybody = len(self.director.spec["realServers"])
        wait("LVS serves", 60, lambda: len(self.director.table()) == everybody)
        wait("LVS holds the VIP", 30, lambda: self.director.vrrp_state() == "MASTER")

    def stop(self):
        self.director.kill()
        # What was killed leaves its address, table and rules behind.
        vip = self.director.spec["vip"]
        subprocess.run(inside(self.director.name, "ipvsadm", "--clear"), check=True)
        subprocess.run(inside(self.director.name, "nft", "flush", "ruleset"), check=True)
        ip([f"address delete {vip}/32 dev eth0"], netns=self.director.name)

    def cpu(self):
        return self.director.cpu()


class Nobody:
    """The clients ask the real servers themselves."""

    def start(self):
        pass

    def stop(self):
        pass

    def cpu(self):
        return 0.0


def wrk(targets, seconds, close):
    """Full load from all clients: requests a second and latencies in ms."""
    header = ["-H", "Connection: close"] if close else []
    processes = [
        subprocess.Popen(
            inside(
                f"client-{i + 1}",
                "wrk",
                "-t1",
                f"-c{CONNECTIONS}",
                f"-d{seconds}s",
                "--latency",
                *header,
                url,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i, url in enumerate(targets)
    ]
    rates, errors, p99 = [], 0, []
    for process in processes:
        text = process.communicate()[0]
        rates.append(float(re.search(r"Requests/sec: +([\d.]+)", text)[1]))
        number, unit = re.search(r"99% +([\d.]+)(us|ms|s)", text).groups()
        p99.append(float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit])
        found = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        errors += sum(int(n) for n in found.groups()) if found else 0
        found = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        errors += int(found[1]) if found else 0
    return {"per_second": round(sum(rates), 1), "p99_ms": max(p99), "errors": errors}


def measure(name, balancer, spec, seconds):
    port = spec["port"]
    servers = [s["address"] for s in spec["realServers"]]
    balancer.start()
    targets = [spec["vip"]] * len(CLIENTS)
    if name == "direct":
        targets = [servers[i % len(servers)] for i in range(len(CLIENTS))]
    urls = [f"http://{target}:{port}/readyz" for target in targets]
    wait(f"{name} answers", 30, lambda: not Pulse(targets[0], port, 20, 0.4).finish()[0])
    for load_name, close in (("requests", False), ("connections", True)):
        process, before = balancer.cpu(), busy()
        result = wrk(urls, seconds, close)
        after = busy()
        emit(
            balancer=name,
            load=load_name,
            process_s=round(balancer.cpu() - process, 3),
            busy_s={key: round(after[key] - before[key], 2) for key in after},
            seconds=seconds,
            **result,
        )
    process, before = balancer.cpu(), busy()
    failures, summary = Pulse(targets[0], port, RATE_INTERVAL, seconds).finish()
    after = busy()
    emit(
        balancer=name,
        load="paced",
        process_s=round(balancer.cpu() - process, 3),
        busy_s={key: round(after[key] - before[key], 2) for key in after},
        seconds=seconds,
        lost=len(failures),
        **summary,
    )
    balancer.stop()


def main():
    asked = options(rounds=1, seconds=4)
    spec, nat = load("defaults3"), load("nat3")
    compile_programs()
    make_bridge()
    make_namespaces(
        [("client", [CLIENT, *SOURCES])] + [(f"client-{i + 1}", [a]) for i, a in enumerate(CLIENTS)]
    )
    # Tens of thousands of closed connections must not use up the clients' ports.
    ports = sysctls({"net.ipv4.ip_local_port_range": "1024 65535", "net.ipv4.tcp_tw_reuse": 1})
    write(f"{BENCH}/state/client.conf", ports)
    for i in range(len(CLIENTS)):
        subprocess.run(
            inside(f"client-{i + 1}", "sysctl", "-q", "-p", f"{BENCH}/state/client.conf"), check=True
        )
    RealServers(spec)
    director = Director(spec, 0)
    director.make()
    subprocess.run(inside(director.name, "sysctl", "-q", "-p", f"{BENCH}/state/client.conf"), check=True)
    balancers = [
        ("direct", Nobody()),
        ("lvs-dr", Lvs(spec)),
        ("lvs-nat", Lvs(nat)),
        *(
            (kind, Proxy(spec, director.name, kind))
            for kind in ("nginx-stream", "nginx-http", "haproxy-tcp", "haproxy-http")
        ),
    ]
    for number in range(asked.rounds):
        # Every round begins with another one, so that nobody always comes after the same neighbour.
        shift = number % len(balancers)
        for name, balancer in balancers[shift:] + balancers[:shift]:
            note(f"round {number + 1} of {asked.rounds}: {name}")
            measure(name, balancer, spec, asked.seconds)
            time.sleep(0.5)


main()
