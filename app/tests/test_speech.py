"""The queue with an engine of the test's own: order, limits, cancelling, failing and coming back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_app import claims, logs, speech
from cosyvoice_app.engines import Engine, Plan, SpeechRequest, Voice
from cosyvoice_app.errors import BadRequest, Draining, EngineError, NotReady, QueueFull, TimeLimit
from cosyvoice_app.metrics import Metrics
from cosyvoice_app.outputs import Outputs
from cosyvoice_app.readiness import Readiness
from cosyvoice_app.settings import Settings, load_settings
from cosyvoice_app.speech import SpeechService
from cosyvoice_app.wav import Audio, decode, join


class TestEngine(Engine):
    """Speaks while `open` is set; fails while `broken`."""

    __test__ = False
    name = "test"
    voices = (Voice("auto", "Automatic", "自动"),)

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.up = asyncio.Event()
        self.up.set()
        self.broken = False
        self.spoken: list[str] = []
        self.inside = 0

    async def start(self) -> None:
        pass

    async def wait_ready(self) -> None:
        await self.up.wait()

    def plan(self, request: SpeechRequest) -> Plan:
        return Plan({"text": request.text, "seed": request.seed})

    async def parts(self, plan: Plan) -> AsyncIterator[Audio]:
        self.inside += 1
        assert self.inside == 1, "one at a time"
        try:
            yield Audio(8000, 1, 2, b"\3\4" * 800)
            await self.open.wait()
            await asyncio.sleep(0)
            if self.broken:
                raise EngineError("broken")
            self.spoken.append(plan.parameters["text"])
            yield Audio(8000, 1, 2, b"\1\2" * 800)
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


class Elsewhere:
    """The hand-over to a node that takes `seconds` to find out that it cannot do a job."""

    helpers = 1

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.tried = 0

    def crowded(self, waiting: int, room: int) -> bool:
        return False

    async def send(self, turn: object, request: SpeechRequest, **options: object) -> None:
        self.tried += 1
        await asyncio.sleep(self._seconds)


class TurnElsewhere:
    peer = None

    def release(self) -> None:
        pass


def test_the_logged_wait_is_from_arrival_to_start_however_many_turns_it_took(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        elsewhere = Elsewhere(0.4)
        bench.service._hand_over = elsewhere  # type: ignore[assignment]
        noted: list[logs.Job] = []
        bench.service.job_log = type("Kept", (), {"finish": lambda self, job, *rest: noted.append(job)})()
        before = bench.value("tts_wait_seconds_sum")
        bench.engine.open.clear()
        first = bench.say("first")
        await settled(lambda: bench.engine.inside == 1)
        second = bench.say("second")
        await settled(lambda: bench.service.waiting == 1)
        assert bench.service._line.give(TurnElsewhere())  # type: ignore[arg-type]
        await settled(lambda: elsewhere.tried == 1)
        # The turn here is free when the other node has given up.
        bench.engine.open.set()
        await asyncio.gather(first, second)
        assert noted[1].text == "second"
        assert noted[1].wait is not None
        assert 0.4 <= noted[1].wait < 3
        assert bench.value("tts_wait_seconds_count") == 2, "once for each job"
        assert (bench.value("tts_wait_seconds_sum") or 0) - (before or 0) >= 0.4

    run(work)


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
        with pytest.raises(QueueFull, match="2 requests are waiting already") as caught:
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
        with pytest.raises(QueueFull, match=r"waited for longer than 0\.2 s"):
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
        with pytest.raises(TimeLimit, match=r"longer than 0.2 s and was stopped; split the text"):
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
    async def crash(plan: Plan) -> AsyncIterator[Audio]:
        raise KeyError("secret")
        yield

    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        monkeypatch.setattr(bench.engine, "parts", crash)
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


def test_a_stream_begins_before_the_end_and_is_kept_like_any_other(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        bench.engine.open.clear()
        request = SpeechRequest("a")
        async with aclosing(bench.service.stream(request)) as stream:
            pieces = [await anext(stream)]
            assert bench.engine.spoken == [], "the rest is not made yet"
            assert bench.service.running
            bench.engine.open.set()
            pieces += [piece async for piece in stream]
        made = decode((tmp_path / bench.service.name(request)).read_bytes())
        assert join(pieces) == made
        assert os.listdir(tmp_path) == [bench.service.name(request)]
        again = [piece async for piece in bench.service.stream(request)]
        assert join(again) == made, "from the file"
        assert bench.engine.spoken == ["a"]
        assert bench.value("tts_requests_total", outcome="ok") == 1
        assert bench.value("tts_requests_total", outcome="cached") == 1

    run(work)


def test_a_stream_waits_its_turn_and_a_listener_who_leaves_stops_it(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue", COSYVOICE_QUEUE_LENGTH="1").ready()
        bench.engine.open.clear()
        async with aclosing(bench.service.stream(SpeechRequest("a"))) as first:
            await anext(first)
            second = bench.say("b")
            await settled(lambda: bench.service.waiting == 1)
            with pytest.raises(QueueFull):
                await anext(bench.service.stream(SpeechRequest("c")))
        assert not bench.engine.spoken
        bench.engine.open.set()
        await second
        assert bench.engine.spoken == ["b"]
        assert os.listdir(tmp_path) == [second.result().name]
        assert bench.value("tts_requests_total", outcome="cancelled") == 1

    run(work)


def test_a_stream_whose_engine_fails_ends_with_the_error(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        bench.engine.broken = True
        stream = bench.service.stream(SpeechRequest("a"))
        await anext(stream)
        with pytest.raises(EngineError, match="broken"):
            await anext(stream)
        assert os.listdir(tmp_path) == []

    run(work)


def test_what_two_nodes_are_asked_for_at_once_is_made_once(tmp_path: Path) -> None:
    async def work() -> None:
        nodes = [await Bench(tmp_path, "--enable-queue").ready() for _ in range(2)]
        for bench in nodes:
            bench.engine.open.clear()
        tasks = [bench.say("a") for bench in nodes for _ in range(2)]
        await settled(lambda: sum(b.value("tts_joined_total") or 0 for b in nodes) == 2)
        assert not nodes[0].service.running or not nodes[1].service.running, "who waits holds no turn"
        for bench in nodes:
            bench.engine.open.set()
        made = await asyncio.gather(*tasks)
        assert len({speech.data for speech in made}) == 1
        assert sorted(speech.cached for speech in made) == [False, True, True, True]
        assert sorted(len(bench.engine.spoken) for bench in nodes) == [0, 1]
        assert os.listdir(tmp_path) == [made[0].name]

    run(work)


def test_what_the_other_node_cannot_make_is_made_here(tmp_path: Path) -> None:
    async def work() -> None:
        one, other = [await Bench(tmp_path, "--enable-queue").ready() for _ in range(2)]
        one.engine.open.clear()
        one.engine.broken = True
        first = one.say("a")
        await settled(lambda: one.engine.inside == 1)
        second = other.say("a")
        await settled(lambda: other.value("tts_joined_total") == 1)
        one.engine.open.set()
        with pytest.raises(EngineError):
            await first
        assert not (await second).cached
        assert other.engine.spoken == ["a"]

    run(work)


@pytest.mark.parametrize("text", ["", '{"token": "t", "node": "rs-9"}'])
def test_a_claim_whose_owner_is_gone_is_void_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(claims, "LEASE", 0.5)

    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        (tmp_path / f".claim-{bench.service.name(SpeechRequest('a'))}").write_text(text)
        made = await bench.say("a")
        assert not made.cached
        assert bench.value("tts_joined_total") == 1
        assert os.listdir(tmp_path) == [made.name]

    run(work)


def test_a_claim_that_is_touched_stays_in_force_until_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEASE", 0.5)
    monkeypatch.setattr(claims, "_TOUCH_EVERY", 0.05)
    monkeypatch.setattr(speech, "LEASE", 0.0)

    async def work() -> None:
        one = await Bench(tmp_path, "--enable-queue").ready()
        other = await Bench(tmp_path, "--enable-queue", COSYVOICE_TIME_LIMIT="2").ready()
        one.engine.open.clear()
        first = one.say("a")
        await settled(lambda: one.engine.inside == 1)
        second = other.say("a")
        await asyncio.sleep(1.2)
        assert other.engine.inside == 0, "the claim is in force"
        assert not (await second).cached, "but nobody waits for ever"
        one.engine.open.set()
        await first
        assert [name for name in os.listdir(tmp_path) if name.startswith(".claim")] == []

    run(work)


def test_a_node_that_starts_again_takes_its_old_claims_away(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        (tmp_path / ".claim-old").write_text('{"node": "rs-1", "process": "dead", "token": "t"}')
        (tmp_path / ".claim-theirs").write_text('{"node": "rs-2", "process": "dead", "token": "t"}')
        bench.engine.open.clear()
        task = bench.say("a")
        await settled(lambda: bench.engine.inside == 1)
        await bench.outputs.remove_stale()
        claimed = {name for name in os.listdir(tmp_path) if name.startswith(".claim-")}
        assert claimed == {".claim-theirs", f".claim-{bench.service.name(SpeechRequest('a'))}"}
        bench.engine.open.set()
        await task

    run(work)


def test_an_engine_that_starts_again_takes_the_node_out_and_requests_wait(tmp_path: Path) -> None:
    async def work() -> None:
        bench = await Bench(tmp_path, "--enable-queue").ready()
        bench.engine.up.clear()
        bench.engine.on_state(False, "the worker is being started again")
        assert (bench.readiness.state, bench.readiness.reason) == (
            "failed",
            "the worker is being started again",
        )
        task = bench.say("a")
        await asyncio.sleep(0.1)
        assert not task.done()
        bench.engine.up.set()
        bench.engine.on_state(True, "")
        assert bench.readiness.ready
        await task

    run(work)


@pytest.mark.parametrize(
    ("fields", "param", "complaint"),
    [
        ({"prompt_text": "a" * 1001}, "prompt_text", "1001 characters long; at most 1000"),
        ({"instruct": "a\ud800"}, "instructions", "instructions is not valid Unicode"),
        ({"text": ""}, "input", "nothing to say"),
        ({"text": " 。。。 "}, "input", "nothing to say"),
        ({"text": "a" * 4097}, "input", "4097 characters long; at most 4096"),
        ({"text": "a\ud800"}, "input", "surrogate"),
        ({"speed": 0.1}, "speed", "speed is 0.1; use a number from 0.5 to 2.0"),
        ({"speed": float("nan")}, "speed", "speed is nan"),
        ({"seed": 0}, "seed", "seed is 0; use a number from 1 to 100000000"),
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
