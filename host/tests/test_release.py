"""Releases on a real server: whole or not there, never the wrong one pruned."""

import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent


class Node:
    """A folder in the place of /opt/cosyvoice; its build-env only makes a folder."""

    def __init__(self, folder):
        self.home, self.programs, self.folder = folder / "home", folder / "programs", folder
        self.programs.mkdir()
        shutil.copy(HOST / "release.py", self.programs / "release")
        self.build("mkdir -p $2; touch $2/.complete")

    def build(self, text):
        (self.programs / "build-env").write_text(f"#!/bin/sh\n{text}\n")
        (self.programs / "build-env").chmod(0o755)

    def run(self, *arguments, code=0):
        result = subprocess.run(
            [sys.executable, "-IS", self.programs / "release", *arguments],
            env={"COSYVOICE_LVS_HOME": str(self.home), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return (result.stdout if code == 0 else result.stderr).strip()

    def archive(self, version, lock="a==1\n", **more):
        text = json.dumps(
            {"app.py": f"print({version})\n", "requirements.txt": lock, "p/a.py": "", **more}
        ).encode()
        path = self.folder / f"{version}.json.gz"
        path.write_bytes(gzip.compress(text))
        return str(path), hashlib.sha256(text).hexdigest()[:16]

    def stage(self, version, **more):
        archive, digest = self.archive(version, **more)
        self.run("stage", archive, digest)
        os.utime(self.home / "releases" / digest, (1000 + version, 1000 + version))
        return digest

    def activate(self, digest):
        link = self.home / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(self.home / "releases" / digest)
        self.run("proved")

    def link(self, name):
        link = self.home / name
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def names(self, folder):
        return set(os.listdir(self.home / folder))


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_a_release_is_staged_once(node):
    archive, digest = node.archive(1)
    assert node.run("stage", archive, digest) == f"release {digest} is staged"
    release = node.home / "releases" / digest
    assert (release / "app.py").read_text() == "print(1)\n"
    assert (release / ".complete").read_text() == digest + "\n"
    assert (release / "env" / ".complete").exists()
    pathlib.Path(archive).unlink()
    assert "there already" in node.run("stage", archive, digest)


@pytest.mark.parametrize("damage", ["cut", "other", "missing"])
def test_what_is_not_the_release_is_refused(node, damage):
    archive, digest = node.archive(1)
    if damage == "cut":
        pathlib.Path(archive).write_bytes(pathlib.Path(archive).read_bytes()[:-9])
    elif damage == "other":
        archive, _ = node.archive(2)
    else:
        pathlib.Path(archive).unlink()
    assert "To do: deploy again" in node.run("stage", archive, digest, code=1)
    assert node.names("releases") == set()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "env"])
def test_a_path_that_leads_out_is_refused(node, path):
    archive, digest = node.archive(1, **{path: "x"})
    assert "is no place in a release" in node.run("stage", archive, digest, code=1)


def test_an_environment_that_cannot_be_built_leaves_no_release(node):
    archive, digest = node.archive(1)
    node.build("exit 7")
    assert "build-env exited with 7" in node.run("stage", archive, digest, code=1)
    assert digest not in node.names("releases")
    node.build("mkdir -p $2; touch $2/.complete")
    node.run("stage", archive, digest)
    assert node.names("releases") == {digest}


def test_packages_come_from_a_folder_that_is_named(node):
    node.build('mkdir -p $2; touch $2/.complete; echo "$3" >$2/from')
    archive, digest = node.archive(1)
    node.run("stage", archive, digest, "/srv/wheels")
    assert (node.home / "releases" / digest / "env" / "from").read_text() == "/srv/wheels\n"


def test_previous_is_what_was_proved_before(node):
    one, two = node.stage(1), node.stage(2)
    node.activate(one)
    assert (node.link("last-good"), node.link("previous")) == (one, None)
    node.run("proved")  # a deployment that changes nothing says so again
    assert (node.link("last-good"), node.link("previous")) == (one, None)
    node.activate(two)
    assert (node.link("last-good"), node.link("previous")) == (two, one)
    node.activate(one)  # going back
    assert (node.link("last-good"), node.link("previous")) == (one, two)


def test_old_releases_and_their_environments_go_and_those_in_use_stay(node):
    digests = [node.stage(1, lock="a==1\n"), node.stage(2)]
    node.activate(digests[0])
    node.activate(digests[1])
    for version in range(3, 9):
        digests.append(node.stage(version, lock=f"a=={version}\n"))
    kept = node.names("releases")
    assert {digests[0], digests[1], digests[-1]} <= kept, "previous, active and the newest"
    assert len(kept) == 6
    assert digests[2] not in kept
    assert len(node.names("envs")) == 5, "two releases share one"
