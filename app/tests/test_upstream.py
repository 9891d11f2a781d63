"""The cosyvoice engine with upstream itself, on a processor, with random numbers for weights: what is called,
with which packages, is upstream's; what it sounds like is noise. Needs a checkout with Matcha-TTS in
COSYVOICE_UPSTREAM, and in COSYVOICE_UPSTREAM_PYTHON the Python of an environment with the packages of
engine/cosyvoice.txt."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from conftest import APP

from cosyvoice_app.engines import Prompt, SpeechRequest
from cosyvoice_app.engines.cosyvoice import CosyVoiceEngine

UPSTREAM = os.environ.get("COSYVOICE_UPSTREAM", "")
PYTHON = os.environ.get("COSYVOICE_UPSTREAM_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not (UPSTREAM and PYTHON),
    reason="COSYVOICE_UPSTREAM and COSYVOICE_UPSTREAM_PYTHON name no installed upstream",
)


def test_upstream_speaks_in_every_mode(tmp_path: Path) -> None:
    model = tmp_path / "Random-3"
    model.mkdir()
    made = subprocess.run(
        [PYTHON, APP / "tests" / "random_model.py", UPSTREAM, model],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    recording = (Path(UPSTREAM) / "asset" / "zero_shot_prompt.wav").read_bytes()
    prompt = Prompt("d1", recording)
    requests = (
        SpeechRequest("Hi."),
        SpeechRequest("Hi.", mode="clone", prompt=prompt, prompt_text="希望你以后能够做的比我还好呦。"),
        SpeechRequest("Hi.", mode="cross_lingual", prompt=prompt),
        SpeechRequest("Hi.", mode="instruct", instruct="请用四川话表达。"),
    )

    async def work() -> None:
        engine = CosyVoiceEngine(
            {
                "COSYVOICE_SOURCE": UPSTREAM,
                "COSYVOICE_MODEL": str(model),
                "COSYVOICE_PYTHON": PYTHON,
                "COSYVOICE_START_LIMIT": "1800",
            }
        )
        try:
            await engine.start()
            for request in requests:
                audio = await engine.speak(engine.plan(request))
                assert audio.rate == 24_000, request.mode
                assert audio.seconds > 0.1, request.mode
                assert any(audio.frames), request.mode
            first, again = [await engine.speak(engine.plan(requests[0])) for _ in range(2)]
            assert first == again
        finally:
            await engine.stop()

    asyncio.run(work())
