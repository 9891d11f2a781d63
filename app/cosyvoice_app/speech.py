"""One synthesis at a time: the way of a request from checked text to a kept file."""

from __future__ import annotations

import asyncio
import io
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from . import annotations, logs
from . import text as texts
from .claims import LEASE, Claim, Claims
from .engines import Engine, Mode, Plan, Prompt, SpeechRequest
from .errors import (
    BadRequest,
    Draining,
    EngineError,
    NotReady,
    OutputsUnavailable,
    QueueFull,
    ServiceError,
    TimeLimit,
)
from .handover import HandOver, Hear, PeerTurn, Turns
from .history import History
from .line import HomeTurn, Line, Turn
from .metrics import Metrics
from .outputs import Outputs, result_name
from .peers import Condition, Peers
from .readiness import Readiness
from .settings import Settings
from .share import Pending
from .voices import Voices
from .wav import Audio, cut, decode, encode, join, read_summary

log = logging.getLogger("cosyvoice")

MIN_SPEED, MAX_SPEED = 0.5, 2.0
MIN_SEED, MAX_SEED = 1, 100_000_000
#: Characters of the words of a recording (which lasts 30 s at most), and of an instruction.
MAX_PROMPT_TEXT, MAX_INSTRUCT = 1000, 500

# So many syntheses in a row must fail before a sentence that is known to be good decides whether the node can
# speak: by failures alone, whoever knows a text that fails could take one node after the other out.
_FAILURES_TO_TEST = 2
_SELF_TEST_EVERY = 5.0
# What a job of another node may take beside its synthesis, in seconds: the way there, a slow share, the way
# back.
_OVERHEAD = 30.0
_WARM_UP_TEXT = "One, two, three."
# Seconds of audio in a piece of a result that is streamed although it is there already.
_PIECE = 1.0


@dataclass(frozen=True)
class Speech:
    """A finished result. cached: it was there already."""

    name: str
    data: bytes
    seconds: float
    cached: bool
    voice: str


