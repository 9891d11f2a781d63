"""The program that decodes an upload, in a process of its own: prompts.py starts it and may kill it.

Upload on standard input; on standard output one line of JSON, {"problem": ..., ...} or what was measured,
then 16-bit samples, mono. It imports nothing of the app, and before it reads the first byte it gives up every
system call but those for memory and for the two pipes: whatever an upload makes of libsndfile can reach no
file, no network and no other process.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import resource
import struct
import sys
from typing import Any

import numpy as np
import soundfile
import soxr

# Numbers of linux/seccomp.h, linux/prctl.h, linux/bpf_common.h and linux/audit.h.
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_AT_NUMBER, _AT_ARCHITECTURE = 0, 4
_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
# By machine: its number for the kernel, and what is allowed there: read write close fstat lseek, mmap
# mprotect munmap brk mremap madvise, rt_sigaction rt_sigprocmask rt_sigreturn, futex sched_yield
# clock_gettime getrandom, exit exit_group.
_CALLS = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 25, 28, 13, 14, 15, 202, 24, 228, 318, 60, 231),
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 80, 62, 222, 226, 215, 214, 216, 233, 134, 135, 139, 98, 124, 113, 278, 93, 94),
    ),
}

# Of decoded audio at a time, in frames.
_BLOCK = 1 << 15
_FULL_SCALE = 0.99
# Bytes a second. How long an MP3 without an index lasts is estimated by its size and the rate of its first
# frame, and no more is read: of one whose bit rate varies the rest would be missing. With an empty tag behind
# it, up to the size that the longest could have, the estimate is never too low, and what ends first ends it.
_FASTEST_MP3 = 320_000 // 8
# libsndfile's count of frames when a file does not tell is about 2**63.
_UNKNOWN = 1 << 62


class Refused(Exception):
    """problem: a word for prompts.py. facts: what its sentence about it needs."""

    def __init__(self, problem: str, **facts: Any) -> None:
        super().__init__(problem)
        self.answer = {"problem": problem, **facts}


def confine() -> None:
    """Every other system call fails with EPERM from here on. Raises OSError."""
    audit, calls = _CALLS[os.uname().machine]
    code = [(_LOAD, 0, 0, _AT_ARCHITECTURE), (_JUMP_IF_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _AT_NUMBER))
    # Each jumps over the rest and the refusal when it is the one.
    code += [(_JUMP_IF_EQUAL, len(calls) - at, 0, call) for at, call in enumerate(calls)]
    code += [(_RETURN, 0, 0, _FAIL | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_SET_NO_NEW_PRIVILEGES, 1, 0), (_SET_SECCOMP, _FILTER, ctypes.addressof(head))):
        if libc.prctl(*(ctypes.c_ulong(argument) for argument in (*arguments, 0, 0))):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def limit(memory: int, cpu_seconds: int) -> None:
    """memory: bytes of address space."""
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(what, (most, most))


def read(data: bytes, bounds: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Facts and samples. The header is believed where it refuses, and counts for nothing where it allows: at
    most the longest duration at the highest rate is ever decoded.
    """
    mp3 = data[:4] not in (b"RIFF", b"RF64", b"fLaC", b"OggS")
    if mp3:
        room = max(0, int((bounds["longest"] + 1) * _FASTEST_MP3) - len(data))
        data += b"ID3\4\0\0" + bytes(room >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\0" * room
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        rate, channels = file.samplerate, file.channels
        if channels > bounds["channels"]:
            raise Refused("channels", channels=channels)
        if rate < bounds["lowest_rate"]:
            raise Refused("low_rate", rate=rate)
        if rate > bounds["highest_rate"]:
            raise Refused("high_rate", rate=rate)
        if not mp3 and bounds["longest"] * rate < file.frames < _UNKNOWN:
            raise Refused("long", seconds=file.frames / rate)
        most = int(bounds["longest"] * rate)
        blocks = []
        frames = 0
        while frames <= most and len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block.mean(axis=1))
            frames += len(block)
    if frames > most:
        raise Refused("long", seconds=frames / rate)
    if frames < bounds["shortest"] * rate:
        raise Refused("short", seconds=frames / rate)
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise Refused("broken", reason="samples that are no numbers")
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    decibels = 20 * float(np.log10(max(level, 1e-9)))
    if decibels < bounds["quietest"]:
        raise Refused("silent", decibels=decibels)
    clipped = float(np.mean(np.abs(samples) >= _FULL_SCALE))
    if clipped > bounds["most_clipped"]:
        raise Refused("clipped", share=clipped)
    if rate != bounds["rate"]:
        samples = soxr.resample(samples, rate, bounds["rate"], quality="HQ")
    whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    return {"rate": rate, "channels": channels, "decibels": decibels}, whole.tobytes()


def main() -> int:
    bounds = json.loads(sys.argv[1])
    limit(bounds["memory"], bounds["cpu_seconds"])
    confine()
    frames = b""
    try:
        facts, frames = read(sys.stdin.buffer.read(), bounds)
    except Refused as refused:
        facts = refused.answer
    except soundfile.LibsndfileError as error:
        # As a text it would begin with where in memory the bytes are.
        facts = {"problem": "broken", "reason": error.error_string[:200]}
    except Exception as error:  # noqa: BLE001 - whatever it is, the upload is the cause
        facts = {"problem": "broken", "reason": str(error)[:200]}
    sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n" + frames)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
