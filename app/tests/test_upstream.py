"""The cosyvoice engine with upstream itself and random numbers for weights, on the GPU if there is one: what
is called, with which packages, is upstream's; what it sounds like is noise. Needs a checkout with Matcha-TTS
in COSYVOICE_UPSTREAM, and in COSYVOICE_UPSTREAM_PYTHON the Python of an environment with the packages of
engine/cosyvoice.txt.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from conftest import APP, Server, StartServer

from cosyvoice_app.engines import Prompt, SpeechRequest, cosyvoice
from cosyvoice_app.engines.cosyvoice import CosyVoiceEngine
from cosyvoice_app.wav import Audio, join

UPSTREAM = os.environ.get("COSYVOICE_UPSTREAM", "")
PYTHON = os.environ.get("COSYVOICE_UPSTREAM_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not (UPSTREAM and PYTHON),
    reason="COSYVOICE_UPSTREAM and COSYVOICE_UPSTREAM_PYTHON name no installed upstream",
)

# The model speaks for as long as it may (random_model.py): 20 tokens for each byte, 25 a second.
BYTE = 0.8
WORDS = "希望你以后能够做的比我还好呦。"
# In these modes it reads the frame as well, whose last token is one: cosyvoice_model.py.
FRAME = len("You are a helpful assistant.") + 1
ENDLESS = "This is to last for as long as it takes. " * 90


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The engine's, with a model of its own."""
    model = tmp_path_factory.mktemp("model") / "Random-3"
    model.mkdir()
    made = subprocess.run(
        [PYTHON, APP / "tests" / "random_model.py", UPSTREAM, model, "small"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return {
        "COSYVOICE_SOURCE": UPSTREAM,
        "COSYVOICE_MODEL": str(model),
        "COSYVOICE_PYTHON": PYTHON,
        "COSYVOICE_START_LIMIT": "1800",
    }


@pytest.fixture
def prompt() -> Prompt:
    return Prompt("d1", (Path(UPSTREAM) / "asset" / "zero_shot_prompt.wav").read_bytes())


@asynccontextmanager
async def started(environment: dict[str, str]) -> AsyncIterator[CosyVoiceEngine]:
    engine = CosyVoiceEngine(environment)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


def process(engine: CosyVoiceEngine) -> int:
    assert engine._worker is not None
    assert engine._worker._live is not None
    return engine._worker._live.process.pid


async def pieces(engine: CosyVoiceEngine, request: SpeechRequest) -> list[Audio]:
    async with aclosing(engine.parts(engine.plan(request))) as parts:  # type: ignore[type-var]
        return [part async for part in parts]


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def test_every_mode_speaks_and_a_seed_says_it_all(environment: dict[str, str], prompt: Prompt) -> None:
    plain = SpeechRequest("Hi.")
    wanted = {
        "the bundled voice": (plain, 3),
        "another seed": (SpeechRequest("Hi.", seed=2), 3),
        "twice as fast": (SpeechRequest("Hi.", speed=2.0), 1.5),
        "a recording": (SpeechRequest("Hi.", mode="clone", prompt=prompt, prompt_text=WORDS), 3),
        "a saved voice": (SpeechRequest("Hi.", prompt=prompt, prompt_text=WORDS), 3),
        "a saved voice without words": (SpeechRequest("Hi.", prompt=prompt), FRAME + 3),
        "another language": (SpeechRequest("Hi.", mode="cross_lingual", prompt=prompt), FRAME + 3),
        "a dialect": (SpeechRequest("Hi.", mode="instruct", instruct="sichuan"), 3),
        "a recording in a dialect": (
            SpeechRequest("Hi.", mode="instruct", instruct="sichuan", prompt=prompt),
            3,
        ),
    }

    async def work() -> None:
        async with started(environment) as engine:
            said = {}
            for name, (request, length) in wanted.items():
                parts = await pieces(engine, request)
                said[name] = join(parts)
                assert said[name].rate == 24_000, name
                assert said[name].seconds == pytest.approx(length * BYTE, abs=0.05), name
                assert len(set(said[name].frames)) > 50, f"{name}: it is silent"
                # Upstream changes the speed of whole sentences only.
                assert (len(parts) > 1) == (request.speed == 1), name
            # The recording is that of the bundled voice.
            alike = (
                ("the bundled voice", "a recording", "a saved voice"),
                ("another language", "a saved voice without words"),
                ("a dialect", "a recording in a dialect"),
            )
            for names in alike:
                assert len({said[name].frames for name in names}) == 1, names
            assert len({audio.frames for audio in said.values()}) == 5
            for _ in range(2):
                assert join(await pieces(engine, plain)) == said["the bundled voice"]

            first = process(engine)
            os.kill(first, signal.SIGKILL)
            while process(engine) == first:
                await asyncio.sleep(0.1)
            assert join(await pieces(engine, plain)) == said["the bundled voice"], "another process"

    run(work)


def test_a_synthesis_that_nobody_wants_leaves_nothing_behind(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosyvoice, "_STOP_LIMIT", 60.0)  # a processor is slow, and no reason to kill
    plain, endless = SpeechRequest("Hi."), SpeechRequest(ENDLESS)

    async def work() -> None:
        async with started(environment) as engine:
            before, said = process(engine), join(await pieces(engine, plain))
            for heard in (0, 1, 2):
                async with aclosing(engine.parts(engine.plan(endless))) as parts:  # type: ignore[type-var]
                    for _ in range(heard):
                        await anext(parts)
                    if not heard:
                        with pytest.raises(TimeoutError):
                            await asyncio.wait_for(anext(parts), 0.05)
                began = time.monotonic()
                assert join(await pieces(engine, plain)) == said
                print(f"left after {heard} pieces; the next took {time.monotonic() - began:.2f} s")
            assert process(engine) == before

    run(work)


def test_the_service_goes_on_when_clients_leave_and_limits_pass(
    environment: dict[str, str], start_server: StartServer
) -> None:
    settings = {"COSYVOICE_ENGINE": "cosyvoice", "COSYVOICE_TIME_LIMIT": "60", "COSYVOICE_DRAIN_LIMIT": "2"}
    server = start_server("--enable-queue", wait=False, **environment, **settings)
    server.wait_ready(1800)
    server.http.timeout = 120
    fresh = {"Cache-Control": "no-cache"}

    def say(text: str, **fields: object) -> httpx.Response:
        body = {"model": "tts-1", "input": text, **fields}
        return server.http.post("/v1/audio/speech", json=body, headers=fresh)

    def plain() -> bytes:
        answer = say("Hi.")
        assert answer.status_code == 200, answer.text
        return answer.content

    said = plain()
    body = {"model": "tts-1", "input": ENDLESS, "stream": True}
    with server.http.stream("POST", "/v1/audio/speech", json=body, headers=fresh) as answer:
        assert next(answer.iter_bytes())
    assert plain() == said, "after a client that left"

    assert say(ENDLESS).status_code == 504
    assert plain() == said, "after the time limit"

    with ThreadPoolExecutor(1) as pool:
        runs = pool.submit(say, ENDLESS)
        while not server.metric("tts_running"):
            time.sleep(0.1)
        time.sleep(1)
        os.kill(worker(server), signal.SIGKILL)
        assert runs.result().status_code == 500, runs.result().text
        assert "SIGKILL" in runs.result().text
        assert plain() == said, "after its worker was killed"

        last = worker(server)
        runs = pool.submit(say, ENDLESS)
        while not server.metric("tts_running"):
            time.sleep(0.1)
        assert server.stop(60) == 0
        assert runs.result().status_code == 503, runs.result().text
    assert not Path(f"/proc/{last}").exists()


def worker(server: Server) -> int:
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    (found,) = (pid for pid in children if b"worker_process" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return found
