"""What systemd's sandbox forbids: sandbox.py < [{"directive", "works", "user"?, "leaves"?}]

Runs on a machine of the lab as root, with the standard library only. Each operation is run in a unit of its own,
without the directive and with it alone. Prints {directive: [whether it worked without, whether it worked with]}.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

NAME = f"sandbox-proof-{os.getpid()}"
place = pathlib.Path("/opt") / NAME
units = pathlib.Path("/run/systemd/system")
environment = {"DIR": str(place), "NAME": NAME}
files = [pathlib.Path("/root") / NAME, pathlib.Path("/tmp") / NAME]


def run(*command):
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def write_unit(name, script, proof, *directives):
    lines = ["[Service]", "Type=oneshot", f"ExecStart=/bin/sh -e {script}", *directives]
    lines += [f"Environment={key}={value}" for key, value in environment.items()]
    if "user" in proof:
        lines.append(f"User={proof['user']}")
    (units / f"{name}.service").write_text("\n".join(lines) + "\n")


def works(name, proof):
    done = run("systemctl", "start", name).returncode == 0
    if "leaves" in proof:
        return run("/bin/sh", "-ec", proof["leaves"]).returncode == 0 and done
    return done


proofs = json.load(sys.stdin)
try:
    (place / "mount").mkdir(parents=True)
    place.chmod(0o755)
    units.mkdir(exist_ok=True)
    for file in [*files, place / "file"]:
        file.touch()
    shutil.copy("/usr/bin/id", place / "id")
    (place / "id").chmod(0o4755)
    for number, proof in enumerate(proofs):
        script = place / f"{number}.sh"
        script.write_text(proof["works"] + "\n")
        write_unit(f"{NAME}-{number}-without", script, proof)
        write_unit(f"{NAME}-{number}-with", script, proof, proof["directive"])
    run("systemctl", "daemon-reload")
    found = {}
    for number, proof in enumerate(proofs):
        ways = [works(f"{NAME}-{number}-{way}", proof) for way in ("without", "with")]
        found[proof["directive"]] = ways
    print(json.dumps(found))
finally:
    run("umount", str(place / "mount"))
    shutil.rmtree(place)
    for file in [*files, *units.glob(f"{NAME}-*.service")]:
        file.unlink()
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed", f"{NAME}-*")
