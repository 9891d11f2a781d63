"""The other programs, against the real thing where this computer allows it: namespaces, pip, sockets."""

import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import needs_mounts, needs_network

HOST = pathlib.Path(__file__).resolve().parent.parent


def shell(program, *options, stdin=""):
    return subprocess.run(
        ["unshare", *options, "sh", "-c", program], input=stdin, capture_output=True, text=True, check=False
    )


# -- bootstrap.sh


def bootstrap(**texts):
    """As components/remote/layer.ts makes it."""
    texts = {
        "apply": (HOST / "apply.py").read_text(),
        "turn": (HOST / "turn.py").read_text(),
        "vip-on-lo": (HOST / "vip-on-lo").read_text(),
        **texts,
    }
    parts = [f"PROGRAMS='{' '.join(texts)}'\n"]
    for name, text in texts.items():
        end = f"END_OF_{name}"
        parts.append(f"print_{name.replace('-', '_')}() {{\n    cat <<'{end}'\n{text}{end}\n}}\n")
    text = (HOST / "bootstrap.sh").read_text()
    assert text.count("@PROGRAMS@") == 1
    return text.replace("@PROGRAMS@", "\n".join(parts))


@needs_mounts
def test_the_applier_is_installed_and_taken_away(tmp_path):
    (tmp_path / "bootstrap").write_text(bootstrap())
    program = f"""
        for place in /usr/local/lib /var/lib; do mount -t tmpfs place $place; done
        sh -s install <{tmp_path}/bootstrap && /usr/local/lib/cosyvoice-lvs/apply version
        /usr/local/lib/cosyvoice-lvs/turn version
        cmp /usr/local/lib/cosyvoice-lvs/vip-on-lo {HOST}/vip-on-lo
        stat -c '%a %i' /usr/local/lib/cosyvoice-lvs/apply
        sh -s install <{tmp_path}/bootstrap
        stat -c '%a %i' /usr/local/lib/cosyvoice-lvs/apply
        ls -A /usr/local/lib/cosyvoice-lvs
        mkdir -p /var/lib/cosyvoice-lvs/layers; touch /var/lib/cosyvoice-lvs/layers/director.json
        sh -s remove <{tmp_path}/bootstrap
        rm /var/lib/cosyvoice-lvs/layers/director.json
        sh -s remove <{tmp_path}/bootstrap
        ls -A /usr/local/lib /var/lib
    """
    result = shell(program, "-rm")
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("cosyvoice-lvs apply ")
    assert lines[1].startswith("cosyvoice-lvs turn ")
    assert lines[2].startswith("755 ")
    assert lines[3] == lines[2]  # not even written again
    assert lines[4:] == [
        "apply",
        "python",
        "turn",
        "vip-on-lo",
        "layer director is still here; left alone",
        "/usr/local/lib:",
        "",
        "/var/lib:",
    ]


