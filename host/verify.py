#!/usr/bin/python3 -IS
"""Asks a cluster, from where a client stands, whether it is what was deployed.

    verify < EXPECTATIONS

Two questions, both to the network and not to the machines:

  1. Who claims the VIP? An ARP request for it must be answered by exactly one machine, and that must be a
     director: two answers are two holders, a real server's answer is an ARP leak that takes traffic past the
     balancer. Asked only where this machine is on the VIP's layer-2 segment and runs this as root; otherwise
     the summary says that it was not asked.
  2. Does it speak? A sentence is asked for through the VIP, from one source address after another, until
     every real server has served (response header X-Served-By), and every answer must be a WAV file with
     sound in it. With HTTPS that is asked through it (too), and every real server must show the certificate
     that was deployed; by its fingerprint, for whom clients trust is not known here.

Expectations, JSON on standard input:

    vip, sentence, timeout (s, for each of the two ways)
    port                      of the plain service; null when the VIP does not have it
    https                     null, or {port, serverName, fingerprint (SHA-256), key: to be let in, or null}
    directors, realServers    [{name, address}]
    sourceAddresses           addresses of this machine to ask from; empty: whatever the kernel chooses
    deployment                text; not looked at (a change of it makes the deployment ask again)

Every finding is one line with what to do. The last line of standard output is a JSON summary.
Exit status: 0 no finding, 1 findings, 2 wrong call.
"""

import json
import socket
import struct
import sys
import time

ATTEMPT_TIMEOUT = 20  # s, for one sentence: a queue of a few others may be before it
PARALLEL = 16  # sentences asked for at once, at most
PAUSE = 0.5  # s, after a failure
ARP_WAIT = 1.0  # s, to collect every answer, the second one too
ANSWER = 2**24  # bytes of an answer that are read: a hundred sentences, for a node may be in other hands
QUIET = 50  # of 32767: the loudest sample of what counts as silence


# ---------------------------------------------------------------------------------------- who claims the VIP


def route_interface(address):
    """The interface on whose own network an address lies, or None when a router is in between."""
    target = int.from_bytes(socket.inet_aton(address), "big")
    best = (-1, None)
    with open("/proc/net/route", encoding="ascii") as table:
        for line in list(table)[1:]:
            name, *fields = line.split()
            # Numbers of the network's byte order, printed as the machine's own (x86 and ARM: reversed).
            network, gateway, mask = (
                int.from_bytes(bytes.fromhex(fields[i])[::-1], "big") for i in (0, 1, 6)
            )
            if target & mask == network and mask > best[0]:
                best = (mask, None if gateway else name)
    return best[1]


