"""Messages to systemd: `READY=1`, `STATUS=`, and a watchdog that tells whether the event loop still turns."""

from __future__ import annotations

import asyncio
import os
import socket
import threading


def notify(message: str) -> bool:
    """Sends to $NOTIFY_SOCKET. False when there is none or it does not take the message."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1)
            sock.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear from this process at the latest ($WATCHDOG_USEC); None: not at all."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None


def start_watchdog(loop: asyncio.AbstractEventLoop) -> bool:
    """Sends WATCHDOG=1 from a thread for as long as `loop` answers. False: systemd does not ask for it.

    From a thread, since a loop that hangs could not even say so; asking the loop, since a thread always looks
    alive.
    """
    limit = watchdog_seconds()
    if limit is None:
        return False

    def watch() -> None:
        while True:
            turned = threading.Event()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return  # the loop is closed: the process is ending
            if turned.wait(limit / 3):
                notify("WATCHDOG=1")
                threading.Event().wait(limit / 3)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    return True
