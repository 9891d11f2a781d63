"""Puts the parts together and runs them: start, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI

from . import systemd
from .engines import REGISTRY, create_engine
from .errors import EngineUnavailable
from .history import Owners
from .http import Callers, Front, create_api
from .logs import Clients, JobLog, LineFile, Recorder
from .metrics import Metrics
from .outputs import Outputs
from .peer_api import create_peer_api
from .peers import Peers
from .readiness import Readiness
from .retention import Retention
from .sessions import Sessions
from .settings import Settings, SettingsError, load_settings
from .speech import SpeechService

T = TypeVar("T")

log = logging.getLogger("cosyvoice")

# How often entries of histories without results are looked for, in seconds.
_SWEEP_EVERY = 600.0
# How often the share is asked whether it is there, in seconds.
_PROBE_EVERY = 10.0
# How long an upload stays, in seconds: an open page may name it again.
_UPLOADS_KEPT = 86_400.0
# Bytes of all of them; beyond that the oldest go: anybody may upload as much as they like.
_MOST_UPLOADS = 1 << 30
# How long the last open connections (event streams of open pages) get once nothing is left to do, in seconds.
_LINGER = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the service until SIGTERM or SIGINT. Exit status: 0 stopped as told, 1 failed, 2 wrong
    settings.
    """
    # The journal adds time and unit.
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = load_settings(argv, engines=tuple(REGISTRY))
    except SettingsError as error:
        for problem in error.problems:
            log.error("%s", problem)
        return 2
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        log.error(
            "--host %s --port %d: cannot listen there: %s; choose another port or stop what uses it",
            settings.host,
            settings.port,
            error.strerror or error,
        )
        return 1
    status = asyncio.run(_Service(settings, listener).run())
    logging.shutdown()
    sys.stderr.flush()
    sys.stdout.flush()
    # Not `return`: Python would wait for threads, and one that waits for a share that is away never ends.
    os._exit(status)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are this module's: uvicorn would close the port at once, without a drain."""
        yield