def own_address(interface):
    """The first IPv4 address of an interface."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        answer = fcntl.ioctl(query, 0x8915, struct.pack("256s", interface.encode()[:15]))  # SIOCGIFADDR
    return socket.inet_ntoa(answer[20:24])


def who_has(interface, addresses, wait):
    """ARP: {address: set of MACs that claim it}, after every machine had `wait` seconds to answer."""
    claims = {address: set() for address in addresses}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
        wire.bind((interface, 0x0806))
        mac = wire.getsockname()[4]
        sender = mac + socket.inet_aton(own_address(interface))
        for address in addresses:
            request = (
                struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + sender + bytes(6) + socket.inet_aton(address)
            )
            wire.send(b"\xff" * 6 + mac + b"\x08\x06" + request)
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                frame = wire.recv(2048)
            except socket.timeout:
                break
            if len(frame) >= 42 and frame[20:22] == b"\x00\x02":
                address = socket.inet_ntoa(frame[28:32])
                if address in claims:
                    claims[address].add(frame[22:28].hex(":"))
    return claims


def check_claims(expected):
    """Findings about who answers for the VIP, and the name of the director that holds it."""
    machines = expected["directors"] + expected["realServers"]
    interface = route_interface(expected["vip"])
    if interface is None:
        return [], None, "not asked: this machine is not on the VIP's layer-2 segment"
    try:
        for _ in range(10):
            claims = who_has(
                interface, [expected["vip"]] + [machine["address"] for machine in machines], ARP_WAIT
            )
            findings, holder = judge_claims(expected, claims)
            if not findings:
                break
    except PermissionError:
        return [], None, "not asked: that takes root"
    return findings, holder, "asked"


def judge_claims(expected, claims):
    """What ARP answers mean: findings, and the holder where there is exactly one."""
    vip = expected["vip"]
    names = {}
    for machine in expected["directors"] + expected["realServers"]:
        for mac in claims.get(machine["address"], ()):
            names[mac] = machine["name"]
    directors = {machine["name"] for machine in expected["directors"]}
    claimants = {mac: names.get(mac, f"an unknown machine ({mac})") for mac in claims[vip]}
    findings = []
    for name in sorted(set(claimants.values()) - directors):
        findings.append(
            f"{name} answers ARP for the VIP {vip}, past the directors. To do: on a real server see that "
            "net.ipv4.conf.all.arp_ignore is 1 and arp_announce is 2; on any other machine take the address "
            "away."
        )
    holders = sorted(set(claimants.values()) & directors)
    if len(holders) > 1:
        findings.append(
            f"{' and '.join(holders)} both hold the VIP {vip}. To do: see that VRRP adverts (IP protocol "
            "112) pass between the directors, then journalctl -u keepalived on both."
        )
    if not holders:
        findings.append(
            f"No director answers ARP for the VIP {vip}. To do: systemctl status keepalived on "
            f"{' and '.join(sorted(directors))}."
        )
    return findings, holders[0] if len(holders) == 1 else None


# -------------------------------------------------------------------------------------------- does it speak


def ways_of(expected):
    """The ways in which the service is to be had: its port, and what HTTPS takes or None."""
    plain, https = expected["port"], expected.get("https")
    return [(port, tls) for port, tls in ((plain, None), (https and https["port"], https)) if port]


def shown(way):
    """A way as a part of a sentence."""
    return "" if way[1] is None else " by HTTPS"


def secured(connection, tls):
    """The connection in TLS, with the certificate that was deployed at its other end."""
    import hashlib
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        connection = context.wrap_socket(connection, server_hostname=tls["serverName"])
    except ValueError as error:  # such as a connection that was reset before
        raise OSError(str(error)) from error
    found = hashlib.sha256(connection.getpeercert(True)).hexdigest()
    if found != tls["fingerprint"]:
        connection.close()
        raise ValueError(f"shows a certificate (SHA-256 {found[:16]}...) that was not deployed")
    return connection


def speak(host, way, sentence, source, timeout):
    """One sentence: the name of the node that spoke, and the sound. OSError or ValueError say why not."""
    port, tls = way
    body = json.dumps({"model": "cosyvoice", "input": sentence, "response_format": "wav"}).encode()
    head = (
        f"POST /v1/audio/speech HTTP/1.0\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        # A result that the share has already would prove nothing about this node.
        f"Cache-Control: no-cache\r\nContent-Length: {len(body)}\r\n"
    )
    head += f"Authorization: Bearer {tls['key']}\r\n\r\n" if tls and tls["key"] else "\r\n"
    deadline = time.monotonic() + timeout
    plain = socket.create_connection((host, port), timeout, (source, 0) if source else None)
    with plain, secured(plain, tls) if tls else plain as connection:
        connection.sendall(head.encode() + body)
        answer = bytearray()
        while True:
            if time.monotonic() >= deadline:
                raise ValueError(f"does not come to an end within {timeout:g} s")
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
            if len(answer) > ANSWER:
                raise ValueError(f"answers with more than {ANSWER} bytes")
    header, _, content = bytes(answer).partition(b"\r\n\r\n")
    status, *lines = header.decode("latin-1").split("\r\n")
    if status.split(" ")[1:2] != ["200"]:
        raise ValueError(f"answer {status!r} {content[:200].decode('utf-8', 'replace')}".strip())
    headers = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    return headers.get("x-served-by", ""), content


def fault_of_sound(content):
    """What is wrong with a WAV file, or None."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return f"is not a WAV file (it starts with {content[:12]!r})"
    position, rate, width, data = 12, 0, 0, b""
    while position + 8 <= len(content):
        size = struct.unpack("<I", content[position + 4 : position + 8])[0]
        chunk = content[position + 8 : position + 8 + size]
        if content[position : position + 4] == b"fmt ":
            rate, width = struct.unpack("<I", chunk[4:8])[0], struct.unpack("<H", chunk[12:14])[0]
        if content[position : position + 4] == b"data":
            data = chunk
        position += 8 + size + size % 2
    if not rate or not width or len(data) < 0.2 * rate * width:
        return f"is shorter than 0.2 s ({len(data)} bytes of sound)"
    samples = memoryview(data[: len(data) // 2 * 2]).cast("h")
    if max(max(samples), -min(samples)) <= QUIET:
        return "is silent"
    return None


def in_parallel(work, count):
    """Runs `work(index)` in `count` threads and waits for all of them."""
    import threading

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Asking:
    """Asks through the VIP, several at once, until every real server has served or time is up."""

    def __init__(self, expected, way):
        import threading

        self.expected, self.way = expected, way
        self.served = {machine["name"]: 0 for machine in expected["realServers"]}
        self.sources = expected.get("sourceAddresses") or [None]
        self.deadline = time.monotonic() + expected["timeout"]
        self.asked, self.failures, self.findings = 0, {}, set()
        self.lock = threading.Lock()

    def run(self):
        in_parallel(self.ask_on, min(PARALLEL, len(self.sources), len(self.served)))

    def next_source(self):
        """(True, address to ask from), or (False, None) when there is nothing more to learn."""
        rounds, position = divmod(self.asked, len(self.sources))
        if all(self.served.values()) or time.monotonic() >= self.deadline:
            return False, None
        # One address meets one server for as long as nothing changes: with few addresses a second round only
        # helps where the first one failed.
        if rounds and not position and len(self.sources) < 10 * len(self.served) and not self.failures:
            return False, None
        self.asked += 1
        return True, self.sources[position]

    def ask_on(self, _):
        vip, sentence = self.expected["vip"], self.expected["sentence"]
        while True:
            with self.lock:
                more, source = self.next_source()
            if not more:
                return
            try:
                node, sound = speak(vip, self.way, sentence, source, ATTEMPT_TIMEOUT)
            except (OSError, ValueError) as error:
                # A pool that is just coming up refuses a connection or two; only what stays counts.
                with self.lock:
                    self.failures[source] = str(error)
                time.sleep(PAUSE)
                continue
            with self.lock:
                self.failures.pop(source, None)
                self.count(node, fault_of_sound(sound))

    def count(self, node, fault):
        if fault:
            self.findings.add(f"The sound from {node} {fault}. To do: journalctl -u cosyvoice on {node}.")
        if node in self.served:
            self.served[node] += 1
        else:
            vip = self.expected["vip"]
            self.findings.add(
                f'The VIP was served by "{node}", which is no real server of this stack. To do: find out '
                f"who else claims {vip} (arping -c 3 {vip})."
            )


def check_speech(expected, way):
    """Findings about sentences through the VIP, who served how often, and how many were asked for."""
    asking = Asking(expected, way)
    asking.run()
    findings = asking.findings | explain_unheard(
        expected, way, asking.served, asking.sources, asking.failures
    )
    return sorted(findings), asking.served, asking.asked


def explain_unheard(expected, way, served, sources, failures):
    """Findings about real servers that never answered through the VIP."""
    unheard = [machine for machine in expected["realServers"] if not served[machine["name"]]]
    if not unheard:
        return set()
    reason = next(iter(failures.values()), None)
    if not any(served.values()):
        where = f"{expected['vip']}:{way[0]}{shown(way)}"
        finding = (
            f"Nothing answers at {where}: {reason}. To do: ipvsadm -Ln on the director that holds the VIP "
            "shows the pool; journalctl -u cosyvoice on a real server shows why it is not in it."
        )
        return {finding}
    findings = set()

    def ask_itself(index):
        for machine in unheard[index::PARALLEL]:
            trouble = trouble_of(machine, expected, way)
            name = machine["name"]
            if trouble:
                findings.add(
                    f"{name} was not heard through the VIP{shown(way)}, {trouble}. "
                    f"To do: journalctl -u cosyvoice -u cosyvoice-front-door on {name}."
                )
            elif len(sources) >= 10 * len(served):
                # Fewer addresses than that may miss a healthy server by chance.
                findings.add(
                    f"{name} speaks when asked itself, but was not heard through the VIP{shown(way)} from "
                    f"{len(sources)} addresses. To do: ipvsadm -Ln on the director that holds the VIP; "
                    f"cat /run/cosyvoice-lvs/track/{name}* there."
                )

    in_parallel(ask_itself, PARALLEL)
    return findings


def trouble_of(machine, expected, way):
    """What is wrong with a real server that is asked at its own address, or None."""
    try:
        node, sound = speak(machine["address"], way, expected["sentence"], None, ATTEMPT_TIMEOUT)
    except (OSError, ValueError) as error:
        return f"and does not speak when asked itself either ({error})"
    fault = fault_of_sound(sound) or (None if node == machine["name"] else f"comes from {node}")
    return f"but the sound it gives {fault}" if fault else None


def main():
    try:
        expected = json.load(sys.stdin)
        for key in ("vip", "port", "sentence", "timeout", "directors", "realServers"):
            expected[key]
    except (ValueError, KeyError) as error:
        print(
            f"verify: expectations are wrong: {error!r}. To do: see the text at the top of this program.",
            file=sys.stderr,
        )
        return 2
    spoken, served, asked = [], {}, 0
    for way in ways_of(expected):
        found, served, more = check_speech(expected, way)
        spoken, asked = spoken + found, asked + more
    claimed, holder, arp = check_claims(expected)
    findings = spoken + claimed
    for finding in findings:
        print(f"finding: {finding}", file=sys.stderr)
    summary = {
        "ok": not findings,
        "holder": holder,
        "served": served,
        "asked": asked,
        "arp": arp,
        "findings": findings,
    }
    print(json.dumps(summary))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
