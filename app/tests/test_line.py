from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from cosyvoice_app.line import Line
from cosyvoice_app.main import remove_old_uploads


def test_one_that_gave_up_a_moment_ago_keeps_nobody_from_the_turn() -> None:
    async def work() -> None:
        line: Line = Line()
        turn = await line.turn()
        waits = asyncio.create_task(line.turn(job=True))
        await asyncio.sleep(0)
        # All of it in one turn of the loop: the one that waits has not left the line yet.
        waits.cancel()
        turn.release()
        async with asyncio.timeout(5):
            next_turn = await line.turn(job=True)
        await asyncio.wait({waits})
        assert line.held
        assert line.waiting == 0
        next_turn.release()
        assert not line.held

    asyncio.run(work())


def test_old_uploads_are_removed_and_new_ones_stay(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "voice.wav").write_bytes(b"sound")
    (tmp_path / "new" / ".fetching-1").write_bytes(b"half")
    day_before = time.time() - 90_000
    for path in (tmp_path / "old/voice.wav", tmp_path / "old", tmp_path / "new/.fetching-1"):
        os.utime(path, (day_before, day_before))
    remove_old_uploads(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left - {"old"} == {"new", "new/voice.wav"}, "a folder that was just emptied goes the next time"
    remove_old_uploads(tmp_path / "is not there")


def test_more_uploads_than_may_be_kept_push_the_oldest_out(tmp_path: Path) -> None:
    now = time.time()
    for age in range(5):
        (tmp_path / f"{age}").write_bytes(b"0123456789")
        os.utime(tmp_path / f"{age}", (now - age, now - age))
    remove_old_uploads(tmp_path, most_bytes=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