class _Service:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._began = time.monotonic()
        self._ended = asyncio.Event()
        self._readiness = Readiness(self._on_change, settings.drain_file)
        self._metrics = Metrics(settings.node, settings.engine)
        self._outputs = Outputs(settings.outputs, node=settings.node, time_limit=settings.outputs_time_limit)
        self._retention = Retention(
            self._outputs,
            self._metrics,
            days=settings.outputs_days,
            quota=int(settings.outputs_quota * (1 << 30)),
        )
        self._peers = Peers(settings.peers, settings.peer_key, self._metrics) if settings.peers else None
        self._speech = SpeechService(
            settings,
            create_engine(settings.engine),
            self._outputs,
            self._metrics,
            self._readiness,
            self._peers,
        )
        self._sessions = Sessions(self._peers, self._metrics, settings.uploads) if self._peers else None
        self._readiness.block("page", "the page is being loaded")
        self._jobs = self._log_file("jobs", "jobs")
        self._accesses = self._log_file("access", "gradio.access")
        self._speech.job_log = JobLog(
            self._jobs, node=settings.node, engine=settings.engine, with_text=settings.log_text
        )

    def _log_file(self, kind: str, name: str) -> LineFile:
        settings = self._settings
        return LineFile(
            settings.log_directory / f"{name}.{settings.node}.log",
            node=settings.node,
            on_drop=self._metrics.log_lines_dropped.labels(kind).inc,
            most_bytes=settings.log_size << 20,
            most_files=settings.log_files,
        )

    def _on_change(self, state: str, reason: str) -> None:
        log.info(
            "%s%s (%.1f s after the start)",
            state,
            f": {reason}" if reason else "",
            time.monotonic() - self._began,
        )
        systemd.notify(f"STATUS={state}{': ' + reason if reason else ''}"[:500])
        if self._readiness.able:
            systemd.notify("READY=1")

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        systemd.start_watchdog(loop)

        api = create_api(self._settings, self._speech, self._readiness, self._metrics)
        peer_api = create_peer_api(self._speech, self._sessions) if self._sessions else None
        front = Front(self._settings, self._readiness, api, self._sessions, peer_api)
        recorder = Recorder(
            Owners(front),
            self._accesses,
            node=self._settings.node,
            clients=Clients(self._settings.log_client),
            health=self._settings.log_health,
        )
        server = _Server(
            uvicorn.Config(
                Callers(recorder, self._peers),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_LINGER,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        log.info(
            "node %s, engine %s, outputs %s, listening on %s port %d",
            self._settings.node,
            self._settings.engine,
            self._settings.outputs,
            self._settings.host,
            self._settings.port,
        )
        # The port answers from here on, with /readyz saying why not yet: page and engine get ready beside
        # each other.
        warming = asyncio.create_task(self._speech.warm_up())
        page = asyncio.create_task(self._run_page(front))
        housekeeping = [
            asyncio.create_task(self._keep_house()),
            asyncio.create_task(self._retention.run()),
            asyncio.create_task(self._speech.history.adopt()),
        ]
        if self._peers is not None:
            housekeeping.append(asyncio.create_task(self._peers.watch()))
        stopping = asyncio.create_task(stop.wait())
        status = 0
        watched: set[asyncio.Task[Any]] = {serving, warming, page, stopping}
        while not stopping.done() and status == 0:
            done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                status = max(status, self._look_at(task, serving))
        if status == 0:
            await self._drain()
        for task in (warming, *housekeeping, stopping):
            task.cancel()
        server.should_exit = True
        front.end_streams()
        self._ended.set()
        if not front.page_open:
            page.cancel()  # its thread goes on importing until the process ends
        await asyncio.wait({serving, page}, timeout=_LINGER + 5)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self._speech.engine.stop()
        # In a thread, so that a share that hangs holds nothing up but the time limit of it.
        await in_thread(lambda: [file.close() for file in (self._jobs, self._accesses)])
        log.info("stopped")
        return status

    def _look_at(self, task: asyncio.Task[Any], serving: asyncio.Task[None]) -> int:
        """Exit status that the end of a task calls for; 0: none."""
        error = task.exception()
        if isinstance(error, EngineUnavailable):
            log.error("%s", error)
        elif error is not None:
            log.error("a part of the service failed", exc_info=error)
        elif task is serving:
            log.error("the HTTP server ended by itself")
        else:
            return 0
        return 1

    async def _run_page(self, front: Front) -> None:
        def load() -> FastAPI:
            from .page import create_page  # imports gradio, which takes longer than all the rest

            return create_page(self._settings, self._speech)

        page = await in_thread(load)
        if self._sessions is not None:
            self._sessions.follow_page(page.state.active)
        async with page.router.lifespan_context(page):
            front.open_page(page)
            self._readiness.clear("page")
            await self._ended.wait()

    async def _keep_house(self) -> None:
        await self._outputs.remove_stale()
        await self._speech.voices.remove_stale()
        swept = time.monotonic()
        while True:
            if time.monotonic() - swept > _SWEEP_EVERY:
                swept = time.monotonic()
                await self._speech.history.sweep()
            await asyncio.to_thread(remove_old_uploads, self._settings.uploads)
            before = self._outputs.problem
            await self._outputs.probe()
            now = self._outputs.problem
            if now != before:
                log.log(logging.WARNING if now else logging.INFO, "outputs: %s", now or "in order again")
            await asyncio.sleep(_PROBE_EVERY)

    @property
    def _busy(self) -> bool:
        """Whether somebody waits for this node, if only to hear what another one says."""
        return self._speech.busy or bool(self._sessions and self._sessions.passing)

    async def _drain(self) -> None:
        """Tells the directors, goes on taking requests until they know, then finishes what is there."""
        known = self._readiness.draining
        self._readiness.drain()
        systemd.notify("STOPPING=1")
        if not known:
            await asyncio.sleep(self._settings.drain_delay)
        self._speech.close()
        end = time.monotonic() + self._settings.drain_limit
        while self._busy and time.monotonic() < end:
            await asyncio.sleep(0.1)
        if self._busy:
            log.warning("stopping after %g s although requests are not finished", self._settings.drain_limit)


def remove_old_uploads(directory: Path, most_bytes: int = _MOST_UPLOADS) -> None:
    """Removes recordings and whatever else was uploaded to this node, or fetched by it, a day ago or longer:
    voices of people, which nobody needs any more. Of what is left the oldest go that do not fit into
    `most_bytes`. In a thread.
    """
    now = time.time()
    left: list[tuple[float, int, str]] = []
    for folder, folders, files in os.walk(directory, topdown=False):
        for name in (*files, *folders):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # a folder that is not empty, or a file that has just gone
                state = os.lstat(path)
                if now - state.st_mtime > _UPLOADS_KEPT:
                    (os.unlink if name in files else os.rmdir)(path)
                elif name in files:
                    left.append((state.st_mtime, state.st_size, path))
    size = 0
    for _, bytes_, path in sorted(left, reverse=True):
        size += bytes_
        if size > most_bytes:
            with contextlib.suppress(OSError):
                os.unlink(path)


async def in_thread(work: Callable[[], T]) -> T:
    """`work` in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = work()
        except BaseException as caught:  # noqa: BLE001 - belongs to the one who waits
            error = caught
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, daemon=True).start()
    return await answer
