#!/usr/bin/python3 -IS
"""Puts the weights of the engine cosyvoice on a real server, each file checked by its hash. Installed as
/usr/local/lib/cosyvoice-lvs/weights.

    weights NAME --directory FOLDER --checksums FILE
    weights NAME --hub huggingface|modelscope --id OWNER/NAME --revision REVISION
                 [--endpoint URL] [--checksums FILE]
        --tensorrt    what TensorRT's engine is built from must be among the files

makes /opt/cosyvoice/engine/models/NAME. With --checksums (as sha256sum writes it) the files are those that it
names, and have those hashes. Without, they are all that the hub has, and have the hashes that the hub states:
SHA-256 of large files (both hubs), git's own of small ones (huggingface). A file arrives under another name,
goes on where it was cut off, and has its own only when its hash is right; the model has its name only when
all files are there, with .complete and, for who wants to pin them, the hashes of all in checksums.sha256.

For tests: COSYVOICE_LVS_HOME stands for /opt/cosyvoice, COSYVOICE_LVS_PAUSE for the pause before another try.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HOME = os.environ.get("COSYVOICE_LVS_HOME", "/opt/cosyvoice") + "/engine"
PAUSE = float(os.environ.get("COSYVOICE_LVS_PAUSE", "5"))
ENDPOINTS = {"huggingface": "https://huggingface.co", "modelscope": "https://www.modelscope.cn"}
SILENCE = 60  # s without a byte
TRIES = 5  # in a row without a byte more
CHUNK = 1 << 20
LARGEST_LIST = 32 << 20  # bytes of a hub's answer
# What upstream opens, by version of the model (its cli/cosyvoice.py).
DESCRIPTIONS = {"cosyvoice3.yaml": 3, "cosyvoice2.yaml": 2, "cosyvoice.yaml": 1}
NETWORKS = ("llm.pt", "flow.pt", "hift.pt", "campplus.onnx")
TENSORRT = "flow.decoder.estimator.fp32.onnx"
LANGUAGE_MODEL = "CosyVoice-BlankEN/"
HIDDEN = re.compile(r"(^|/)\.|\.md$|^assets?/")


class Failed(Exception):
    """What went wrong, and what to do."""


class Wanted:
    """A file of the model. kind: sha256, or git for the hash of a git blob."""

    def __init__(self, path, kind, digest, size=None):
        self.path, self.kind, self.digest, self.size = path, kind, digest, size

    def hasher(self, size):
        if self.kind == "sha256":
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


# -- which files


def read_checksums(file):
    wanted = []
    with open(file, encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line.rstrip("\n"))
            if not found:
                raise Failed(f"{file}: {line.strip()!r} is no line of sha256sum")
            wanted.append(Wanted(found[2], "sha256", found[1]))
    return wanted


class Hub:
    def __init__(self, name, model, revision, endpoint):
        self.name, self.model, self.revision = name, model, revision
        self.endpoint = (endpoint or ENDPOINTS[name]).rstrip("/")

    def files(self):
        """What the hub has, with the hashes that it states."""
        found = self.of_huggingface() if self.name == "huggingface" else self.of_modelscope()
        return [file for file in found if not HIDDEN.search(file.path)]

    def of_huggingface(self):
        revision = urllib.parse.quote(self.revision, safe="")
        url, files = f"{self.endpoint}/api/models/{self.model}/tree/{revision}?recursive=true", []
        while url:
            page, url = self.ask(url)
            for entry in page:
                if entry["type"] == "file" and "lfs" in entry:
                    files.append(Wanted(entry["path"], "sha256", entry["lfs"]["oid"], entry["size"]))
                elif entry["type"] == "file":
                    files.append(Wanted(entry["path"], "git", entry["oid"], entry["size"]))
        return files

    def of_modelscope(self):
        query = urllib.parse.urlencode({"Revision": self.revision, "Recursive": "true"})
        page, _ = self.ask(f"{self.endpoint}/api/v1/models/{self.model}/repo/files?{query}")
        return [
            Wanted(entry["Path"], "sha256", entry["Sha256"], entry["Size"])
            for entry in page["Data"]["Files"]
            if entry["Type"] != "tree"
        ]

    def ask(self, url):
        """A page of a hub's answer, and where the next one is."""
        tries = TRIES
        while True:
            try:
                with urllib.request.urlopen(url, timeout=SILENCE) as answer:
                    page = json.loads(answer.read(LARGEST_LIST))
                    following = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link") or "")
                    return page, following and following[1]
            except (OSError, http.client.HTTPException, ValueError) as error:
                tries -= 1
                if not tries or refused(error):
                    raise self.failed(url, error)
                time.sleep(PAUSE)

    def url(self, path):
        if self.name == "huggingface":
            revision = urllib.parse.quote(self.revision, safe="")
            return f"{self.endpoint}/{self.model}/resolve/{revision}/{urllib.parse.quote(path)}"
        query = urllib.parse.urlencode({"Revision": self.revision, "FilePath": path})
        return f"{self.endpoint}/api/v1/models/{self.model}/repo?{query}"

    def failed(self, url, error):
        return Failed(
            f"{url}: {error}. To do: see that the real servers reach {self.endpoint} and that it has "
            f"revision "
            f"{self.revision} of {self.model}; for real servers that reach no hub, app.model.directory"
        )