class SpeechService:
    """Every request for speech goes through here, from the page and from the API alike."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        outputs: Outputs,
        metrics: Metrics,
        readiness: Readiness,
        peers: Peers | None = None,
    ) -> None:
        """peers: the nodes that share the work. Default: none."""
        self.engine = engine
        self.outputs = outputs
        self.history = History(outputs, shared=settings.shared_history)
        self.voices = Voices(outputs.share)
        self._settings = settings
        self._metrics = metrics
        self._readiness = readiness
        self._claims = Claims(outputs.share)
        self._line: Line[PeerTurn] = Line()
        #: The turns that other nodes get here.
        self.turns = Turns(self._line, lambda: readiness.ready and not self._closed)
        self._hand_over: HandOver | None = None
        if peers is not None:
            peers.condition = self.condition
            self._hand_over = HandOver(peers, metrics, self._line, settings.time_limit + _OVERHEAD)
            self._line.joined = self._hand_over.look
        self._inside = 0
        self._usual_seconds = 1.0
        self._failures = 0
        self._closed = False
        self._page_waiting: Callable[[], int] = lambda: 0
        self._test: asyncio.Task[None] | None = None
        #: Where every job is written down when it has ended.
        self.job_log: logs.JobLog | None = None
        metrics.follow_queue(lambda: self.waiting)
        metrics.follow_engine(lambda: engine.measurements)
        engine.on_state = self._on_engine_state  # type: ignore[method-assign]
        readiness.block("engine", f"the {engine.name} engine is warming up")

    @property
    def waiting(self) -> int:
        """How many wait for their turn, those of the page's own queue included."""
        return self._line.waiting + self._page_waiting()

    @property
    def running(self) -> bool:
        """Whether a synthesis runs."""
        return self._line.held

    def condition(self) -> Condition:
        """What other nodes are told of this one."""
        ready = self._readiness.ready and not self._closed
        return Condition(
            ready=ready, waiting=self.waiting, running=int(self.running), room=self._settings.waiting_room
        )

    def place(self, ticket: object) -> tuple[int, int, float] | None:
        """Where the request with this ticket stands: how many are before it, how many wait in all, and in how
        many seconds it may be done. None when it does not wait.
        """
        before = self._line.place(ticket)
        if before is None:
            return None
        engines = 1 + (self._hand_over.helpers if self._hand_over else 0)
        rounds = math.ceil((before + 1) / engines) + 1
        return before, self._line.waiting, rounds * self._usual_seconds

    @property
    def busy(self) -> bool:
        """Whether a request is anywhere between its arrival and its answer."""
        return bool(self._inside or self._page_waiting())

    def follow_page(self, waiting: Callable[[], int]) -> None:
        self._page_waiting = waiting

    def close(self) -> None:
        """From now on new requests are refused; those inside go on."""
        self._closed = True

    def _on_engine_state(self, ready: bool, reason: str) -> None:
        """An engine that starts its worker again takes the node out of the pool meanwhile; what waits here
        goes on waiting.
        """
        if ready:
            self._readiness.clear("worker")
        else:
            self._readiness.block("worker", reason)

    def check(
        self,
        *,
        text: str,
        voice: str,
        speed: float,
        seed: int,
        mode: Mode = "voice",
        prompt: Prompt | None = None,
        prompt_text: str = "",
        instruct: str = "",
    ) -> SpeechRequest:
        """Raises BadRequest for anything outside what the service takes. What the engine takes, `speak` and
        `stream` find out.
        """
        limit = self._settings.max_characters
        if len(text) > limit:
            raise BadRequest(
                f"the text is {len(text)} characters long; at most {limit} are accepted: split it into parts",
                zh=f"文本有 {len(text)} 个字符，最多 {limit} 个：请分段提交",
                param="input",
            )
        cleaned = texts.cleaned(text, "input", ("the text", "文本"))
        # Of the text as it came, so that positions in messages are those that the user sees.
        if not annotations.speakable(annotations.parse(text)):
            raise BadRequest(
                f"there is nothing to say in {cleaned[:40]!r}; send at least one letter or digit",
                zh=f"{cleaned[:40]!r} 中没有可以朗读的内容；请至少输入一个文字或数字",
                param="input",
            )
        if not (math.isfinite(speed) and MIN_SPEED <= speed <= MAX_SPEED):
            raise BadRequest(
                f"speed is {speed}; use a number from {MIN_SPEED} to {MAX_SPEED} (1 is normal)",
                zh=f"语速是 {speed}；请设为 {MIN_SPEED} 到 {MAX_SPEED}（1 为正常语速）",
                param="speed",
            )
        if not MIN_SEED <= seed <= MAX_SEED:
            raise BadRequest(
                f"seed is {seed}; use a number from {MIN_SEED} to {MAX_SEED}",
                zh=f"随机种子是 {seed}；请设为 {MIN_SEED} 到 {MAX_SEED}",
                param="seed",
            )
        return SpeechRequest(
            text=cleaned,
            voice=voice,
            speed=float(speed),
            seed=seed,
            mode=mode,
            prompt=prompt,
            prompt_text=_cleaned(prompt_text, "prompt_text", MAX_PROMPT_TEXT),
            instruct=_cleaned(instruct, "instructions", MAX_INSTRUCT),
        )

    async def speak(
        self,
        request: SpeechRequest,
        *,
        use_cache: bool = True,
        accepted: bool = False,
        ticket: object = None,
        request_id: str = "",
    ) -> Speech:
        """The result of a request, made or found. Raises ServiceError.

        use_cache: False makes it even if it is there or being made.
        accepted: it has waited in the page's queue already, so it is served even when the service is closed.
        ticket: anything by which `place` can be asked about this request. request_id: the name under which
        another node is to know it.
        """
        return await self._counted(request, use_cache, accepted, None, ticket, request_id)

    async def stream(
        self,
        request: SpeechRequest,
        *,
        use_cache: bool = True,
        accepted: bool = False,
        ticket: object = None,
        request_id: str = "",
    ) -> AsyncGenerator[Audio, None]:
        """The audio of a request in pieces of one format, while it is being made; it is kept as with `speak`,
        and so are turn, limits and metrics. One that is there already comes from its file.

        Raises ServiceError: nearly always before the first piece, and in the middle when the engine fails. A
        listener who is slow does not hold the engine up; one who leaves (`contextlib.aclosing`) stops it.
        """

        def make(hear: Hear) -> Coroutine[Any, Any, Speech]:
            return self._counted(request, use_cache, accepted, hear, ticket, request_id)

        async with aclosing(self._pieces(make)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(
        self, make: Callable[[Hear], Coroutine[Any, Any, Speech]]
    ) -> AsyncGenerator[Audio, None]:
        """What is heard of a speech while it is made; closing this ends the making."""
        pieces: asyncio.Queue[Audio | None] = asyncio.Queue()
        task = asyncio.create_task(make(pieces.put_nowait))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        heard = False
        try:
            while (piece := await pieces.get()) is not None:
                heard = True
                yield piece
            try:
                speech = task.result()
            except OutputsUnavailable as error:
                if not heard:
                    raise
                log.warning("a result was heard and not kept: %s", error.message)
                return
            if not heard:
                for piece in cut(decode(speech.data), _PIECE):
                    yield piece
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def saved_voice(self, id_: str, owner: str) -> tuple[Prompt, str]:
        """Recording of a saved voice, and what is said in it. Raises NotFound, OutputsUnavailable."""
        saved, wav = await self.voices.read(id_, owner)
        return Prompt(saved.digest, wav), saved.text

    def name(self, request: SpeechRequest) -> str:
        """File name that the result of this request has or will have. Raises BadRequest."""
        return result_name(self.engine.plan(request).parameters)

    async def _counted(
        self,
        request: SpeechRequest,
        use_cache: bool,
        accepted: bool,
        hear: Hear | None,
        ticket: object,
        request_id: str,
    ) -> Speech:
        self._inside += 1
        outcome, status = "cancelled", 499
        job = logs.begin(request)
        try:
            if self._closed and not accepted:
                raise Draining(
                    "this node is about to stop; send the request again",
                    zh="本节点即将停止；请重新提交",
                    retry_after=1,
                )
            speech = await self._speak(request, use_cache, hear, ticket, request_id)
            outcome, status = "cached" if speech.cached else "ok", 200
            job.result, job.voice, job.cached = speech.name, speech.voice, speech.cached
            job.audio, job.size = speech.seconds, len(speech.data)
            return speech
        except ServiceError as error:
            outcome, status = error.code, error.status
            raise
        except Exception:
            outcome, status = "internal_error", 500
            raise
        finally:
            self._inside -= 1
            self._metrics.requests.labels(outcome).inc()
            if self.job_log is not None:
                self.job_log.finish(job, outcome, status)

    async def speak_for(
        self, request: SpeechRequest, turn: Turn, *, name: str, hear: Hear | None = None
    ) -> Speech:
        """Makes the speech for another node, which counts it, in a turn that it was given. name: that of the
        result there. Raises ServiceError.
        """
        self._inside += 1
        try:
            try:
                plan = self.engine.plan(request)
                mine = result_name(plan.parameters)
                if mine != name:
                    raise BadRequest(
                        f"here the result would be {mine}, not {name}: do both nodes run the same version?",
                        zh=f"在本节点结果会是 {mine} 而不是 {name}：两个节点的版本一致吗？",
                    )
                # The other node has found the share in order and no such result; the engine is not to wait.
                audio = await self._run(plan, hear)
            finally:
                turn.release()
            data = encode(audio, plan.parameters)
            pending = await self.outputs.begin(name)
            await pending.commit(data)
            log.info("made %s for another node: %.2f s of audio", name, audio.seconds)
            return Speech(name, data, audio.seconds, False, str(plan.parameters.get("voice", "")))
        finally:
            self._inside -= 1

    def stream_for(self, request: SpeechRequest, turn: Turn, *, name: str) -> AsyncGenerator[Audio, None]:
        """`speak_for` in pieces, as with `stream`. A turn is held from here on, so it must be begun."""
        return self._pieces(lambda hear: self.speak_for(request, turn, name=name, hear=hear))

    async def _speak(
        self,
        request: SpeechRequest,
        use_cache: bool,
        hear: Hear | None,
        ticket: object,
        request_id: str,
    ) -> Speech:
        if self._readiness.state == "warming":
            raise NotReady(
                f"this node is not ready yet: {self._readiness.reason}",
                zh=f"本节点尚未就绪，请稍后再试（{self._readiness.reason}）",
                retry_after=5,
            )
        came = time.monotonic()
        plan = self.engine.plan(request)
        name = result_name(plan.parameters)
        voice = str(plan.parameters.get("voice", ""))
        if use_cache and (data := await self.outputs.find(name)) is not None:
            return self._found(name, data, voice)
        pending = await self.outputs.begin(name)
        kept = False
        claim: Claim | None = None
        try:
            # Seconds to wait for what somebody else makes; then it is made here, without a claim.
            patience = self._settings.time_limit + LEASE
            again = False
            while True:
                turn = await self._turn(ticket, came, again)
                waited = time.monotonic() - came
                try:
                    shared = use_cache and patience > 0
                    if shared and claim is None:
                        claim = await self._claims.take(name)
                    if claim is not None or not shared:
                        # It may have been made while this one waited for the turn, and claims.py says why it
                        # is seen now if another node has made it.
                        if shared and (data := await self.outputs.find(name, fresh=True)) is not None:
                            return self._found(name, data, voice)
                        if isinstance(turn, HomeTurn):
                            self._metrics.wait.observe(waited)
                            audio = await self._run(plan, hear)
                            break
                        assert self._hand_over is not None
                        made = await self._hand_over.send(
                            turn, request, name=name, request_id=request_id, hear=hear
                        )
                        if made is not None:
                            self._metrics.wait.observe(waited)
                            log.info("%s made %s", turn.peer.name, name)
                            data = encode(made, plan.parameters) if isinstance(made, Audio) else made
                            seconds = read_summary(io.BytesIO(data))[0]
                            return Speech(name, data, seconds, False, voice)
                        again = True
                        continue
                finally:
                    turn.release()
                self._metrics.joined.inc()
                began = time.monotonic()
                await self._claims.wait(name, patience)
                patience -= time.monotonic() - began
                if (data := await self.outputs.find(name, fresh=True)) is not None:
                    return self._found(name, data, voice)
            data = encode(audio, plan.parameters)
            kept = True  # commit() cleans up after itself
            await pending.commit(data)
        finally:
            await asyncio.shield(_leave(claim, None if kept else pending))
        log.info("made %s: %.2f s of audio, %d bytes", name, audio.seconds, len(data))
        return Speech(name, data, audio.seconds, False, voice)

    def _found(self, name: str, data: bytes, voice: str) -> Speech:
        self._metrics.cache_hits.inc()
        return Speech(name, data, read_summary(io.BytesIO(data))[0], True, voice)

    async def _turn(self, ticket: object, came: float, again: bool) -> HomeTurn | PeerTurn:
        """Waits until this request may have the engine, here or on another node; the caller ends the turn.
        Raises QueueFull.

        came: when the request did, on the monotonic clock. again: it had a turn elsewhere, which came to
        nothing; so it is the next one here.
        """
        waiting, room = self._line.waiting, self._settings.waiting_room
        full = self._line.held and waiting >= room and not again
        if full and (self._hand_over is None or self._hand_over.crowded(waiting, room)):
            seconds = self._estimate()
            if self._settings.enable_queue:
                raise QueueFull(
                    f"{waiting} requests are waiting already, which is the limit of this node; "
                    f"try again in {seconds} s",
                    zh=f"已有 {waiting} 个请求在排队，达到本节点的上限；请在 {seconds} 秒后再试",
                    retry_after=seconds,
                )
            raise QueueFull(
                "a synthesis is running, and this node takes one request at a time "
                "(it was started without --enable-queue); "
                f"try again in {seconds} s",
                zh="本节点一次只处理一个请求（启动时没有加 --enable-queue），现在正在合成；"
                f"请在 {seconds} 秒后再试",
                retry_after=seconds,
            )
        turn: HomeTurn | PeerTurn | None = None
        try:
            async with asyncio.timeout(self._settings.wait_limit):
                movable = self._hand_over is not None and self._settings.enable_queue and not again
                turn = await self._line.turn(job=True, movable=movable, first=again, ticket=ticket)
                if isinstance(turn, HomeTurn):
                    await self.engine.wait_ready()
        except BaseException as error:
            if turn is not None:
                turn.release()
            if not isinstance(error, TimeoutError):
                raise
            raise QueueFull(
                f"the request waited for longer than {self._settings.wait_limit:g} s; try again later",
                zh=f"排队等候超过了 {self._settings.wait_limit:g} 秒；请稍后再试",
                retry_after=self._estimate(),
            ) from None
        finally:
            logs.note(wait=time.monotonic() - came)
        return turn

    async def _run(self, plan: Plan, hear: Hear | None = None) -> Audio:
        """The engine under the time limit; only ever one at a time."""
        began = time.monotonic()
        self._metrics.running.set(1)
        try:
            pieces = []
            async with asyncio.timeout(self._settings.time_limit), aclosing(self.engine.parts(plan)) as parts:
                async for piece in parts:
                    pieces.append(piece)
                    if hear is not None:
                        hear(piece)
            audio = join(pieces)
        except TimeoutError:
            self._count_failure()
            raise TimeLimit(
                f"the synthesis took longer than {self._settings.time_limit:g} s and was stopped; "
                "split the text into parts",
                zh=f"合成超过了 {self._settings.time_limit:g} 秒，已被终止；请把文本分段提交",
            ) from None
        except ServiceError:
            self._count_failure()
            raise
        except Exception as error:
            self._count_failure()
            log.exception("the %s engine failed", self.engine.name)
            raise EngineError(
                f"the {self.engine.name} engine failed: {type(error).__name__}",
                zh=f"{self.engine.name} 引擎出错：{type(error).__name__}",
            ) from error
        finally:
            self._metrics.running.set(0)
            took = time.monotonic() - began
            logs.note(synthesis=took)
        self._usual_seconds += (took - self._usual_seconds) * 0.2
        self._failures = 0
        self._metrics.synthesis.observe(took)
        self._metrics.audio.inc(audio.seconds)
        return audio

    def _estimate(self) -> int:
        """Whole seconds until a turn could be free."""
        return max(1, min(120, math.ceil(self._usual_seconds * (self.waiting + 1))))

    # Warming up, and finding the way back after failures.

    async def warm_up(self) -> None:
        """Starts the engine and makes one sentence, again and again until that works. Raises
        EngineUnavailable.
        """
        await self.engine.start()
        self._test = asyncio.current_task()
        await self._test_until_it_works()

    async def _test_until_it_works(self) -> None:
        plan = self.engine.plan(SpeechRequest(text=_WARM_UP_TEXT))
        while True:
            try:
                turn = await self._line.turn(first=True)
                try:
                    await self.engine.wait_ready()
                    await self._run(plan)
                finally:
                    turn.release()
            except ServiceError as error:
                log.error("the %s engine cannot speak: %s", self.engine.name, error.message)
                self._readiness.block(
                    "engine", f"the {self.engine.name} engine cannot speak: {error.message}"
                )
                await asyncio.sleep(_SELF_TEST_EVERY)
            else:
                self._test = None
                self._readiness.clear("engine")
                return

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES_TO_TEST and self._test is None:
            self._test = asyncio.get_running_loop().create_task(self._test_until_it_works())


async def _leave(claim: Claim | None, pending: Pending | None) -> None:
    """Nothing of a request that has ended stays on the share but its result."""
    if claim is not None:
        await claim.release()
    if pending is not None:
        await pending.discard()


def _cleaned(said: str, param: str, limit: int) -> str:
    """A further text of a request. Raises BadRequest."""
    if len(said) > limit:
        raise BadRequest(
            f"{param} is {len(said)} characters long; at most {limit} are accepted",
            zh=f"{param} 有 {len(said)} 个字符，最多 {limit} 个",
            param=param,
        )
    return texts.cleaned(said, param, (param, f"{param} "))
