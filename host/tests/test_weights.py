"""Weights on a real server, from a hub (a real HTTP server that answers as the hubs do) or from a folder."""

import hashlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent
FILES = {
    "cosyvoice3.yaml": b"made: up\n",
    "llm.pt": b"llm " * 100_000,
    "flow.pt": b"flow",
    "hift.pt": b"hift",
    "campplus.onnx": b"campplus",
    "speech_tokenizer_v3.onnx": b"tokens",
    "CosyVoice-BlankEN/config.json": b"{}",
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """What both hubs answer, of the model a/m in revision r. Misbehaves as `orders` say: path -> list of what
    happens to the next answers: an int cuts after so many bytes, "deny" answers 403, "whole" ignores the
    range that is asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {**FILES, "README.md": b"words", ".gitattributes": b"x", "asset/a.png": b"p"}
        self.stated, self.orders, self.asked = {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def say(self, data, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return data

    def do_GET(self):
        hub = self.server
        path, _, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        if path == "/api/models/a/m/tree/r":
            self.wfile.write(self.tree(asked))
        elif path == "/api/v1/models/a/m/repo/files" and asked["Revision"] == "r":
            entries = [
                {
                    "Path": name,
                    "Type": "blob",
                    "Size": len(data),
                    "Sha256": hub.stated.get(name, sha256(data)),
                }
                for name, data in hub.files.items()
            ]
            folder = {"Path": "CosyVoice-BlankEN", "Type": "tree", "Size": 0, "Sha256": ""}
            self.wfile.write(
                self.say(json.dumps({"Code": 200, "Data": {"Files": [folder, *entries]}}).encode())
            )
        elif path == "/api/v1/models/a/m/repo" and asked["Revision"] == "r":
            self.file(asked["FilePath"])
        elif path.startswith("/a/m/resolve/r/"):
            # As the hub does, which keeps large files elsewhere.
            self.say(b"", 302, Location=path.replace("/a/m/resolve/r/", "/elsewhere/"))
        elif path.startswith("/elsewhere/"):
            self.file(urllib.parse.unquote(path.removeprefix("/elsewhere/")))
        else:
            self.say(b"", 404)

    def tree(self, asked):
        """Two files a page."""
        hub = self.server
        first, names = int(asked.get("cursor", 0)), list(hub.files)
        page = []
        for name in names[first : first + 2]:
            data = hub.files[name]
            entry = {"type": "file", "path": name, "size": len(data), "oid": hub.stated.get(name, blob(data))}
            if name.endswith((".pt", ".onnx")):
                entry["lfs"] = {"oid": hub.stated.get(name, sha256(data)), "size": len(data)}
                entry["oid"] = blob(b"a pointer")
            page.append(entry)
        following = f'<{hub.url}{self.path.split("?")[0]}?recursive=true&cursor={first + 2}>; rel="next"'
        return self.say(json.dumps(page).encode(), **({"Link": following} if first + 2 < len(names) else {}))

    def file(self, name):
        hub = self.server
        wanted = self.headers.get("Range")
        hub.asked.append((name, wanted))
        order = hub.orders[name].pop(0) if hub.orders.get(name) else None
        data = hub.files.get(name)
        if data is None or order == "deny":
            self.say(b"", 404 if data is None else 403)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and order != "whole" else 0
        if start and start >= len(data):
            self.say(b"", 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:] if not isinstance(order, int) else data[start : start + order])


class Node:
    def __init__(self, folder):
        self.folder, self.models = folder, folder / "home/engine/models"
        self.hub = Hub()
        self.options = ("--id", "a/m", "--revision", "r", "--endpoint", self.hub.url)

    def run(self, *arguments, code=0):
        result = subprocess.run(
            [sys.executable, "-IS", HOST / "weights.py", *map(str, arguments)],
            env={"COSYVOICE_LVS_HOME": str(self.folder / "home"), "COSYVOICE_LVS_PAUSE": "0.01"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return (result.stdout if code == 0 else result.stderr).strip()

    def from_hub(self, name="w", *more, hub="huggingface", code=0):
        return self.run(name, "--hub", hub, *self.options, *more, code=code)

    def checksums(self, files=None):
        path = self.folder / "checksums"
        path.write_text("".join(f"{sha256(data)}  {name}\n" for name, data in (files or FILES).items()))
        return path

    def contents(self, name="w"):
        place = self.models / name
        return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.hub.shutdown()
    node.hub.server_close()


def staged(files=FILES):
    listed = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(files.items()))
    return {**files, ".complete": b"", "checksums.sha256": listed.encode()}


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_a_hubs_files_are_compared_with_the_hashes_that_it_states(node, hub):
    assert "weights w are staged" in node.from_hub(hub=hub)
    assert node.contents() == staged()
    before = len(node.hub.asked)
    assert "there already" in node.from_hub(hub=hub)
    assert len(node.hub.asked) == before


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
@pytest.mark.parametrize("name", ["llm.pt", "cosyvoice3.yaml"])
def test_a_file_with_another_hash_is_refused_and_not_kept(node, hub, name):
    node.hub.stated[name] = "0" * 40
    said = node.from_hub(hub=hub, code=1)
    right = blob(FILES[name]) if hub == "huggingface" and name == "cosyvoice3.yaml" else sha256(FILES[name])
    assert f"{name} of a/m" in said
    assert f"has the hash {right}, and should have {'0' * 40}" in said
    assert os.listdir(node.models) == [".w.new"]
    assert not (node.models / ".w.new" / name).exists()
    assert not (node.models / ".w.new" / f"{name}.part").exists()
    del node.hub.stated[name]
    node.from_hub(hub=hub)
    assert node.contents() == staged()


def test_a_download_that_is_cut_off_goes_on_where_it_was(node):
    node.hub.orders["llm.pt"] = [1000, 2000]
    node.from_hub()
    assert [wanted for name, wanted in node.hub.asked if name == "llm.pt"] == [
        *(None, "bytes=1000-", "bytes=3000-")
    ]
    assert node.contents() == staged()


def test_a_run_that_was_killed_goes_on_where_it_was(node):
    new = node.models / ".w.new"
    new.mkdir(parents=True)
    (new / "llm.pt.part").write_bytes(FILES["llm.pt"][:5000])
    (new / "flow.pt").write_bytes(FILES["flow.pt"])
    (new / "hift.pt").write_bytes(b"damaged since")
    (new / "old.pt").write_bytes(b"the hub had it then")
    node.from_hub()
    asked = dict(node.hub.asked)
    assert asked["llm.pt"] == "bytes=5000-"
    assert "flow.pt" not in asked
    assert "hift.pt" in asked
    assert node.contents() == staged()


def test_a_hub_that_knows_no_ranges_begins_anew(node):
    new = node.models / ".w.new"
    new.mkdir(parents=True)
    (new / "llm.pt.part").write_bytes(b"something else")
    node.hub.orders["llm.pt"] = ["whole"]
    node.from_hub()
    assert node.contents() == staged()


def test_more_than_there_should_be_is_no_file_of_the_hub(node):
    new = node.models / ".w.new"
    new.mkdir(parents=True)
    (new / "flow.pt.part").write_bytes(b"longer than flow")
    assert "flow.pt of a/m" in node.from_hub(code=1)
    node.from_hub()
    assert node.contents() == staged()


def test_a_hub_that_gives_nothing_is_given_up(node):
    node.hub.orders["llm.pt"] = [1000, 0, 0, 0, 0, 0, 0]
    said = node.from_hub(code=1)
    assert "/a/m/resolve/r/llm.pt: the connection ended after 0 of 399000 bytes" in said
    assert "for real servers that reach no hub, app.model.directory" in said
    node.hub.orders = {"llm.pt": ["deny", "deny"]}
    node.hub.asked.clear()
    assert "403" in node.from_hub(code=1)
    assert [name for name, _ in node.hub.asked].count("llm.pt") == 1, "asking again is of no use"


def test_a_hub_that_is_not_there_is_named(node):
    node.options = ("--id", "a/m", "--revision", "other", "--endpoint", node.hub.url)
    assert (
        f"see that the real servers reach {node.hub.url} and that it has revision other of a/m"
        in node.from_hub(code=1)
    )


def test_with_checksums_the_hubs_word_is_not_taken(node):
    node.hub.stated = dict.fromkeys(FILES, "0" * 64)
    node.hub.files["more.bin"] = b"not named"
    node.from_hub("w", "--checksums", node.checksums())
    assert node.contents() == staged()
    node.hub.files["flow.pt"] = b"changed"
    said = node.from_hub("v", "--checksums", node.checksums(), code=1)
    assert f"has the hash {sha256(b'changed')}, and should have {sha256(b'flow')} (sha256)" in said


def folder_of(node, files):
    folder = node.folder / "weights"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_folders_files_are_copied_and_compared(node):
    folder = folder_of(node, {**FILES, "more.bin": b"not named"})
    node.run("w", "--directory", folder, "--checksums", node.checksums())
    assert node.contents() == staged()
    (folder / "llm.pt").write_bytes(b"other")
    said = node.run("v", "--directory", folder, "--checksums", node.checksums(), code=1)
    assert f"llm.pt of {folder} has the hash {sha256(b'other')}" in said
    (folder / "llm.pt").unlink()
    assert f"there is no file {folder}/llm.pt" in node.run(
        "v", "--directory", folder, "--checksums", node.checksums(), code=1
    )


@pytest.mark.parametrize(
    ("left_out", "more", "complaint"),
    [
        (["llm.pt", "hift.pt"], [], "llm.pt, hift.pt are missing"),
        (["CosyVoice-BlankEN/config.json"], [], "CosyVoice-BlankEN/* is missing"),
        (["cosyvoice3.yaml"], [], "there is no cosyvoice3.yaml among 6 files"),
        ([], ["--tensorrt"], "flow.decoder.estimator.fp32.onnx is missing"),
    ],
)
def test_a_list_of_what_is_no_whole_model_is_refused_before_a_byte_is_fetched(
    node, left_out, more, complaint
):
    for name in left_out:
        del node.hub.files[name]
    assert complaint in node.from_hub("w", *more, code=1)
    assert node.hub.asked == []


@pytest.mark.parametrize("name", ["../out.pt", "/etc/out.pt", "a/../../out.pt"])
def test_a_path_that_leads_out_is_refused(node, name):
    said = node.run(
        "w", "--directory", node.folder, "--checksums", node.checksums({**FILES, name: b"x"}), code=1
    )
    assert f"{name!r} is no place in a model" in said
    node.checksums().write_text("abc  llm.pt\n")
    said = node.run("w", "--directory", node.folder, "--checksums", node.folder / "checksums", code=1)
    assert "'abc  llm.pt' is no line of sha256sum" in said


def test_called_wrongly_it_says_how(node):
    for words in (("w",), ("w", "--directory", "/x"), ("w", "--directory", "/x", "--hub", "modelscope")):
        assert "give --directory with --checksums, or --hub" in node.run(*words, code=2)
