#!/usr/bin/python3 -IS
"""Says how one machine of a cluster is, as one JSON object. Sent over SSH by `scripts/cluster status`.

It changes nothing.

probe VIP PORT [SERVICE_PORT]

PORT is the speech service's own, SERVICE_PORT that of the virtual service to look at (PORT by itself).

vip       the device that has the VIP, or null (a director that holds it has it on its network interface, a
          real server on lo)
ipvs      [{"address", "port", "forwarding", "weight", "active", "inactive"}] of the virtual service
          VIP:SERVICE_PORT in the kernel's order; null when the kernel has no such service
scheduler of that virtual service, or null
units     {unit: systemd's word for its state}
ready     true, or why GET /readyz on this machine did not say 200; null when nothing is meant to listen here
queue     {"waiting", "running"} as that answer tells them, or null
share     "ok", or why results cannot be kept or read, as that answer tells it; null when it does not
drain     {"reason", "since": seconds since 1970} while somebody or a deployment drains this machine, or null
releases  {"current", "previous": digest or null, "staged": [{"digest", "complete", "since"}]} of the speech
          app, or null when none ever was here
engine    {"name", "commit"} of what speaks here; commit is upstream's, or null. Null when nothing does
gpus      [{"name", "utilization": %, "used", "total": MiB, "temperature": degrees Celsius}]; a number that a
          GPU does not know is null. Null without nvidia-smi
certificate  until when the certificate of HTTPS is valid, in seconds since 1970, or null without one
outputs   what is mounted at /root/CosyVoice/outputs, or null
layers    {layer: owner} as the applier keeps them
"""

import json
import os
import socket
import sys

UNITS = ("keepalived.service", "cosyvoice-health.service", "cosyvoice.service", "cosyvoice-vip.service")
OUTPUTS = "/root/CosyVoice/outputs"
LAYERS = "/var/lib/cosyvoice-lvs/layers"
DRAIN = "/run/cosyvoice-lvs/drain"
HOME = "/opt/cosyvoice"
SERVICE = "/etc/cosyvoice/cosyvoice.env"
CERTIFICATE = "/etc/cosyvoice-lvs/front-door/certificate.pem"
GPU_FIELDS = ("utilization.gpu", "memory.used", "memory.total", "temperature.gpu")


def command(*argv):
    """Standard output of a program; empty when there is no such program."""
    import subprocess

    try:
        return subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10
        ).stdout.decode()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def vip_device(vip):
    for line in command("ip", "-o", "-4", "address", "show").splitlines():
        words = line.split()
        if words[3].split("/")[0] == vip:
            return words[1]
    return None


def virtual_service(vip, port):
    """(scheduler, real servers) of a virtual service in /proc/net/ip_vs; (None, None) without it."""
    wanted = f"{int.from_bytes(socket.inet_aton(vip), 'big'):08X}:{port:04X}"
    scheduler, servers = None, None
    try:
        with open("/proc/net/ip_vs", encoding="ascii") as table:
            for line in table:
                words = line.split()
                if words[0] == "TCP":
                    if servers is not None:
                        break
                    if words[1] == wanted:
                        scheduler, servers = words[2], []
                elif words[0] == "->" and servers is not None and ":" in words[1]:
                    address, _, number = words[1].partition(":")
                    servers.append(
                        {
                            "address": socket.inet_ntoa(bytes.fromhex(address)),
                            "port": int(number, 16),
                            "forwarding": words[2],
                            "weight": int(words[3]),
                            "active": int(words[4]),
                            "inactive": int(words[5]),
                        }
                    )
    except OSError:
        pass
    return scheduler, servers


