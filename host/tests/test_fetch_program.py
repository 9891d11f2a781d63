"""Programs that are in no package: whole and as pinned, or not there."""

import functools
import hashlib
import http.server
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent


class Vendor:
    """A server of files, and the machine that fetches from it."""

    def __init__(self, folder):
        self.files, self.place = folder / "files", folder / "machine/loki"
        self.files.mkdir()
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(self.files))
        handler.log_message = lambda *_: None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def archive(self, name, members):
        """Makes one of texts by their paths; its URL and checksum."""
        path = self.files / name
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as bundle:
                for member, text in members.items():
                    bundle.writestr(member, text)
        else:
            with tarfile.open(path, "w:gz") as bundle:
                for member, text in members.items():
                    entry = tarfile.TarInfo(member)
                    entry.size, entry.mode = len(text), 0o755
                    bundle.addfile(entry, io.BytesIO(text.encode()))
        url = f"http://127.0.0.1:{self.server.server_port}/{name}"
        return url, hashlib.sha256(path.read_bytes()).hexdigest()

    def run(self, *arguments, code=0):
        program = (HOST / "fetch-program.py").read_text().replace("PAUSE = 5.0", "PAUSE = 0.01")
        result = subprocess.run(
            [sys.executable, "-ISc", program, *(str(argument) for argument in arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stderr

    def current(self, path):
        return (self.place / "current" / path).read_text()


@pytest.fixture
def vendor(tmp_path):
    vendor = Vendor(tmp_path)
    yield vendor
    vendor.server.shutdown()
    vendor.server.server_close()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_is_there_and_can_be_run(vendor, name):
    url, sha256 = vendor.archive(name, {"loki": "#!/bin/sh\necho made up\n", "README": "made up"})
    vendor.run(vendor.place, url, sha256)
    said = subprocess.run([vendor.place / "current/loki"], capture_output=True, text=True, check=True)
    assert said.stdout == "made up\n"
    assert os.readlink(vendor.place / "current") == sha256[:16]
    assert {path.name for path in vendor.place.iterdir()} == {sha256[:16], "current"}


def test_loses_the_one_directory_that_all_is_in(vendor):
    url, sha256 = vendor.archive("a.tar.gz", {"grafana-1/bin/grafana": "1", "grafana-1/grafana-1": "2"})
    vendor.run(vendor.place, url, sha256)
    assert (vendor.current("bin/grafana"), vendor.current("grafana-1")) == ("1", "2")


def test_a_newer_one_replaces_it_and_one_that_is_there_is_not_fetched_again(vendor):
    first = vendor.archive("1.tar.gz", {"loki": "1", "other": ""})
    second = vendor.archive("2.tar.gz", {"loki": "2", "other": ""})
    vendor.run(vendor.place, *first)
    vendor.run(vendor.place, *second)
    assert vendor.current("loki") == "2"
    assert not (vendor.place / first[1][:16]).exists()
    vendor.server.shutdown()
    (vendor.files / "2.tar.gz").unlink()
    vendor.run(vendor.place, *second)
    assert vendor.current("loki") == "2"


def test_what_has_another_checksum_is_not_unpacked_and_the_old_one_stays(vendor):
    url, sha256 = vendor.archive("1.tar.gz", {"loki": "1", "other": ""})
    vendor.run(vendor.place, url, sha256)
    other, _ = vendor.archive("2.tar.gz", {"loki": "2", "other": ""})
    said = vendor.run(vendor.place, other, "0" * 64, code=1)
    assert "instead of 0000" in said
    assert "ask who stands in between" in said
    assert vendor.current("loki") == "1"
    assert {path.name for path in vendor.place.iterdir()} == {sha256[:16], "current"}


def test_what_cannot_be_had_is_named_with_what_to_do(vendor):
    url, sha256 = vendor.archive("a.tar.gz", {"loki": "1"})
    said = vendor.run(vendor.place, f"{url}x", sha256, code=1)
    assert f"{url}x cannot be fetched: " in said
    assert "monitoring.programs" in said
    assert not (vendor.place / "current").exists()


def test_what_is_no_archive_is_refused(vendor):
    (vendor.files / "page.html").write_text("<p>Please log in.")
    sha256 = hashlib.sha256(b"<p>Please log in.").hexdigest()
    url = f"http://127.0.0.1:{vendor.server.server_port}/page.html"
    assert "neither a .tar.gz nor a .zip" in vendor.run(vendor.place, url, sha256, code=1)


def test_a_wrong_call_says_how_it_goes(vendor):
    assert "fetch-program DIRECTORY URL SHA256" in vendor.run(vendor.place, code=2)
