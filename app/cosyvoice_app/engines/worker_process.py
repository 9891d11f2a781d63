"""The other end of worker.py: the process that holds a model and speaks, run as
`python -m cosyvoice_app.engines.worker_process MODULE:CLASS PARENT`, the last being the parent's process
number.

It may run under another Python than the service (3.10 and later, with the model's own packages), so this
module needs the standard library only. Its standard input and output carry frames; whatever the model prints
goes to standard error, and so to the journal.

A frame: the four bytes `CVF1`, length of the header and of the payload (both 32 bit, big endian), the header
as JSON, the payload. No pickle: neither side can make the other run anything.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any, BinaryIO, Protocol

MAGIC = b"CVF1"
PREFIX = struct.Struct(">4sII")
#: Bytes of a header: the longest text, every character escaped, has room. Bytes of a payload.
MOST_HEADER, MOST_PAYLOAD = 2 << 20, 16 << 20
# Bytes of audio in a frame; a longer piece takes several.
_AUDIO = 1 << 20
_PR_SET_PDEATHSIG = 1


class ModelUnavailable(Exception):
    """The model cannot be loaded on this machine, whatever is tried. zh: the message in Chinese."""

    def __init__(self, message: str, zh: str | None = None) -> None:
        super().__init__(message)
        self.zh = zh


class Model(Protocol):
    """What runs in this process. Loaded by calling its class without arguments, which may raise
    ModelUnavailable.
    """

    #: What the parent is told when the model is loaded; JSON types only.
    info: dict[str, Any]

    def speak(self, job: dict[str, Any], payload: bytes) -> Iterator[tuple[int, bytes]]:
        """Sample rate in Hz and mono 16-bit PCM, chunk by chunk."""

    def interrupt(self) -> None:
        """Makes a `speak` that computes give up soon, by any exception. Called from another thread."""

    def settle(self) -> bool:
        """Whether nothing of an interrupted `speak` runs any more; waits a little for it."""

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether the GPU's memory was not enough."""

    def measure(self) -> dict[str, float]:
        """Figures for /metrics, e.g. gpu_memory_free_bytes."""


def pack(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """A frame."""
    text = json.dumps(header, ensure_ascii=False).encode()
    return PREFIX.pack(MAGIC, len(text), len(payload)) + text + payload


def main() -> None:
    """Serves jobs until standard input ends. Does not return."""
    _die_with_the_parent()
    # The pipes get other numbers, so that a library that prints cannot write between the frames.
    given, taken = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _Process(sys.argv[1], given, taken).run()


def _die_with_the_parent() -> None:
    """End of input tells it too, but not to a process that is stuck in a library."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        os._exit(1)  # it had gone before


class _Process:
    def __init__(self, target: str, given: BinaryIO, taken: int) -> None:
        self._target = target
        self._given = given
        self._taken = taken
        self._writing = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()
        self._model: Model | None = None
        # The job that runs, 0: none. stopping: it has been cancelled.
        self._job = 0
        self._stopping = False

    def run(self) -> None:
        threading.Thread(target=self._listen, name="frames", daemon=True).start()
        threading.excepthook = self._on_thread_error
        try:
            module, name = self._target.split(":")
            self._model = getattr(import_module(module), name)()
        except ModelUnavailable as error:
            self._send(
                {"type": "error", "job": 0, "kind": "unavailable", "message": str(error), "zh": error.zh}
            )
            os._exit(3)
        except BaseException as error:  # noqa: BLE001 - the parent tells it
            traceback.print_exc()
            self._end(0, self._failure(error), ending=True)
        self._send({"type": "ready", "job": 0, "info": self._model.info, **self._measure()})
        while True:
            job, payload = self._jobs.get()
            self._serve(self._model, job, payload)

    def _listen(self) -> None:
        """Takes frames; in a thread, so that a cancellation is heard while the model computes."""
        while (prefix := self._given.read(PREFIX.size)) and len(prefix) == PREFIX.size:
            _, header, payload = PREFIX.unpack(prefix)
            job = json.loads(self._given.read(header))
            data = self._given.read(payload)
            if job["type"] == "job":
                self._job, self._stopping = job["job"], False
                self._jobs.put((job, data))
            elif job["type"] == "cancel" and job["job"] == self._job:
                self._stopping = True
                if self._model is not None:
                    self._model.interrupt()
        os._exit(0)  # the parent has gone, or wants this process to

    def _serve(self, model: Model, job: dict[str, Any], payload: bytes) -> None:
        number = job["job"]
        failure: BaseException | None = None
        chunks = model.speak(job, payload)
        try:
            # Not one step for a job that was cancelled before it began.
            for rate, pcm in () if self._stopping else chunks:
                if self._stopping:
                    break
                for at in range(0, len(pcm), _AUDIO):
                    self._send({"type": "audio", "job": number, "rate": rate}, pcm[at : at + _AUDIO])
        except BaseException as error:  # noqa: BLE001 - the parent tells it
            failure = error
        with suppress(Exception):
            chunks.close()  # type: ignore[attr-defined]
        if self._stopping:
            settled = model.settle()
            self._end(number, {"type": "done", "stopped": True}, ending=not settled)
        elif failure is not None:
            traceback.print_exception(failure)
            # What still runs in the model's threads would take random numbers from the next job.
            self._stopping = True
            model.interrupt()
            self._end(number, self._failure(failure), ending=not model.settle())
        else:
            self._end(number, {"type": "done"}, ending=False)

    def _on_thread_error(self, args: Any) -> None:
        """An exception in a thread of the model's own: what waits for that thread would wait for ever."""
        if self._stopping:
            return  # how an interrupted one ends
        error, where = args.exc_value, args.exc_traceback
        if isinstance(where, TracebackType):
            traceback.print_exception(type(error), error, where)
        if self._job:
            self._end(self._job, self._failure(error), ending=True)

    def _failure(self, error: BaseException | None) -> dict[str, Any]:
        return {"type": "error", "kind": self._kind(error), "message": _describe(error)}

    def _end(self, number: int, how: dict[str, Any], *, ending: bool) -> None:
        """The last frame of a job. ending: this process is of no use any more."""
        self._job = 0
        self._send({**how, "job": number, "ending": ending, **self._measure()})
        if ending:
            os._exit(4)

    def _kind(self, error: BaseException | None) -> str:
        if isinstance(error, MemoryError):
            return "memory"
        known = self._model is not None and error is not None and self._model.out_of_memory(error)
        return "gpu-memory" if known else "failed"

    def _measure(self) -> dict[str, Any]:
        try:
            return {"measured": self._model.measure() if self._model is not None else {}}
        except Exception:  # noqa: BLE001 - a GPU that does not answer is no reason to fail what went well
            return {"measured": {}}

    def _send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        rest = memoryview(pack(header, payload))
        with self._writing:
            while rest:
                try:
                    rest = rest[os.write(self._taken, rest) :]
                except OSError:
                    os._exit(0)  # the parent has gone


def _describe(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


if __name__ == "__main__":
    # By its own name, or the model would raise another ModelUnavailable than the one that is caught here.
    import_module("cosyvoice_app.engines.worker_process").main()
