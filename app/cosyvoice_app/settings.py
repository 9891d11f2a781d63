"""The one door for settings: flags and environment in, a checked `Settings` or every problem at once out."""

from __future__ import annotations

import argparse
import os
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from .logs import ClientStyle


@dataclass(frozen=True)
class Settings:
    """What the service runs with. Durations are seconds.

    host, port, enable_queue, max_seconds are flags; the rest is read from the variable named beside it.
    """

    host: str
    port: int
    # Without the flag nothing waits: while one synthesis runs, the next request is refused.
    enable_queue: bool
    # COSYVOICE_NODE: name of this real server, sent as X-Served-By. Default: the host's name.
    node: str
    # COSYVOICE_ENGINE: name in engines.REGISTRY. Default: cpu.
    engine: str
    # COSYVOICE_OUTPUTS: directory of results, shared by all nodes. Default: ./outputs.
    outputs: Path
    # COSYVOICE_QUEUE_LENGTH: requests that may wait beside the one that runs. Default: 20.
    queue_length: int
    # --max-seconds or COSYVOICE_TIME_LIMIT: a synthesis that takes longer is killed. Default: 60.
    time_limit: float
    # COSYVOICE_WAIT_LIMIT: a request that waits longer for its turn is refused. Default: 300.
    wait_limit: float
    # COSYVOICE_OUTPUTS_TIME_LIMIT: a file operation that takes longer counts as "the share is away". Default:
    # 5.
    outputs_time_limit: float
    # COSYVOICE_MAX_CHARACTERS: longest text. Default: 4096, the limit that OpenAI documents for `input`.
    max_characters: int
    # COSYVOICE_SHARED_HISTORY: 1 shows everybody what everybody made; otherwise each their own. Default: 0.
    shared_history: bool
    # COSYVOICE_LOG_DIRECTORY: where the logs of jobs and requests are written (logs.py). Default: outputs.
    log_directory: Path
    # COSYVOICE_LOG_TEXT: 1 puts what users said into the log of jobs. Default: 0.
    log_text: bool
    # COSYVOICE_LOG_CLIENT: how clients are named there: hash (changes daily), address, none. Default: hash.
    log_client: ClientStyle
    # COSYVOICE_LOG_HEALTH: 1 logs requests for health and metrics too. Default: 0.
    log_health: bool
    # COSYVOICE_LOG_SIZE: megabytes at which a log is put aside. Default: 16.
    log_size: int
    # COSYVOICE_LOG_FILES: how many files of a log are kept, the current one included. Default: 5.
    log_files: int
    # COSYVOICE_DRAIN_FILE: while this file is there /readyz says 503, and what comes is served all the same.
    # Default: /run/cosyvoice-lvs/drain.
    drain_file: Path
    # COSYVOICE_DRAIN_DELAY: on SIGTERM, how long requests are still taken while /readyz says 503 already, so
    # that the directors (two polls a second) stop sending before the port closes. Default: 1.5.
    drain_delay: float
    # COSYVOICE_DRAIN_LIMIT: on SIGTERM, how long what runs or waits may take to finish. Default: time_limit,
    # at most 60, so that the process ends by itself before systemd loses its patience (time_limit + 15).
    drain_limit: float
    # COSYVOICE_OUTPUTS_DAYS: results that nobody asked for in so many days are removed. Default: 0, never.
    outputs_days: float = 0.0
    # COSYVOICE_OUTPUTS_QUOTA: GiB of all results; beyond it the least recently used are removed. Default: 0,
    # any number.
    outputs_quota: float = 0.0
    # COSYVOICE_PEERS: file with the other nodes, see peers.read_list. Default: none, this node is alone.
    peers: Path | None = None
    # COSYVOICE_PEER_KEY_FILE: file with the key that all nodes share, see peers.read_keys. Without a key this
    # node is alone, too. Default: none.
    peer_key: Path | None = None
    # COSYVOICE_DIRECTORS: file with the directors' addresses, one a line, read again when it changes; their
    # word that they are about to forget this node is believed. Default: none, nobody's is.
    directors: Path | None = None
    # GRADIO_TEMP_DIR: directory of uploaded files, which gradio reads itself. Default: gradio below the
    # directory for temporary files.
    uploads: Path = Path(tempfile.gettempdir()) / "gradio"

    @property
    def waiting_room(self) -> int:
        """How many may wait beside the one that runs."""
        return self.queue_length if self.enable_queue else 0


