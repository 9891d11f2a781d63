#!/usr/bin/python3 -IS
"""Puts a program that is in no package on this machine: fetch-program DIRECTORY URL SHA256

The archive (.tar.gz or .zip) is fetched, must have the checksum, and is unpacked into DIRECTORY/<first 16
digits of it>; one whose all is in one directory loses that one. DIRECTORY/current leads there when it is
whole. A version that is there already is not fetched again; those before it are removed.

Exit status: 1 when it could not be had, 2 for a wrong call.
"""

import hashlib
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile

TRIES = 3
PAUSE = 5.0  # s between two of them
LIMIT = 60.0  # s in which nothing comes


class Refused(Exception):
    """What is wrong, and what to do about it."""


def fetch(url, target):
    """Copies what is there to a file; its checksum."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=LIMIT) as answer, open(target, "wb") as file:
        while block := answer.read(1 << 20):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def fetch_checked(url, sha256, target):
    for last in range(1, TRIES + 1):
        try:
            found = fetch(url, target)
            break
        except (OSError, urllib.error.URLError) as error:
            if last == TRIES:
                reason = getattr(error, "reason", None) or error
                raise Refused(
                    f"{url} cannot be fetched: {reason}",
                    "see that this machine reaches it, or name a server of yours in monitoring.programs",
                ) from error
            time.sleep(PAUSE)
    if found != sha256:
        raise Refused(
            f"{url} has the checksum {found} instead of {sha256}",
            "do not go on: ask who stands in between, or correct monitoring.programs",
        )


def unpack(archive, url, target):
    """Everything in it, which its checksum vouches for."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(target)
        # A .zip does not say which of its files are programs.
        for path in target.rglob("*"):
            path.chmod(0o755)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as bundle:
            bundle.extractall(target)
    else:
        raise Refused(f"{url} is neither a .tar.gz nor a .zip", "name an archive in monitoring.programs")
    inside = list(target.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        only = inside[0].rename(target / ".only")
        for path in list(only.iterdir()):
            path.rename(target / path.name)
        only.rmdir()


def install(directory, url, sha256):
    version = sha256[:16]
    current = directory / "current"
    if not (directory / version).is_dir():
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            archive, tree = pathlib.Path(temporary) / "archive", pathlib.Path(temporary) / "tree"
            tree.mkdir(mode=0o755)
            fetch_checked(url, sha256, archive)
            unpack(archive, url, tree)
            os.sync()
            tree.rename(directory / version)
    if not current.is_symlink() or os.readlink(current) != version:
        new = directory / ".current"
        new.unlink(missing_ok=True)
        new.symlink_to(version)
        new.rename(current)
    for path in directory.iterdir():
        if path not in (current, directory / version):
            shutil.rmtree(path)


def main(arguments):
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    directory = pathlib.Path(arguments[0])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        install(directory, *arguments[1:])
    except Refused as refused:
        print(f"fetch-program: {refused.args[0]}\nto do: {refused.args[1]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
