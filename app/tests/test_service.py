"""The whole service as a process of its own, over HTTP, with the real espeak-ng and the real gradio
client.
"""

from __future__ import annotations

import array
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import soundfile
from conftest import APP, NOTHING_MORE, Server, StartServer, free_port
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError


def heard(data: bytes) -> float:
    """Duration in seconds of WAV bytes, after making sure that something is to be heard."""
    with wave.open(io.BytesIO(data)) as file:
        frames = file.readframes(file.getnframes())
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        seconds = file.getnframes() / file.getframerate()
    assert max(abs(s) for s in array.array("h", frames)) > 1000, "silence"
    return seconds


def problem(response: httpx.Response) -> dict[str, str]:
    assert response.headers["content-type"].startswith("application/json")
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    error: dict[str, str] = response.json()["error"]
    return error


def kept(server: Server) -> list[str]:
    """Files in the outputs, leftovers included; logs and histories not."""
    return [n for n in os.listdir(server.outputs) if not n.endswith(".log") and n != "history"]


def connect(server: Server) -> Client:
    return Client(server.url, verbose=False, download_files=str(server.outputs.parent / "downloads"))


# Speech over HTTP.


def test_a_sentence_becomes_a_file_that_can_be_played(server: Server) -> None:
    answer = server.say("你好，世界。", voice="alloy", response_format="wav", instructions="ignored")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-served-by"] == "rs-1"
    assert answer.headers["x-result-voice"] == "cmn"
    assert answer.headers["x-cache"] == "miss"
    assert float(answer.headers["x-result-seconds"]) == pytest.approx(heard(answer.content), abs=0.01)
    name = answer.headers["x-result-name"]
    assert (server.outputs / name).read_bytes() == answer.content
    again = server.say("你好，世界。")
    assert again.headers["x-cache"] == "hit"
    assert again.content == answer.content
    assert again.headers["x-result-seconds"] == answer.headers["x-result-seconds"]
    afresh = server.http.post(
        "/v1/audio/speech", json={"input": "你好，世界。"}, headers={"Cache-Control": "no-cache"}
    )
    assert afresh.headers["x-cache"] == "miss"
    assert afresh.content == answer.content


@pytest.mark.parametrize(
    ("format", "media_type"),
    [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("pcm", "audio/pcm;rate=24000;channels=1")],
)
def test_a_sentence_comes_in_the_format_asked_for(server: Server, format: str, media_type: str) -> None:
    kept = server.say("One file is kept, whatever it is asked for as.")
    answer = server.say("One file is kept, whatever it is asked for as.", response_format=format)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["x-cache"] == "hit", "a format is no other result"
    assert answer.headers["x-result-name"] == kept.headers["x-result-name"]
    name = kept.headers["x-result-name"].replace(".wav", f".{format}")
    assert f'filename="{name}"' in answer.headers["content-disposition"]
    if format == "pcm":
        seconds = len(answer.content) / 48000
    else:
        with soundfile.SoundFile(io.BytesIO(answer.content)) as file:
            seconds = file.frames / file.samplerate
    assert seconds == pytest.approx(heard(kept.content), abs=0.01)


