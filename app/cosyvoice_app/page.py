"""The page: text in, player out, and what all nodes have made lately. Chinese and English by the browser's
language.

Importing this module imports gradio, which takes a second natively and ten times that under emulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
import math
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import FastAPI

from . import __version__, annotations, logs
from .engines import Prompt, mode_for
from .errors import BadRequest, ServiceError, speaks_chinese
from .history import owner_of
from .outputs import Result, is_result_name
from .page_inputs import Number, Page, Radio, Slider, shown
from .prompts import MAX_BYTES, read_prompt
from .quick_gradio import import_gradio
from .settings import Settings
from .speech import MAX_SEED, MAX_SPEED, MIN_SEED, MIN_SPEED, Speech, SpeechService

gr = import_gradio()
from gradio.context import LocalContext  # noqa: E402 - after import_gradio()
from gradio.data_classes import FileData  # noqa: E402
from gradio.server_messages import EstimationMessage, ProcessStartsMessage  # noqa: E402

#: How many results the page lists.
LISTED = 12
#: How many requests gradio lets in beside those that may wait: the limit that users meet is SpeechService's.
ADMITTED = 1000
# How often a waiting user is told where the request stands, in seconds.
_TELL_EVERY = 0.5

_ENGLISH = {
    "text": "Text",
    "text_hint": "Mandarin, Cantonese or English",
    "voice": "Voice",
    "speed": "Speed",
    "seed": "Seed",
    "seed_hint": "Same text, voice, speed and seed: same audio",
    "dice": "🎲 Another seed",
    "generate": "Speak",
    "results": "My latest results",
    "all_results": "Latest results of all nodes",
    "refresh": "Refresh",
    "examples": "Examples",
    "instruct": "How to say it",
    "instruct_hint": "Dialect, emotion, pace",
    "like": "Speak like a recording",
    "recording": "3 to 10 s of one clear voice",
    "prompt_text": "Words spoken in it (optional)",
    "prompt_text_hint": "With the words, the voice is cloned; without, only its sound is used",
    "saved": "Saved voice",
    "saved_hint": "Instead of a recording",
    "name": "Save as",
    "shared": "Others may use it",
    "save": "Save this voice",
    "forget": "Remove the chosen voice",
}
_CHINESE = {
    "text": "文本",
    "text_hint": "普通话、粤语或英语",
    "voice": "声音",
    "speed": "语速",
    "seed": "随机种子",
    "seed_hint": "文本、声音、语速和种子都相同，音频就相同",
    "dice": "🎲 换一个种子",
    "generate": "生成语音",
    "results": "我的最新结果",
    "all_results": "所有节点的最新结果",
    "refresh": "刷新",
    "examples": "示例",
    "instruct": "怎么说",
    "instruct_hint": "方言、情绪、语速",
    "like": "模仿一段录音",
    "recording": "3 到 10 秒清晰的单人录音",
    "prompt_text": "录音里说的话（可不填）",
    "prompt_text_hint": "填写后克隆声音；不填则只听录音（可跨语种）",
    "saved": "已保存的声音",
    "saved_hint": "代替录音",
    "name": "保存为",
    "shared": "允许他人使用",
    "save": "保存这个声音",
    "forget": "删除所选声音",
}

_EXAMPLES = [
    "你好，欢迎使用语音合成服务。今天的天气真不错。",
    "你哋食咗飯未呀？不如一齐去飲茶啦。",
    "Two directors share one address, and any of three nodes may answer you.",
]

# Fonts of the system only: machines of an air-gapped rack, and the browsers beside them, reach no font
# server.
_FONTS = ["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]

_CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
#masthead { padding: 1.1rem 0 .4rem; }
#masthead h1 { font-size: 1.75rem; font-weight: 700; margin: 0; letter-spacing: -.01em; }
#masthead h1 span { font-weight: 400; color: var(--body-text-color-subdued); }
#masthead p { margin: .4rem 0 0; color: var(--body-text-color-subdued); font-size: .92rem; }
#masthead p b { display: inline-block; padding: .05rem .6rem; margin: 0 .5rem 0 .15rem; border-radius: 999px;
  background: var(--primary-100); color: var(--primary-700); font-weight: 600; }
.dark #masthead p b { background: var(--primary-900); color: var(--primary-200); }
#status { min-height: 1.6rem; color: var(--body-text-color-subdued); font-size: .92rem; }
#status b { color: var(--body-text-color); }
#results-head { align-items: center; margin-top: 1rem; }
#results-title p { font-weight: 600; }
#results ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
#results li { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  padding: .75rem .9rem; background: var(--background-fill-primary); display: flex;
  flex-direction: column; gap: .45rem; margin: 0; }
#results .said { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical;
  overflow: hidden; line-height: 1.45; min-height: 2.9em; overflow-wrap: anywhere; }
#results .facts { font-size: .8rem; color: var(--body-text-color-subdued); display: flex; gap: .35rem .8rem;
  flex-wrap: wrap; }
#results .facts .links { margin-left: auto; display: flex; gap: .8rem; }
#results .facts a { color: var(--primary-600); text-decoration: none; }
.dark #results .facts a { color: var(--primary-300); }
#results audio { width: 100%; height: 34px; }
.dark #results audio { color-scheme: dark; }
#preview:empty, #preview:has(.prose:empty) { display: none; }
#results .none { color: var(--body-text-color-subdued); padding: 1rem 0; }
"""


