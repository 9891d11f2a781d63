"""The cosyvoice engine through its real worker process. Upstream is stood in for by tests/standin, whose
signatures are compared with upstream's own source where COSYVOICE_UPSTREAM names a checkout.
"""

from __future__ import annotations

import array
import ast
import asyncio
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import APP, StartServer

from cosyvoice_app.engines import Prompt, SpeechRequest, cosyvoice, worker
from cosyvoice_app.engines.cosyvoice import CosyVoiceEngine, load_options
from cosyvoice_app.engines.presets import PRESETS
from cosyvoice_app.errors import BadRequest, EngineError, EngineUnavailable
from cosyvoice_app.outputs import result_name
from cosyvoice_app.wav import Audio

STANDIN = APP / "tests" / "standin"
PROMPT = Prompt("d1", b"RIFF some voice")
FRAME = "You are a helpful assistant.<|endofprompt|>"
BUNDLED = (f"{FRAME}希望你以后能够做的比我还好呦。", hashlib.sha256(b"RIFF-standin").hexdigest())


class Bench:
    """An engine that has started, and what it said about its state since."""

    def __init__(self, engine: CosyVoiceEngine) -> None:
        self.engine = engine
        self.told: list[tuple[bool, str]] = []
        engine.on_state = lambda ready, reason: self.told.append((ready, reason))  # type: ignore[method-assign]

    @property
    def pid(self) -> int:
        assert self.engine._worker is not None
        assert self.engine._worker._live is not None
        return self.engine._worker._live.process.pid

    async def say(self, text: str, **fields: Any) -> Audio:
        return await self.engine.speak(self.engine.plan(SpeechRequest(text, **fields)))

    async def replaced(self, pid: int) -> None:
        """Returns when another process than that one is ready; that one must be gone."""
        async with asyncio.timeout(60):
            while self.pid == pid:
                await asyncio.sleep(0.02)
            await self.engine.wait_ready()
        assert not alive(pid)


