#!/usr/bin/python3 -IS
"""Keeps the releases of the speech app on a real server. Installed as /usr/local/lib/cosyvoice-lvs/release.

    release stage ARCHIVE DIGEST [WHEELS]
                                    makes /opt/cosyvoice/releases/DIGEST of an archive: code and environment,
                                    whose packages come from the folder WHEELS where one is named
    release proved                  the active release has come up well: remembers it, and the one before

    /opt/cosyvoice/releases/DIGEST  app.py, requirements.txt, the package, env -> envs/HASH, and .complete
    /opt/cosyvoice/envs/HASH        a Python environment, shared by the releases whose lock file is the same
    /opt/cosyvoice/current          link to the active release; the applier's
    /opt/cosyvoice/last-good        link to the release that was proved last
    /opt/cosyvoice/previous         link to the one that was proved before that: what going back goes back to

ARCHIVE is gzipped JSON {"path": "text"}. DIGEST is the first 16 hexadecimal digits of the SHA-256 of that
JSON, so what was cut off or tampered with on its way is refused. A release is made under another name and
renamed when it is whole. Of the others the newest KEEP stay; current, last-good and previous always do.

COSYVOICE_LVS_HOME stands for /opt/cosyvoice in tests; build-env is called from the program's own directory.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

HOME = os.environ.get("COSYVOICE_LVS_HOME", "/opt/cosyvoice")
RELEASES, ENVIRONMENTS = HOME + "/releases", HOME + "/envs"
KEEP = 3
LARGEST = 64 << 20  # bytes of an archive, unpacked


class Failed(Exception):
    """What went wrong, and what to do."""


def unpack(archive, digest):
    """The files of an archive, by relative path."""
    try:
        # Read whole before it is looked at: it may lie where another user can write.
        with open(archive, "rb") as file, gzip.GzipFile(fileobj=file) as content:
            text = content.read(LARGEST + 1)
    except (OSError, EOFError) as error:
        raise Failed(
            f"{archive}: {error}. To do: deploy again; pulumi up --replace copies it anew"
        ) from error
    found = hashlib.sha256(text).hexdigest()[:16]
    if found != digest:
        raise Failed(f"{archive} is release {found} and should be {digest}. To do: deploy again")
    files = json.loads(text)
    for path in files:
        if path.startswith(("/", "..")) or os.path.normpath(path) != path or path == "env":
            raise Failed(f"{archive}: {path!r} is no place in a release")
    return files


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(directory):
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point(link, target):
    """Makes a link lead there, at no moment nowhere."""
    new = link + ".new"
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, link)
    sync(os.path.dirname(link))


def target_of(link):
    try:
        return os.readlink(os.path.join(HOME, link))
    except OSError:
        return None


def stage(archive, digest, *wheels):
    """Makes a release, unless it is there."""
    place = f"{RELEASES}/{digest}"
    if os.path.exists(place + "/.complete"):
        os.utime(place)  # the newest again, for `prune`
        return f"release {digest} is there already"
    files = unpack(archive, digest)
    if "requirements.txt" not in files:
        raise Failed(f"{archive} has no requirements.txt, which names the packages of its environment")
    environment = f"{ENVIRONMENTS}/{hashlib.sha256(files['requirements.txt'].encode()).hexdigest()[:16]}"
    new = f"{RELEASES}/.{digest}.new"
    for path in (new, place):  # of a run that was killed, or half removed by hand
        shutil.rmtree(path, ignore_errors=True)
    for path, text in files.items():
        write(f"{new}/{path}", text)
    build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "build-env")
    done = subprocess.run([build, new + "/requirements.txt", environment, *wheels], check=False)
    if done.returncode:
        raise Failed(f"build-env exited with {done.returncode}: see above")
    os.symlink(environment, new + "/env")
    write(new + "/.complete", digest + "\n")
    sync(new)
    os.rename(new, place)
    sync(RELEASES)
    prune(digest)
    return f"release {digest} is staged"


def prune(newest):
    """Removes old releases, and environments that no release uses."""
    kept = {newest} | {
        os.path.basename(target_of(name) or "") for name in ("current", "last-good", "previous")
    }
    places = [name for name in os.listdir(RELEASES) if re.fullmatch("[0-9a-f]{16}", name)]
    others = sorted((n for n in places if n not in kept), key=lambda n: -os.stat(f"{RELEASES}/{n}").st_mtime)
    for name in others[KEEP:]:
        shutil.rmtree(f"{RELEASES}/{name}")
    used = {os.path.basename(target_of(f"releases/{n}/env") or "") for n in os.listdir(RELEASES)}
    for name in os.listdir(ENVIRONMENTS):
        if name not in used:
            shutil.rmtree(f"{ENVIRONMENTS}/{name}")


def proved():
    """What is active now is good."""
    active, good = target_of("current"), target_of("last-good")
    if active is None:
        raise Failed(f"{HOME}/current is not there: no release is active")
    if active == good:
        return "the active release was proved before"
    if good is not None:
        point(HOME + "/previous", good)
    point(HOME + "/last-good", active)
    return f"{os.path.basename(active)} is proved"


def main(arguments):
    try:
        staging = len(arguments) in (3, 4) and arguments[0] == "stage"
        if staging and re.fullmatch("[0-9a-f]{16}", arguments[2]):
            os.makedirs(RELEASES, exist_ok=True)
            os.makedirs(ENVIRONMENTS, exist_ok=True)
            print(stage(*arguments[1:]))
        elif arguments == ["proved"]:
            print(proved())
        else:
            sys.stderr.write("usage: release stage ARCHIVE DIGEST [WHEELS] | release proved\n")
            return 2
    except Failed as error:
        sys.stderr.write(f"release: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
