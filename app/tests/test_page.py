from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import soundfile

from cosyvoice_app.outputs import Result
from cosyvoice_app.page import origin, render_results, render_status
from cosyvoice_app.speech import Speech

RESULT = Result(
    "0" * 32 + ".wav", 1000.0, 99, 1.24, {"text": '<b>"你好"</b>', "voice": "cmn", "speed": 1.5, "seed": 7}
)


def test_users_text_never_becomes_markup() -> None:
    shown = render_results([RESULT], 1000.0, chinese=False)
    assert "<b>" not in shown
    assert "&lt;b&gt;&quot;你好&quot;&lt;/b&gt;" in shown


def test_a_result_shows_what_made_it() -> None:
    shown = render_results([RESULT], 1000.0 + 7300, chinese=False)
    for part in (f'src="/v1/results/{RESULT.name}"', "cmn", "1.2 s", "2 h ago", "×1.5", "🎲 7", "Download"):
        assert part in shown
    assert "2 小时前" in render_results([RESULT], 1000.0 + 7300, chinese=True)


def test_nothing_and_trouble_are_shown_too() -> None:
    assert "No results yet" in render_results([], 0, chinese=False)
    assert "还没有结果" in render_results([], 0, chinese=True)
    assert "a &lt;share&gt; is away" in render_results("a <share> is away", 0, chinese=False)


def test_the_line_about_a_result() -> None:
    made = Speech("x.wav", b"", 2.0, False, "cmn")
    assert (
        render_status(made, "rs-1", 0.5, chinese=False)
        == "<b>2.0 s</b> of audio, made by <b>rs-1</b> in 0.50 s"
    )
    assert "rs-1" in render_status(made, "rs-1", 0.5, chinese=True)


def test_the_address_the_browser_knows() -> None:
    def asked(**headers: str) -> SimpleNamespace:
        return SimpleNamespace(
            headers={k.replace("_", "-"): v for k, v in headers.items()},
            url="http://10.0.0.1:7860/queue/join",
        )

    assert origin(asked(host="192.168.1.100:7860")) == "http://192.168.1.100:7860"
    assert (
        origin(asked(host="a", x_forwarded_host="b:443", x_forwarded_proto="https, http")) == "https://b:443"
    )
    assert origin(asked(host="a", x_forwarded_proto="javascript")) == "http://a"


def test_the_pages_recorder_sends_wav_whatever_the_browser_records() -> None:
    """Chromium records Opus in WebM and Safari AAC in MP4, and libsndfile decodes neither: gradio's page has
    them decoded by the browser, and uploads what came out under the name audio.wav.
    """
    assert not {"MP4", "M4A", "WEBM", "MATROSKA"} & set(soundfile.available_formats())
    gradio = find_spec("gradio")  # imported by quick_gradio only, or it writes stubs beside the app
    assert gradio is not None
    assert gradio.origin is not None
    assets = Path(gradio.origin).parent / "templates/frontend/assets"
    recorders = [text for path in assets.glob("*.js") if "record-end" in (text := path.read_text("utf-8"))]
    recorders = [text for text in recorders if "dispatch_blob" in text]
    assert recorders
    for text in recorders:
        decoded = r"arrayBuffer\(\).{0,200}decodeAudioData\(.{0,200}dispatch_blob\(\[\w+\],`change`"
        assert re.search(decoded, text)
        assert "`audio.wav`,{type:`audio/wav`}" in text
