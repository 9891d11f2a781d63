"""How fast the engine cosyvoice speaks on this machine, and what memory it takes: with the model that its
environment names, be its weights real or random (app/tests/random_model.py). Nothing else should use the GPU.

Usage: COSYVOICE_SOURCE=... COSYVOICE_MODEL=... COSYVOICE_PYTHON=... \\
           app/test --python $PWD/bench/app_engine.py [--rounds 5] [--requests 50] [--text WORDS]

Prints a JSON object a line, times in seconds, memory in MiB. An event `speaks`, the median of some syntheses
of one text: when the first sound was there, when all of it was, that by the seconds of its sound (the real-
time factor: below 1 is faster than it is heard), and whether all were alike, byte for byte. An event `lasts`:
memory before and after many requests.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "app"))

from cosyvoice_app.engines import Prompt, SpeechRequest
from cosyvoice_app.engines.cosyvoice import CosyVoiceEngine


def emit(**row: object) -> None:
    print(json.dumps(row, ensure_ascii=False), flush=True)


def memory(engine: CosyVoiceEngine) -> dict[str, float]:
    """MiB after the last job. gpu: of all its users."""
    found = engine.measurements
    taken = found.get("gpu_memory_total_bytes", 0) - found.get("gpu_memory_free_bytes", 0)
    return {"gpu": round(taken / 2**20), "worker": round(found.get("worker_memory_bytes", 0) / 2**20)}


async def speak(engine: CosyVoiceEngine, request: SpeechRequest) -> tuple[float, float, float, str]:
    """Seconds to the first sound and to the last, and of the sound; and a hash of it."""
    began, first, heard, digest = time.monotonic(), 0.0, 0.0, hashlib.sha256()
    async with aclosing(engine.parts(engine.plan(request))) as parts:  # type: ignore[type-var]
        async for part in parts:
            first = first or time.monotonic() - began
            heard += part.seconds
            digest.update(part.frames)
    return first, time.monotonic() - began, heard, digest.hexdigest()


async def measure(text: str, rounds: int, requests: int) -> None:
    engine = CosyVoiceEngine()
    began = time.monotonic()
    try:
        await engine.start()
        emit(event="ready", seconds=round(time.monotonic() - began, 1), **memory(engine))
        recording = Path(engine._environment["COSYVOICE_SOURCE"]) / "asset" / "zero_shot_prompt.wav"
        prompt = Prompt("bench", recording.read_bytes())
        manners = {
            "in pieces": SpeechRequest(text),
            "whole": SpeechRequest(text, speed=0.99),  # another speed is made in one piece
            "a recording": SpeechRequest(text, mode="clone", prompt=prompt, prompt_text="你好。"),
            "a dialect": SpeechRequest(text, mode="instruct", instruct="sichuan"),
        }
        for what, request in manners.items():
            await speak(engine, request)
            *times, digests = zip(*[await speak(engine, request) for _ in range(rounds)], strict=True)
            first, whole, heard = map(statistics.median, times)
            emit(
                event="speaks",
                what=what,
                sound=round(heard, 2),
                first=round(first, 2),
                whole=round(whole, 2),
                factor=round(whole / heard, 3),
                alike=len(set(digests)) == 1,
                **memory(engine),
            )
        before = memory(engine)
        for number in range(requests):
            await speak(engine, SpeechRequest(f"{number}.", seed=number + 1))
        emit(event="lasts", requests=requests, before=before, after=memory(engine))
    finally:
        await engine.stop()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--text", default="Good morning.")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--requests", type=int, default=50)
    given = options.parse_args()
    asyncio.run(measure(given.text, given.rounds, given.requests))


if __name__ == "__main__":
    main()
