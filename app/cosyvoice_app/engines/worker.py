"""A process that holds a model: started, asked, watched, killed and started again.

The model computes in a process of its own, since nothing else can stop a computation that hangs in a library:
a time limit, a client that left, garbage and a leak all end in a kill, and the service goes on. The parent
talks to it by frames (worker_process.py says how they look) and imports nothing of the model's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import EngineError, EngineUnavailable
from ..wav import Audio
from .worker_process import MAGIC, MOST_HEADER, MOST_PAYLOAD, PREFIX, pack

log = logging.getLogger("cosyvoice")

#: Folder from which `-m cosyvoice_app...` works.
_APP = Path(__file__).resolve().parents[2]
# Seconds before a start that failed is repeated: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# How much a process must have grown since it was ready to be taken for a leak, so that a bound below what the
# model needs does not start it again after each job.
_GROWTH = 1.1
# What systemd gave to this process alone.
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# What ran out of memory, in English and Chinese, by the kind of an error.
_MEMORY = {"gpu-memory": ("GPU", "显存"), "memory": ("machine", "内存")}
_ZH_REASON = "语音工作进程出错"


class _Broken(Exception):
    """The process is gone or not to be trusted any more, and why."""


class Worker:
    """One job at a time, which the caller sees to."""

    def __init__(
        self,
        target: str,
        *,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        on_state: Callable[[bool, str], None] = lambda ready, reason: None,
        start_limit: float,
        stop_limit: float,
        most_audio: int,
        most_memory: int = 0,
    ) -> None:
        """target: `module:Class` of a worker_process.Model. environment: added to this process's own.
        python: the interpreter. on_state: told when the worker loses and regains the ability to speak, with
        the reason. start_limit: seconds to load. stop_limit: seconds that a cancelled job may take to end.
        most_audio: bytes that one job may give. most_memory: resident bytes beyond which a process that grows
        is replaced between jobs; 0: never.
        """
        self._command = [python, "-m", "cosyvoice_app.engines.worker_process", target, str(os.getpid())]
        own = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        path = os.pathsep.join(filter(None, (str(_APP), own.get("PYTHONPATH"))))
        self._environment = {**own, **(environment or {}), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self._on_state = on_state
        self._start_limit = start_limit
        self._stop_limit = stop_limit
        self._most_memory = most_memory
        self._most_audio = most_audio
        self._jobs = 0
        self._live: _Live | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._restarts = 0
        self._measured: dict[str, float] = {}
        #: What the model said about itself when it was last loaded.
        self.info: dict[str, Any] = {}

    @property
    def measurements(self) -> Mapping[str, float]:
        return {"worker_restarts_total": float(self._restarts), **self._measured}

    async def start(self) -> None:
        """Returns when the model is loaded. Raises EngineUnavailable when it says that it cannot be."""
        self._keeper = asyncio.create_task(self._keep())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({self._keeper, ready}, return_when=asyncio.FIRST_COMPLETED)
            if self._keeper.done():
                self._keeper.result()
        finally:
            ready.cancel()

    async def wait_ready(self) -> None:
        """Returns when a job can begin."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Ends the process."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    async def run(self, job: Mapping[str, Any], payload: bytes = b"") -> AsyncIterator[Audio]:
        """Serves a job: audio as it is made. Raises EngineError.

        Cancelling a step or closing the iterator tells the model to stop, and kills the process when it has
        not within the stop limit.
        """
        await self._ready.wait()
        live = self._live
        assert live is not None
        assert not live.busy, "one job at a time"
        self._jobs += 1
        number = self._jobs
        live.busy = True
        ended = False
        size = 0
        try:
            await live.send({"type": "job", "job": number, **job}, payload)
            while True:
                header, data = await live.receive()
                kind = header.get("type")
                if header.get("job") != number or kind not in ("audio", "done", "error"):
                    raise _Broken(f"it answered job {number} with {str(header)[:80]!r}")
                if kind == "audio":
                    size += len(data)
                    if size > self._most_audio:
                        raise _Broken(f"it gave more than {self._most_audio >> 20} MB of audio for one text")
                    yield _audio(header, data)
                    continue
                ended = True
                self._note(live, header)
                if kind == "error":
                    raise _failure(header)
                return
        except _Broken as problem:
            ended = True
            live.busy = False
            reason = str(problem)
            await self._kill(live, reason)
            raise EngineError(
                f"the speech worker failed and is being started again: {reason}",
                zh=f"{_ZH_REASON}，正在重新启动：{reason}",
                retry_after=30,
            ) from None
        finally:
            if not ended:
                await self._call_off(live, number)
            live.busy = False

    def _note(self, live: _Live, header: Mapping[str, Any]) -> None:
        """Figures after a job; and a process that is not good for another one is given up."""
        measured = header.get("measured")
        self._measured = {
            str(name): float(value)
            for name, value in (measured.items() if isinstance(measured, dict) else ())
            if isinstance(value, (int, float))
        }
        resident = _resident(live.process.pid)
        self._measured["worker_memory_bytes"] = float(resident)
        kind = str(header.get("kind"))
        if kind in _MEMORY:
            # What a failed allocation leaves behind is not worth finding out.
            self._give_up(live, f"the {_MEMORY[kind][0]}'s memory was not enough")
        elif header.get("ending"):
            self._give_up(live, str(header.get("message", "a synthesis did not stop"))[:200])
        elif header.get("type") == "ready":
            live.base = resident
            if self._most_memory and resident > self._most_memory:
                log.warning(
                    "COSYVOICE_WORKER_MEMORY: the speech worker needs %.1f GiB before it has spoken a word; "
                    "set it higher",
                    resident / (1 << 30),
                )
        elif self._most_memory and resident > max(self._most_memory, live.base * _GROWTH):
            self._give_up(live, f"its memory had grown to {resident / (1 << 30):.1f} GiB")

    async def _call_off(self, live: _Live, number: int) -> None:
        """Ends a job whose caller has gone: within the stop limit, or with the process."""
        try:
            async with asyncio.timeout(self._stop_limit):
                await live.send({"type": "cancel", "job": number})
                while True:
                    header, _ = await live.receive()
                    if header.get("type") in ("done", "error") and header.get("job") == number:
                        self._note(live, header)
                        return
        except (TimeoutError, _Broken):
            live.busy = False
            await self._kill(live, "a synthesis had to be stopped and did not stop by itself")
        except BaseException:
            live.busy = False
            await self._kill(live, "a synthesis had to be stopped")
            raise

    def _give_up(self, live: _Live, reason: str) -> None:
        """The keeper replaces it; until then no job begins."""
        live.give_up(reason)
        self._ready.clear()

    async def _kill(self, live: _Live, reason: str) -> None:
        self._give_up(live, reason)
        await live.kill()

    # The keeper: one process after the other.

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        first = True
        while True:
            live: _Live | None = None
            try:
                live = _Live(await self._spawn())
                reason = await self._load(live)
                if reason is None:
                    pause = _FIRST_PAUSE
                    first = False
                    self._live = live
                    self._ready.set()
                    self._on_state(True, "")
                    reason = await live.lost()
                    log.warning("the speech worker is started again: %s", reason)
                else:
                    log.error("the speech worker did not start: %s", reason)
            except EngineUnavailable as error:
                if first:
                    if live is not None:
                        await live.kill()
                    raise
                # It has worked before, so somebody may put right what is wrong.
                reason = str(error)
                log.error("the speech worker cannot start: %s", reason)
            except asyncio.CancelledError:
                if live is not None:
                    await live.kill()
                raise
            finally:
                self._ready.clear()
                if live is not None:
                    live.send_kill()
            self._restarts += 1
            self._on_state(False, f"the speech worker is being started again: {reason}")
            if live is not None:
                await live.kill()  # its memory on the GPU is needed
            if not (live is not None and live.was_ready):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _spawn(self) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=PIPE,
                limit=1 << 20,
                start_new_session=True,  # a group of its own, killed with whatever it started
                env=self._environment,
            )
        except OSError as error:
            raise EngineUnavailable(
                f"{self._command[0]}: cannot be run: {error.strerror or error}"
            ) from error

    async def _load(self, live: _Live) -> str | None:
        """Waits until the model is loaded; else says why it is not. Raises EngineUnavailable."""
        try:
            async with asyncio.timeout(self._start_limit):
                header, _ = await live.receive()
        except TimeoutError:
            return f"it was not ready within {self._start_limit:g} s"
        except _Broken as problem:
            return str(problem)
        if header.get("type") == "ready" and isinstance(header.get("info"), dict):
            self.info = header["info"]
            live.was_ready = True
            self._note(live, header)
            return None
        said = str(header.get("message") or header)[:1000]
        if header.get("kind") == "unavailable":
            raise EngineUnavailable(said)
        return said