@needs_mounts
def test_a_transfer_that_was_cut_off_installs_nothing(tmp_path):
    text = bootstrap()
    for length in (len(text) // 2, len(text) - 200, len(text) - 5):
        (tmp_path / "bootstrap").write_text(text[:length])
        result = shell(
            f"mount -t tmpfs place /usr/local/lib; sh -s install <{tmp_path}/bootstrap; ls -A /usr/local/lib",
            "-rm",
        )
        assert result.stdout == ""
    (tmp_path / "bootstrap").write_text(
        bootstrap(apply="#!/usr/bin/python3 -IS\nimport json\nprint(json.du\n")
    )
    result = shell(
        f"mount -t tmpfs place /usr/local/lib; sh -s install <{tmp_path}/bootstrap;"
        "ls /usr/local/lib/cosyvoice-lvs/apply",
        "-rm",
    )
    assert "cosyvoice_apply.py does not run here" in result.stderr
    assert result.stdout == ""


# -- vip-on-lo


VIP = f"{HOST}/vip-on-lo"
SILENT = """
    echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
    echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
"""


@needs_network
def test_the_vip_is_refused_while_arp_would_answer_for_it():
    result = shell(f"{VIP} up 192.0.2.100 DR; ip -4 -o address show dev lo", "-rn")
    assert result.stdout == ""
    assert "net.ipv4.conf.all.arp_ignore is 0 and must be 1 before the VIP may be put" in result.stderr
    half = "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore"
    result = shell(f"{half}; {VIP} up 192.0.2.100 DR; ip -4 -o address show dev lo", "-rn")
    assert result.stdout == ""
    assert "net.ipv4.conf.all.arp_announce is 0 and must be 2" in result.stderr


@needs_network
def test_the_vip_comes_stays_changes_and_goes():
    program = f"""{SILENT}
        set -e
        ip link set lo up
        ip address add 192.0.2.7/32 dev lo
        show() {{ echo "$1:" $(ip -4 -o address show dev lo | awk '{{print $4}}' | sort) ; }}
        {VIP} up 192.0.2.100 DR; show up
        {VIP} up 192.0.2.100 DR; show again
        {VIP} up 192.0.2.101 DR; show changed
        ip -4 -o address show dev lo label lo:vip | grep -o 'scope host lo:vip'
        {VIP} down 192.0.2.101 DR; show down
        {VIP} down 192.0.2.101 DR; show twice
        {VIP} up 192.0.2.100 DR; {VIP} up 192.0.2.100 NAT; show nat
    """
    result = shell(program, "-rn")
    assert result.stderr == ""
    rest = "127.0.0.1/8 192.0.2.7/32"
    assert result.stdout.splitlines() == [
        "up: 127.0.0.1/8 192.0.2.100/32 192.0.2.7/32",
        "again: 127.0.0.1/8 192.0.2.100/32 192.0.2.7/32",
        "changed: 127.0.0.1/8 192.0.2.101/32 192.0.2.7/32",
        "scope host lo:vip",
        f"down: {rest}",
        f"twice: {rest}",
        f"nat: {rest}",
    ]


@pytest.mark.parametrize(
    "arguments", ["", "up", "up 192.0.2.1", "up 192.0.2.1 X", "on 192.0.2.1 DR", "up a DR b"]
)
def test_vip_on_lo_called_wrongly(arguments):
    result = subprocess.run(f"{VIP} {arguments}", shell=True, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "call it as vip-on-lo up|down VIP DR|TUN|NAT" in result.stderr


# -- build-env


def wheel(folder, name="demo_package", version="1.0"):
    """A wheel with one module in it; returns its line for a lock file."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def build_env(*arguments):
    return subprocess.run(
        [HOST / "build-env", *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_environment_is_built_once_whole_or_anew(tmp_path):
    lock, target = tmp_path / "lock", tmp_path / "envs" / "abc"
    lock.write_text(wheel(tmp_path))
    result = build_env(lock, target, tmp_path)
    assert result.returncode == 0, result.stderr
    answer = [target / "bin/python", "-c", "import demo_package; print(demo_package.ANSWER)"]
    assert subprocess.run(answer, capture_output=True, text=True, check=True).stdout == "42\n"
    stamp = (target / ".complete").stat().st_ino
    assert build_env(lock, target, tmp_path).returncode == 0
    assert (target / ".complete").stat().st_ino == stamp
    # Cut off: without the stamp nothing of it is believed.
    (target / ".complete").unlink()
    (target / "stray").touch()
    assert build_env(lock, target, tmp_path).returncode == 0
    assert not (target / "stray").exists()
    assert (target / ".complete").exists()


def test_what_the_lock_does_not_vouch_for_is_not_installed(tmp_path):
    lock, target = tmp_path / "lock", tmp_path / "env"
    line = wheel(tmp_path)
    for text in (re.sub(r"[0-9a-f]{8}$", "00000000", line.strip()) + "\n", "demo_package==1.0\n"):
        lock.write_text(text)
        result = build_env(lock, target, tmp_path)
        assert result.returncode == 1
        assert "to do: see that this machine reaches its package index" in result.stderr
        assert not (target / ".complete").exists()


def source_package(folder, name="only_source", version="1.0"):
    """A package that exists as source only, and whose build takes the setuptools of the lock file."""
    path, top = folder / f"{name}-{version}.tar.gz", f"{name}-{version}"
    backend = f"""
import pathlib, setuptools, zipfile
assert setuptools.ANSWER == 42
def build_wheel(directory, *_):
    info = "{name}-{version}.dist-info"
    path = pathlib.Path(directory) / "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("{name}.py", "ANSWER = 43\\n")
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "{name}.py,,\\n" + info + "/METADATA,,\\n" + info + "/WHEEL,,\\n")
    return path.name
"""
    texts = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n',
        "own.py": backend,
    }
    with tarfile.open(path, "w:gz") as archive:
        for file, text in texts.items():
            entry = tarfile.TarInfo(f"{top}/{file}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_a_package_that_exists_as_source_only_is_built_when_the_lock_names_it(tmp_path):
    lock, target = tmp_path / "lock", tmp_path / "env"
    tools = wheel(tmp_path, "setuptools", "999.0").replace(" --hash", " \\\n    --hash")
    packages = wheel(tmp_path) + source_package(tmp_path) + tools
    lock.write_text(packages)
    assert build_env(lock, target, tmp_path).returncode == 1, "it is not named"
    lock.write_text("--no-binary only-source\n" + packages)
    result = build_env(lock, target, tmp_path)
    assert result.returncode == 0, result.stderr
    answer = [target / "bin/python", "-c", "import only_source; print(only_source.ANSWER)"]
    assert subprocess.run(answer, capture_output=True, text=True, check=True).stdout == "43\n"
    lock.write_text("--no-binary only-source\n" + packages.replace(tools, ""))
    assert build_env(lock, target, tmp_path).returncode == 1, "what builds it has no hash"


def test_build_env_called_wrongly(tmp_path):
    assert "call it as build-env LOCKFILE TARGET" in build_env("x").stderr
    assert "there is no lock file" in build_env(tmp_path / "none", tmp_path / "env").stderr
    assert "give an absolute path" in build_env(tmp_path / "none", "env").stderr


# -- probe.py and verify.py: what they print is read by programs


def test_the_probe_answers_on_a_machine_that_has_nothing():
    result = subprocess.run(
        [sys.executable, "-IS", HOST / "probe.py", "192.0.2.100", "7860"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(result.stdout)
    assert report["vip"] is None
    assert report["ipvs"] is None
    assert report["layers"] == {}