def refused(error):
    """Whether asking again is of no use."""
    return (
        isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code not in (408, 429)
    )


def look_over(wanted, tensorrt, where):
    """The list is one of a model that can be loaded."""
    names = {file.path for file in wanted}
    for name in names:
        if name.startswith(("/", ".")) or os.path.normpath(name) != name:
            raise Failed(f"{where}: {name!r} is no place in a model")
    descriptions = [name for name in DESCRIPTIONS if name in names]
    if not descriptions:
        raise Failed(
            f"{where}: there is no cosyvoice3.yaml among {len(names)} files. To do: name a model of CosyVoice"
        )
    version = DESCRIPTIONS[descriptions[0]]
    needed = [*NETWORKS, f"speech_tokenizer_v{version}.onnx", *([TENSORRT] if tensorrt else [])]
    missing = [name for name in needed if name not in names]
    if version > 1 and not any(name.startswith(LANGUAGE_MODEL) for name in names):
        missing.append(LANGUAGE_MODEL + "*")
    if missing:
        raise Failed(
            f"{where}: {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing. To do: name all "
            f"files of the model"
        )


# -- getting them


class Folder:
    def __init__(self, folder):
        self.folder = folder

    def fetch(self, file, part):
        path = f"{self.folder}/{file.path}"
        if not os.path.isfile(path):
            raise Failed(
                f"there is no file {path}. To do: put it there, or take it out of app.model.checksums"
            )
        room(os.path.getsize(path), part, file)
        with open(path, "rb") as content, open(part, "wb") as copy:
            shutil.copyfileobj(content, copy, CHUNK)


