"""Three nodes behind a balancer that sends every connection to the next one, with the real gradio client; and
what nobody but a node may do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from conftest import APP, NOTHING_MORE, Server, StartServer
from gradio_client import Client

from cosyvoice_app.metrics import Metrics
from cosyvoice_app.peers import HEADER, Peer, Peers, Seen, ranked, read_keys, read_list
from cosyvoice_app.wav import decode

KEY = "made-up-key-of-32-characters-aaaa"
OTHER_KEY = "made-up-key-of-32-characters-bbbb"


class RoundRobin:
    """A TCP proxy on a port of its own: every new connection goes to the next of `ports`."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._next = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.ports[self._next % len(self.ports)]
        self._next += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            with suppress(OSError, RuntimeError):
                sink.close()

        await asyncio.gather(pipe(reader, up_writer), pipe(up_reader, writer))

    def stop(self) -> None:
        def end() -> None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(10)


@dataclass
class Cluster:
    """Nodes node-0, node-1, ... on one directory of results, each with its own directory of uploads."""

    nodes: list[Server]
    folder: Path
    balancer: RoundRobin
    clients: list[httpx.Client] = field(default_factory=list)

    def list_file(self, index: int) -> Path:
        return self.folder / f"peers-{index}.json"

    def tell(self, index: int, ports: list[int]) -> None:
        """Writes a node's list of peers."""
        peers = [{"name": f"node-{n}", "url": f"http://127.0.0.1:{port}"} for n, port in enumerate(ports)]
        whole = self.folder / f".peers-{index}"
        whole.write_text(json.dumps({"self": f"node-{index}", "peers": peers}))
        whole.rename(self.list_file(index))

    def tell_all(self) -> None:
        ports = [port_of(node) for node in self.nodes]
        for index in range(len(self.nodes)):
            self.tell(index, ports)

    def http(self) -> httpx.Client:
        """A client of the balancer that makes a connection for each request."""
        limits = httpx.Limits(max_keepalive_connections=0)
        client = httpx.Client(base_url=self.balancer.url, timeout=60, trust_env=False, limits=limits)
        self.clients.append(client)
        return client

    def gradio(self) -> Client:
        return Client(self.balancer.url, verbose=False, download_files=str(self.folder / "downloads"))

    def metric(self, name: str, label: str = "") -> float:
        """The sum over all nodes that live."""
        total = 0.0
        for node in self.nodes:
            if node.process.poll() is None:
                for line in node.http.get("/metrics").text.splitlines():
                    if line.startswith((f"{name} ", f"{name}{{")) and label in line:
                        total += float(line.split()[-1])
        return total


def port_of(node: Server) -> int:
    return int(node.url.rsplit(":", 1)[1])


StartCluster = Callable[..., Cluster]


def uploads_of(folder: Path, index: int) -> Path:
    return folder / f"home-{index}" / "uploads"


@pytest.fixture
def start_cluster(start_server: StartServer, tmp_path: Path) -> Iterator[StartCluster]:
    balancers: list[RoundRobin] = []
    clusters: list[Cluster] = []

    def start(count: int = 3, keys: list[str] | None = None, **environment: str) -> Cluster:
        nodes = []
        for index in range(count):
            home = tmp_path / f"home-{index}"
            home.mkdir()
            key = tmp_path / f"key-{index}"
            key.write_text((keys[index] if keys else KEY) + "\n")
            (tmp_path / f"peers-{index}.json").write_text(f'{{"self": "node-{index}", "peers": []}}')
            node = start_server(
                "--enable-queue",
                outputs=tmp_path / "share",
                wait=False,
                # Another directory for each process, by the same path: as on machines of their own.
                prefix=("env", "-C", str(home)),
                **{
                    "GRADIO_TEMP_DIR": "/proc/self/cwd/uploads",
                    "COSYVOICE_PEERS": str(tmp_path / f"peers-{index}.json"),
                    "COSYVOICE_PEER_KEY_FILE": str(key),
                    "COSYVOICE_DRAIN_FILE": str(tmp_path / f"drain-{index}"),
                    **environment,
                },
            )
            nodes.append(node)
        balancer = RoundRobin([port_of(node) for node in nodes])
        balancers.append(balancer)
        cluster = Cluster(nodes, tmp_path, balancer)
        clusters.append(cluster)
        for node in nodes:
            node.wait_ready(120)
        cluster.tell_all()
        if keys is None:
            wait_for(lambda: all(node.metric("tts_peers_up") == count - 1 for node in nodes))
        return cluster

    yield start
    for cluster in clusters:
        for client in cluster.clients:
            client.close()
    for balancer in balancers:
        balancer.stop()