class SettingsError(ValueError):
    """Holds every problem found, one per line: variable, value, what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def load_settings(
    argv: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    engines: Sequence[str] = ("cpu",),
) -> Settings:
    """Reads flags (default: sys.argv) and environment (default: os.environ).

    Raises SettingsError with all problems; SystemExit(2) by argparse for an unknown flag or port that is no
    number.
    """
    env = os.environ if environment is None else environment
    flags = _parser().parse_args(argv)
    problems: list[str] = []

    def text(name: str, default: str) -> str:
        value = env.get(name, "").strip()
        return value or default

    def number(name: str, default: float, low: float, high: float, unit: str = "s") -> float:
        raw = text(name, str(default))
        try:
            value = float(raw)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:  # also catches nan
            problems.append(f"{name}={raw!r}: set it to a number of {unit} from {low:g} to {high:g}")
            return default
        return value

    def count(name: str, default: int, low: int, high: int, unit: str) -> int:
        raw = text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not low <= int(raw) <= high:
            problems.append(f"{name}={raw!r}: set it to a whole number of {unit} from {low} to {high}")
            return default
        return int(raw)

    def switch(name: str) -> bool:
        raw = text(name, "0")
        if raw not in ("0", "1"):
            problems.append(f"{name}={raw!r}: set it to 1 (on) or 0 (off)")
        return raw == "1"

    def choice(name: str, *choices: str) -> str:
        raw = text(name, choices[0])
        if raw not in choices:
            problems.append(f"{name}={raw!r}: set it to one of: {', '.join(choices)}")
        return raw

    if not 1 <= flags.port <= 65535:
        problems.append(f"--port {flags.port}: set it to a port from 1 to 65535")

    node = text("COSYVOICE_NODE", socket.gethostname() or "localhost")
    if not _NODE.fullmatch(node):
        problems.append(
            f"COSYVOICE_NODE={node!r}: set it to this machine's name: letters, digits, '.', '_' and '-', "
            "at most 63 (it becomes a header of every answer)"
        )

    engine = text("COSYVOICE_ENGINE", "cpu")
    if engine not in engines:
        problems.append(f"COSYVOICE_ENGINE={engine!r}: set it to one of: {', '.join(engines)}")

    outputs = Path(text("COSYVOICE_OUTPUTS", "outputs")).absolute()
    if outputs.exists() and not outputs.is_dir():
        problems.append(
            f"COSYVOICE_OUTPUTS={str(outputs)!r}: is not a directory; name the directory of results"
        )

    peers, peer_key = text("COSYVOICE_PEERS", ""), text("COSYVOICE_PEER_KEY_FILE", "")
    directors = text("COSYVOICE_DIRECTORS", "")
    time_limit = number("COSYVOICE_TIME_LIMIT", 60, 0.1, 3600)
    if flags.max_seconds is not None:
        time_limit = flags.max_seconds
        if not 0.1 <= time_limit <= 3600:  # nan, too
            problems.append(f"--max-seconds {time_limit:g}: set it to a number of s from 0.1 to 3600")
            time_limit = 60.0
    settings = Settings(
        host=flags.host,
        port=flags.port,
        enable_queue=flags.enable_queue,
        node=node,
        engine=engine,
        outputs=outputs,
        queue_length=count("COSYVOICE_QUEUE_LENGTH", 20, 1, 10_000, "requests"),
        time_limit=time_limit,
        wait_limit=number("COSYVOICE_WAIT_LIMIT", 300, 0.1, 86_400),
        outputs_time_limit=number("COSYVOICE_OUTPUTS_TIME_LIMIT", 5, 0.1, 300),
        max_characters=count("COSYVOICE_MAX_CHARACTERS", 4096, 1, 100_000, "characters"),
        shared_history=switch("COSYVOICE_SHARED_HISTORY"),
        log_directory=Path(text("COSYVOICE_LOG_DIRECTORY", str(outputs))).absolute(),
        log_text=switch("COSYVOICE_LOG_TEXT"),
        log_client=cast(ClientStyle, choice("COSYVOICE_LOG_CLIENT", *get_args(ClientStyle))),
        log_health=switch("COSYVOICE_LOG_HEALTH"),
        log_size=count("COSYVOICE_LOG_SIZE", 16, 1, 1024, "megabytes"),
        log_files=count("COSYVOICE_LOG_FILES", 5, 1, 100, "files"),
        drain_file=Path(text("COSYVOICE_DRAIN_FILE", "/run/cosyvoice-lvs/drain")),
        drain_delay=number("COSYVOICE_DRAIN_DELAY", 1.5, 0, 60),
        drain_limit=number("COSYVOICE_DRAIN_LIMIT", min(time_limit, 60), 0, 3600),
        outputs_days=number("COSYVOICE_OUTPUTS_DAYS", 0, 0, 36_500, "days"),
        outputs_quota=number("COSYVOICE_OUTPUTS_QUOTA", 0, 0, 1_000_000, "GiB"),
        peers=Path(peers) if peers else None,
        peer_key=Path(peer_key) if peer_key else None,
        directors=Path(directors) if directors else None,
        uploads=Path(text("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir()).resolve() / "gradio"))),
    )
    if problems:
        raise SettingsError(problems)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description="CosyVoice speech service of one real server: page, HTTP API, health."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--enable-queue",
        action="store_true",
        help="let requests wait in a queue, at most COSYVOICE_QUEUE_LENGTH of them; "
        "without it a request that arrives while another one runs is refused",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        help="a synthesis that takes longer is killed (default: COSYVOICE_TIME_LIMIT, or 60)",
    )
    return parser