class Downloads:
    def __init__(self, hub):
        self.hub = hub

    def fetch(self, file, part):
        tries, before = TRIES, -1
        while True:
            have = os.path.getsize(part) if os.path.exists(part) else 0
            tries = TRIES if have > before else tries - 1
            before = max(before, have)
            try:
                self.download(file, part, have)
                return
            except (OSError, http.client.HTTPException) as error:
                if refused(error) or tries <= 1 or (isinstance(error, OSError) and error.errno == 28):
                    raise self.hub.failed(self.hub.url(file.path), error)
                print(f"{file.path}: {error}; another try in {PAUSE:g} s", flush=True)
                time.sleep(PAUSE)

    def download(self, file, part, have):
        request = urllib.request.Request(self.hub.url(file.path), headers={"User-Agent": "cosyvoice-lvs"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            answer = urllib.request.urlopen(request, timeout=SILENCE)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # all of it is there, or more than that: the hash will tell
                return
            raise
        with answer:
            goes_on = answer.status == 206
            length = int(answer.headers.get("Content-Length") or 0)
            room(length, part, file)
            got = 0
            with open(part, "ab" if goes_on else "wb") as copy:
                while chunk := answer.read(CHUNK):
                    copy.write(chunk)
                    got += len(chunk)
            if got < length:
                raise socket.timeout(f"the connection ended after {got} of {length} bytes")


def room(needed, part, file):
    free = shutil.disk_usage(os.path.dirname(part)).free
    if needed > free:
        raise Failed(
            f"{file.path} takes {needed} bytes more, and {os.path.dirname(part)} has {free} left. "
            "To do: free some, or mount a larger disk at /opt/cosyvoice"
        )


def hashes(path, file):
    """The hash of a file as it is wanted, and its SHA-256."""
    hasher, sha256 = file.hasher(os.path.getsize(path)), hashlib.sha256()
    with open(path, "rb") as content:
        while chunk := content.read(CHUNK):
            sha256.update(chunk)
            if file.kind != "sha256":
                hasher.update(chunk)
    return (sha256 if file.kind == "sha256" else hasher).hexdigest(), sha256.hexdigest()


def stage(name, wanted, origin, tensorrt, where):
    place = f"{HOME}/models/{name}"
    if os.path.exists(place + "/.complete"):
        return f"weights {name} are there already"
    wanted = wanted()
    look_over(wanted, tensorrt, where)
    new = f"{HOME}/models/.{name}.new"
    os.makedirs(new, exist_ok=True)
    known = []
    for file in sorted(wanted, key=lambda file: file.path):
        path = f"{new}/{file.path}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # What a run before this one has brought here is looked at again: nobody knows what happened to it
        # since.
        if not os.path.exists(path) or hashes(path, file)[0] != file.digest:
            origin.fetch(file, path + ".part")
            found, _ = hashes(path + ".part", file)
            if found != file.digest:
                os.unlink(path + ".part")
                raise Failed(
                    f"{file.path} of {where} has the hash {found}, and should have {file.digest} "
                    f"({file.kind}). It was thrown "
                    "away. To do: deploy again; if it says the same, the file is not the one that was "
                    "pinned, or was damaged "
                    "where it comes from"
                )
            with open(path + ".part", "rb+") as whole:
                os.fsync(whole.fileno())
            os.rename(path + ".part", path)
        known.append(f"{hashes(path, file)[1]}  {file.path}\n")
        print(f"{file.path}: {os.path.getsize(path)} bytes, checked", flush=True)
    forget_others(new, {file.path for file in wanted})
    for list_name, text in (("checksums.sha256", "".join(known)), (".complete", "")):
        with open(f"{new}/{list_name}", "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    os.sync()
    shutil.rmtree(place, ignore_errors=True)
    os.rename(new, place)
    return f"weights {name} are staged; their hashes: {place}/checksums.sha256"


def forget_others(folder, names):
    """Files of a run that was killed when the hub had others."""
    for below, _, files in os.walk(folder):
        for file in files:
            path = os.path.join(below, file)
            if os.path.relpath(path, folder) not in names:
                os.unlink(path)


def main():
    parser = argparse.ArgumentParser(prog="weights")
    parser.add_argument("name")
    parser.add_argument("--directory")
    parser.add_argument("--hub", choices=tuple(ENDPOINTS))
    for option in ("id", "revision", "endpoint", "checksums"):
        parser.add_argument("--" + option, default="")
    parser.add_argument("--tensorrt", action="store_true")
    given = parser.parse_args()
    if bool(given.directory) == bool(given.hub) or (given.directory and not given.checksums):
        parser.error("give --directory with --checksums, or --hub")
    try:
        if given.directory:
            origin, where = Folder(given.directory), given.directory
        else:
            hub = Hub(given.hub, given.id, given.revision, given.endpoint)
            origin, where = Downloads(hub), f"{given.id} ({hub.endpoint}, {given.revision})"
        wanted = (lambda: read_checksums(given.checksums)) if given.checksums else hub.files
        print(stage(given.name, wanted, origin, given.tensorrt, where))
    except Failed as error:
        sys.stderr.write(f"weights: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"weights: {error}. To do: see to it on the machine, and deploy again\n")
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