class Player(gr.Audio):  # type: ignore[name-defined, misc]
    """An Audio whose file is a result that any node serves under /v1/results.

    gradio's own would read the file on the event loop, while the share may hang, and serve a copy that only
    this node has.
    """

    is_template = True  # the browser is to take it for an Audio

    def postprocess(self, value: tuple[str, str] | None) -> FileData | None:
        """value: address and file name."""
        return None if value is None else FileData(path=value[0], url=value[0], orig_name=value[1])


def create_page(settings: Settings, service: SpeechService) -> FastAPI:
    """The page as an ASGI app of its own, whose lifespan the caller runs."""

    async def list_results(request: gr.Request) -> str:
        chinese = speaks_chinese(request.headers.get("accept-language", ""))
        try:
            found: list[Result] | str = await service.history.recent(owner_of(request.headers), LISTED)
        except ServiceError as error:
            found = error.text(chinese)
        return render_results(found, time.time(), chinese=chinese)

    async def generate(
        text: str | None,
        voice: str | None,
        speed: float | None,
        seed: float | None,
        instruct: str | None = "",
        saved: str | None = "",
        recording: str | None = None,
        prompt_text: str | None = "",
        request: gr.Request = None,
    ) -> tuple[tuple[str, str], str]:
        """Speech from text: the audio, and a line about it.

        voice: auto, cmn (Mandarin), yue (Cantonese) or en. speed: 0.5 to 2. seed: 1 to 100000000. instruct:
        how to say it. saved: the id of a saved voice. recording: a file with a voice to speak like, and
        prompt_text what is said in it.
        """
        logs.enter(request.headers)
        chinese = speaks_chinese(request.headers.get("accept-language", ""))
        began = time.monotonic()
        try:
            if seed is None or not math.isfinite(seed) or seed != int(seed):
                raise BadRequest(
                    f"seed is {seed}; set it to a whole number from {MIN_SEED} to {MAX_SEED}",
                    zh=f"随机种子是 {seed}；请设为 {MIN_SEED} 到 {MAX_SEED} 的整数",
                )
            prompt, words = await voice_to_speak_like(saved or "", recording, prompt_text or "", request)
            wanted = service.check(
                text=text or "",
                voice="auto" if prompt else voice or "auto",
                speed=math.nan if speed is None else speed,
                seed=int(seed),
                mode=mode_for(instruct=instruct or "", recorded=bool(recording), words=words),
                prompt=prompt,
                prompt_text=words,
                instruct=instruct or "",
            )
            ticket = object()
            speaking = service.speak(
                wanted,
                accepted=settings.enable_queue,
                ticket=ticket,
                request_id=request.headers.get("x-request-id", ""),
            )
            made = await accompanied(speaking, ticket)
        except ServiceError as error:
            raise shown(error, chinese) from error
        await service.history.add(owner_of(request.headers), made.name)
        address = f"{origin(request)}/v1/results/{quote(made.name)}"
        took = time.monotonic() - began
        return (address, made.name), render_status(made, settings.node, took, chinese=chinese)

    async def voice_to_speak_like(
        saved: str, recording: str | None, prompt_text: str, request: gr.Request
    ) -> tuple[Prompt | None, str]:
        """A recording and its words; None for the engine's own voices. Raises ServiceError."""
        if recording:
            return await read_recording(recording), prompt_text.strip()
        if saved:
            return await service.saved_voice(saved, owner_of(request.headers))
        return None, ""

    async def read_recording(recording: str) -> Prompt:
        """recording: path of an upload. Raises ServiceError."""
        try:
            data = await asyncio.to_thread(Path(recording).read_bytes)
        except FileNotFoundError:
            raise BadRequest(
                "the recording is no longer here: uploads are kept for a day at most; upload it again",
                zh="录音已不在服务器上：上传的文件最多保留一天；请重新上传",
            ) from None
        return await read_prompt(data, name=Path(recording).name)

    def preview(text: str, request: gr.Request) -> str:
        """The text as its annotations are understood; nothing where there are none."""
        pieces, mistakes = annotations.examine(text or "")
        if not mistakes and not annotations.annotated(pieces):
            return ""
        return annotations.preview(text, speaks_chinese(request.headers.get("accept-language", "")))

    async def saved_voices(request: gr.Request, chosen: str = "") -> Any:
        """The list of saved voices, as it is now."""
        try:
            voices = await service.voices.list(owner_of(request.headers))
        except ServiceError:
            voices = []
        choices = [("—", ""), *((voice.name, voice.id) for voice in voices)]
        return gr.Dropdown(choices=choices, value=chosen)

    async def save_voice(
        recording: str | None, prompt_text: str, name: str, shared: bool, request: gr.Request
    ) -> tuple[Any, None]:
        chinese = speaks_chinese(request.headers.get("accept-language", ""))
        try:
            if not recording:
                raise BadRequest(
                    "there is no recording to save; upload or record one",
                    zh="没有可保存的录音；请先上传或录制一段",
                )
            read = await read_recording(recording)
            owner = owner_of(request.headers)
            voice = await service.voices.save(name or "", read, prompt_text or "", owner, shared=bool(shared))
        except ServiceError as error:
            raise shown(error, chinese) from error
        return await saved_voices(request, voice.id), None

    async def forget_voice(saved: str, request: gr.Request) -> Any:
        chinese = speaks_chinese(request.headers.get("accept-language", ""))
        try:
            await service.voices.remove(saved or "", owner_of(request.headers))
        except ServiceError as error:
            raise shown(error, chinese) from error
        return await saved_voices(request)

    async def once_more(request: gr.Request) -> list[Any]:
        """What the fields hold when the page opens: those of the result that its address names, if any."""
        name = request.query_params.get("again", "")
        found: Result | None = None
        if is_result_name(name):
            with contextlib.suppress(ServiceError):
                found = await service.outputs.share.call(lambda: service.outputs.describe(name))
        if found is None:
            return [gr.skip()] * 5
        made = found.parameters
        known = service.engine.voice(str(made.get("voice", "")))
        if known is not None and known.id not in {id_ for _, id_ in voices}:
            known = None  # the model brought it after this page had been made
        return [
            made.get("text", ""),
            known.id if known else gr.skip(),
            made.get("speed", 1.0),
            made.get("seed", 1),
            next((p.id for p in service.engine.instructs if p.instruct == made.get("instruct")), ""),
        ]

    async def accompanied(speaking: Coroutine[Any, Any, Speech], ticket: object) -> Speech:
        """Runs the work of an event; tells its user meanwhile where it stands in the line, as gradio's own
        queue would, and stops when nobody waits for it any more.
        """
        event = demo._queue.event_ids_to_events.get(LocalContext.event_id.get(None))
        work = asyncio.ensure_future(speaking)
        told: tuple[int, int, float] | None = None
        try:
            while not (await asyncio.wait({work}, timeout=_TELL_EVERY))[0]:
                if event is None:
                    continue
                if not event.alive:
                    raise gr.Error("the page was closed", print_exception=False)
                place = service.place(ticket)
                if place is not None:
                    rank, size, seconds = place
                    message = EstimationMessage(rank=rank, queue_size=size, rank_eta=seconds)
                    demo._queue.send_message(event, message)
                elif told is not None:
                    demo._queue.send_message(event, ProcessStartsMessage())
                told = place
            return work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})

    def active(key: str) -> bool:
        """Whether the page has work under way, or an answer to give, for that session or event."""
        queue = demo._queue
        return (
            bool(queue.pending_event_ids_session.get(key))
            or key in queue.event_ids_to_events
            or key in demo.pending_streams
            or any(key in events for events in queue.pending_event_ids_session.values())
        )

    i18n = gr.I18n(**{"en": _ENGLISH, "zh": _CHINESE, "zh-CN": _CHINESE, "zh-TW": _CHINESE})
    voices = [(f"{v.english} {v.chinese}", v.id) for v in service.engine.voices]
    instructs = [("—", ""), *((f"{p.chinese} {p.english}", p.id) for p in service.engine.instructs)]
    # SpeechService does the queueing: what waits in gradio's queue could not go to another node.
    speaks = {"queue": settings.enable_queue, "concurrency_limit": None, "show_progress": "minimal"}

    with Page(uploads=settings.uploads, title="CosyVoice", analytics_enabled=False, fill_width=False) as demo:
        gr.HTML(
            "<h1>CosyVoice <span>语音合成</span></h1>"
            f"<p>节点 node <b>{html.escape(settings.node)}</b> "
            f"引擎 engine <b>{html.escape(settings.engine)}</b></p>",
            elem_id="masthead",
            padding=False,
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=3):
                text = gr.Textbox(
                    label=i18n("text"),
                    placeholder=i18n("text_hint"),
                    lines=6,
                    max_lines=14,
                    max_length=settings.max_characters,
                    autofocus=True,
                )
                understood = gr.HTML("", elem_id="preview", padding=False)
                gr.Examples([[line] for line in _EXAMPLES], inputs=[text], label=i18n("examples"))
            with gr.Column(scale=2):
                voice = Radio(voices, value=service.engine.voices[0].id, label=i18n("voice"))
                speed = Slider(MIN_SPEED, MAX_SPEED, value=1.0, step=0.05, label=i18n("speed"))
                seed = Number(
                    value=1,
                    precision=0,
                    minimum=MIN_SEED,
                    maximum=MAX_SEED,
                    label=i18n("seed"),
                    info=i18n("seed_hint"),
                )
                dice = gr.Button(i18n("dice"), size="sm")
                instruct = gr.Dropdown(
                    instructs,
                    value="",
                    label=i18n("instruct"),
                    info=i18n("instruct_hint"),
                    allow_custom_value=True,  # an engine that understands words takes others too
                )
        with gr.Accordion(i18n("like"), open=False), gr.Row():
            with gr.Column():
                recording = gr.Audio(
                    sources=["upload", "microphone"], type="filepath", label=i18n("recording")
                )
                prompt_text = gr.Textbox(
                    value="",  # so that programs need not send it
                    label=i18n("prompt_text"),
                    info=i18n("prompt_text_hint"),
                    lines=2,
                    max_length=1000,
                )
            with gr.Column():
                saved = gr.Dropdown(
                    [("—", "")],
                    value="",
                    label=i18n("saved"),
                    info=i18n("saved_hint"),
                    allow_custom_value=True,  # the list is each visitor's own
                )
                forget = gr.Button(i18n("forget"), size="sm")
                name = gr.Textbox(label=i18n("name"), max_length=40)
                shared = gr.Checkbox(label=i18n("shared"))
                save = gr.Button(i18n("save"), size="sm")
        button = gr.Button(i18n("generate"), variant="primary", size="lg")
        player = Player(
            label="Audio 音频",  # gradio 6.31 translates no label of an Audio
            interactive=False,
            autoplay=True,
            type="filepath",
            buttons=["download"],  # its "share" would upload to a hub
        )
        status = gr.HTML("", elem_id="status", padding=False)
        with gr.Row(elem_id="results-head"):
            gr.Markdown(
                i18n("all_results" if settings.shared_history else "results"), elem_id="results-title"
            )
            refresh = gr.Button(i18n("refresh"), size="sm", scale=0, min_width=110)
        results = gr.HTML("", elem_id="results", padding=False)

        made = gr.on(
            [button.click, text.submit],
            generate,
            [text, voice, speed, seed, instruct, saved, recording, prompt_text],
            [player, status],
            api_name="generate",
            **speaks,
        )
        lists = {"queue": False, "show_progress": "hidden"}
        made.success(list_results, None, results, api_visibility="private", **lists)
        refresh.click(list_results, None, results, api_name="results", **lists)
        demo.load(list_results, None, results, api_visibility="private", **lists)
        demo.load(saved_voices, None, saved, api_visibility="private", **lists)
        fields = [text, voice, speed, seed, instruct]
        demo.load(once_more, None, fields, api_visibility="private", **lists)
        understands = {"trigger_mode": "always_last", "api_visibility": "private", **lists}
        text.change(preview, text, understood, **understands)
        keeping = [recording, prompt_text, name, shared]
        save.click(save_voice, keeping, [saved, recording], api_visibility="private", **lists)
        forget.click(forget_voice, saved, saved, api_visibility="private", **lists)
        dice.click(
            lambda: random.randint(MIN_SEED, MAX_SEED),
            None,
            seed,
            js=f"() => {MIN_SEED} + Math.floor(Math.random() * {MAX_SEED})",
            api_visibility="private",
            **lists,
        )

    if settings.enable_queue:
        demo.queue(max_size=settings.queue_length + ADMITTED, default_concurrency_limit=1)
        demo._queue.max_thread_count = settings.queue_length + ADMITTED
    # A page that lost its connection compares this, and goes on if it is what it was: on whichever node of
    # this version.
    source = hashlib.sha256(__version__.encode() + Path(__file__).read_bytes())
    demo.app_id = int.from_bytes(source.digest()[:6])
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    theme = gr.themes.Soft(
        primary_hue="teal", neutral_hue="slate", radius_size="md", font=_FONTS, font_mono=_MONO_FONTS
    ).set(
        block_border_width="1px",
        input_border_width="1px",
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
    )
    gr.mount_gradio_app(
        app,
        demo,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        theme=theme,
        css=_CSS + annotations.CSS,
        i18n=i18n,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        show_error=True,
        max_file_size=MAX_BYTES,
    )
    # gradio looks into its queue a thousand times a second, which costs a core's tenth on an idle node.
    demo._queue.sleep_when_free = 0.05
    demo._queue.progress_update_sleep_when_free = 0.25
    service.follow_page(lambda: len(demo._queue) if settings.enable_queue else 0)
    app.state.active = active
    return app


