from __future__ import annotations

import asyncio
import errno
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import APP

from cosyvoice_app import voices as module
from cosyvoice_app.engines import Prompt
from cosyvoice_app.errors import BadRequest, NotFound, OutputsFull, OutputsUnavailable
from cosyvoice_app.outputs import Outputs
from cosyvoice_app.share import Share
from cosyvoice_app.voices import Voices
from cosyvoice_app.wav import Audio, decode, encode, read_summary


def prompt(sample: int = 1, seconds: int = 2) -> Prompt:
    frames = sample.to_bytes(2, "little") * 24000 * seconds
    return Prompt(f"{sample:032x}", encode(Audio(24000, 1, 2, frames), {}))


def store(directory: Path, node: str = "rs-1", **options: Any) -> Voices:
    return Voices(Share(directory, node=node, **{"time_limit": 5.0, **options}))


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


def test_a_voice_is_one_file_with_all_in_it(tmp_path: Path) -> None:
    async def work() -> None:
        saved = await store(tmp_path).save("  妈妈\u202e的 声音 ", prompt(), "你好。", "alice")
        assert (saved.name, saved.text, saved.seconds, saved.shared) == ("妈妈的 声音", "你好。", 2.0, False)
        assert os.listdir(tmp_path) == ["voices"]
        assert os.listdir(tmp_path / "voices") == [f"{saved.id}.wav"]
        again, wav = await store(tmp_path, "rs-2").read(saved.id, "alice")
        assert again == saved
        assert decode(wav) == decode(prompt().data)
        assert "alice" not in str(read_summary(io.BytesIO(wav))), "an owner may be a secret"
        assert saved.as_json("alice")["mine"]
        assert set(saved.as_json("bob")) == {"id", "name", "prompt_text", "shared", "mine", "seconds", "made"}

    run(work)


def test_private_is_private_and_shared_is_for_all(tmp_path: Path) -> None:
    async def work() -> None:
        one, two = store(tmp_path), store(tmp_path, "rs-2")
        own = await one.save("own", prompt(1), "", "alice")
        ours = await one.save("ours", prompt(2), "", "alice", shared=True)
        assert {v.id for v in await two.list("alice")} == {own.id, ours.id}
        assert [v.id for v in await two.list("bob")] == [ours.id]
        assert (await two.get(ours.id, "bob")).name == "ours"
        for attempt in (two.get, two.read, two.remove):
            with pytest.raises(NotFound, match="there is no voice"):
                await attempt(own.id, "bob")
        with pytest.raises(BadRequest, match="saved by another user") as caught:
            await two.remove(ours.id, "bob")
        assert "其他用户" in caught.value.text(chinese=True)
        await two.remove(own.id, "alice")
        with pytest.raises(NotFound):
            await one.get(own.id, "alice")
        assert [v.id for v in await one.list("alice")] == [ours.id], "removed elsewhere, gone here"
        with pytest.raises(NotFound):
            await two.remove(own.id, "alice")

    run(work)


def test_the_same_voice_is_kept_once_and_another_of_that_name_beside_it(tmp_path: Path) -> None:
    async def work() -> None:
        nodes = [store(tmp_path, f"rs-{n}") for n in range(4)]
        saved = await asyncio.gather(*(n.save("me", prompt(i % 2), "", "alice") for i, n in enumerate(nodes)))
        assert len({v.id for v in saved}) == 2
        listed = await nodes[0].list("alice")
        assert [v.name for v in listed] == ["me", "me"]
        assert {v.digest for v in listed} == {prompt(0).digest, prompt(1).digest}
        assert len(os.listdir(tmp_path / "voices")) == 2

    run(work)


def test_the_newest_come_first(tmp_path: Path) -> None:
    async def work() -> None:
        one = store(tmp_path)
        for n in range(3):
            voice = await one.save(f"v{n}", prompt(n), "", "alice")
            os.utime(tmp_path / "voices" / f"{voice.id}.wav", (1000 + n, 1000 + n))
        assert [v.name for v in await one.list("alice")] == ["v2", "v1", "v0"]

    run(work)


def test_nodes_of_their_own_process_save_at_once_and_nothing_is_half(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "sys.path[:0] = sys.argv[1:3]\n"
        "from test_voices import prompt, store\n"
        "async def main():\n"
        "    voices = store(Path(sys.argv[3]), sys.argv[4])\n"
        "    for n in range(10):\n"
        "        await voices.save('both', prompt(n), 'x', 'alice')\n"
        "asyncio.run(main())\n"
    )
    tests = str(APP / "tests")
    nodes = [
        subprocess.Popen([sys.executable, "-c", program, str(APP), tests, str(tmp_path), f"rs-{n}"])
        for n in range(2)
    ]
    reader = store(tmp_path, "rs-9")

    async def watch() -> int:
        most = 0
        while any(node.poll() is None for node in nodes):
            for voice in await reader.list("alice"):
                _, wav = await reader.read(voice.id, "alice")
                assert decode(wav).seconds == 2.0
            most = max(most, len(await reader.list("alice")))
            await asyncio.sleep(0.01)
        return most

    asyncio.run(watch())
    assert [node.wait() for node in nodes] == [0, 0]
    assert len(run(lambda: reader.list("alice"))) == 10
    assert len(os.listdir(tmp_path / "voices")) == 10