class Where:
    """The environment of a test: a model folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = folder / "Fun-CosyVoice3"
        self.model.mkdir()
        (self.model / "cosyvoice3.yaml").touch()
        self.variables = {"COSYVOICE_SOURCE": str(STANDIN), "COSYVOICE_MODEL": str(self.model)}
        # A computer under load is no reason to kill.
        monkeypatch.setattr(cosyvoice, "_STOP_LIMIT", 30.0)
        monkeypatch.setattr(worker, "_FIRST_PAUSE", 0.05)

    def order(self, orders: str) -> None:
        """What the model is to do when it is loaded: JSON."""
        (self.model / "orders.json").write_text(orders)

    @asynccontextmanager
    async def engine(self, **environment: str) -> AsyncIterator[Bench]:
        bench = Bench(CosyVoiceEngine({**self.variables, **environment}))
        try:
            async with asyncio.timeout(120):
                await bench.engine.start()
            yield bench
        finally:
            await bench.engine.stop()


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    return Where(tmp_path, monkeypatch)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def pitch(audio: Audio) -> float:
    """Hz of the second 40 ms, which no click disturbs."""
    samples = numpy.frombuffer(audio.frames, "<i2")[960:1920].astype(float)
    spectrum = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples)), 1 << 16))
    return float(spectrum.argmax() * audio.rate / (1 << 16))


def asked(*what: object) -> int:
    """The pitch that the stand-in gives to such a call."""
    return 200 + int(hashlib.sha256(repr(what).encode()).hexdigest(), 16) % 1800


def contents(prompt: Prompt) -> str:
    return hashlib.sha256(prompt.data).hexdigest()


# What is asked of the model.


def test_the_seed_makes_the_audio_in_each_process_alike(where: Where) -> None:
    async def work() -> None:
        text = "It is the same text each time. " * 6
        async with where.engine() as bench:
            first = await bench.say(text)
            assert first.rate == 24000
            assert first.seconds > 3
            assert max(map(abs, array.array("h", first.frames))) == 32767, "clipped and not wrapped round"
            # Upstream's chunks would be longer from the second synthesis on.
            assert await bench.say(text) == first
            assert await bench.say(text, seed=2) != first
        async with where.engine() as bench:
            assert await bench.say(text) == first

    run(work)


def test_each_mode_is_called_as_upstreams_authors_call_it(where: Where) -> None:
    text = "Hello there"
    words = f"{FRAME}the words"
    told = "You are a helpful assistant. 请用四川话表达。<|endofprompt|>"
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, asked("zero shot", BUNDLED, text, True)),
        ({"voice": "alloy"}, asked("zero shot", BUNDLED, text, True)),
        (
            {"voice": "mine", "prompt": PROMPT, "prompt_text": "the words"},
            asked("zero shot", (words, contents(PROMPT)), text, True),
        ),
        ({"voice": "mine", "prompt": PROMPT}, asked("cross lingual", contents(PROMPT), FRAME + text)),
        (
            {"mode": "clone", "prompt": PROMPT, "prompt_text": "the words"},
            asked("zero shot", (words, contents(PROMPT)), text, True),
        ),
        (
            {"mode": "cross_lingual", "prompt": PROMPT},
            asked("cross lingual", contents(PROMPT), FRAME + text),
        ),
        ({"mode": "instruct", "instruct": "sichuan"}, asked("instruct", (told, BUNDLED[1]), text)),
        (
            {"mode": "instruct", "instruct": "请用四川话表达。", "prompt": PROMPT},
            asked("instruct", (told, contents(PROMPT)), text),
        ),
    ]

    async def work() -> None:
        async with where.engine() as bench:
            for fields, expected in cases:
                audio = await bench.say(text, **fields)
                assert pitch(audio) == pytest.approx(expected, abs=3), fields
            # English with symbols whose digits upstream would spell out goes past its reading of numbers.
            audio = await bench.say("one [M][AY0] two")
            expected = asked("zero shot", BUNDLED, "one [M][AY0] two", False)
            assert pitch(audio) == pytest.approx(expected, abs=3)

    run(work)


def test_a_speaker_of_the_model_itself_speaks(where: Where) -> None:
    async def work() -> None:
        where.order('["speakers"]')
        async with where.engine(COSYVOICE_TEXT_FRONTEND="0") as bench:
            assert [v.id for v in bench.engine.voices] == ["auto", "cosyvoice", "中文女"]
            audio = await bench.say("Hello there", voice="中文女")
            expected = asked("sft", {"embedding": 1}, f"{FRAME}Hello there", False)
            assert pitch(audio) == pytest.approx(expected, abs=3)
            with pytest.raises(BadRequest, match="the voice '中文女' takes no instruction"):
                await bench.say("Hello", voice="中文女", mode="instruct", instruct="happy")

    run(work)


def test_many_saved_voices_do_not_pile_up(where: Where) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            voices = [{"prompt": Prompt(str(n), b"RIFF%d" % n), "prompt_text": "words"} for n in range(40)]
            first = await bench.say("Hello there", **voices[0])
            for voice in voices[1:]:
                await bench.say("Hello there", **voice)
            assert await bench.say("Hello there", **voices[0]) == first

    run(work)


def test_another_speed_is_spoken_whole(where: Where) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            normal = await bench.say("a long enough sentence to be heard")
            fast = await bench.say("a long enough sentence to be heard", speed=2.0)
            assert fast.seconds == pytest.approx(normal.seconds / 2, abs=0.1)

    run(work)


def test_pieces_come_while_the_rest_is_made(where: Where) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            text = "Each of these sentences is spoken slowly, so that one can see it come. " * 3
            came = []
            began = time.monotonic()
            async with aclosing(bench.engine.parts(bench.engine.plan(SpeechRequest(text)))) as parts:
                async for _ in parts:
                    came.append(time.monotonic() - began)
            assert len(came) > 5
            assert came[0] < came[-1] / 3

    run(work)


def test_the_plan_holds_all_that_determines_the_audio_and_nothing_else(where: Where) -> None:
    different: list[dict[str, Any]] = [
        {},
        {"speed": 1.5},
        {"seed": 2},
        {"text": "Bye"},
        {"prompt": PROMPT},
        {"prompt": PROMPT, "prompt_text": "words"},
        {"prompt": PROMPT, "prompt_text": "words", "mode": "clone"},
        {"prompt": PROMPT, "prompt_text": "other words", "mode": "clone"},
        {"prompt": Prompt("d2", b""), "prompt_text": "words", "mode": "clone"},
        {"prompt": PROMPT, "mode": "cross_lingual"},
        {"mode": "instruct", "instruct": "happy"},
        {"mode": "instruct", "instruct": "sad"},
        {"mode": "instruct", "instruct": "sad", "prompt": PROMPT},
    ]
    same: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"voice": "alloy"}),
        ({}, {"voice": "CosyVoice"}),
        ({}, {"prompt_text": "ignored", "instruct": "ignored"}),
        ({"prompt": PROMPT, "voice": "a"}, {"prompt": PROMPT, "voice": "b"}),
        (
            {"mode": "instruct", "instruct": "happy"},
            {"mode": "instruct", "instruct": " 请非常开心地说一句话。"},
        ),
    ]

    async def work() -> None:
        async with where.engine() as bench:

            def name(fields: dict[str, Any]) -> str:
                plan = bench.engine.plan(SpeechRequest(**{"text": "Hello", **fields}))
                return result_name(plan.parameters)

            assert len({name(fields) for fields in different}) == len(different)
            for one, other in same:
                assert name(one) == name(other)
            before = name({})
        # Another model under the same name, and another precision, sound different.
        (where.model / "llm.pt").write_bytes(b"weights")
        async with where.engine() as bench:
            assert name({}) != before
            before = name({})
        async with where.engine(COSYVOICE_FP16="1") as bench:
            assert name({}) != before

    run(work)


@pytest.mark.parametrize(
    ("fields", "param", "complaint"),
    [
        ({"voice": "klingon"}, "voice", "'klingon' is not known here; use one of: auto, cosyvoice"),
        ({"mode": "clone", "prompt_text": "words"}, "prompt", "needs a recording"),
        ({"mode": "clone", "prompt": PROMPT, "prompt_text": " "}, "prompt_text", "needs the words"),
        ({"mode": "instruct"}, "instructions", "needs an instruction"),
        (
            {"mode": "sing"},
            "mode",
            "the cosyvoice engine does not have the mode 'sing'; use one of: voice, clone",
        ),
        ({"text": "a<|endofprompt|>b"}, "input", r"contains the control token <\|endofprompt\|>"),
        ({"mode": "instruct", "instruct": "<|im_end|>"}, "instructions", r"control token <\|im_end\|>"),
    ],
)
def test_what_it_cannot_do_is_refused(
    where: Where, fields: dict[str, Any], param: str, complaint: str
) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            with pytest.raises(BadRequest, match=complaint) as caught:
                bench.engine.plan(SpeechRequest(**{"text": "Hello", **fields}))
            assert caught.value.param == param
            assert caught.value.zh

    run(work)


# What can go wrong.


def test_a_listener_who_leaves_stops_the_synthesis_and_keeps_the_process(where: Where) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            before = await bench.say("What was true before")
            pid = bench.pid
            for seen in (0, 3):
                async with aclosing(bench.engine.parts(bench.engine.plan(SpeechRequest("endless")))) as parts:
                    for _ in range(seen):
                        await anext(parts)
            async with asyncio.timeout(60):
                assert await bench.say("What was true before") == before
            assert bench.pid == pid
            assert bench.told == [(True, "")]

    run(work)


@pytest.mark.parametrize("text", ["hang", "endless"])
def test_a_time_limit_ends_what_does_not_end(
    where: Where, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    async def work() -> None:
        monkeypatch.setattr(cosyvoice, "_STOP_LIMIT", 0.3 if text == "hang" else 30.0)
        async with where.engine() as bench:
            pid = bench.pid
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await bench.say(text)
            if text == "hang":
                assert not alive(pid), "when the call returns the work has ended"
                await bench.replaced(pid)
                assert [ready for ready, _ in bench.told] == [True, False, True]
                assert "had to be stopped" in bench.told[1][1]
            assert (await bench.say("Hello again")).seconds > 0.1

    run(work)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("crash", "it was ended by SIGSEGV"),
        ("ends itself", "it ended with status 7"),
        ("garbage", "it wrote what is no frame: b'this'"),
        ("flood", "it gave more than 8 MB of audio for one text"),
        ("the thread dies", r"the model failed: AssertionError: <\|endofprompt\|> not detected"),
        ("it runs out", r"the GPU has too little memory for this text \(.*2.00 GiB\); try again"),
        ("the thread runs out", "the GPU has too little memory"),
    ],
)
def test_a_broken_process_is_told_and_replaced(
    where: Where, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    async def work() -> None:
        monkeypatch.setattr(cosyvoice, "_MOST_AUDIO", 8 << 20)
        async with where.engine() as bench:
            pid = bench.pid
            open_files = len(os.listdir("/proc/self/fd"))
            with pytest.raises(EngineError, match=complaint) as caught:
                async with asyncio.timeout(60):
                    await bench.say(text)
            assert caught.value.zh
            await bench.replaced(pid)
            assert len(os.listdir("/proc/self/fd")) <= open_files, "no pipe is left"
            assert [ready for ready, _ in bench.told] == [True, False, True]
            assert bench.engine.measurements["worker_restarts_total"] == 1
            assert (await bench.say("Hello again")).seconds > 0.1

    run(work)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("fails", "^the model failed: ValueError: no such luck$"), ("nothing", "gave no audio for this text")],
)
def test_a_failure_of_the_text_costs_no_process(where: Where, text: str, complaint: str) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            pid = bench.pid
            with pytest.raises(EngineError, match=complaint):
                await bench.say(text)
            await bench.say("and a library that prints")
            assert bench.pid == pid

    run(work)


def test_a_process_that_dies_idle_is_replaced(where: Where) -> None:
    async def work() -> None:
        async with where.engine() as bench:
            pid = bench.pid
            os.kill(pid, signal.SIGKILL)
            await bench.replaced(pid)
            assert "it was ended by SIGKILL" in bench.told[1][1]

    run(work)


def test_a_process_that_grows_is_replaced_between_two_texts(where: Where) -> None:
    async def work() -> None:
        async with where.engine(COSYVOICE_WORKER_MEMORY="0.12") as bench:
            pid = bench.pid
            assert (await bench.say("no harm")).seconds > 0.1
            assert bench.pid == pid
            figures = bench.engine.measurements
            assert figures["gpu_memory_free_bytes"] == 5 << 30
            assert figures["gpu_memory_total_bytes"] == 8 << 30
            assert 10 << 20 < figures["worker_memory_bytes"] < 120 << 20
            assert (await bench.say("but this is a leak")).seconds > 0.1, "the text is spoken all the same"
            await bench.replaced(pid)
            assert "its memory had grown to 0." in bench.told[1][1]

    run(work)


@pytest.mark.parametrize(
    ("orders", "complaint"),
    [('["once", "hang"]', "it was not ready within 3 s"), ('["once", "crash"]', "it ended with status 9")],
)
def test_a_start_that_fails_is_repeated(where: Where, orders: str, complaint: str) -> None:
    async def work() -> None:
        where.order(orders)
        async with where.engine(COSYVOICE_START_LIMIT="3" if "hang" in orders else "60") as bench:
            assert complaint in bench.told[0][1]
            assert bench.told[-1] == (True, "")
            await bench.say("Hello")

    run(work)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"COSYVOICE_SOURCE": ""}, "COSYVOICE_SOURCE is not set: set it to a checkout"),
        ({"COSYVOICE_SOURCE": "/nowhere"}, "COSYVOICE_SOURCE=/nowhere: there is no folder cosyvoice in it"),
        ({"COSYVOICE_MODEL": "/nowhere"}, "the model folder /nowhere is not there; put Fun-CosyVoice3"),
        ({"COSYVOICE_MODEL": "/tmp"}, "the model folder /tmp has no cosyvoice3.yaml"),
        ({"COSYVOICE_PYTHON": "/no/python"}, "/no/python: cannot be run"),
        ({"COSYVOICE_FP16": "yes", "COSYVOICE_WORKER_MEMORY": "-1"}, "FP16='yes': set it to 1 or 0; .*'-1'"),
    ],
)
def test_what_cannot_work_says_what_to_do(where: Where, environment: dict[str, str], complaint: str) -> None:
    async def work() -> None:
        with pytest.raises(EngineUnavailable, match=complaint):
            async with where.engine(**environment):
                pass

    run(work)


def test_a_missing_package_of_upstream_is_named(where: Where, tmp_path: Path) -> None:
    async def work() -> None:
        package = tmp_path / "source" / "cosyvoice" / "cli"
        package.mkdir(parents=True)
        (package / "cosyvoice.py").write_text("import matcha.models\n")
        with pytest.raises(EngineUnavailable, match=r"'matcha', .* git submodule update --init"):
            async with where.engine(COSYVOICE_SOURCE=str(tmp_path / "source")):
                pass

    run(work)


def test_a_worker_does_not_outlive_its_service(where: Where) -> None:
    program = (
        "import asyncio, os, sys\n"
        "from cosyvoice_app.engines.cosyvoice import CosyVoiceEngine\n"
        "async def main():\n"
        "    engine = CosyVoiceEngine()\n"
        "    await engine.start()\n"
        "    print(engine._worker._live.process.pid, flush=True)\n"
        "    assert not {'torch', 'numpy'} & sys.modules.keys()\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **where.variables},
        cwd=APP,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -9, done.stderr
    end = time.monotonic() + 30
    while alive(int(done.stdout)):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_service_with_it_comes_back_after_a_hang(start_server: StartServer, where: Where) -> None:
    server = start_server(
        "--enable-queue",
        COSYVOICE_ENGINE="cosyvoice",
        COSYVOICE_TIME_LIMIT="3",
        COSYVOICE_START_LIMIT="8",
        **where.variables,
    )
    assert server.say("Hello there").status_code == 200
    assert server.metric("tts_gpu_memory_total_bytes") == 8 << 30
    (where.model / "orders.json").write_text('["once", "hang"]')  # so that the restart can be seen
    with ThreadPoolExecutor(2) as pool:
        hangs = pool.submit(server.say, "please hang")
        time.sleep(1)
        body = {"input": "I can wait"}
        waits = pool.submit(server.http.post, "/v1/audio/speech", json=body, timeout=120)
        assert hangs.result().status_code == 504
        ready = server.http.get("/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "failed")
        assert "the speech worker is being started again: a synthesis had to" in ready.json()["reason"]
        assert waits.result().status_code == 200, "once there is a worker again"
    server.wait_ready()
    assert server.metric("tts_worker_restarts_total") >= 2


# The stand-in against the original.


def _signatures(path: Path) -> dict[str, str]:
    """The arguments of public functions and methods, by name."""
    found = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        inside, of = (node.body, f"{node.name}.") if isinstance(node, ast.ClassDef) else ([node], "")
        for function in inside:
            if isinstance(function, ast.FunctionDef) and not re.match(r"_(?!_init__)", function.name):
                found[f"{of}{function.name}"] = ast.unparse(function.args)
    return {name: arguments for name, arguments in found.items() if not name.startswith("_")}


@pytest.mark.skipif(
    not os.environ.get("COSYVOICE_UPSTREAM"), reason="COSYVOICE_UPSTREAM names no checkout of upstream"
)
def test_the_stand_in_has_upstreams_signatures() -> None:
    upstream = Path(os.environ["COSYVOICE_UPSTREAM"])
    path = "cosyvoice/cli/cosyvoice.py"
    theirs, ours = _signatures(upstream / path), _signatures(STANDIN / path)
    assert ours == theirs
    common = (upstream / "cosyvoice/utils/common.py").read_text("utf-8")
    ours = _signatures(STANDIN / "cosyvoice/utils/common.py")
    assert ours.items() <= _signatures(upstream / "cosyvoice/utils/common.py").items()
    # What else this engine counts on.
    (told,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(common).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "instruct_list"
    )
    frame = "You are a helpful assistant. {}<|endofprompt|>"
    assert sorted(told) == sorted(frame.format(preset.instruct) for preset in PRESETS)
    inside = (upstream / "cosyvoice/cli/model.py").read_text("utf-8")
    for name in ("token_hop_len", "tts_speech_token_dict", "llm_end_dict", "hift_cache_dict"):
        assert f"self.{name}" in inside
    example = (upstream / "example.py").read_text("utf-8")
    assert f"'{FRAME}希望你以后能够做的比我还好呦。'" in example
    assert (upstream / "asset/zero_shot_prompt.wav").is_file()


def test_options_have_their_defaults() -> None:
    options = load_options({"COSYVOICE_SOURCE": "/source"})
    assert options.model == "/source/pretrained_models/Fun-CosyVoice3-0.5B"
    assert (options.describe(), options.start_limit, options.most_memory) == ("", 600, 0)
    with contextlib.suppress(KeyError):
        del options.environment()["COSYVOICE_MODEL"]
    assert load_options({"COSYVOICE_SOURCE": "/s", "COSYVOICE_TRT": "1"}).describe() == "trt"
    another = load_options({"COSYVOICE_SOURCE": "/s", "COSYVOICE_EDITION": "5f2c"})
    assert another.describe() == "5f2c"
    with pytest.raises(EngineUnavailable, match="COSYVOICE_EDITION='a b'"):
        load_options({"COSYVOICE_SOURCE": "/s", "COSYVOICE_EDITION": "a b"})
