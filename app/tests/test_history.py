"""A user's own history: whose it is, that nothing is lost when nodes write at once, and what it costs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import APP, Server, StartServer
from gradio_client import Client
from starlette.datastructures import Headers

from cosyvoice_app import history
from cosyvoice_app.errors import NotFound, OutputsUnavailable
from cosyvoice_app.history import MOST, History, Owners, owner_of
from cosyvoice_app.outputs import Outputs, Result, result_name
from cosyvoice_app.wav import Audio, encode

AUDIO = Audio(rate=8000, channels=1, width=2, frames=b"\1\2" * 800)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


def made(directory: Path, seed: int) -> str:
    """A result in the outputs."""
    name = result_name({"seed": seed})
    (directory / name).write_bytes(encode(AUDIO, {"seed": seed, "text": "a"}))
    return name


def histories(directory: Path, nodes: int = 1, **options: Any) -> list[History]:
    return [
        History(
            Outputs(directory, node=f"rs-{n}", time_limit=options.get("time_limit", 5.0)),
            shared=options.get("shared", False),
        )
        for n in range(nodes)
    ]


def seeds(found: list[Result]) -> list[int]:
    return [result.parameters["seed"] for result in found]


def entries(directory: Path) -> list[Path]:
    return [path for path in (directory / "history").glob("*/*/*") if path.is_file()]


# What is remembered.


def test_an_owner_sees_their_own_from_all_nodes_newest_first(tmp_path: Path) -> None:
    first, second = histories(tmp_path, 2)

    async def work() -> None:
        for seed, node in ((1, first), (2, second), (3, first)):
            await node.add("me", made(tmp_path, seed))
            await asyncio.sleep(0.003)
        await second.add("you", made(tmp_path, 4))
        assert seeds(await first.latest("me", 9)) == seeds(await second.latest("me", 9)) == [3, 2, 1]
        assert seeds(await first.latest("me", 2)) == [3, 2]
        assert seeds(await first.latest("you", 9)) == [4]
        assert await first.latest("nobody", 9) == await first.latest("", 9) == []
        await first.add("me", made(tmp_path, 1))
        assert seeds(await second.latest("me", 9)) == [1, 3, 2], (
            "made again, it is the newest, and there once"
        )

    run(work)
    assert all(path.stat().st_size == 0 for path in entries(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if "me" in path.name or "you" in path.name]


def test_a_removed_result_disappears_and_so_does_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosyvoice_app.history._SETTLED", -1.0)
    (store,) = histories(tmp_path)

    async def work() -> None:
        for seed in (1, 2):
            await store.add("me", made(tmp_path, seed))
        assert len(await store.latest("me", 9)) == 2
        os.unlink(tmp_path / result_name({"seed": 2}))
        assert seeds(await store.latest("me", 9)) == [1]
        assert len(entries(tmp_path)) == 1

    run(work)


def test_a_result_that_is_not_seen_yet_is_listed_later(tmp_path: Path) -> None:
    (store,) = histories(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    async def work() -> None:
        name = made(elsewhere, 1)
        await store.add("me", name)
        assert await store.latest("me", 9) == []
        for part in range(256):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("random.randrange", lambda count, part=part: part)
                await store.sweep()
        os.rename(elsewhere / name, tmp_path / name)
        assert seeds(await store.latest("me", 9)) == [1]

    run(work)


def test_an_owner_can_have_something_forgotten(tmp_path: Path) -> None:
    (store,) = histories(tmp_path)

    async def work() -> None:
        name = made(tmp_path, 1)
        await store.add("me", name)
        await store.add("you", name)
        await store.remove("me", name)
        assert await store.latest("me", 9) == []
        assert seeds(await store.latest("you", 9)) == [1]
        for owner, what in (("me", name), ("", name), ("you", "../../x")):
            with pytest.raises(NotFound, match="is not in this history"):
                await store.remove(owner, what)
        assert (tmp_path / name).exists()

    run(work)


def test_only_so_many_are_remembered_and_the_newest_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST", 5)
    (store,) = histories(tmp_path)

    async def work() -> None:
        for seed in range(1, 10):
            await store.add("me", made(tmp_path, seed))
            await asyncio.sleep(0.003)
        assert seeds(await store.latest("me", 99)) == [9, 8, 7, 6, 5]

    run(work)
    assert len(entries(tmp_path)) == 5
    assert MOST == 500


def test_what_is_no_result_is_not_remembered(tmp_path: Path) -> None:
    (store,) = histories(tmp_path)
    run(lambda: store.add("me", "../../etc/passwd"))
    run(lambda: store.add("", "0" * 32 + ".wav"))
    assert not (tmp_path / "history").exists()


def test_a_listing_asks_for_what_it_shows_and_never_for_all_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store,) = histories(tmp_path)
    listed: list[str] = []
    opened: list[str] = []
    list_, describe = os.listdir, Outputs._describe

    async def work() -> None:
        for seed in range(40):
            await store.add("me", made(tmp_path, seed))
        monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or list_(path))
        monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"scans {path}"))
        monkeypatch.setattr(
            Outputs, "_describe", lambda self, name: opened.append(name) or describe(self, name)
        )
        assert len(await store.latest("me", 12)) == 12
        assert len(await store.latest("me", 12)) == 12

    run(work)
    assert len(listed) == 2
    assert all("/history/" in path for path in listed)
    assert len(opened) == 12, "the second time they are known"


def test_an_entry_is_not_given_up_before_the_share_was_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NFS client that has looked for a name in vain believes for a while that it is not there."""
    (store,) = histories(tmp_path)
    asked: list[Path] = []
    describe = Outputs._describe
    monkeypatch.setattr(history, "refresh", asked.append)
    monkeypatch.setattr(
        Outputs, "_describe", lambda self, name: describe(self, name) if tmp_path in asked else None
    )

    async def work() -> None:
        await store.add("me", made(tmp_path, 1))
        assert seeds(await store.latest("me", 9)) == [1]
        # From above: what holds the result and, on a new share, the folder of all histories.
        (folder,) = (tmp_path / "history").iterdir()
        assert asked == [tmp_path, tmp_path / "history", folder]

    run(work)


