from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import StartServer
from prometheus_client import CollectorRegistry

from cosyvoice_app import retention
from cosyvoice_app.errors import OutputsUnavailable
from cosyvoice_app.metrics import Metrics
from cosyvoice_app.outputs import Outputs, result_name
from cosyvoice_app.retention import DAY, Retention
from cosyvoice_app.wav import Audio, encode

SIZE = len(encode(Audio(8000, 1, 2, b"\0" * 8000), {"seed": 1}))


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


class Node:
    """A node's results and what looks after them, with its own view of the same directory."""

    def __init__(self, directory: Path, name: str = "rs-1", *, days: float = 0, quota: int = 0) -> None:
        self.outputs = Outputs(directory, node=name, time_limit=5)
        self.metrics = Metrics(name, "cpu")
        self.retention = Retention(self.outputs, self.metrics, days=days, quota=quota)

    def metric(self, name: str) -> float:
        registry: CollectorRegistry = self.metrics.registry
        value = registry.get_sample_value(name)
        assert value is not None
        return value


def make(directory: Path, *ages: float) -> list[str]:
    """A result for each age in days; their names."""
    names = []
    for seed, age in enumerate(ages, 1):
        names.append(result_name({"seed": seed}))
        path = directory / names[-1]
        path.write_bytes(encode(Audio(8000, 1, 2, b"\0" * 8000), {"seed": seed}))
        os.utime(path, (time.time() - age * DAY,) * 2)
    return names


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.wav"))


def test_without_limits_nothing_happens(tmp_path: Path) -> None:
    names = make(tmp_path, 9999)
    node = Node(tmp_path)
    run(node.retention.run)
    assert left(tmp_path) == names
    assert os.listdir(tmp_path) == names
    assert str(node.metric("tts_outputs_bytes")) == "nan"


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    names = make(tmp_path, 10.1, 9.9, 0)
    node = Node(tmp_path, days=10)
    assert run(node.retention.round) == (1, SIZE)
    assert left(tmp_path) == sorted(names[1:])
    assert node.metric("tts_outputs_removed_total") == 1
    assert node.metric("tts_outputs_bytes") == 2 * SIZE
    assert run(node.retention.round) == (0, 0)


def test_beyond_the_quota_the_oldest_go(tmp_path: Path) -> None:
    names = make(tmp_path, 5, 4, 3, 2, 1)
    assert run(Node(tmp_path, quota=3 * SIZE + 1).retention.round) == (2, 2 * SIZE)
    assert left(tmp_path) == sorted(names[2:])


def test_what_was_used_counts_as_new_on_every_node_and_after_a_restart(tmp_path: Path) -> None:
    names = make(tmp_path, 5, 4, 3)
    one = Node(tmp_path, "rs-1", quota=3 * SIZE)

    async def use() -> None:
        assert await one.outputs.find(names[0])
        assert await one.outputs.find("0" * 32 + ".wav") is None
        await one.retention.round()

    run(use)
    assert run(Node(tmp_path, "rs-2", quota=SIZE).retention.round) == (2, 2 * SIZE)
    assert left(tmp_path) == [names[0]]
    assert run(Node(tmp_path, "rs-1", days=1).retention.round) == (0, 0)
    assert (tmp_path / ".uses/rs-1").read_text().split()[0] == names[0]


def test_uses_are_written_once_a_day_and_those_of_removed_files_forgotten(tmp_path: Path) -> None:
    names = make(tmp_path, 5, 4)
    node = Node(tmp_path, days=3)

    async def use() -> None:
        for name in names:
            await node.outputs.find(name)
        await node.retention.round()
        file = tmp_path / ".uses/rs-1"
        inode = file.stat().st_ino
        await node.outputs.find(names[0])
        await node.retention.round()
        assert file.stat().st_ino == inode, "not written again"
        os.unlink(tmp_path / names[0])
        await node.retention.round()
        assert file.read_text().split()[0] == names[1]

    run(use)


def test_what_is_young_what_is_no_result_and_voices_stay(tmp_path: Path) -> None:
    names = make(tmp_path, 0.01, 0.02, 0.05)
    (tmp_path / "voices").mkdir()
    for other in (f"voices/{'a' * 32}.wav", "notes.txt", ".making-rs-2-1-a"):
        (tmp_path / other).write_bytes(b"x" * 9999)
        os.utime(tmp_path / other, (1, 1))
    assert run(Node(tmp_path, days=0.001, quota=1).retention.round) == (1, SIZE)
    assert left(tmp_path) == sorted(names[:2])
    assert (tmp_path / f"voices/{'a' * 32}.wav").exists()
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / ".making-rs-2-1-a").exists()


def test_what_was_made_anew_since_it_was_looked_at_stays(tmp_path: Path) -> None:
    names = make(tmp_path, 0.5)
    node = Node(tmp_path, days=1)

    async def work() -> tuple[int, int]:
        await node.retention.round()
        known = node.retention._known[names[0]]
        node.retention._known[names[0]] = type(known)(known.made - 9 * DAY, known.size)
        os.utime(tmp_path / names[0])
        return await node.retention.round()

    assert run(work) == (0, 0)
    assert left(tmp_path) == names
    assert time.time() - node.retention._known[names[0]].made < DAY, "and it is known how new it is"


def test_a_round_is_bounded_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_PER_ROUND", 2)
    monkeypatch.setattr(retention, "_AT_ONCE", 1)
    names = make(tmp_path, 50, 40, 30)
    node = Node(tmp_path, days=10)
    assert run(node.retention.round)[0] == 2
    assert left(tmp_path) == [names[2]], "the oldest first"
    assert run(node.retention.round)[0] == 1


def test_nodes_at_the_same_time_remove_no_more_than_one_would(tmp_path: Path) -> None:
    names = make(tmp_path, *range(300, 0, -1))
    nodes = [Node(tmp_path, f"rs-{n}", quota=100 * SIZE + 999) for n in range(4)]

    async def work() -> list[tuple[int, int]]:
        return await asyncio.gather(*(node.retention.round() for node in nodes))

    assert sum(count for count, _ in run(work)) == 200, "and each file is counted once"
    assert left(tmp_path) == sorted(names[200:])
    assert run(nodes[0].retention.round) == (0, 0)


def test_a_share_that_is_away_raises_nothing_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "away", days=1)
    with pytest.raises(OutputsUnavailable):
        run(node.retention.round)
    monkeypatch.setattr(retention, "ROUND", 0.01)

    async def work() -> None:
        task = asyncio.create_task(node.retention.run())
        await asyncio.sleep(0.1)
        (tmp_path / "away").mkdir()
        make(tmp_path / "away", 2)
        end = time.monotonic() + 20
        while left(tmp_path / "away"):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        task.cancel()

    run(work)


def test_the_service_keeps_to_its_limits(start_server: StartServer, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    names = make(share, 31, 29)
    server = start_server("--enable-queue", outputs=share, COSYVOICE_OUTPUTS_DAYS="30")
    end = time.monotonic() + 20
    while server.metric("tts_outputs_removed_total") < 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert left(share) == [names[1]]
    assert server.metric("tts_outputs_bytes") == SIZE
    assert [r["name"] for r in server.http.get("/v1/results").json()["data"]] == [names[1]]
