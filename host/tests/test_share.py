"""share.py: what it takes from the share, and how it puts it back."""

import hashlib
import importlib.util
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

SHARE = Path(__file__).parent.parent / "share.py"


@pytest.fixture
def share(tmp_path, monkeypatch):
    """The program as a module, with a share that is a folder here."""
    spec = importlib.util.spec_from_file_location("share", SHARE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.OUTPUTS = str(tmp_path)
    monkeypatch.setattr(module.os.path, "ismount", lambda path: path == str(tmp_path))
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "aa.wav").write_bytes(b"one")
    (tmp_path / "voices" / ".making-rs-1-7").write_bytes(b"half")
    (tmp_path / "result.wav").write_bytes(b"two")
    before = os.getcwd()
    yield module
    os.chdir(before)


class Standard:
    """Standard input or output of bytes."""

    def __init__(self, content=b""):
        self.buffer = io.BytesIO(content)


def saved(module, part, monkeypatch):
    out = Standard()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        assert module.main("save", part) == 0
    return out.buffer.getvalue()


def names(tar):
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        return found.getnames()


def test_it_lists_what_is_whole(share, capsys):
    assert share.main("list", "voices") == 0
    assert json.loads(capsys.readouterr().out) == {"voices/aa.wav": hashlib.sha256(b"one").hexdigest()}
    assert share.main("list", "all") == 0
    assert sorted(json.loads(capsys.readouterr().out)) == ["result.wav", "voices/aa.wav"]


def test_a_share_without_voices(share, tmp_path, monkeypatch, capsys):
    (tmp_path / "voices" / "aa.wav").unlink()
    (tmp_path / "voices" / ".making-rs-1-7").unlink()
    (tmp_path / "voices").rmdir()
    assert share.main("list", "voices") == 0
    assert capsys.readouterr().out == "{}\n"
    assert names(saved(share, "voices", monkeypatch)) == []


def test_what_was_saved_comes_back(share, tmp_path, monkeypatch, capsys):
    tar = saved(share, "all", monkeypatch)
    assert names(tar) == ["result.wav", "voices/aa.wav"]
    modified = (tmp_path / "voices" / "aa.wav").stat().st_mtime
    (tmp_path / "voices" / "aa.wav").write_bytes(b"another")
    (tmp_path / "result.wav").unlink()
    (tmp_path / "newer.wav").write_bytes(b"three")
    monkeypatch.setattr(sys, "stdin", Standard(tar))
    assert share.main("restore") == 0
    assert json.loads(capsys.readouterr().out) == {"written": 2}
    assert (tmp_path / "voices" / "aa.wav").read_bytes() == b"one"
    assert int((tmp_path / "voices" / "aa.wav").stat().st_mtime) == int(modified)
    assert (tmp_path / "result.wav").read_bytes() == b"two"
    assert (tmp_path / "newer.wav").read_bytes() == b"three"
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == [".making-rs-1-7", "aa.wav"]


def test_a_tar_that_was_cut_off_leaves_no_half_file(share, tmp_path, monkeypatch, capsys):
    (tmp_path / "result.wav").write_bytes(os.urandom(100_000))
    tar = saved(share, "all", monkeypatch)
    (tmp_path / "result.wav").write_bytes(b"as it was")
    monkeypatch.setattr(sys, "stdin", Standard(tar[:50_000]))
    assert share.main("restore") == 1
    assert "share: " in capsys.readouterr().err
    assert (tmp_path / "result.wav").read_bytes() == b"as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.wav", "voices"]


@pytest.mark.parametrize("name", ["../out.wav", "/etc/out.wav", "voices/../../out.wav"])
def test_nothing_leads_out_of_the_share(share, tmp_path, monkeypatch, capsys, name):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"out"))
    monkeypatch.setattr(sys, "stdin", Standard(content.getvalue()))
    assert share.main("restore") == 1
    assert "leads out of the share" in capsys.readouterr().err
    assert not (tmp_path.parent / "out.wav").exists()


def test_a_share_that_is_not_mounted(share, monkeypatch, capsys):
    monkeypatch.setattr(share.os.path, "ismount", lambda _: False)
    assert share.main("list", "voices") == 1
    assert "is not mounted" in capsys.readouterr().err
