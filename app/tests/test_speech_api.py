"""The API of speech and voices as programs use it: the real `openai` client, recordings, streams."""

from __future__ import annotations

import io
import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest
import soundfile
from conftest import Server, StartServer

KEY = "made-up-key-of-one-user-0001"
OTHER = "made-up-key-of-another-user-2"


def client(server: Server, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def seconds(data: bytes) -> float:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        return float(len(file.read()) / file.samplerate)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Some seconds of a voice, as a browser might upload them."""
    file = tmp_path_factory.mktemp("recording") / "voice.wav"
    said = "This is the voice that is to be cloned, and it speaks for some seconds."
    subprocess.run(["espeak-ng", "-w", file, said], check=True)
    return file.read_bytes()


def form(server: Server, path: str, recording: bytes, key: str = KEY, **fields: str) -> httpx.Response:
    return server.http.post(
        path,
        data=fields,
        files={"prompt": ("../../voice.wav", recording, "audio/wav")},
        headers={"Authorization": f"Bearer {key}"},
    )


@pytest.mark.parametrize("format", ["wav", "mp3", "opus"])
def test_the_real_openai_client_speaks(server: Server, tmp_path: Path, format: str) -> None:
    answer = client(server).audio.speech.create(
        model="tts-1",
        voice="alloy",
        input="One, two, three.",
        response_format=format,
        extra_body={"seed": 42},
    )
    assert answer.response.headers["x-result-name"].endswith(".wav")
    assert 0.5 < seconds(answer.content) < 5
    history = server.http.get("/v1/history", headers={"Authorization": f"Bearer {KEY}"}).json()["data"]
    assert answer.response.headers["x-result-name"] in {result["name"] for result in history}


def test_the_openai_client_is_told_what_is_wrong(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="klingon") as caught:
        client(server).audio.speech.create(model="tts-1", voice="klingon", input="hello")
    assert caught.value.param == "voice"


@pytest.mark.parametrize("format", ["wav", "mp3", "opus", "pcm"])
def test_a_stream_is_the_same_speech(server: Server, format: str) -> None:
    text = "The first sentence is here. The second one follows it. " * 3
    body = {"input": text, "response_format": format, "stream": True, "seed": 7}
    with server.http.stream("POST", "/v1/audio/speech", json=body) as answer:
        assert answer.status_code == 200
        assert "content-length" not in answer.headers
        name = answer.headers["x-result-name"]
        data = b"".join(answer.iter_bytes())
    whole = server.say(text, seed=7)
    assert (whole.headers["x-result-name"], whole.headers["x-cache"]) == (name, "hit")
    expected = float(whole.headers["x-result-seconds"])
    heard = len(data) / 2 / 24000 if format == "pcm" else seconds(data)
    assert heard == pytest.approx(expected, abs=0.12)


def test_the_first_sound_comes_before_the_last_is_made(start_server: StartServer, slow_espeak: Path) -> None:
    server = start_server("--enable-queue", COSYVOICE_ESPEAK=str(slow_espeak))
    pieces = "".join(f"sleep 1 and say {'many words ' * 12} number {n}. " for n in range(3))
    began = time.monotonic()
    with server.http.stream("POST", "/v1/audio/speech", json={"input": pieces, "stream": True}) as answer:
        chunks = answer.iter_bytes()
        while len(next(chunks)) < 1000:
            pass
        first = time.monotonic() - began
        for _ in chunks:
            pass
    assert time.monotonic() - began > first + 1, "the sentences are made one after the other"


def test_what_is_wrong_with_a_stream_is_told_by_its_status(server: Server) -> None:
    for body in ({"input": "  "}, {"input": "hi", "seed": 0}, {"input": "hi", "response_format": "aiff"}):
        answer = server.http.post("/v1/audio/speech", json={**body, "stream": True})
        assert answer.status_code == 400, body


def test_a_listener_who_leaves_stops_a_stream(start_server: StartServer, slow_espeak: Path) -> None:
    server = start_server("--enable-queue", COSYVOICE_ESPEAK=str(slow_espeak))
    pieces = "".join(f"sleep 2 and say {'many words ' * 12} number {n}. " for n in range(20))
    with server.http.stream("POST", "/v1/audio/speech", json={"input": pieces, "stream": True}) as answer:
        next(answer.iter_bytes())
    end = time.monotonic() + 15
    while server.metric("tts_running") and time.monotonic() < end:
        time.sleep(0.1)
    assert server.metric("tts_running") == 0
    assert list(server.outputs.glob("*.wav")) == []


def test_a_recording_is_cloned(server: Server, recording: bytes) -> None:
    plain = server.say("Speak like this.")
    cloned = form(
        server, "/v1/audio/clone", recording, input="Speak like this.", prompt_text="This is the voice."
    )
    assert cloned.status_code == 200, cloned.text
    assert seconds(cloned.content) > 0.5
    assert cloned.content != plain.content
    listened = form(server, "/v1/audio/clone", recording, input="Speak like this.", response_format="mp3")
    assert (listened.status_code, listened.headers["content-type"]) == (200, "audio/mpeg")
    assert listened.headers["x-result-name"] != cloned.headers["x-result-name"], "another mode"
    told = form(server, "/v1/audio/clone", recording, input="Speak like this.", instructions="fast")
    assert told.status_code in (200, 400), told.text


@pytest.mark.parametrize(
    ("data", "fields", "complaint"),
    [
        (b"", {}, "empty"),
        (b"MZ no audio at all", {}, "voice.wav"),
        (None, {"input": " "}, "nothing to say"),
        (None, {"mode": "clone"}, "prompt_text"),
        (None, {"speed": "fast"}, "speed"),
    ],
)
def test_bad_recordings_and_forms_are_refused(
    server: Server, recording: bytes, data: bytes | None, fields: dict[str, str], complaint: str
) -> None:
    sent = recording if data is None else data
    answer = form(server, "/v1/audio/clone", sent, **{"input": "hello", **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert complaint in error["message"] or complaint == error["param"]


def test_an_upload_may_be_large_and_not_too_large(server: Server) -> None:
    long = b"RIFF" + bytes(3 << 20)
    assert form(server, "/v1/audio/clone", long, input="hello").status_code == 400, "it is looked at"
    answer = form(server, "/v1/audio/clone", bytes(12 << 20), input="hello")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_voice_is_saved_spoken_with_and_removed(server: Server, recording: bytes) -> None:
    saved = form(server, "/v1/voices", recording, name="Anna 安娜", prompt_text="This is the voice.")
    assert saved.status_code == 201, saved.text
    voice = saved.json()
    assert (voice["name"], voice["shared"], voice["mine"]) == ("Anna 安娜", False, True)

    def seen(key: str) -> set[str]:
        answer = server.http.get("/v1/voices", headers={"Authorization": f"Bearer {key}"})
        return {found["id"] for found in answer.json()["data"]}

    assert voice["id"] in seen(KEY)
    assert voice["id"] not in seen(OTHER)
    assert {"auto", "cmn", "yue", "en"} <= seen(OTHER)
    spoken = client(server).audio.speech.create(
        model="tts-1", voice=voice["id"], input="Hello.", response_format="wav"
    )
    assert spoken.content != server.say("Hello.").content
    with pytest.raises(openai.NotFoundError):
        client(server, OTHER).audio.speech.create(model="tts-1", voice=voice["id"], input="Hello.")
    path = f"/v1/voices/{voice['id']}"
    assert server.http.delete(path, headers={"Authorization": f"Bearer {OTHER}"}).status_code == 404
    assert server.http.delete(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 204
    assert voice["id"] not in seen(KEY)


def test_a_voice_needs_somebody_to_belong_to(server: Server, recording: bytes) -> None:
    answer = server.http.post(
        "/v1/voices", data={"name": "Nobody"}, files={"prompt": ("voice.wav", recording, "audio/wav")}
    )
    assert answer.status_code == 400
    assert "Authorization: Bearer" in answer.json()["error"]["message"]


def test_instructions_are_listed_and_words_that_are_not_understood_do_no_harm(server: Server) -> None:
    listed = server.http.get("/v1/instructions").json()["data"]
    assert {"dialect", "emotion", "pace"} <= {item["group"] for item in listed}
    plain = server.say("Say it.").headers["x-result-name"]
    preset = server.say("Say it.", instructions=listed[0]["id"]).headers["x-result-name"]
    assert preset != plain
    assert server.say("Say it.", instructions="like a pirate").headers["x-result-name"] == plain


def test_all_of_it_is_described(server: Server) -> None:
    paths = server.http.get("/v1/openapi.json").json()["paths"]
    assert {"/v1/audio/speech", "/v1/audio/clone", "/v1/voices", "/v1/voices/{id}", "/v1/history"} <= set(
        paths
    )
