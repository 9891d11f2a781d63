from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_app import outputs as outputs_module
from cosyvoice_app.errors import NotFound, OutputsFull, OutputsUnavailable
from cosyvoice_app.outputs import Outputs, result_name
from cosyvoice_app.wav import Audio, encode

AUDIO = Audio(rate=8000, channels=1, width=2, frames=b"\1\2" * 8000)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


def outputs(directory: Path, **options: Any) -> Outputs:
    return Outputs(directory, **{"node": "rs-1", "time_limit": 5.0, **options})


def test_a_name_depends_on_every_parameter_and_on_nothing_else() -> None:
    name = result_name({"text": "a", "seed": 1})
    assert name == result_name({"seed": 1, "text": "a"})
    assert name != result_name({"text": "a", "seed": 2})


def test_a_file_is_seen_only_when_it_is_whole(tmp_path: Path) -> None:
    async def work() -> None:
        store = outputs(tmp_path)
        parameters = {"text": "你好", "seed": 1}
        name = result_name(parameters)
        pending = await store.begin(name)
        assert await store.find(name) is None
        data = encode(AUDIO, parameters)
        await pending.commit(data)
        assert await store.read(name) == data
        result = store.describe(name)
        assert result is not None
        assert (result.name, result.seconds, result.parameters) == (name, 1.0, parameters)
        assert os.listdir(tmp_path) == [name]

    run(work)


def test_many_requests_at_one_moment_wait_for_each_other(tmp_path: Path) -> None:
    async def work() -> None:
        store = outputs(tmp_path, most_threads=2)
        (tmp_path / "a").write_bytes(b"a")
        assert await asyncio.gather(*(store.find("a") for _ in range(40))) == [b"a"] * 40
        assert store.problem is None

    run(work)


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        pending = await outputs(tmp_path).begin("0" * 32 + ".wav")
        await pending.discard()

    run(work)
    assert os.listdir(tmp_path) == []


def test_what_is_remembered_of_results_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs_module, "_MOST_KNOWN", 3)
    store = outputs(tmp_path)
    names = [result_name({"seed": count}) for count in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(encode(AUDIO, {}))
        assert store.describe(name) is not None
    assert list(store._known) == names[2:]


@pytest.mark.parametrize("name", ["../../etc/passwd", "notes.txt", ".making-rs-1", "A" * 32 + ".wav", ""])
def test_only_results_can_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        run(lambda: outputs(tmp_path).read(name))


def test_only_stale_leftovers_of_this_node_are_removed(tmp_path: Path) -> None:
    for name, age in ((".making-rs-1-1-a", 7200), (".making-rs-1-2-b", 5), (".making-rs-2-1-c", 7200)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    run(lambda: outputs(tmp_path).remove_stale())
    assert sorted(os.listdir(tmp_path)) == [".making-rs-1-2-b", ".making-rs-2-1-c"]


def test_a_missing_directory_is_told_with_its_reason(tmp_path: Path) -> None:
    store = outputs(tmp_path / "away")

    async def work() -> None:
        await store.probe()
        await store.begin("0" * 32 + ".wav")

    with pytest.raises(
        OutputsUnavailable, match=r"no such file or directory.*rs-1.*is the share mounted"
    ) as caught:
        run(work)
    assert caught.value.status == 503
    assert caught.value.retry_after == 5
    assert "无法使用：目录不存在；共享存储是否已挂载并且可写？" in caught.value.text(chinese=True)
    assert "away" in (store.problem or "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_share_is_507_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    async def work() -> None:
        pending = await outputs(tmp_path).begin("0" * 32 + ".wav")
        monkeypatch.setattr(os, "fsync", full)
        await pending.commit(b"data")

    with pytest.raises(OutputsFull) as caught:
        run(work)
    assert caught.value.status == 507
    assert os.listdir(tmp_path) == []


def test_a_share_that_hangs_fails_within_the_limit_then_at_once_then_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    real = os.open

    def hang(*args: Any, **options: Any) -> int:
        back.wait(20)
        return real(*args, **options)

    async def work() -> None:
        store = outputs(tmp_path, time_limit=0.3)
        monkeypatch.setattr(os, "open", hang)
        began = time.monotonic()
        with pytest.raises(OutputsUnavailable, match=r"did not answer within 0\.3 s"):
            await store.begin("0" * 32 + ".wav")
        assert time.monotonic() - began < 1
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(OutputsUnavailable):
                await store.begin("0" * 32 + ".wav")
        assert time.monotonic() - began < 2, "they did not wait each for itself"
        assert threading.active_count() < 20
        back.set()
        monkeypatch.setattr(os, "open", real)
        await asyncio.sleep(0.5)
        pending = await store.begin("1" * 32 + ".wav")
        await pending.commit(b"data")
        assert store.problem is None
        for _ in range(50):  # what was opened too late is taken back
            if os.listdir(tmp_path) == ["1" * 32 + ".wav"]:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(os.listdir(tmp_path))

    run(work)


def test_a_process_that_stood_still_goes_on_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped (SIGSTOP, a machine that swaps) past the time limit, with the answer there when it wakes up."""
    real = os.open

    async def work() -> None:
        store = outputs(tmp_path, time_limit=0.3)
        for turns in range(8):
            opened = threading.Event()
            monkeypatch.setattr(os, "open", lambda *a, seen=opened, **k: (real(*a, **k), seen.set())[0])
            task = asyncio.create_task(store.begin(f"{turns:032x}.wav"))
            if turns % 2:  # the limit's timer runs already, or the thread has yet to start
                await asyncio.sleep(0)
                opened.wait(5)
            time.sleep(0.4)  # noqa: ASYNC251 - the whole process stands still
            await asyncio.wait({task})
            if task.exception() is None:
                await task.result().discard()
            monkeypatch.setattr(os, "open", real)
            for number in range(2):
                pending = await store.begin(f"{turns:016x}{number:016x}.wav")
                await pending.commit(b"data")
        await asyncio.sleep(0.3)
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []

    run(work)


def test_one_operation_that_never_ends_keeps_no_other_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = outputs(tmp_path, time_limit=0.1)
        real, back = os.open, threading.Event()
        monkeypatch.setattr(os, "open", lambda *a, **k: (back.wait(30), real(*a, **k))[1])
        with pytest.raises(OutputsUnavailable, match="did not answer within"):
            await store.begin("0" * 32 + ".wav")
        monkeypatch.setattr(os, "open", real)
        await asyncio.sleep(0.5)  # the time of the next trial
        for number in range(20):
            pending = await store.begin(f"{number:032x}.wav")
            await pending.commit(b"data")
        back.set()

    run(work)


def test_a_cancelled_begin_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        store = outputs(tmp_path)
        for turns in range(30):
            task = asyncio.create_task(store.begin("0" * 32 + ".wav"))
            for _ in range(turns % 6):
                await asyncio.sleep(0.0003)
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                await task.result().discard()
        await asyncio.sleep(0.3)

    run(work)
    assert os.listdir(tmp_path) == []