# Everybody's.


async def make(store: History, seed: int) -> str:
    """As the service makes a result."""
    name = result_name({"seed": seed})
    pending = await store._outputs.begin(name)
    await pending.commit(encode(AUDIO, {"seed": seed, "text": "a"}))
    return name


def test_everybody_sees_what_any_node_made_newest_first_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosyvoice_app.history._SETTLED", -1.0)
    first, second = histories(tmp_path, 2, shared=True)

    async def work() -> None:
        for seed, node in ((1, first), (2, second), (3, first), (1, second)):
            await make(node, seed)
            await asyncio.sleep(0.005)  # the time of a file is in milliseconds here
        for node in (first, second):
            assert seeds(await node.recent("", 9)) == seeds(await node.recent("anybody", 9)) == [1, 3, 2]
            assert seeds(await node.recent("", 2)) == [1, 3]
        os.unlink(tmp_path / result_name({"seed": 3}))  # as retention does
        assert seeds(await first.recent("", 9)) == [1, 2]
        assert len(list((tmp_path / "history" / "all").iterdir())) == 2

    run(work)


def test_what_is_there_without_an_entry_is_found_by_a_node_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of an older version, and of a node that died before it gave an entry."""
    monkeypatch.setattr(history, "MOST", 250)
    for seed in range(300):
        os.utime(tmp_path / made(tmp_path, seed), (1000 + seed, 1000 + seed))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ("f" * 32 + ".wav")).write_text("not audio")
    os.utime(tmp_path / ("f" * 32 + ".wav"), (1200, 1200))
    (tmp_path / ".making-rs-1-5-abc").write_bytes(b"half")
    first, second = histories(tmp_path, 2, shared=True)

    async def work() -> None:
        newest = await make(first, 1000)
        await asyncio.gather(first.adopt(), second.adopt())
        assert seeds(await first.recent("", 4)) == [1000, 299, 298, 297]
        await second.adopt()
        listed = sorted(path.name for path in (tmp_path / "history" / "all").iterdir())
        assert len(listed) == 250
        assert listed[-1].endswith(newest)
        assert (tmp_path / ("f" * 32 + ".wav")).exists()

    run(work)


def test_a_list_of_everybodys_costs_the_same_however_many_results_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store,) = histories(tmp_path, shared=True)

    async def work() -> None:
        for seed in range(30):
            await make(store, seed)
        opened: list[str] = []
        describe = Outputs._describe
        monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"scans {path}"))
        monkeypatch.setattr(
            Outputs, "_describe", lambda self, name: opened.append(name) or describe(self, name)
        )
        assert len(await store.recent("", 12)) == 12
        assert len(opened) == 12

    run(work)


def test_a_result_is_kept_although_its_entry_cannot_be(tmp_path: Path) -> None:
    (store,) = histories(tmp_path, shared=True)
    (tmp_path / "history").write_text("in the way")

    async def work() -> None:
        assert (tmp_path / await make(store, 1)).exists()
        assert store._outputs.problem is None

    run(work)


def test_nothing_is_listed_for_everybody_where_everybody_is_shown_their_own(tmp_path: Path) -> None:
    (store,) = histories(tmp_path)

    async def work() -> None:
        await make(store, 1)
        await store.adopt()
        assert await store.recent("", 9) == []

    run(work)
    assert not (tmp_path / "history").exists()


def test_a_sweep_removes_what_nobody_comes_back_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosyvoice_app.history._SETTLED", -1.0)
    (store,) = histories(tmp_path)

    async def work() -> None:
        for seed in (1, 2):
            await store.add("gone", made(tmp_path, seed))
            await store.add("here", made(tmp_path, seed + 10))
            os.unlink(tmp_path / result_name({"seed": seed}))
        for part in range(256):
            monkeypatch.setattr("random.randrange", lambda count, part=part: part)
            await store.sweep()
        assert seeds(await store.latest("here", 9)) == [12, 11]
        assert await store.latest("gone", 9) == []

    run(work)
    assert len(list((tmp_path / "history").glob("*/*"))) == 1


# Many at once, and a share that is away.


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from cosyvoice_app.history import History\n"
        "from cosyvoice_app.outputs import Outputs, result_name\n"
        "async def main(where, node):\n"
        "    store = History(Outputs(Path(where), node=node, time_limit=30))\n"
        "    for n in range(60):\n"
        "        await store.add('me', result_name({'seed': f'{node}-{n}'}))\n"
        "asyncio.run(main(sys.argv[1], sys.argv[2]))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), f"rs-{n}"], cwd=APP) for n in range(4)
    ]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    wanted = {result_name({"seed": f"rs-{n}-{k}"}) for n in range(4) for k in range(60)}
    assert {path.name.split("-")[1] for path in entries(tmp_path)} == wanted


def test_a_sweep_beside_a_first_entry_loses_it_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node removes the empty folder of an owner between its making and the entry's, twice."""
    (store,) = histories(tmp_path)
    real, swept = os.open, []

    def sweep_first(path: Any, *args: Any) -> int:
        if len(swept) < 2:
            swept.append(path.parent)
            path.parent.rmdir()
        return real(path, *args)

    monkeypatch.setattr(os, "open", sweep_first)
    run(lambda: store.add("me", result_name({"seed": 1})))
    assert len(swept) == 2
    assert len(entries(tmp_path)) == 1


