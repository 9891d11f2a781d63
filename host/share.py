#!/usr/bin/python3 -IS
"""Takes files from the share and puts them back, for `scripts/cluster backup` and `restore`. Sent over SSH to
a real server; it works as the share's owner, whom alone the storage lets write.

share list PART         a JSON object: SHA-256 of every file by its path below the share
share save PART         a tar of them to standard output
share restore < TAR     each file appears whole under its name or not at all; a JSON object {"written": N}

PART is `voices` (what users saved) or `all` (results and logs besides). What is being made, and what goes
while this reads, is left out.

Exit status: 1 with a line on standard error when the share is not mounted, does not answer or refuses.
"""

import hashlib
import json
import os
import stat
import sys
import tarfile

OUTPUTS = "/root/CosyVoice/outputs"
TEMPORARY = ".making-"  # how a name begins while the file is not whole
BLOCK = 1 << 20


def enter():
    """Goes to the share as its owner: root is nobody there, and the owner cannot go through /root."""
    if not os.path.ismount(OUTPUTS):
        raise OSError(f"{OUTPUTS} is not mounted")
    os.chdir(OUTPUTS)
    owner = os.stat(".")
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def files(part):
    """Paths of the files of a part, sorted."""
    found = []
    for directory, below, names in os.walk("voices" if part == "voices" else "."):
        below[:] = [name for name in below if name != "lost+found"]
        for name in names:
            path = os.path.normpath(os.path.join(directory, name))
            if not name.startswith(TEMPORARY) and is_file(path):
                found.append(path)
    return sorted(found)


def is_file(path):
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def digest(path):
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            hashed.update(block)
    return hashed.hexdigest()


def list_files(part):
    found = {}
    for path in files(part):
        try:
            found[path] = digest(path)
        except FileNotFoundError:
            pass
    print(json.dumps(found))


def save(part):
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for path in files(part):
            try:
                file = open(path, "rb")  # noqa: SIM115
            except FileNotFoundError:
                continue
            with file:
                tar.addfile(tar.gettarinfo(arcname=path, fileobj=file), file)


def restore():
    written = 0
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            path = os.path.normpath(member.name)
            if os.path.isabs(path) or path.split("/")[0] == "..":
                raise OSError(f"{member.name} leads out of the share")
            if not member.isreg():
                continue
            put(tar.extractfile(member), path, member.mtime)
            written += 1
    print(json.dumps({"written": written}))


def put(content, path, modified):
    directory, name = os.path.split(path)
    if directory:
        os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f"{TEMPORARY}restore-{os.getpid()}-{name}"[:200])
    try:
        with open(temporary, "wb") as file:
            for block in iter(lambda: content.read(BLOCK), b""):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.utime(temporary, (modified, modified))
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise


def main(verb, *part):
    try:
        enter()
        {"list": list_files, "save": save, "restore": restore}[verb](*part)
    except (OSError, tarfile.TarError) as error:
        print(f"share: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