def test_results_are_listed_and_served_whole_and_in_ranges(server: Server) -> None:
    made = server.say("佢哋喺度", seed=7)
    name = made.headers["x-result-name"]
    newest = server.http.get("/v1/results?limit=1").json()["data"][0]
    assert (newest["name"], newest["text"], newest["voice"], newest["seed"]) == (name, "佢哋喺度", "yue", 7)
    got = server.http.get(newest["url"])
    assert got.content == made.content
    assert got.headers["content-type"] == "audio/wav"
    part = server.http.get(newest["url"], headers={"Range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, made.content[4:12])
    assert part.headers["content-range"] == f"bytes 4-11/{len(made.content)}"
    assert server.http.get(newest["url"], headers={"Range": "bytes=-4"}).content == made.content[-4:]
    beyond = server.http.get(newest["url"], headers={"Range": f"bytes={len(made.content)}-"})
    assert beyond.status_code == 416
    assert server.http.get(newest["url"], headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    assert problem(server.http.get("/v1/results/..%2F..%2Fetc%2Fpasswd"))["code"] == "not_found"
    assert problem(server.http.get(f"/v1/results/{'0' * 32}.wav"))["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "param", "complaint"),
    [
        ({}, "input", "input: Field required"),
        ({"input": ""}, "input", "nothing to say"),
        ({"input": "a" * 301}, "input", "301 characters long; at most 300"),
        ({"input": "hi", "voice": "klingon"}, "voice", "'klingon' is not known"),
        ({"input": "hi", "speed": "fast"}, "speed", "got 'fast'"),
        ({"input": "hi", "speed": 9}, "speed", "0.5 to 2.0"),
        ({"input": "hi", "seed": 1.5}, "seed", "got '1.5'"),
        ({"input": "hi", "seed": 0}, "seed", "1 to 100000000"),
        (
            {"input": "hi", "response_format": "flac"},
            "response_format",
            "'flac' is not supported; use one of: wav, mp3, opus, pcm",
        ),
        ({"input": ["hi"]}, "input", "valid string"),
    ],
)
def test_bad_input_is_refused_with_field_and_advice(
    server: Server, body: dict[str, object], param: str, complaint: str
) -> None:
    answer = server.http.post("/v1/audio/speech", json=body)
    assert answer.status_code == 400
    assert answer.headers["x-served-by"] == "rs-1"
    error = problem(answer)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert complaint in error["message"]


def test_bodies_that_are_no_requests(server: Server) -> None:
    headers = {"Content-Type": "application/json"}
    broken = server.http.post("/v1/audio/speech", content=b'{"input": "a', headers=headers)
    assert broken.status_code == 400
    assert "not JSON" in problem(broken)["message"]
    surrogate = server.http.post("/v1/audio/speech", content=b'{"input": "a\\ud800"}', headers=headers)
    assert (surrogate.status_code, problem(surrogate)["param"]) == (400, "input")
    large = server.http.post("/v1/audio/speech", content=b" " * (1 << 20) + b"{}", headers=headers)
    assert (large.status_code, problem(large)["code"]) == (413, "request_too_large")

    def drip() -> object:
        for _ in range(40):
            yield b" " * 50_000

    chunked = server.http.post("/v1/audio/speech", content=drip(), headers=headers)
    assert (chunked.status_code, problem(chunked)["code"]) == (413, "request_too_large")
    upload = server.http.post("/gradio_api/upload", content=b"x" * (12 << 20))
    assert upload.status_code == 413
    assert server.http.get("/v1/nothing").status_code == 404
    assert problem(server.http.get("/v1/audio/speech"))["message"].endswith("Method Not Allowed")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "input：必须填写"),
        ({"input": "hi", "speed": "fast"}, "speed：必须是数字（收到 'fast'）"),
        ({"input": "hi", "speed": 9}, "语速是 9.0；请设为 0.5 到 2.0"),
        ({"input": "hi", "voice": "klingon"}, "没有名为 'klingon' 的声音"),
        ({"input": "a" * (1 << 20)}, "最多 1048576 字节"),
    ],
)
def test_a_chinese_reader_is_told_in_chinese(server: Server, body: dict[str, object], complaint: str) -> None:
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}
    assert complaint in problem(server.http.post("/v1/audio/speech", json=body, headers=chinese))["message"]
    english = problem(server.http.post("/v1/audio/speech", json=body, headers={"Accept-Language": "en"}))
    assert english["message"].isascii()