def test_a_share_that_is_away_costs_the_entry_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, real = threading.Event(), os.mkdir

    def hang(*args: Any, **options: Any) -> None:
        back.wait(30)
        real(*args, **options)

    async def work() -> None:
        (store,) = histories(tmp_path, time_limit=0.3)
        name = made(tmp_path, 1)
        monkeypatch.setattr(os, "mkdir", hang)
        began = time.monotonic()
        await store.add("me", name)
        await store.add("me", name)
        assert time.monotonic() - began < 5
        with pytest.raises(OutputsUnavailable):
            await store.latest("me", 9)
        back.set()

    run(work)


def test_outputs_that_cannot_be_written_fail_nothing(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("in the way")
    (store,) = histories(tmp_path)
    run(lambda: store.add("me", made(tmp_path, 1)))


# Whose it is.


def asked(method: str = "GET", scheme: str = "http", status: int = 200, **headers: str) -> tuple[str, str]:
    """The owner that the app is told, and the cookie that is given."""
    told = Headers()
    given: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal told
        told = Headers(scope=scope)
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def send(message: Any) -> None:
        given.extend(value.decode() for name, value in message["headers"] if name == b"set-cookie")

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "scheme": scheme, "headers": pairs}
    asyncio.run(Owners(app)(scope, None, send))  # type: ignore[arg-type]
    return owner_of(told), given[0] if given else ""


PAGE = "text/html,application/xhtml+xml"
NUMBER = "0123456789abcdef" * 2


def test_a_page_gives_a_cookie_that_no_script_and_no_other_site_can_use() -> None:
    owner, cookie = asked(accept=PAGE)
    assert owner == ""
    name, _, rest = cookie.partition("=")
    number, *attributes = rest.split("; ")
    assert name == "cosyvoice-owner"
    assert len(number) == 32
    assert attributes == ["Path=/", "Max-Age=31536000", "HttpOnly", "SameSite=Lax"]
    assert asked(accept=PAGE)[1] != cookie, "everybody another"
    known, again = asked(accept=PAGE, cookie=f"a=b; cosyvoice-owner={NUMBER}; c=d")
    assert known != ""
    assert NUMBER not in known
    assert again.startswith(f"cosyvoice-owner={NUMBER}; Path=/; Max-Age=31536000"), "the year begins anew"