def join(http: httpx.Client, session: str, text: str) -> httpx.Response:
    config = http.get("/config").json()
    function = next(d["id"] for d in config["dependencies"] if d["api_name"] == "generate")
    body = {"data": [text, "auto", 1, 3, *NOTHING_MORE], "fn_index": function, "session_hash": session}
    return http.post("/gradio_api/queue/join", json=body)


def events(http: httpx.Client, session: str) -> Iterator[dict[str, object]]:
    with http.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def completed(http: httpx.Client, session: str) -> dict[str, object]:
    for event in events(http, session):
        if event["msg"] in ("process_completed", "unexpected_error"):
            return event
    raise AssertionError("the stream ended without a result")


def owner(cluster: Cluster, key: str) -> int:
    names = tuple(f"node-{n}" for n in range(len(cluster.nodes)))
    return int(ranked(key, names)[0].removeprefix("node-"))


def owned_by(cluster: Cluster, index: int, start: str = "session") -> str:
    return next(key for n in range(1000) if owner(cluster, key := f"{start}{n}") == index)


# Sessions.


def test_every_call_succeeds_whichever_node_each_connection_meets(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    for number in range(12):
        path, status = cluster.gradio().predict(f"sentence {number}", "auto", 1.0, 42, api_name="/generate")
        assert Path(path).stat().st_size > 1000
        assert "node-" in status
    assert len(list((cluster.folder / "share").glob("*.wav"))) == 12
    assert cluster.metric("tts_forwarded_total", 'kind="join"') > 0
    assert cluster.metric("tts_forwarded_total", 'kind="data"') > 0
    # The page is the same one on every node: a browser that lost its connection asks for this.
    http = cluster.http()
    assert len({http.get("/gradio_api/app_id").text for _ in range(3)}) == 1


def test_what_another_node_makes_for_a_visitor_is_in_the_visitor_s_history(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster()
    first = cluster.nodes[0].http
    # An answer with a cookie for one visitor, from node to node: the next visitor is somebody else.
    page = {"accept": "text/html"}
    first.get(f"/gradio_api/startup-events?session_hash={owned_by(cluster, 1)}", headers=page)
    for visitor in ("1", "2"):
        number = visitor * 32
        cookie = {"cookie": f"cosyvoice-owner={number}"}
        session = owned_by(cluster, 1, f"visitor{visitor}-")
        with httpx.Client(base_url=cluster.nodes[0].url, headers=cookie, timeout=60, trust_env=False) as http:
            assert join(http, session, f"for visitor {visitor}").status_code == 200
            assert completed(http, session)["success"]
        for node in cluster.nodes:
            listed = httpx.get(f"{node.url}/v1/history", headers=cookie, trust_env=False).json()["data"]
            assert [result["text"] for result in listed] == [f"for visitor {visitor}"]


def test_a_forwarded_answer_says_who_gave_it_and_who_passed_it_on(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    session = owned_by(cluster, 2)
    first, third = cluster.nodes[0].http, cluster.nodes[2].http
    joined = join(first, session, "who answers?")
    assert joined.status_code == 200, joined.text
    assert (joined.headers["x-served-by"], joined.headers["x-forwarded-by"]) == ("node-2", "node-0")
    assert len(joined.headers.get_list("x-request-id")) == 1
    with first.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        assert stream.headers["x-served-by"] == "node-2"
        assert any("process_completed" in line for line in stream.iter_lines())
    here = join(third, session, "and at home?")
    assert here.headers["x-served-by"] == "node-2"
    assert "x-forwarded-by" not in here.headers
    assert completed(third, session)["success"]


def test_the_simple_api_finds_a_job_on_any_node(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    http = cluster.http()
    for number in range(3):
        called = http.post(
            "/gradio_api/call/generate", json={"data": [f"simple {number}", "auto", 1, 1, *NOTHING_MORE]}
        )
        event = called.json()["event_id"]
        with http.stream("GET", f"/gradio_api/call/generate/{event}") as stream:
            assert "event: complete" in list(stream.iter_lines())


def test_an_upload_is_there_on_every_node(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    http = cluster.http()
    sound = os.urandom(200_000)
    files = {"files": ("a sound.wav", sound, "audio/wav")}
    uploaded = http.post("/gradio_api/upload?upload_id=abc", files=files)
    assert uploaded.status_code == 200, uploaded.text
    assert uploaded.headers["x-served-by"] == f"node-{owner(cluster, 'abc')}"
    path = uploaded.json()[0]
    for _ in range(3):
        assert http.get(f"/gradio_api/file={quote(path)}").content == sound
    kept = [list(uploads_of(cluster.folder, n).glob("*/a sound.wav")) for n in range(3)]
    assert [len(found) for found in kept] == [1, 1, 1]
    # A job that names it gets it, too.
    second = http.post("/gradio_api/upload?upload_id=abc", files={"files": ("b.wav", sound, "audio/wav")})
    path = second.json()[0]
    other = next(n for n in range(3) if not list(uploads_of(cluster.folder, n).glob("*/b.wav")))
    body = {"data": [{"path": path}, "auto", 1, 1, *NOTHING_MORE], "session_hash": owned_by(cluster, other)}
    cluster.nodes[other].http.post("/gradio_api/call/generate", json=body)
    assert len(list(uploads_of(cluster.folder, other).glob("*/b.wav"))) == 1
    # The progress of an upload that never begins ends by itself, wherever it is asked for.
    progress = http.get("/gradio_api/upload_progress?upload_id=never")
    assert progress.status_code == 404


def test_only_uploads_are_given_to_other_nodes(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(count=2)
    uploads = uploads_of(cluster.folder, 1)
    name = "0" * 64
    (uploads / name).mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (uploads / name / "link").symlink_to(tmp_path / "secret")
    (uploads / "plain").write_text("secret")
    peers = node_peers(cluster, 0)
    up = f"{name}/.."
    for path in ("../../key-1", f"{up}/plain", up, "plain", f"{name}/link", "/etc/passwd", name):
        answer = ask(peers, cluster, 1, "GET", f"/peer/file?path={quote(path, safe='')}")
        assert answer.status_code == 404, path
    assert cluster.nodes[0].http.get(f"/gradio_api/file={tmp_path}/key-1").status_code in (403, 404)


def test_a_client_that_leaves_is_noticed_on_the_node_that_works(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(COSYVOICE_ESPEAK=str(slow_espeak))
    session = owned_by(cluster, 1)
    first = cluster.nodes[0].http
    join(first, session, "sleep 60")
    address = f"{cluster.nodes[0].url}/gradio_api/queue/data?session_hash={session}"
    leaves = httpx.stream("GET", address, timeout=3, trust_env=False)
    with pytest.raises(httpx.ReadTimeout), leaves as stream:
        for _ in stream.iter_lines():
            pass
    wait_for(lambda: cluster.metric("tts_running") == 0, 60)


def test_a_draining_node_gets_no_new_sessions_and_finishes_its_own(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(COSYVOICE_ESPEAK=str(slow_espeak))
    session = owned_by(cluster, 1)
    first, third = cluster.nodes[0].http, cluster.nodes[2].http
    assert join(first, session, "sleep 3 and finish").headers["x-served-by"] == "node-1"
    stream = events(first, session)
    assert next(stream)["msg"] in ("estimation", "process_starts")
    (cluster.folder / "drain-1").write_text("new fans\n")
    # One more click of the same page goes where the stream is.
    assert join(third, session, "one more").headers["x-served-by"] == "node-1"
    assert join(third, owned_by(cluster, 1, "new"), "hello").headers["x-served-by"] != "node-1"
    done = [event for event in stream if event["msg"] == "process_completed"]
    assert [event["success"] for event in done] == [True, True]
    assert cluster.nodes[1].stop(60) == 0
    cluster.balancer.ports = [port_of(cluster.nodes[0]), port_of(cluster.nodes[2])]
    # The page that is open goes on elsewhere.
    joined = join(first, session, "after it")
    assert joined.status_code == 200
    assert joined.headers["x-served-by"] != "node-1"
    assert completed(third, session)["success"]


def test_a_node_that_dies_takes_its_job_along_and_nothing_else(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(COSYVOICE_ESPEAK=str(slow_espeak))
    session = owned_by(cluster, 1)
    first = cluster.nodes[0].http
    join(first, session, "sleep 60")
    stream = events(first, session)
    assert next(stream)["msg"] in ("estimation", "process_starts")
    cluster.nodes[1].process.kill()
    last = list(stream)[-1]
    assert (last["msg"], last["message"]) == ("unexpected_error", "Server stopped unexpectedly.")
    # A page that connects again is told the same, and not that there is no such page.
    assert next(events(cluster.nodes[2].http, session))["msg"] == "unexpected_error"
    assert join(first, session, "again").headers["x-served-by"] in ("node-0", "node-2")
    assert completed(cluster.nodes[2].http, session)["success"]
    wait_for(lambda: cluster.nodes[0].metric("tts_peers_up") == 1)
    assert "Traceback" not in cluster.nodes[0].log.read_text()


def test_a_node_that_hangs_is_passed_by(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    session = owned_by(cluster, 1)
    cluster.nodes[1].process.send_signal(signal.SIGSTOP)
    try:
        first = cluster.nodes[0].http
        assert join(first, session, "is anybody there?").headers["x-served-by"] in ("node-0", "node-2")
        assert completed(cluster.nodes[2].http, session)["success"]
    finally:
        cluster.nodes[1].process.send_signal(signal.SIGCONT)
    wait_for(lambda: all(node.metric("tts_peers_up") == 2 for node in cluster.nodes), 60)


def test_a_new_node_is_known_at_once(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    ports = [port_of(node) for node in cluster.nodes]
    cluster.tell(0, ports[:2])
    cluster.tell(1, ports[:2])
    wait_for(lambda: [node.metric("tts_peers_up") for node in cluster.nodes[:2]] == [1, 1])
    session = owned_by(cluster, 2)
    first = cluster.nodes[0].http
    assert join(first, session, "two of us").headers["x-served-by"] in ("node-0", "node-1")
    assert completed(first, session)["success"]
    cluster.list_file(0).write_text("{")  # half a file changes nothing
    time.sleep(1.5)
    assert cluster.nodes[0].metric("tts_peers_up") == 1
    cluster.tell_all()
    wait_for(lambda: cluster.nodes[0].metric("tts_peers_up") == 2)
    assert join(first, session, "three of us").headers["x-served-by"] == "node-2"


# Who may say that it is a node.


def node_peers(cluster: Cluster, index: int, key: str = KEY) -> Peers:
    """What that node would use to talk to the others."""
    file = cluster.folder / "key-of-the-test"
    file.write_text(key)
    return Peers(cluster.list_file(index), file, Metrics(f"node-{index}", "test"))


def ask(
    peers: Peers, cluster: Cluster, index: int, method: str, target: str, **changes: object
) -> httpx.Response:
    """A request of a node by hand. changes: header (its value), body (other than what was signed)."""
    peer = Peer(f"node-{index}", cluster.nodes[index].url)
    content = bytes(changes.get("body", b""))  # type: ignore[call-overload]
    value = changes.get("header") or peers.sign(peer, method, target, body=hashlib.sha256(b"").hexdigest())
    headers = {HEADER.decode(): str(value)}
    return httpx.request(method, peer.url + target, headers=headers, content=content, trust_env=False)


def test_nobody_but_a_node_gets_past_the_door(
    start_cluster: StartCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start_cluster(count=2)
    target = "/peer/condition"
    plain = cluster.nodes[1].http.get(target)
    assert (plain.status_code, plain.json()["error"]["code"]) == (403, "forbidden")
    assert "/peer" not in cluster.nodes[1].http.get("/v1/openapi.json").text
    peers = node_peers(cluster, 0)
    told = ask(peers, cluster, 1, "GET", target)
    assert told.status_code == 200, told.text
    assert told.json()["ready"]

    signed = peers.sign(Peer("node-1", ""), "GET", target, body=hashlib.sha256(b"").hexdigest())
    forged = {
        "wrong key": node_peers(cluster, 0, OTHER_KEY).sign(
            Peer("node-1", ""), "GET", target, body=hashlib.sha256(b"").hexdigest()
        ),
        "no mac": signed.rpartition(";")[0],
        "another client": signed.replace("client=", "client=10.0.0.1"),
        "another node's": signed.replace("to=node-1", "to=node-2"),
        "nonsense": "x",
    }
    for what, header in forged.items():
        assert ask(peers, cluster, 1, "GET", target, header=header).status_code == 403, what
    other_path = ask(peers, cluster, 1, "GET", "/peer/has?key=a", header=signed)
    other_node = ask(peers, cluster, 0, "GET", target, header=signed)
    other_body = ask(peers, cluster, 1, "POST", "/peer/release?turn=a", body=b"{}")
    assert [answer.status_code for answer in (other_path, other_node, other_body)] == [403, 403, 403]
    real = time.time
    for seconds in (-40, 40):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: real() + seconds)
        old = peers.sign(Peer("node-1", ""), "GET", target, body=hashlib.sha256(b"").hexdigest())
        monkeypatch.setattr(time, "time", real)
        assert ask(peers, cluster, 1, "GET", target, header=old).status_code == 403, "outside the window"
    # Among clients the header counts for nothing: a session is looked for all the same.
    session = owned_by(cluster, 1)
    cluster.nodes[0].http.headers[HEADER.decode()] = signed
    assert join(cluster.nodes[0].http, session, "forged").headers["x-served-by"] == "node-1"


def test_what_a_node_has_sent_counts_once(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    nodes = [{"name": f"rs-{n}", "url": f"http://10.0.0.{n}"} for n in (1, 2)]
    for node in nodes:
        (tmp_path / node["name"]).write_text(json.dumps({"self": node["name"], "peers": nodes}))
    first, second = (
        Peers(tmp_path / name, tmp_path / "key", Metrics(name, "test")) for name in ("rs-1", "rs-2")
    )

    def question() -> dict[bytes, bytes]:
        return {HEADER: first.sign(Peer("rs-2", ""), "POST", "/peer/turn", body="0").encode()}

    asked = question()
    assert second.verify(asked, "POST", "/peer/turn") is not None
    assert second.verify(asked, "POST", "/peer/turn") is None, "a replay"
    assert all(second.verify(question(), "POST", "/peer/turn") for _ in range(50)), "asked again"


def test_no_more_is_remembered_of_requests_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    seen = Seen(most=3)
    assert [seen.add(mac) for mac in "abca"] == [True, True, True, False]
    assert seen.add("d")
    assert seen.add("a"), "the oldest went"
    assert not seen.add("d")
    now[0] += 61
    assert seen.add("d")
    assert len(seen._until) == 1


def test_nodes_with_different_keys_are_alone(start_cluster: StartCluster) -> None:
    cluster = start_cluster(count=2, keys=[KEY, OTHER_KEY])
    wait_for(lambda: "refuses us with 403" in cluster.nodes[0].log.read_text())
    assert cluster.nodes[0].metric("tts_peers_up") == 0
    session = owned_by(cluster, 1)
    first = cluster.nodes[0].http
    assert join(first, session, "alone").headers["x-served-by"] == "node-0"
    assert completed(first, session)["success"]
    # A key is changed while all run: first everybody accepts both, then everybody signs with the new one.
    (cluster.folder / "key-0").write_text(f"{KEY}\n{OTHER_KEY}\n")
    (cluster.folder / "key-1").write_text(f"{OTHER_KEY}\n{KEY}\n")
    wait_for(lambda: all(node.metric("tts_peers_up") == 1 for node in cluster.nodes), 30)
    assert join(first, session, "together").headers["x-served-by"] == "node-1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "is not"),
        ('{"self": "a b", "peers": [{"name": "x", "url": "http://1.2.3.4:1"}]}', "'a b'"),
        ('{"self": "a", "peers": [{"name": "x"}]}', "write http://address:port"),
        ('{"self": "a", "peers": [{"name": "x", "url": "https://h"}]}', "write http://address:port"),
        ('{"self": "a", "peers": [{"name": "x", "url": "http://h/path"}]}', "write http://address:port"),
    ],
)
def test_a_wrong_list_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_list(text)


def test_a_list_may_hold_the_node_itself() -> None:
    entries = [{"name": n, "url": f"http://10.0.0.{n}:7860"} for n in "123"]
    found = read_list(json.dumps({"self": "2", "peers": entries}))
    assert [peer.name for peer in found.peers] == ["1", "3"]


def test_what_a_deployment_writes_is_read() -> None:
    texts = APP.parent / "test/golden/texts/peers"
    for node in ("rs-1", "rs-3"):
        found = read_list((texts / f"peers-{node}.json").read_text())
        assert found.me == node
        assert all(peer.url.endswith(":8080") for peer in found.peers)
        assert len(found.peers) == 2
    assert len(read_keys((texts / "peers.key").read_text())) == 2


@pytest.mark.parametrize("text", ["", "short", f"{KEY}\n{KEY}\n{KEY}"])
def test_wrong_keys_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has"):
        read_keys(text)


def test_a_node_that_goes_moves_nothing_between_the_others() -> None:
    names = tuple(f"rs-{n}" for n in range(5))
    for number in range(200):
        before = ranked(str(number), names)
        assert ranked(str(number), names[:4]) == [name for name in before if name != "rs-4"]
    firsts = [ranked(str(n), names)[0] for n in range(1000)]
    assert all(150 < firsts.count(name) < 250 for name in names)


# Jobs.


def test_all_nodes_are_one_queue(start_cluster: StartCluster, slow_espeak: Path) -> None:
    cluster = start_cluster(COSYVOICE_ESPEAK=str(slow_espeak), COSYVOICE_QUEUE_LENGTH="4")
    node = cluster.nodes[0]
    with ThreadPoolExecutor(12) as pool:  # all at one node, more than it takes alone
        answers = list(pool.map(lambda n: node.say(f"sleep 1 number {n}"), range(9)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-served-by"] for answer in answers} == {"node-0"}
    assert len({answer.content for answer in answers}) == 9
    made = [n.metric("tts_synthesis_seconds_count") - 1 for n in cluster.nodes]  # less the warm-up
    assert sum(made) == 9
    assert min(made) >= 2, made
    assert cluster.metric("tts_handed_over_total", 'outcome="ok"') == made[1] + made[2]
    assert node.metric("tts_wait_seconds_count") == 9
    kept = {path.name for path in (cluster.folder / "share").glob("*.wav")}
    assert kept == {answer.headers["x-result-name"] for answer in answers}


def test_what_waits_on_the_page_is_spread_and_told_its_place(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(COSYVOICE_ESPEAK=str(slow_espeak))
    http = cluster.nodes[0].http
    session = owned_by(cluster, 0)
    for number in range(7):
        assert join(http, session, f"sleep 2 part {number}").status_code == 200
    seen = list(events(http, session))
    done = [event for event in seen if event["msg"] == "process_completed"]
    assert [event["success"] for event in done] == [True] * 7
    places = [event for event in seen if event["msg"] == "estimation" and event["rank_eta"]]
    assert {event["rank"] for event in places} >= {0, 1}
    assert all(event["queue_size"] >= 1 for event in places)
    assert cluster.metric("tts_handed_over_total", 'outcome="ok"') >= 3


def test_a_job_comes_home_when_its_helper_dies(start_cluster: StartCluster, slow_espeak: Path) -> None:
    cluster = start_cluster(count=2, COSYVOICE_ESPEAK=str(slow_espeak))
    node, helper = cluster.nodes
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(node.say, f"sleep 3 {n}") for n in range(2)]
        wait_for(lambda: helper.metric("tts_running") == 1)
        helper.process.kill()
        assert [answer.result().status_code for answer in answers] == [200, 200]
    assert node.metric('tts_handed_over_total{outcome="lost"}') == 1
    assert node.metric("tts_synthesis_seconds_count") == 3, "the warm-up and both"


def test_a_helper_that_was_away_helps_again_although_nobody_new_comes(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(count=2, COSYVOICE_ESPEAK=str(slow_espeak))
    node, helper = cluster.nodes
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(node.say, "sleep 1 first"), pool.submit(node.say, "sleep 1 second")]
        wait_for(lambda: all(answer.done() for answer in answers))
        before = helper.metric("tts_synthesis_seconds_count")
        helper.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: node.metric("tts_peers_up") == 0)
        answers += [pool.submit(node.say, f"sleep 6 number {n}") for n in range(4)]
        wait_for(lambda: node.metric("tts_queue_size") == 3)
        helper.process.send_signal(signal.SIGCONT)
        assert {answer.result().status_code for answer in answers} == {200}
    assert helper.metric("tts_synthesis_seconds_count") > before


def test_a_request_that_is_given_up_ends_where_it_runs(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(count=2, COSYVOICE_ESPEAK=str(slow_espeak))
    node, helper = cluster.nodes
    with ThreadPoolExecutor(2) as pool:
        stays = pool.submit(node.say, "sleep 4 here")
        wait_for(lambda: node.metric("tts_running") == 1)

        def leave() -> None:
            with pytest.raises(httpx.ReadTimeout):
                node.http.post("/v1/audio/speech", json={"input": "sleep 60"}, timeout=3)

        leaves = pool.submit(leave)
        wait_for(lambda: helper.metric("tts_running") == 1)
        leaves.result()
        wait_for(lambda: helper.metric("tts_running") == 0)
        assert stays.result().status_code == 200


def sentences(count: int, each: float) -> str:
    """A text that is made in as many pieces, each of which takes so many seconds."""
    return "".join(f"sleep {each} and say {'many words ' * 12} number {n}. " for n in range(count))


def stream(node: Server, text: str) -> AbstractContextManager[httpx.Response]:
    return node.http.stream("POST", "/v1/audio/speech", json={"input": text, "stream": True})


def test_a_stream_that_is_made_elsewhere_is_heard_while_it_is_made(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(count=2, COSYVOICE_ESPEAK=str(slow_espeak))
    node, helper = cluster.nodes
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(node.say, "sleep 8 here")
        wait_for(lambda: node.metric("tts_running") == 1)
        with stream(node, sentences(4, 1)) as answer:
            assert answer.headers["x-served-by"] == "node-0"
            data = answer.iter_bytes()
            first = next(data)
            assert helper.metric("tts_running") == 1, "heard while it is being made there"
            heard = first + b"".join(data)
        assert stays.result().status_code == 200
    assert node.metric('tts_handed_over_total{outcome="ok"}') == 1
    again = node.say(sentences(4, 1))
    assert again.headers["x-cache"] == "hit"
    assert decode(again.content) == decode(heard)


def test_a_listener_who_leaves_stops_a_stream_where_it_is_made(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(count=2, COSYVOICE_ESPEAK=str(slow_espeak))
    node, helper = cluster.nodes
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(node.say, "sleep 6 here")
        wait_for(lambda: node.metric("tts_running") == 1)
        # After the first sentence nothing is to be heard for a minute.
        with stream(node, sentences(1, 0.1) + sentences(1, 60)) as answer:
            next(answer.iter_bytes())
            assert helper.metric("tts_running") == 1
        wait_for(lambda: helper.metric("tts_running") == 0)
        assert stays.result().status_code == 200
    assert helper.say("and it is free").status_code == 200


def test_a_stream_goes_home_if_nothing_was_heard_and_breaks_off_if_something_was(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(count=3, COSYVOICE_ESPEAK=str(slow_espeak))
    node, *helpers = cluster.nodes

    def helper_of() -> Server:
        wait_for(lambda: any(helper.metric("tts_running") for helper in helpers))
        return next(helper for helper in helpers if helper.metric("tts_running"))

    with ThreadPoolExecutor(2) as pool:
        stays = pool.submit(node.say, "sleep 12 here")
        wait_for(lambda: node.metric("tts_running") == 1)

        def broken() -> bytes:
            heard = b""
            text = sentences(1, 0.1) + sentences(1, 0.1).replace("sleep", "crash and sleep")
            with suppress(httpx.RemoteProtocolError), stream(node, text) as answer:
                for data in answer.iter_bytes():
                    heard += data
                return b"to the end"
            return heard

        assert len(pool.submit(broken).result()) > 1000
        assert "it broke" in node.log.read_text(), "what the other node said"

        def whole() -> int:
            with stream(node, sentences(1, 4)) as answer:
                return len(answer.read())

        home = pool.submit(whole)
        helper = helper_of()
        helpers.remove(helper)
        cluster.nodes.remove(helper)
        helper.process.kill()
        assert home.result() > 1000
        assert stays.result().status_code == 200


def test_a_drained_node_gets_no_jobs_and_may_give_its_own_away(
    start_cluster: StartCluster, slow_espeak: Path
) -> None:
    cluster = start_cluster(count=2, COSYVOICE_ESPEAK=str(slow_espeak))
    node, helper = cluster.nodes
    (cluster.folder / "drain-1").touch()
    wait_for(lambda: helper.http.get("/readyz").status_code == 503)
    with ThreadPoolExecutor(2) as pool:
        assert all(a.status_code == 200 for a in pool.map(node.say, ["sleep 1 a", "sleep 1 b"]))
    assert cluster.metric("tts_handed_over_total") == 0
    with ThreadPoolExecutor(2) as pool:
        assert all(a.status_code == 200 for a in pool.map(helper.say, ["sleep 2 c", "sleep 2 d"]))
    assert helper.metric('tts_handed_over_total{outcome="ok"}') == 1


@contextmanager
def running(peers: Peers) -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        try:
            yield runner
        finally:
            runner.run(peers.close())


def test_a_turn_that_is_not_used_holds_nobody_up(start_cluster: StartCluster) -> None:
    cluster = start_cluster(count=2)
    peers = node_peers(cluster, 0)
    with running(peers) as runner:
        peer = peers.all()[0]
        turn = runner.run(peers.ask(peer, "POST", "/peer/turn", {})).json()["turn"]
        held = cluster.nodes[1].http.get("/readyz").json()["queue"]["running"]
        assert held == 1
        wait_for(lambda: cluster.nodes[1].http.get("/readyz").json()["queue"]["running"] == 0)
        job = {"turn": turn, "name": "x", "request": {"text": "late"}}
        late = runner.run(peers.ask(peer, "POST", "/peer/speak", job))
        assert (late.status_code, late.json()["error"]["code"]) == (503, "not_ready")
        turn = runner.run(peers.ask(peer, "POST", "/peer/turn", {})).json()["turn"]
        job = {"turn": turn, "name": "x" * 32, "request": {"text": "another version"}}
        other = runner.run(peers.ask(peer, "POST", "/peer/speak", job))
        assert other.status_code == 400
        assert "do both nodes run the same version?" in other.json()["error"]["message"]
    assert cluster.nodes[1].say("and it is free at once").status_code == 200


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