@pytest.mark.parametrize(
    ("path", "content", "kind", "english", "chinese"),
    [
        ("speech", b'{"input": "a"}', "text/plain", "send 'Content-Type: application/json'", "请求未声明"),
        ("speech", b"input=a", "application/x-www-form-urlencoded", "send 'Content-Type: ", "请求未声明"),
        ("speech", b'{"input": "\xff"}', "application/json", "send JSON in UTF-8", "请发送 UTF-8 的 JSON"),
        ("speech", b"[" * 50_000, "application/json", "the body cannot be read", "无法读取请求正文"),
        ("speech", b'{"input": "a", "seed": 1e999}', "application/json", "finite", "seed：必须是有限的数"),
        ("speech", b'{"input": "a", "voice": "\\ud800"}', "application/json", "unicode", "有效的 Unicode"),
        ("speech", b'{"input": "a", "voice": {}}', "application/json", "valid string", "voice：必须是字符串"),
        ("clone", b"x", "multipart/form-data; boundary=b", "the body cannot be read", "无法读取请求正文"),
        ("clone", b"prompt=a&input=a", "application/x-www-form-urlencoded", "be a file", "prompt：必须"),
        (
            "clone",
            b'--b\r\nContent-Disposition: form-data; name="mode"\r\n\r\nsing\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "'cross_lingual' or 'instruct'",
            "mode：必须是以下之一：",
        ),
    ],
)
def test_bodies_of_another_kind_are_told_in_both_languages(
    server: Server, path: str, content: bytes, kind: str, english: str, chinese: str
) -> None:
    for language, said in (("en", english), ("zh-CN", chinese)):
        headers = {"Content-Type": kind, "Accept-Language": language}
        answer = server.http.post(f"/v1/audio/{path}", content=content, headers=headers)
        assert answer.status_code == 400
        assert said in problem(answer)["message"]
        assert "Input should" not in problem(answer)["message"] or language == "en"


def test_addresses_that_are_not_there_are_told_in_chinese_too(server: Server) -> None:
    answers = [
        server.http.get(path, headers={"Accept-Language": "zh"}) for path in ("/v1/x", "/v1/audio/speech")
    ]
    assert [a.status_code for a in answers] == [404, 405]
    assert problem(answers[0])["message"] == "GET /v1/x：没有这个地址"
    assert problem(answers[1])["message"].endswith("不支持该方法")
    assert answers[1].headers["allow"] == "POST"


def test_health_metrics_and_description(server: Server) -> None:
    assert server.http.get("/healthz").json() == {"status": "alive", "node": "rs-1"}
    ready = server.http.get("/readyz").json()
    assert (ready["state"], ready["node"], ready["engine"], ready["outputs"]) == (
        "ready",
        "rs-1",
        "cpu",
        "ok",
    )
    assert ready["queue"] == {"waiting": 0, "running": 0, "limit": 20}
    server.say("count me", seed=5)
    assert server.metric("tts_queue_size") == 0
    assert server.metric("tts_ready") == 1
    assert server.metric("tts_outputs_up") == 1
    assert server.metric("tts_audio_seconds_total") > 0
    assert server.metric("tts_synthesis_seconds_count") > 0
    assert "/v1/audio/speech" in server.http.get("/v1/openapi.json").json()["paths"]
    assert [v["id"] for v in server.http.get("/v1/voices").json()["data"]] == ["auto", "cmn", "yue", "en"]
    assert server.http.get("/v1/models").json()["data"][0]["id"] == "cosyvoice3"


# The page.