def test_over_https_the_cookie_is_one_that_plain_http_cannot_set() -> None:
    for way in ({"scheme": "https"}, {"x_forwarded_proto": "https"}):
        _, cookie = asked(accept=PAGE, cookie=f"cosyvoice-owner={NUMBER}", **way)
        assert cookie.startswith("__Host-cosyvoice-owner=")
        assert NUMBER not in cookie
        assert cookie.endswith("; HttpOnly; SameSite=Lax; Secure")
        assert asked(cookie=f"cosyvoice-owner={NUMBER}", **way)[0] == ""
        assert asked(cookie=f"__Host-cosyvoice-owner={NUMBER}", **way)[0] != ""


def test_only_pages_give_cookies() -> None:
    assert asked(accept="*/*")[1] == ""
    assert asked("POST", accept=PAGE)[1] == ""
    assert asked(accept=PAGE, status=404)[1] == ""


def test_an_owner_cannot_be_claimed() -> None:
    assert asked(x_cosyvoice_owner="somebody")[0] == ""
    assert asked(cookie="cosyvoice-owner=1")[0] == ""
    assert asked(cookie=f"not-cosyvoice-owner={NUMBER}")[0] == ""
    mine = asked(cookie=f"cosyvoice-owner={NUMBER}")[0]
    assert asked(cookie=f"cosyvoice-owner={NUMBER}", x_cosyvoice_owner="somebody")[0] == mine


def test_an_api_key_is_an_owner_when_it_is_one_persons() -> None:
    key = "sk-" + "k" * 30
    owner = asked(authorization=f"Bearer {key}")[0]
    assert owner == asked(authorization=f"bearer {key}", cookie=f"cosyvoice-owner={NUMBER}")[0] != ""
    assert key not in owner
    assert asked(authorization="Bearer sk-no-key-required")[0] == "", "many send that"
    assert asked(authorization=f"Basic {key}")[0] == ""


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    return [item["name"] for item in answer.json()["data"]]


def test_each_user_has_one_history_on_all_nodes(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    nodes: list[Server] = [
        start_server("--enable-queue", outputs=tmp_path / "shared", COSYVOICE_SHARED_HISTORY="0")
        for _ in range(2)
    ]
    mine = {"Authorization": "Bearer sk-0123456789abcdefgh"}
    made = []
    for number, node in enumerate(nodes):
        answer = node.http.post("/v1/audio/speech", json={"input": "mine", "seed": number + 1}, headers=mine)
        made.insert(0, answer.headers["x-result-name"])
    nodes[0].say("nobody's", seed=9)
    for node in nodes:
        assert names(node.http.get("/v1/history", headers=mine)) == made
        assert names(node.http.get("/v1/results", headers=mine)) == made
        assert names(node.http.get("/v1/history")) == names(node.http.get("/v1/results")) == []
    assert nodes[0].http.delete(f"/v1/history/{made[0]}", headers=mine).status_code == 204
    assert nodes[0].http.delete(f"/v1/history/{made[0]}", headers=mine).status_code == 404
    assert names(nodes[1].http.get("/v1/history", headers=mine)) == made[1:]
    assert nodes[1].http.get(f"/v1/results/{made[0]}").status_code == 200, "the result itself stays"

    # The page: a browser's cookie on one node, its history on the other.
    page = nodes[0].http.get("/", headers={"Accept": "text/html"})
    cookie = {"Cookie": page.headers["set-cookie"].split(";")[0]}
    client = Client(nodes[0].url, verbose=False, headers=cookie)
    client.predict("by the page", "en", 1.0, 3, api_name="/generate")
    assert "by the page" in client.predict(api_name="/results")
    assert "by the page" in Client(nodes[1].url, verbose=False, headers=cookie).predict(api_name="/results")
    assert "by the page" not in Client(nodes[1].url, verbose=False).predict(api_name="/results")
    (item,) = nodes[1].http.get("/v1/history", headers=cookie).json()["data"]
    assert (item["text"], item["seed"]) == ("by the page", 3)
    owner_logged = "".join(path.read_text() for path in (tmp_path / "shared").glob("*.log"))
    assert cookie["Cookie"].split("=")[1] not in owner_logged
    assert "sk-0123456789abcdefgh" not in owner_logged


def test_everybodys_results_are_shown_only_where_that_is_set(server: Server) -> None:
    answer = server.say("for all to see")
    assert answer.headers["x-result-name"] in names(server.http.get("/v1/results"))
    assert names(server.http.get("/v1/history")) == []