@pytest.mark.parametrize(
    ("name", "text", "param", "complaint"),
    [
        ("", "", "name", "the voice's name is empty"),
        (" \u200b\u202e ", "", "name", "the voice's name is empty"),
        ("x" * 41, "", "name", "41 characters long; at most 40"),
        ("half \ud800", "", "name", "surrogate"),
        ("fine", "x" * 401, "prompt_text", "401 characters long; at most 400"),
    ],
)
def test_names_and_texts_are_checked(
    tmp_path: Path, name: str, text: str, param: str, complaint: str
) -> None:
    with pytest.raises(BadRequest, match=complaint) as caught:
        run(lambda: store(tmp_path).save(name, prompt(), text, "alice"))
    assert caught.value.param == param
    assert caught.value.zh
    assert os.listdir(tmp_path) == []


def test_there_is_a_limit_for_one_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_ONE", 2)
    monkeypatch.setattr(module, "MOST_OF_ALL", 3)

    async def work() -> None:
        one = store(tmp_path)
        first = await one.save("1", prompt(1), "", "alice")
        await one.save("2", prompt(2), "", "alice")
        with pytest.raises(BadRequest, match="you have saved 2 voices"):
            await one.save("3", prompt(3), "", "alice")
        again = await one.save("1", prompt(1), "", "alice")
        assert again.id == first.id, "it takes no more room"
        await one.save("3", prompt(3), "", "bob")
        with pytest.raises(BadRequest, match="3 voices of all users"):
            await one.save("4", prompt(4), "", "bob")

    run(work)


@pytest.mark.parametrize("id", ["", "../0", "a" * 31, "A" * 32, "0" * 32, "0" * 32 + "\n"])
def test_only_voices_are_found(tmp_path: Path, id: str) -> None:
    (tmp_path / "voices").mkdir()
    with pytest.raises(NotFound):
        run(lambda: store(tmp_path).get(id, "alice"))


def test_what_no_node_has_written_is_left_alone(tmp_path: Path) -> None:
    async def work() -> None:
        one = store(tmp_path)
        saved = await one.save("real", prompt(), "", "alice")
        folder = tmp_path / "voices"
        data = (folder / f"{saved.id}.wav").read_bytes()
        (folder / f"{'1' * 32}.wav").write_bytes(data)
        (folder / f"{'2' * 32}.wav").write_bytes(data[:30])
        (folder / ".making-rs-1-1-a").write_bytes(data)
        (folder / "notes.txt").write_text("mine")
        assert [v.id for v in await one.list("alice")] == [saved.id]
        with pytest.raises(NotFound):
            await one.get("1" * 32, "alice")
        with pytest.raises(NotFound):
            await one.get("2" * 32, "alice")
        os.utime(folder / ".making-rs-1-1-a", (1, 1))
        await one.remove_stale()
        assert len(os.listdir(folder)) == 4

    run(work)


# The share.


def test_without_any_voice_the_list_is_empty_and_without_the_share_it_says_so(tmp_path: Path) -> None:
    assert run(lambda: store(tmp_path).list("alice")) == []
    away = store(tmp_path / "away")
    for work in (
        lambda: away.list("alice"),
        lambda: away.save("x", prompt(), "", "alice"),
    ):
        with pytest.raises(OutputsUnavailable, match="no such file or directory"):
            run(work)


def test_a_full_share_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputsFull):
        run(lambda: store(tmp_path).save("x", prompt(), "", "alice"))
    assert os.listdir(tmp_path / "voices") == []


def test_a_share_that_hangs_fails_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back = threading.Event()
    real = os.scandir

    def hang(*args: Any) -> Any:
        back.wait(20)
        return real(*args)

    async def work() -> None:
        one = store(tmp_path, time_limit=0.3)
        monkeypatch.setattr(os, "scandir", hang)
        for attempt in (one.list("alice"), one.save("x", prompt(), "", "alice"), one.get("0" * 32, "alice")):
            began = time.monotonic()
            with pytest.raises(OutputsUnavailable):
                await attempt
            assert time.monotonic() - began < 2
        back.set()

    run(work)


def test_results_and_voices_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    async def work() -> None:
        outputs = Outputs(tmp_path, node="rs-1", time_limit=5)
        voices = Voices(outputs.share)
        saved = await voices.save("x", prompt(), "", "alice")
        pending = await outputs.begin("0" * 32 + ".wav")
        await pending.commit(prompt().data)
        assert outputs.describe("0" * 32 + ".wav") is not None
        assert [v.id for v in await voices.list("alice")] == [saved.id]
        with pytest.raises(NotFound):
            await outputs.read(f"voices/{saved.id}.wav")

    run(work)