class _Live:
    """A process, its pipes, and whether it is still wanted."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.busy = False
        self.was_ready = False
        #: Resident bytes when it was ready.
        self.base = 0
        self._prefix: tuple[int, int] | None = None
        self._reason = ""
        self._given_up = asyncio.Event()

    def give_up(self, reason: str) -> None:
        """Lets `lost` return."""
        self._reason = self._reason or reason
        self._given_up.set()

    async def lost(self) -> str:
        """Returns when the process has ended or was given up, with the reason."""
        given_up = asyncio.create_task(self._given_up.wait())
        ended = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait({given_up, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up.cancel()
            ended.cancel()
        return self._reason or self._how_it_ended()

    def send_kill(self) -> None:
        """Tells the kernel to end the process and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """Returns when that has happened."""
        self.send_kill()
        await self.process.wait()
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        if self.busy:
            return  # whoever reads reads on to the end
        # A pipe with something left in it would stay open for as long as this process runs.
        with suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(1):
                while await stdout.read(1 << 20):
                    pass

    async def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Raises _Broken when the process is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(pack(dict(header), payload))
            await self.process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise _Broken(await self._end()) from None

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame. Raises _Broken. A cancelled call loses nothing: the next one goes on with it."""
        pipe = self.process.stdout
        assert pipe is not None
        try:
            if self._prefix is None:
                magic, header, payload = PREFIX.unpack(await pipe.readexactly(PREFIX.size))
                if magic != MAGIC or header > MOST_HEADER or payload > MOST_PAYLOAD:
                    raise _Broken(f"it wrote what is no frame: {magic!r}, {header} and {payload} bytes")
                self._prefix = (header, payload)
            header, payload = self._prefix
            data = await pipe.readexactly(header + payload)
        except asyncio.IncompleteReadError:
            raise _Broken(await self._end()) from None
        self._prefix = None
        try:
            parsed = json.loads(data[:header])
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise _Broken(f"it wrote a frame without a header: {data[:40]!r}")
        return parsed, data[header:]

    async def _end(self) -> str:
        """How it ended, once the pipe has; a process that only closed its pipe counts as well."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), 1)
        return self._how_it_ended()

    def _how_it_ended(self) -> str:
        status = self.process.returncode
        if status is None:
            return "it closed its pipe"
        if status < 0:
            name = signal.Signals(-status).name
            hint = " (out of memory? see the kernel's log)" if name == "SIGKILL" else ""
            return f"it was ended by {name}{hint}"
        return f"it ended with status {status}; the journal has what it said"


def _failure(header: Mapping[str, Any]) -> EngineError:
    said = str(header.get("message", ""))[:1000]
    kind = str(header.get("kind"))
    if kind in _MEMORY:
        where, place = _MEMORY[kind]
        return EngineError(
            f"the {where} has too little memory for this text ({said}); "
            "try again in a minute, or with a shorter text",
            zh=f"{place}不足，无法合成这段文本（{said}）；请一分钟后再试，或缩短文本",
            retry_after=60,
        )
    return EngineError(f"the model failed: {said}", zh=f"模型出错：{said}")


def _audio(header: Mapping[str, Any], data: bytes) -> Audio:
    rate = header.get("rate")
    if not isinstance(rate, int) or not 8000 <= rate <= 192_000 or len(data) % 2:
        raise _Broken(f"it gave audio that cannot be: {rate!r} Hz, {len(data)} bytes")
    return Audio(rate, 1, 2, data)


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
