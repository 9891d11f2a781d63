"""The page's events, sent what no page would send, by the real server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

HASH = "0" * 64


def call(server: Server, data: object, language: str = "en") -> str:
    """What the event `generate` answers to these values."""
    started = server.http.post("/gradio_api/call/generate", json={"data": data})
    assert started.status_code == 200, started.text
    headers = {"Accept-Language": language}
    return server.http.get(f"/gradio_api/call/generate/{started.json()['event_id']}", headers=headers).text


def file(path: object) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def uploaded(server: Server) -> set[str]:
    folder = server.outputs.parent / "uploads"
    return {name for _, _, names in os.walk(folder) for name in names}


@pytest.mark.parametrize("where", range(8))
def test_no_file_of_the_machine_is_taken_for_an_upload(server: Server, where: int) -> None:
    """Wherever in the data it stands: gradio would copy it to where it can be fetched."""
    uploads = server.outputs.parent / "uploads"
    secret = server.outputs.parent / "secret.wav"
    secret.write_text("a key")
    before = uploaded(server)
    for path in (
        str(secret),
        os.path.relpath(secret, server.outputs.parent),
        f"{uploads}/{HASH}/../../secret.wav",
        f"{uploads}/../secret.wav",
        f"{uploads}/{HASH}/..",
        f"file://{secret}",
        f"{server.url}/v1/results",
        "http://192.0.2.1/voice.wav",
        7,
    ):
        values: list[Any] = ["hi", "auto", 1, 1, "", "", None, ""]
        values[where] = file(path)
        answer = call(server, values)
        assert "event: error" in answer, path
        assert "was not uploaded" in answer, path
        assert "a key" not in answer
    assert uploaded(server) == before


@pytest.mark.parametrize(
    ("values", "english", "chinese"),
    [
        (["hi", "auto", 1, 0], "seed is 0; use a number from 1 to 100000000", "随机种子是 0；请设为 1 到"),
        (["hi", "auto", 1, 100000001], "seed is 100000001; use a", "随机种子是 100000001；请设为 1 到"),
        (["hi", "auto", 1, 1.5], "seed is 1.5; set it to a whole number", "随机种子是 1.5；请设为"),
        (["hi", "auto", 1, "abc"], "seed is 'abc'; send a number", "seed 是 'abc'；请发送数字"),
        (["hi", "auto", 1, None], "seed is None; set it to a whole number", "随机种子是 None；请设为"),
        (["hi", "auto", 9, 1], "speed is 9; use a number from 0.5 to 2.0", "语速是 9；请设为 0.5 到 2.0"),
        (["hi", "auto", "fast", 1], "speed is 'fast'; send a number", "speed 是 'fast'；请发送数字"),
        (["hi", "klingon", 1, 1], "voice 'klingon' is not known", "没有名为 'klingon' 的声音"),
        (["hi", "auto", 1, 1, ["x"]], "instruct is \"['x']\"; send a text", "请发送文本"),
        (["hi", "auto", 1, 1, "", 5], "saved is '5'; send a text", "saved 是 '5'；请发送文本"),
    ],
)
def test_wrong_values_are_told_in_the_readers_language(
    server: Server, values: list[object], english: str, chinese: str
) -> None:
    for language, said in (("en", english), ("zh-CN", chinese)):
        client = Client(server.url, verbose=False, headers={"Accept-Language": language})
        for _ in range(2):
            with pytest.raises(AppError) as caught:
                client.predict(*values, api_name="/generate")
            assert said in str(caught.value)
    assert "Traceback" not in server.log.read_text()


def test_it_is_the_same_once_the_page_has_been_opened(server: Server) -> None:
    """gradio makes a session's components anew when an event sets them, as those at the opening do."""
    events = server.http.get("/config").json()["dependencies"]
    speaks = next(event for event in events if event["api_name"] == "generate")
    opening = next(
        event
        for event in events
        if event["targets"][0][1] == "load" and set(event["outputs"]) & set(speaks["inputs"][:4])
    )

    def run(event: dict[str, Any], data: list[object]) -> str:
        body = {"data": data, "fn_index": event["id"], "session_hash": "opened"}
        assert server.http.post("/gradio_api/queue/join", json=body).status_code == 200
        with server.http.stream("GET", "/gradio_api/queue/data?session_hash=opened") as stream:
            return next(line for line in stream.iter_lines() if "process_completed" in line)

    assert '"success":true' in run(opening, [])
    assert "seed is 0; use a number from 1" in run(speaks, ["hi", "auto", 1, 0, "", "", None, ""])


def test_an_upload_that_is_gone_is_told(server: Server) -> None:
    gone = f"{server.outputs.parent}/uploads/{HASH}/voice.wav"
    values = ["hi", "auto", 1, 1, "", "", file(gone), ""]
    assert "upload it again" in call(server, values)
    assert "Traceback" not in server.log.read_text()


def test_what_was_sent_does_not_come_into_the_journal(server: Server) -> None:
    answer = call(server, ["my secret words"])
    assert "this event takes 8 values, but got 1" in answer
    assert "my secret words" not in server.log.read_text()


def test_a_recording_that_was_uploaded_is_taken(server: Server, tmp_path: Path) -> None:
    silent = tmp_path / "..quiet #1 文.wav"
    silent.write_bytes(server.say("not silent at all", speed=0.5).content)
    path, _ = Client(server.url, verbose=False, download_files=str(tmp_path)).predict(
        "hi", "auto", 1, 1, "", "", handle_file(silent), api_name="/generate"
    )
    assert Path(path).read_bytes()[:4] == b"RIFF"
    assert json.loads(server.http.get("/readyz").text)["state"] == "ready"
