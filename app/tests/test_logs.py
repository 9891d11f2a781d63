"""The logs: what is in a line, and that nothing about them can hurt a request."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Server, StartServer
from gradio_client import Client
from starlette.datastructures import Headers

from cosyvoice_app import logs
from cosyvoice_app.http import Callers
from cosyvoice_app.logs import ACCESS, HEALTH_PATHS, JOB, Clients, LineFile, Recorder, timestamp
from cosyvoice_app.metrics import Metrics
from cosyvoice_app.peers import HEADER, Peer, Peers
from cosyvoice_app.settings import SettingsError, load_settings


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8") if path.exists() else ""
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return value


def line_file(path: Path, **options: Any) -> LineFile:
    return LineFile(path, **{"node": "rs-1", "gather": 0.0, "pause": 0.05, **options})


def numbers(*paths: Path) -> list[int]:
    return [line["n"] for path in paths for line in lines(path) if "n" in line]


# Lines in files.


def test_lines_come_in_order_and_all_of_them(tmp_path: Path) -> None:
    file = line_file(tmp_path / "a.log")
    for n in range(2000):
        file.write({"n": n, "text": "你好\nx\ud800"})
    file.close(20)
    assert numbers(tmp_path / "a.log") == list(range(2000))
    assert lines(tmp_path / "a.log")[0]["text"] == "你好\nx?"


def test_a_file_is_put_aside_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    file = line_file(tmp_path / "a.log", most_bytes=1000, most_files=3)
    for n in range(300):
        file.write({"n": n, "x": "y" * 80})
    file.close(20)
    assert sorted(os.listdir(tmp_path)) == ["a.log", "a.log.1", "a.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    kept = numbers(tmp_path / "a.log.2", tmp_path / "a.log.1", tmp_path / "a.log")
    assert kept == list(range(300 - len(kept), 300))
    assert len(kept) >= 20


def test_a_restart_goes_on_where_the_last_one_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text('{"n":1}\n{"n":')
    file = line_file(tmp_path / "a.log")
    file.write({"n": 3})
    file.close(20)
    assert (tmp_path / "a.log").read_text().splitlines() == ['{"n":1}', '{"n":', '{"n":3}']


def test_a_removed_file_is_made_again(tmp_path: Path) -> None:
    file = line_file(tmp_path / "a.log")
    file.write({"n": 1})
    wait_for(lambda: numbers(tmp_path / "a.log") == [1])
    os.unlink(tmp_path / "a.log")
    file.write({"n": 2})
    file.close(20)
    assert numbers(tmp_path / "a.log") == [2]


def test_a_full_share_costs_lines_which_are_counted_and_told_when_it_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.log"
    path.symlink_to("/dev/full")
    dropped: list[int] = []
    file = line_file(path, on_drop=dropped.append)
    for n in range(10):
        file.write({"n": n})
    wait_for(lambda: sum(dropped) == 10)
    path.unlink()
    file.write({"n": 10})
    file.close(20)
    told, kept = lines(path)
    assert list(told) == ["time", "log", "node", "lines", "reason"]
    assert (told["log"], told["lines"], told["reason"]) == ("lost", 10, "no space left on device")
    assert kept == {"n": 10}
    assert "log lines are being lost: no space left on device" in caplog.text


def test_a_missing_directory_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    file = line_file(tmp_path / "away" / "a.log")
    file.write({"n": 1})
    wait_for(lambda: file._lost == 1)
    (tmp_path / "away").mkdir()
    file.write({"n": 2})
    file.close(20)
    assert numbers(tmp_path / "away" / "a.log") == [2]


def test_a_share_that_hangs_holds_nobody_and_the_queue_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, real = threading.Event(), os.write

    def hang(*args: Any) -> int:
        back.wait(30)
        return real(*args)

    monkeypatch.setattr(os, "write", hang)
    dropped: list[int] = []
    file = line_file(tmp_path / "a.log", on_drop=dropped.append, most_queued=50)
    began = time.monotonic()
    for n in range(200):
        file.write({"n": n})
    assert time.monotonic() - began < 5, "it did not wait"
    assert sum(dropped) == 150
    began = time.monotonic()
    file.close(0.2)
    assert time.monotonic() - began < 5
    back.set()
    wait_for(lambda: len(numbers(tmp_path / "a.log")) == 50)


def test_one_file_a_writer_loses_nothing_when_many_write_at_once(tmp_path: Path) -> None:
    files = [line_file(tmp_path / f"jobs.rs-{n}.log", most_bytes=4000, most_files=100) for n in range(4)]

    def write(file: LineFile, start: int) -> None:
        for n in range(500):
            file.write({"n": start + n})

    threads = [
        threading.Thread(target=write, args=(file, 1000 * i)) for i, file in enumerate(files) for _ in (0,)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close(20)
    assert sorted(numbers(*tmp_path.iterdir())) == [1000 * i + n for i in range(4) for n in range(500)]


# Clients.


def asked_by(address: str, forwarded: str = "") -> dict[str, Any]:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return {"client": (address, 1234), "headers": headers}


def test_a_clients_hash_is_one_clients_for_a_day_and_for_this_process() -> None:
    now = [86400.0 * 100]
    clients = Clients(clock=lambda: now[0])
    first = clients.name(asked_by("192.168.1.50"))
    assert first is not None
    assert len(first) == 12
    assert clients.name(asked_by("192.168.1.50")) == first
    assert clients.name(asked_by("192.168.1.51")) != first
    assert Clients(clock=lambda: now[0]).name(asked_by("192.168.1.50")) != first
    now[0] += 86400
    assert clients.name(asked_by("192.168.1.50")) != first


def test_what_a_proxy_says_counts_from_this_machine_only() -> None:
    clients = Clients("address")
    assert clients.name(asked_by("192.168.1.50", "10.0.0.1")) == "192.168.1.50"
    assert clients.name(asked_by("127.0.0.1", "6.6.6.6, 10.0.0.1")) == "10.0.0.1"
    assert clients.name(asked_by("127.0.0.1", "rubbish")) == "127.0.0.1"
    assert clients.name(asked_by("::1", "2001:db8::1")) == "2001:db8::1"
    assert clients.name({"client": None, "headers": []}) is None
    assert Clients("none").name(asked_by("192.168.1.50")) is None


def test_time_is_utc_with_milliseconds() -> None:
    assert timestamp(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
    assert timestamp(1_700_000_000) == "2023-11-14T22:13:20.000Z"


# Requests and jobs of the whole service.


def logs_of(server: Server, node: str) -> tuple[Path, Path]:
    return server.outputs / f"jobs.{node}.log", server.outputs / f"gradio.access.{node}.log"


def line_of(path: Path, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = wait_for(
        lambda: [line for line in lines(path) if line.get("request_id") == request_id]
    )
    assert len(found) == 1
    return found[0]


def test_a_jobs_line_its_requests_line_and_the_answer_agree(server: Server) -> None:
    jobs, accesses = logs_of(server, "rs-1")
    answer = server.say("a secret to be said", seed=77, speed=1.5)
    request_id = answer.headers["x-request-id"]
    job, access = line_of(jobs, request_id), line_of(accesses, request_id)
    assert list(job) == list(JOB)
    assert list(access) == list(ACCESS)
    assert (job["log"], job["node"], job["outcome"], job["status"]) == ("job", "rs-1", "ok", 200)
    assert (job["characters"], job["voice"], job["seed"], job["speed"]) == (19, "en", 77, 1.5)
    assert (job["result"], job["bytes"]) == (answer.headers["x-result-name"], len(answer.content))
    assert job["audio_s"] == pytest.approx(float(answer.headers["x-result-seconds"]), abs=0.002)
    assert job["wait_s"] >= 0
    assert job["synthesis_s"] > 0
    assert job["text"] is None
    assert (access["method"], access["path"], access["status"]) == ("POST", "/v1/audio/speech", 200)
    assert access["bytes_out"] == len(answer.content)
    assert access["bytes_in"] > 20
    assert access["complete"] is True
    assert 0 < access["first_byte_s"] <= access["seconds"]
    assert job["client"] == access["client"]
    assert "127.0.0.1" not in json.dumps([job, access])
    assert "secret" not in jobs.read_text() + accesses.read_text()


def test_a_clients_own_request_id_is_kept_and_a_dangerous_one_is_not(server: Server) -> None:
    jobs, accesses = logs_of(server, "rs-1")
    headers = {"X-Request-Id": "order-66", "X-CosyVoice-Client": "somebody else"}
    answer = server.http.post("/v1/audio/speech", json={"input": ""}, headers=headers)
    assert answer.headers["x-request-id"] == "order-66"
    line = line_of(accesses, "order-66")
    assert line["status"] == 400
    assert line["client"] != "somebody else"
    assert all(job["request_id"] != "order-66" for job in lines(jobs)), "it was never let in"
    forged = server.http.get("/v1/models?secret=1", headers={"X-Request-Id": 'x" , "log": "y'})
    line = line_of(accesses, forged.headers["x-request-id"])
    assert len(line["request_id"]) == 16
    assert line["path"] == "/v1/models"


def test_a_refused_job_has_its_error_and_a_found_one_is_said_to_be(server: Server) -> None:
    jobs, _ = logs_of(server, "rs-1")
    refused = server.say("hello", voice="klingon")
    job = line_of(jobs, refused.headers["x-request-id"])
    assert (job["outcome"], job["status"], job["audio_s"], job["wait_s"]) == (
        "invalid_value",
        400,
        None,
        None,
    )
    server.say("said twice")
    job = line_of(jobs, server.say("said twice").headers["x-request-id"])
    assert (job["outcome"], job["cached"], job["synthesis_s"]) == ("cached", True, None)


def test_an_event_of_the_page_has_the_id_of_the_request_that_brought_it(server: Server) -> None:
    jobs, accesses = logs_of(server, "rs-1")
    client = Client(
        server.url, verbose=False, headers={"X-Request-Id": "from-the-page", "X-CosyVoice-Client": "me"}
    )
    before = len(lines(jobs))
    client.predict("by the page", "en", 1.0, 5, api_name="/generate")
    (job,) = wait_for(lambda: lines(jobs)[before:])
    assert (job["request_id"], job["outcome"], job["characters"]) == ("from-the-page", "ok", 11)
    assert job["wait_s"] < 20
    assert len(job["client"]) == 12
    paths = wait_for(
        lambda: {line["path"]: line for line in lines(accesses) if line["request_id"] == "from-the-page"}
    )
    assert "/gradio_api/queue/join" in paths
    stream = wait_for(lambda: [x for x in lines(accesses) if x["path"] == "/gradio_api/queue/data"])[-1]
    assert stream["complete"] is True
    assert stream["seconds"] >= stream["first_byte_s"]


def test_health_is_not_logged(server: Server) -> None:
    _, accesses = logs_of(server, "rs-1")
    for path in HEALTH_PATHS:
        server.http.get(path)
    line_of(accesses, server.http.get("/v1/voices").headers["x-request-id"])
    assert not {line["path"] for line in lines(accesses)} & set(HEALTH_PATHS)


def test_texts_health_and_addresses_on_demand(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    server = start_server(
        COSYVOICE_LOG_TEXT="1",
        COSYVOICE_LOG_HEALTH="1",
        COSYVOICE_LOG_CLIENT="address",
        COSYVOICE_LOG_DIRECTORY=str(tmp_path / "logs"),
    )
    server.say("你好")
    assert server.stop() == 0
    (job,) = lines(tmp_path / "logs" / "jobs.node-0.log")
    assert (job["text"], job["client"]) == ("你好", "127.0.0.1")
    assert any(x["path"] == "/readyz" for x in lines(tmp_path / "logs" / "gradio.access.node-0.log"))
    assert not list(server.outputs.glob("*.log"))


def test_requests_are_served_although_no_line_can_be_written(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(COSYVOICE_LOG_DIRECTORY=str(tmp_path / "nowhere"))
    for seed in range(1, 4):
        assert server.say("hello", seed=seed).status_code == 200
    wait_for(lambda: server.metric('tts_log_lines_dropped_total{log="jobs"}') >= 1)
    assert server.metric('tts_log_lines_dropped_total{log="access"}') >= 1
    assert server.stop() == 0
    assert "log lines are being lost: no such file or directory" in server.log.read_text()


def test_an_answer_that_breaks_off_is_told(tmp_path: Path) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("the engine is gone")

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("nothing at all")

    async def nothing(*args: Any) -> Any:
        return {"type": "http.disconnect"}

    file = line_file(tmp_path / "a.log")
    for app in (broken, silent):
        recorder = Recorder(app, file, node="rs-1", clients=Clients())
        scope = {"type": "http", "method": "GET", "path": "/x", "headers": [], "client": ("10.0.0.1", 1)}
        with pytest.raises(RuntimeError):
            asyncio.run(recorder(scope, nothing, nothing))
    file.close(20)
    half, none = lines(tmp_path / "a.log")
    assert (half["status"], half["complete"], half["bytes_out"]) == (200, False, 4)
    assert (none["status"], none["complete"], none["first_byte_s"]) == (500, False, None)


def test_what_another_node_passes_on_is_its_clients_and_nobody_else_can_say_so(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("made-up-key-of-32-characters-aaaa\n")
    nodes = [{"name": f"rs-{n}", "url": f"http://10.0.0.{n}"} for n in (1, 2)]
    peers = {}
    for node in nodes:
        (tmp_path / node["name"]).write_text(json.dumps({"self": node["name"], "peers": nodes}))
        peers[node["name"]] = Peers(tmp_path / node["name"], tmp_path / "key", Metrics(node["name"], "test"))
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((dict(scope["headers"]), scope["client"]))
        logs.enter(Headers(scope=scope))
        seen.append(logs.caller().client)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing(*args: Any) -> Any:
        return {"type": "http.disconnect"}

    file = line_file(tmp_path / "a.log")
    door = Callers(Recorder(app, file, node="rs-2", clients=Clients("address")), peers["rs-2"])
    signed = peers["rs-1"].sign(
        Peer("rs-2", ""), "POST", "/gradio_api/queue/join?a=b", body="0", client="192.168.1.50"
    )
    for value in (signed, signed.replace("192.168.1.50", "192.168.1.51")):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/gradio_api/queue/join",
            "raw_path": b"/gradio_api/queue/join",
            "query_string": b"a=b",
            "client": ("10.0.0.1", 1),
            "headers": [(HEADER, value.encode())],
        }
        asyncio.run(door(scope, nothing, nothing))
    file.close(20)
    assert [line["client"] for line in lines(tmp_path / "a.log")] == ["192.168.1.50", "10.0.0.1"]
    assert seen[1::2] == ["192.168.1.50", "10.0.0.1"], "so are the jobs"
    assert all(HEADER not in headers for headers, _ in seen[::2])


def test_wrong_settings_are_told() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings([], {"COSYVOICE_LOG_TEXT": "yes", "COSYVOICE_LOG_CLIENT": "ip"})
    assert caught.value.problems == (
        "COSYVOICE_LOG_TEXT='yes': set it to 1 (on) or 0 (off)",
        "COSYVOICE_LOG_CLIENT='ip': set it to one of: hash, address, none",
    )


def test_the_log_directory_defaults_to_the_outputs(tmp_path: Path) -> None:
    assert load_settings([], {"COSYVOICE_OUTPUTS": str(tmp_path)}).log_directory == tmp_path