def readiness(port):
    """(true or why not, queue or None, word about the share or None) by GET /readyz."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(3)
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b""
            while len(answer) < 65536:
                received = connection.recv(4096)
                if not received:
                    break
                answer += received
    except OSError as error:
        return str(error), None, None
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode("latin-1")
    ready, queue, share = status.split(" ")[1:2] == ["200"] or status, None, None
    try:
        said = json.loads(body)
        if ready is not True:
            ready = ": ".join(filter(None, (said["state"], said["reason"])))
        queue = {key: int(said["queue"][key]) for key in ("waiting", "running")}
        share = str(said["outputs"]).removeprefix("degraded: ")
    except (ValueError, KeyError, TypeError):
        pass  # not the speech app, or a version of it that tells less
    return ready, queue, share


def drain():
    try:
        with open(DRAIN, encoding="utf-8", errors="replace") as file:
            return {"reason": file.read(1000).strip(), "since": int(os.fstat(file.fileno()).st_mtime)}
    except OSError:
        return None


def releases():
    def active(name):
        try:
            return os.path.basename(os.readlink(f"{HOME}/{name}"))
        except OSError:
            return None

    staged = []
    try:
        digests = sorted(os.listdir(f"{HOME}/releases"))
    except OSError:
        return None
    for digest in digests:
        directory = f"{HOME}/releases/{digest}"
        complete = os.path.exists(f"{directory}/.complete")
        try:
            since = os.stat(f"{directory}/.complete" if complete else directory).st_mtime
        except OSError:
            continue  # removed in the meantime
        staged.append({"digest": digest, "complete": complete, "since": int(since)})
    return {"current": active("current"), "previous": active("previous"), "staged": staged}


def engine():
    try:
        with open(SERVICE, encoding="utf-8") as file:
            settings = dict(line.strip().split("=", 1) for line in file if "=" in line)
    except OSError:
        return None
    edition = settings.get("COSYVOICE_EDITION", "").strip('"')
    commit = None
    if edition:
        try:
            commit = os.path.basename(os.readlink(f"{HOME}/engine/sets/{edition}/source"))
        except OSError:
            pass  # it is being changed
    return {"name": settings.get("COSYVOICE_ENGINE", "cpu").strip('"'), "commit": commit}


def gpus():
    query = ",".join(("name", *GPU_FIELDS))
    said = command("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits")
    found = []
    for line in said.splitlines():
        # A name may have a comma in it.
        name, *values = [part.strip() for part in line.rsplit(",", len(GPU_FIELDS))]
        if len(values) == len(GPU_FIELDS):
            keys = ("utilization", "used", "total", "temperature")
            found.append({"name": name, **dict(zip(keys, map(number, values)))})
    return found or None


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


def certificate():
    import ssl

    said = command("openssl", "x509", "-noout", "-enddate", "-in", CERTIFICATE)
    try:
        return int(ssl.cert_time_to_seconds(said.strip().removeprefix("notAfter=")))
    except ValueError:
        return None


def outputs_source():
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            source, where = line.split(" ")[:2]
            if where == OUTPUTS:
                return source
    return None


def layers():
    found = {}
    try:
        names = sorted(os.listdir(LAYERS))
    except OSError:
        return found
    for name in names:
        if name.endswith(".json"):
            try:
                with open(f"{LAYERS}/{name}", encoding="utf-8") as record:
                    found[name[:-5]] = json.load(record).get("owner")
            except (OSError, ValueError):
                found[name[:-5]] = None
    return found


def main(vip, port, service_port):
    states = command("systemctl", "is-active", *UNITS).splitlines()
    units = dict(zip(UNITS, states))
    scheduler, servers = virtual_service(vip, service_port)
    serves = units.get("cosyvoice.service") not in (None, "inactive", "unknown")
    ready, queue, share = readiness(port) if serves else (None, None, None)
    report = {
        "vip": vip_device(vip),
        "scheduler": scheduler,
        "ipvs": servers,
        "units": units,
        "ready": ready,
        "queue": queue,
        "share": share,
        "drain": drain(),
        "releases": releases(),
        "engine": engine(),
        "gpus": gpus(),
        "certificate": certificate() if os.path.exists(CERTIFICATE) else None,
        "outputs": outputs_source(),
        "layers": layers(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[-1]))