def test_the_page_is_there_and_names_nothing_outside(server: Server) -> None:
    page = server.http.get("/")
    assert page.status_code == 200
    assert page.headers["x-served-by"] == "rs-1"
    assert "fonts.g" not in page.text
    loaded = re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+""", page.text)
    assert loaded == [], "a machine without the internet shows the page whole"


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/dev/reload", "/gradio_api/deep_link?session_hash=a", "/deep_link?session_hash=a"),
        *("/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/vibe-code", "/monitoring", "/openapi.json"),
    ],
)
def test_what_gradio_has_for_developers_is_not_there(server: Server, path: str) -> None:
    assert problem(server.http.get(path))["code"] == "not_found"


def test_the_real_gradio_client_speaks(server: Server) -> None:
    path, status = connect(server).predict("今天天气怎么样？", "auto", 1.0, 42, api_name="/generate")
    assert heard(Path(path).read_bytes()) > 0.5
    assert Path(path).name in os.listdir(server.outputs)
    assert "rs-1" in status


def test_the_page_speaks_like_a_recording_and_as_it_is_told(server: Server, tmp_path: Path) -> None:
    voice = tmp_path / "voice.wav"
    subprocess.run(
        ["espeak-ng", "-w", voice, "This is the voice to speak like, for some seconds."], check=True
    )
    client = connect(server)

    def say(*more: object) -> str:
        path, _ = client.predict("Say it like this.", "auto", 1.0, 1, *more, api_name="/generate")
        assert heard(Path(path).read_bytes()) > 0.3
        return Path(path).name

    plain = say()
    told = say("fast")
    cloned = say("", "", handle_file(voice), "This is the voice to speak like, for some seconds.")
    listened = say("", "", handle_file(voice))
    assert len({plain, told, cloned, listened}) == 4
    with pytest.raises(AppError, match="no voice"):
        say("", "0" * 32)
    page = server.http.get(f"/?again={told}")
    assert page.status_code == 200


def test_the_page_tells_what_is_wrong(server: Server) -> None:
    with pytest.raises(AppError, match="nothing to say"):
        connect(server).predict("", "auto", 1.0, 1, api_name="/generate")
    chinese = Client(server.url, verbose=False, headers={"Accept-Language": "zh-CN"})
    with pytest.raises(AppError, match="没有可以朗读的内容"):
        chinese.predict("", "auto", 1.0, 1, api_name="/generate")
    assert "Traceback" not in server.log.read_text()


def test_events_come_as_a_stream_with_the_nodes_name(server: Server) -> None:
    config = server.http.get("/config").json()
    function = next(d["id"] for d in config["dependencies"] if d["api_name"] == "generate")
    body = {
        "data": ["stream me", "auto", 1, 3, *NOTHING_MORE],
        "fn_index": function,
        "session_hash": "abc123",
    }
    joined = server.http.post("/gradio_api/queue/join", json=body)
    assert joined.status_code == 200, joined.text
    seen = []
    with server.http.stream("GET", "/gradio_api/queue/data?session_hash=abc123") as stream:
        assert stream.headers["x-served-by"] == "rs-1"
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                seen.append(event["msg"])
                if event["msg"] == "process_completed":
                    assert event["success"]
                    url = event["output"]["data"][0]["url"]
                    break
    assert "process_starts" in seen
    assert url.startswith(f"{server.url}/v1/results/")


# Nodes and the share.


def test_two_nodes_share_their_results(start_server: StartServer, tmp_path: Path) -> None:
    share = tmp_path / "share"
    first = start_server("--enable-queue", outputs=share, wait=False)
    second = start_server("--enable-queue", outputs=share, wait=False)
    first.wait_ready()
    second.wait_ready()
    with ThreadPoolExecutor(8) as pool:  # the same and different ones, at the same moment
        answers = list(pool.map(lambda n: (first, second)[n % 2].say(f"sentence {n // 4}"), range(16)))
    assert {a.status_code for a in answers} == {200}
    assert {a.headers["x-served-by"] for a in answers} == {"node-0", "node-1"}
    assert len({a.content for a in answers}) == 4, "same input, same bytes, whichever node"
    listed = [{r["name"] for r in s.http.get("/v1/results").json()["data"]} for s in (first, second)]
    assert listed[0] == listed[1] == set(kept(first))
    path, status = connect(second).predict("sentence 1", "auto", 1.0, 1, api_name="/generate")
    assert Path(path).read_bytes() == answers[4].content
    assert "found by" in status
    # A browser whose page came from one node plays the file from the other.
    name = answers[0].headers["x-result-name"]
    assert first.http.get(f"/gradio_api/file={second.url}/v1/results/{name}").content == answers[0].content


def test_two_nodes_asked_at_the_same_moment_make_it_once(
    start_server: StartServer, slow_espeak: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    nodes = [
        start_server("--enable-queue", outputs=share, wait=False, COSYVOICE_ESPEAK=str(slow_espeak))
        for _ in range(2)
    ]
    for node in nodes:
        node.wait_ready()
    spoken = len((tmp_path / "pids").read_text().split())
    with ThreadPoolExecutor(6) as pool:
        for number in range(3):
            text = f"sleep 0.5 seconds, round {number}"
            answers = list(pool.map(lambda n, text=text: nodes[n % 2].say(text), range(6)))
            assert {a.status_code for a in answers} == {200}
            assert len({a.content for a in answers}) == 1
            assert sorted(a.headers["x-cache"] for a in answers) == [*["hit"] * 5, "miss"]
            spoken += 1
            assert len((tmp_path / "pids").read_text().split()) == spoken
    assert sum(node.metric("tts_joined_total") for node in nodes) >= 1
    assert {name.startswith(".") for name in os.listdir(share)} == {False}, "no claim is left"


def test_the_result_of_a_node_that_is_killed_is_made_by_the_other(
    start_server: StartServer, slow_espeak: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    one, other = (
        start_server("--enable-queue", outputs=share, wait=False, COSYVOICE_ESPEAK=str(slow_espeak))
        for _ in range(2)
    )
    one.wait_ready()
    other.wait_ready()
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(one.say, "sleep 2 seconds")
        wait_for(lambda: any(name.startswith(".claim-") for name in os.listdir(share)))
        made = pool.submit(other.say, "sleep 2 seconds")
        wait_for(lambda: other.metric("tts_joined_total") == 1)
        one.process.kill()
        assert made.result().status_code == 200
        with pytest.raises(httpx.TransportError):
            lost.result()


def test_outputs_that_cannot_be_written(start_server: StartServer, tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    share.chmod(0o555)
    # Root may write anywhere, unless it gives that right away.
    prefix = (
        ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.getuid() == 0 else ()
    )
    server = start_server("--enable-queue", outputs=share, prefix=prefix)
    began = time.monotonic()
    answer = server.say("keep this")
    assert time.monotonic() - began < 2
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    error = problem(answer)
    assert error["code"] == "outputs_unavailable"
    assert "permission denied" in error["message"]
    assert "is the share mounted and writable?" in error["message"]
    ready = server.http.get("/readyz")
    assert ready.status_code == 200, "what all nodes have in common empties no pool"
    assert "degraded" in ready.json()["outputs"]
    assert server.metric("tts_outputs_up") == 0
    with pytest.raises(AppError, match="results and voices cannot be kept"):
        connect(server).predict("keep this", "auto", 1.0, 1, api_name="/generate")
    share.chmod(0o755)
    assert server.say("keep this").status_code == 200
    assert server.http.get("/readyz").json()["outputs"] == "ok"


# Limits.


def test_a_stuck_synthesis_is_killed_and_a_full_queue_refuses(
    start_server: StartServer, slow_espeak: Path, tmp_path: Path
) -> None:
    server = start_server(
        "--enable-queue",
        COSYVOICE_ESPEAK=str(slow_espeak),
        COSYVOICE_TIME_LIMIT="1.5",
        COSYVOICE_QUEUE_LENGTH="1",
    )
    with ThreadPoolExecutor(3) as pool:
        stuck = pool.submit(server.say, "sleep 60")
        wait_for(lambda: server.metric("tts_running") == 1)
        waits = pool.submit(server.say, "I can wait")
        wait_for(lambda: server.metric("tts_queue_size") == 1)
        began = time.monotonic()
        refused = server.say("one too many")
        assert time.monotonic() - began < 1, "at once"
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert problem(refused)["code"] == "queue_full"
        assert server.http.get("/readyz").status_code == 200
        killed = stuck.result()
        assert (killed.status_code, problem(killed)["code"]) == (504, "time_limit")
        assert "longer than 1.5 s" in problem(killed)["message"]
        assert waits.result().status_code == 200, "the next one runs"
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists()
    assert len(kept(server)) == 1


def test_a_node_that_cannot_speak_takes_itself_out_and_comes_back_and_no_text_can_do_that(
    start_server: StartServer, slow_espeak: Path, tmp_path: Path
) -> None:
    server = start_server("--enable-queue", COSYVOICE_ESPEAK=str(slow_espeak))
    for number in range(4):
        assert problem(server.say(f"crash {number}"))["message"].endswith("status 3: it broke")
        assert server.http.get("/readyz").status_code == 200
    assert server.say("between two tests").status_code == 200
    assert "failed" not in server.log.read_text(), "it has been ready all the time"
    (tmp_path / "broken").touch()
    for number in range(2):
        assert server.say(f"well {number}").status_code == 500
    wait_for(lambda: not server.ready())
    assert "cannot speak" in server.http.get("/readyz").json()["reason"]
    (tmp_path / "broken").unlink()
    wait_for(server.ready)


def test_a_client_that_leaves_stops_its_work(start_server: StartServer, slow_espeak: Path) -> None:
    server = start_server("--enable-queue", COSYVOICE_ESPEAK=str(slow_espeak))
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/audio/speech", json={"input": "sleep 30"}, timeout=1)
    wait_for(lambda: server.metric("tts_running") == 0, 5)
    wait_for(lambda: kept(server) == [], 5)


def test_without_the_queue_one_is_served_and_the_next_refused(
    start_server: StartServer, slow_espeak: Path
) -> None:
    server = start_server(COSYVOICE_ESPEAK=str(slow_espeak))
    with ThreadPoolExecutor(1) as pool:
        runs = pool.submit(server.say, "sleep 2")
        wait_for(lambda: server.metric("tts_running") == 1)
        refused = server.say("me too")
        assert (refused.status_code, problem(refused)["code"]) == (503, "queue_full")
        assert runs.result().status_code == 200
    path, _ = connect(server).predict("no queue", "auto", 1.0, 1, api_name="/generate")
    assert heard(Path(path).read_bytes()) > 0.3


# Start and stop.


def test_sigterm_drains_finishes_what_runs_and_ends_with_0(
    start_server: StartServer, slow_espeak: Path
) -> None:
    server = start_server("--enable-queue", COSYVOICE_ESPEAK=str(slow_espeak), COSYVOICE_DRAIN_DELAY="0.6")
    with ThreadPoolExecutor(2) as pool, server.http.stream("GET", "/gradio_api/heartbeat/open1") as open_page:
        assert open_page.status_code == 200  # a page that stays open must not hold the stop up
        runs = pool.submit(server.say, "sleep 2 and finish")
        wait_for(lambda: server.metric("tts_running") == 1)
        waits = pool.submit(server.say, "and me")
        wait_for(lambda: server.metric("tts_queue_size") == 1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready = server.http.get("/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "draining")
        assert server.http.get("/healthz").status_code == 200
        time.sleep(0.8)
        late = server.say("too late")
        assert (late.status_code, problem(late)["code"]) == (503, "draining")
        assert runs.result().status_code == 200
        assert waits.result().status_code == 200
        assert server.process.wait(15) == 0
    assert len(kept(server)) == 2
    assert "Traceback" not in server.log.read_text()


def test_what_a_stop_cannot_wait_for_is_told_to_come_again(
    start_server: StartServer, slow_espeak: Path
) -> None:
    server = start_server(
        "--enable-queue",
        COSYVOICE_ESPEAK=str(slow_espeak),
        COSYVOICE_DRAIN_DELAY="0.1",
        COSYVOICE_DRAIN_LIMIT="0.3",
    )
    with ThreadPoolExecutor(2) as pool:
        runs = pool.submit(server.say, "sleep 60")
        wait_for(lambda: server.metric("tts_running") == 1)
        waits = pool.submit(server.say, "and me")
        wait_for(lambda: server.metric("tts_queue_size") == 1)
        assert server.stop() == 0
        for answer in (runs.result(), waits.result()):
            assert (answer.status_code, problem(answer)["code"]) == (503, "draining")
            assert answer.headers["retry-after"] == "1"
    assert kept(server) == []


def test_a_drain_file_takes_the_node_out_and_back(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "drain"
    directors = tmp_path / "directors"
    directors.write_text("192.0.2.11\n")
    server = start_server(
        "--enable-queue", COSYVOICE_DRAIN_FILE=str(file), COSYVOICE_DIRECTORS=str(directors)
    )
    ready = server.http.get("/readyz")
    assert (ready.status_code, ready.headers["x-queue"]) == (200, "0")
    assert "connection" not in server.http.get("/healthz").headers
    # A director that is about to forget this node says so: kept connections end, and nothing else changes.
    assert server.http.get("/readyz", headers={"X-Leaving": "1"}).status_code == 200
    assert "connection" not in server.http.get("/healthz").headers, "this is no director"
    directors.write_text("192.0.2.11\n127.0.0.1\n")
    time.sleep(1.1)
    assert server.http.get("/readyz", headers={"X-Leaving": "1"}).status_code == 200
    assert server.http.get("/healthz").headers["connection"] == "close"
    file.write_text("maintenance of the fans\n")
    ready = server.http.get("/readyz")
    assert ready.status_code == 503
    assert (ready.json()["state"], ready.json()["reason"]) == ("draining", "maintenance of the fans")
    # What comes is served, by connections that lead elsewhere the next time.
    said = server.say("still here")
    assert (said.status_code, said.headers["connection"]) == (200, "close")
    assert server.http.get("/").headers["connection"] == "close"
    file.unlink()
    assert server.http.get("/readyz").status_code == 200
    file.touch()
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 5, "the directors knew: no delay"


def test_a_drained_node_can_start(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "drain"
    file.touch()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(60)
    server = start_server(
        "--enable-queue",
        wait=False,
        COSYVOICE_DRAIN_FILE=str(file),
        NOTIFY_SOCKET=str(tmp_path / "notify"),
    )
    while b"READY=1" not in listener.recv(4096):
        pass
    assert server.http.get("/readyz").json()["reason"] == "a drain was asked for"
    file.unlink()
    assert server.ready()


def test_the_queue_is_told_in_numbers(start_server: StartServer, slow_espeak: Path) -> None:
    server = start_server("--enable-queue", COSYVOICE_ESPEAK=str(slow_espeak))
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(server.say, text) for text in ("sleep 2 one", "sleep 2 two")]
        wait_for(lambda: server.http.get("/readyz").headers["x-queue"] == "2")
        queue = server.http.get("/readyz").json()["queue"]
        assert (queue["waiting"], queue["running"]) == (1, 1)
        assert all(answer.result().status_code == 200 for answer in answers)


def test_the_port_answers_before_the_page_is_there(start_server: StartServer) -> None:
    server = start_server("--enable-queue", wait=False)
    page: list[httpx.Response] = []

    def seen() -> bool:
        try:
            return server.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(seen, 30)
    asker = threading.Thread(
        target=lambda: page.append(httpx.get(f"{server.url}/", timeout=60, trust_env=False))
    )
    asker.start()
    early = server.http.get("/readyz")
    if early.status_code == 503:  # else the machine was quicker than this test
        assert early.json()["state"] == "warming"
        assert "page" in early.json()["reason"]
    asker.join(60)
    assert page[0].status_code == 200, "a request for the page waited until it was there"
    assert server.stop() == 0


def test_a_stop_while_warming_is_quick(start_server: StartServer) -> None:
    server = start_server("--enable-queue", wait=False)
    wait_for(lambda: "listening on" in server.log.read_text())
    assert server.stop(8) == 0
    assert "Traceback" not in server.log.read_text()


def test_systemd_is_told(start_server: StartServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        server = start_server(
            "--enable-queue", wait=False, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1500000"
        )
        told: list[str] = []
        end = time.monotonic() + 60
        while "WATCHDOG=1" not in told or "READY=1" not in told:
            assert time.monotonic() < end, told
            told.append(manager.recv(1000).decode())
        assert told[0].startswith("STATUS=warming")
        assert server.stop() == 0
        manager.settimeout(0.1)
        with pytest.raises(TimeoutError):
            while True:
                told.append(manager.recv(1000).decode())
        assert "STOPPING=1" in told
        assert any(line.startswith("STATUS=draining") for line in told)


@pytest.mark.parametrize(
    ("flags", "environment", "status", "complaint"),
    [
        ([], {"COSYVOICE_ENGINE": "gpu", "COSYVOICE_TIME_LIMIT": "0"}, 2, "set it to one of: cpu"),
        (["--port", "0"], {}, 2, "--port 0: set it to a port from 1 to 65535"),
        (["--share"], {}, 2, "unrecognized arguments: --share"),
        ([], {"COSYVOICE_ESPEAK": "no-such-program"}, 1, "install the Debian package espeak-ng"),
    ],
)
def test_what_cannot_start_says_why(
    flags: list[str], environment: dict[str, str], status: int, complaint: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(APP / "app.py"), "--port", str(free_port()), *flags]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(server: Server, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, str(APP / "app.py"), "--port", port],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"--port {port}: cannot listen there: Address already in use" in done.stderr


def wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.03)
