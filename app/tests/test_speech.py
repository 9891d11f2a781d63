"""The queue with an engine of the test's own: order, limits, cancelling, failing and coming back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_app import speech
from cosyvoice_app.engines import Engine, Plan, SpeechRequest, Voice
from cosyvoice_app.errors import BadRequest, Draining, EngineError, NotReady, QueueFull, TimeLimit
from cosyvoice_app.metrics import Metrics
from cosyvoice_app.outputs import Outputs
from cosyvoice_app.readiness import Readiness
from cosyvoice_app.settings import Settings, load_settings
from cosyvoice_app.speech import SpeechService
from cosyvoice_app.wav import Audio


class TestEngine(Engine):
    """Speaks while `open` is set; fails while `broken`."""

    __test__ = False
    name = "test"
    voices = (Voice("auto", "Automatic", "自动"),)

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False
        self.spoken: list[str] = []
        self.inside = 0

    async def start(self) -> None:
        pass

    def plan(self, request: SpeechRequest) -> Plan:
        return Plan({"text": request.text, "seed": request.seed})

    async def speak(self, plan: Plan) -> Audio:
        self.inside += 1
        assert self.inside == 1, "one at a time"
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            if self.broken:
                raise EngineError("broken")
            self.spoken.append(plan.parameters["text"])
            return Audio(8000, 1, 2, b"\1\2" * 800)
        finally:
            self.inside -= 1


class Bench:
    def __init__(self, outputs: Path, *flags: str, **environment: str) -> None:
        self.settings: Settings = load_settings(list(flags), environment)
        self.engine = TestEngine()
        self.readiness = Readiness()
        self.outputs = Outputs(outputs, node="rs-1", time_limit=5)
        self.metrics = Metrics("rs-1", "test")
        self.service = SpeechService(self.settings, self.engine, self.outputs, self.metrics, self.readiness)

    async def ready(self) -> Bench:
        await self.service.warm_up()
        self.engine.spoken.clear()
        return self

    def say(self, text: str) -> asyncio.Task[speech.Speech]:
        return asyncio.create_task(self.service.speak(SpeechRequest(text)))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def test_one_at_a_time_in_the_order_of_arrival(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        bench.engine.open.clear()
        tasks = []
        for text in "abcde":
            tasks.append(bench.say(text))
            await settled(lambda: bench.engine.inside + bench.service.waiting == len(tasks))
        assert bench.value("tts_queue_size") == 4
        assert bench.value("tts_running") == 1
        assert bench.service.busy
        bench.engine.open.set()
        await asyncio.gather(*tasks)
        assert bench.engine.spoken == list("abcde")
        assert bench.value("tts_queue_size") == 0
        assert bench.value("tts_requests_total", outcome="ok") == 5
        assert not bench.service.busy

    run(work)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue", COSYVOICE_QUEUE_LENGTH="2").ready()
        bench.engine.open.clear()
        tasks = [bench.say(text) for text in "abc"]
        await settled(lambda: bench.service.waiting == 2)
        with pytest.raises(QueueFull, match="2 requests wait already") as caught:
            await bench.say("d")
        assert caught.value.status == 503
        assert (caught.value.retry_after or 0) >= 1
        bench.engine.open.set()
        await asyncio.gather(*tasks)
        await bench.say("d")
        assert len(os.listdir(tmp_path)) == 4, "and nothing half is left"

    run(work)


def test_without_the_queue_the_second_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path).ready()
        bench.engine.open.clear()
        first = bench.say("a")
        await settled(lambda: bench.engine.inside == 1)
        with pytest.raises(QueueFull, match="--enable-queue"):
            await bench.say("b")
        bench.engine.open.set()
        await first

    run(work)


def test_a_cancelled_request_leaves_its_place_and_nothing_else(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        bench.engine.open.clear()
        first, second, third = bench.say("a"), bench.say("b"), bench.say("c")
        await settled(lambda: bench.service.waiting == 2)
        second.cancel()  # waits
        await asyncio.wait({second})
        assert bench.service.waiting == 1
        first.cancel()  # runs
        await asyncio.wait({first})
        bench.engine.open.set()
        await third
        assert bench.engine.spoken == ["c"]
        assert os.listdir(tmp_path) == [third.result().name]
        assert bench.value("tts_requests_total", outcome="cancelled") == 2

    run(work)


def test_a_turn_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue", COSYVOICE_WAIT_LIMIT="0.2").ready()
        bench.engine.open.clear()
        first = bench.say("a")
        await settled(lambda: bench.engine.inside == 1)
        with pytest.raises(QueueFull, match=r"did not come within 0\.2 s"):
            await bench.say("b")
        bench.engine.open.set()
        await first

    run(work)


def test_the_same_request_is_made_once_unless_asked_afresh(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        first = await bench.say("a")
        again = await bench.say("a")
        assert (first.cached, again.cached) == (False, True)
        assert (again.name, again.data, again.seconds) == (first.name, first.data, first.seconds)
        fresh = await bench.service.speak(SpeechRequest("a"), use_cache=False)
        assert not fresh.cached
        assert bench.engine.spoken == ["a", "a"]

    run(work)


def test_a_synthesis_over_the_limit_is_stopped_and_the_next_one_runs(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue", COSYVOICE_TIME_LIMIT="0.2").ready()
        bench.engine.open.clear()
        with pytest.raises(TimeLimit, match=r"longer than 0.2 s and was stopped; cut the text"):
            await bench.say("a")
        assert bench.engine.inside == 0
        bench.engine.open.set()
        await bench.say("b")
        assert bench.readiness.ready, "one such text does not take the node out"

    run(work)


def test_an_engine_that_keeps_failing_takes_the_node_out_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "_SELF_TEST_EVERY", 0.05)

    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        bench.engine.broken = True
        for text in "abc":
            with pytest.raises(EngineError):
                await bench.say(text)
        assert bench.readiness.state == "failed"
        await asyncio.sleep(0.2)
        assert bench.readiness.state == "failed"
        bench.engine.broken = False
        await settled(lambda: bench.readiness.ready)

    run(work)


def test_a_crash_of_the_engine_is_told_without_its_insides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(plan: Plan) -> Audio:
        raise KeyError("secret")

    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        monkeypatch.setattr(bench.engine, "speak", crash)
        with pytest.raises(EngineError, match=r"^the test engine failed: KeyError$"):
            await bench.say("a")

    run(work)


def test_before_the_warm_up_and_after_the_close_nothing_is_taken(tmp_path: Path) -> None:
    async def work() -> None:
        bench = Bench(tmp_path, "--enable-queue")
        with pytest.raises(NotReady, match="warming up"):
            await bench.say("a")
        await bench.ready()
        bench.engine.open.clear()
        running = bench.say("a")
        await settled(lambda: bench.engine.inside == 1)
        bench.readiness.drain()
        bench.service.close()
        with pytest.raises(Draining):
            await bench.say("b")
        assert bench.readiness.state == "draining"
        bench.engine.open.set()
        await running

    run(work)


@pytest.mark.parametrize(
    ("fields", "param", "complaint"),
    [
        ({"text": ""}, "input", "nothing to say"),
        ({"text": " 。。。 "}, "input", "nothing to say"),
        ({"text": "a" * 4097}, "input", "4097 characters long; at most 4096"),
        ({"text": "a\ud800"}, "input", "surrogate"),
        ({"speed": 0.1}, "speed", "speed is 0.1; set it from 0.5 to 2.0"),
        ({"speed": float("nan")}, "speed", "speed is nan"),
        ({"seed": 0}, "seed", "seed is 0; set it from 1 to 100000000"),
        ({"seed": 100_000_001}, "seed", "seed is 100000001"),
    ],
)
def test_what_is_out_of_range_is_refused(
    tmp_path: Path, fields: dict[str, Any], param: str, complaint: str
) -> None:
    async def work() -> None:
        with pytest.raises(BadRequest, match=complaint) as caught:
            Bench(tmp_path).service.check(**{"text": "a", "voice": "auto", "speed": 1.0, "seed": 1, **fields})
        assert caught.value.param == param

    run(work)