def origin(request: Any) -> str:
    """The address under which the browser knows this service, `http://host:port`."""
    headers = request.headers
    host = headers.get("x-forwarded-host", "").split(",")[0].strip() or headers.get("host", "localhost")
    scheme = headers.get("x-forwarded-proto", "").split(",")[0].strip()
    if scheme not in ("http", "https"):
        scheme = urlsplit(str(request.url)).scheme or "http"
    return f"{scheme}://{host}"


def render_status(speech: Speech, node: str, took: float, *, chinese: bool) -> str:
    """HTML: one line about a result that was just made or found."""
    where = html.escape(node)
    if chinese:
        how = "取自已有结果" if speech.cached else f"由 <b>{where}</b> 用 {took:.2f} 秒生成"
        return f"<b>{speech.seconds:.1f} 秒</b>音频，{how}"
    how = f"found by <b>{where}</b>" if speech.cached else f"made by <b>{where}</b> in {took:.2f} s"
    return f"<b>{speech.seconds:.1f} s</b> of audio, {how}"


def render_results(found: list[Result] | str, now: float, *, chinese: bool) -> str:
    """HTML: the results, or why they cannot be shown. now: seconds since 1970."""
    if isinstance(found, str):
        return f'<p class="none">{html.escape(found)}</p>'
    if not found:
        return f'<p class="none">{"还没有结果" if chinese else "No results yet."}</p>'
    return f"<ol>{''.join(_render_result(result, now, chinese) for result in found)}</ol>"


def _render_result(result: Result, now: float, chinese: bool) -> str:
    address = f"/v1/results/{quote(result.name)}"
    wanted = result.parameters
    said = html.escape(str(wanted.get("text", result.name)))
    facts = [
        html.escape(str(wanted.get("voice", ""))),
        f"{result.seconds:.1f} s",
        _ago(now - result.made, chinese),
    ]
    if wanted.get("speed", 1) != 1:
        facts.append(html.escape(f"×{wanted['speed']}"))
    facts.append(html.escape(f"🎲 {wanted.get('seed', '')}"))
    download, again = ("下载", "再来一次") if chinese else ("Download", "Again")
    return (
        f'<li><div class="said" title="{said}">{said}</div>'
        f'<audio controls preload="none" src="{address}"></audio>'
        f'<div class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}'
        f'<span class="links"><a href="/?again={quote(result.name)}">{again}</a>'
        f'<a href="{address}" download="{html.escape(result.name)}">{download}</a></span></div></li>'
    )


def _ago(seconds: float, chinese: bool) -> str:
    for size, english, han in ((86400, "d", "天"), (3600, "h", "小时"), (60, "min", "分钟")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {han}前" if chinese else f"{count} {english} ago"
    return "刚才" if chinese else "just now"
