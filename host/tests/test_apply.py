"""The applier: what it promises, each promise where it is most likely to be broken."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import APPLY, Machine, needs_mounts

CONF, OTHER = "/etc/demo/demo.conf", "/etc/demo/other.conf"


def file(content="new\n", **more):
    return {"content": content, **more}


# -- the ordinary way


FULL = {
    "packages": ["demo"],
    "modules": ["ip_vs"],
    "sysctls": {"net.ipv4.vs.sloppy_tcp": "1", "net.ipv4.ip_forward": "1"},
    "users": [{"name": "speaker", "uid": 7860, "home": "/var/lib/speaker"}],
    "directories": {"/opt/demo": {"mode": "0750"}, "/srv/data": {"mode": "0755", "owner": "speaker:speaker"}},
    "files": {
        CONF: file(check="grep -q new {}", notify=["reload:demo.service"], mode="0640"),
        "/etc/systemd/system/ours.service": file("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=x\n"),
    },
    "steps": [
        {
            "name": "build",
            "run": "echo built > $COSYVOICE_LVS_ROOT/opt/demo/built",
            "unless": "test -e $COSYVOICE_LVS_ROOT/opt/demo/built",
        }
    ],
    "links": {"/opt/demo/current": {"target": "/opt/demo/1", "notify": ["restart:demo.service"]}},
    "units": {
        "demo.service": {"enabled": True, "started": True},
        "ours.service": {"enabled": True, "started": True},
    },
    "checks": [{"name": "it is there", "run": "test -e $COSYVOICE_LVS_ROOT/etc/demo/demo.conf", "within": 1}],
    "onRemove": ["rm -f $COSYVOICE_LVS_ROOT/opt/demo/built"],
}


LOADED = ("sys/module/", "proc/sys/net/ipv4/vs")  # modules stay in the kernel


@pytest.fixture
def full(machine):
    machine.unit("demo.service")
    return machine


def test_everything_is_applied_then_unchanged_then_taken_back(full):
    before = full.tree()
    message = full.run(FULL)
    assert message == (
        "layer test: installed demo, user speaker made, 5 directories made or changed, 4 files changed ("
        "/etc/demo/demo.conf /etc/systemd/system/ours.service /etc/modules-load.d/cosyvoice-lvs-test.conf "
        "/etc/sysctl.d/60-cosyvoice-lvs-test.conf), 2 sysctls set, build, /opt/demo/current -> /opt/demo/1, "
        "demo.service enabled, ours.service enabled, demo.service started, ours.service started"
    )
    assert full.read(CONF) == "new\n"
    assert full.read("/etc/sysctl.d/60-cosyvoice-lvs-test.conf") == (
        "net.ipv4.ip_forward = 1\nnet.ipv4.vs.sloppy_tcp = 1\n"
    )
    assert full.read("/etc/modules-load.d/cosyvoice-lvs-test.conf") == "ip_vs\n"
    assert full.read("/proc/sys/net/ipv4/vs/sloppy_tcp") == "1\n"
    assert os.readlink(full.path("/opt/demo/current")) == "/opt/demo/1"
    assert full.state("demo.service") == {"active": "active", "enabled": "enabled"}
    assert "speaker:x:7860:7860" in full.read("/etc/passwd")
    assert full.calls() == [
        (
            "apt-get install --no-install-recommends -y -q -o DPkg::Lock::Timeout=300 "
            "-o APT::Get::AllowUnauthenticated=false -o Dpkg::Options::=--force-confdef "
            "-o Dpkg::Options::=--force-confold -- demo"
        ),
        "groupadd --system --gid 7860 speaker",
        (
            "useradd --system --uid 7860 --gid 7860 --no-create-home --home-dir /var/lib/speaker "
            "--shell /usr/sbin/nologin speaker"
        ),
        "modprobe -a -- ip_vs",
        "systemctl enable --no-reload -- demo.service ours.service",
        "systemctl daemon-reload",
        "systemctl start --no-block -- demo.service ours.service",
    ]

    after, record = full.tree(without=("run",)), full.record()
    assert full.run(FULL) == "layer test: unchanged"
    assert full.calls() == []
    assert full.tree(without=("run",)) == after
    assert full.record() == record
    assert record["state"] == "applied"

    assert full.remove() == "layer test: removed; packages stay: demo"
    left = full.tree()
    left = {p: c for p, c in left.items() if not p.startswith(LOADED)}
    assert left == before
    assert full.read("/proc/sys/net/ipv4/vs/sloppy_tcp") == "0\n"
    assert full.read("/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert full.state("demo.service") == {"active": "inactive", "enabled": "disabled"}
    assert full.remove() == "layer test: nothing to remove"


def test_modes_are_kept_and_the_record_is_for_root_alone(machine):
    machine.run({"files": {CONF: file(mode="0640"), OTHER: file(mode="0755")}})
    assert oct(machine.path(CONF).stat().st_mode) == "0o100640"
    assert oct(machine.path(OTHER).stat().st_mode) == "0o100755"
    assert oct(machine.path("/var/lib/cosyvoice-lvs/layers/test.json").stat().st_mode) == "0o100600"
    assert oct(machine.path("/var/lib/cosyvoice-lvs").stat().st_mode) == "0o40700"
    machine.path(CONF).chmod(0o666)
    assert machine.run({"files": {CONF: file(mode="0640"), OTHER: file(mode="0755")}}) == (
        "layer test: 1 file changed (/etc/demo/demo.conf)"
    )
    assert oct(machine.path(CONF).stat().st_mode) == "0o100640"


# -- a broken new configuration never replaces one that works


def test_a_file_its_program_refuses_replaces_nothing(machine):
    machine.unit("demo.service", active="active")
    machine.run({"files": {CONF: file("good\n"), OTHER: file("good\n")}})
    before = machine.tree(without=("run",))
    machine.calls()
    check = "sh -c 'echo line 3 is odd; ls {} >/dev/null && grep -q good {}'"
    message = machine.run(
        {
            "files": {
                OTHER: file("also new\n", notify=["reload:demo.service"]),
                "/etc/fresh/one.conf": file("fresh\n"),
                CONF: file("bad\n", check=check, notify=["reload:demo.service"]),
            }
        },
        code=1,
    )
    assert message == (
        "cosyvoice-lvs: rs-1: layer test: step check /etc/demo/demo.conf failed: "
        "sh refuses the new /etc/demo/demo.conf (exit code 1); the machine was put back to what it was\n"
        "    line 3 is odd\n"
        "to do: no live file was touched; correct the configuration"
    )
    assert machine.tree(without=("run",)) == before
    assert machine.leftovers() == []
    assert machine.calls() == []


def test_every_check_is_made_before_the_first_file_is_replaced(machine):
    machine.run({"files": {CONF: file("one\n"), OTHER: file("one\n")}})
    seen = "test $(cat $COSYVOICE_LVS_ROOT/etc/demo/demo.conf) = one"
    machine.run(
        {
            "files": {
                CONF: file("two\n", check=seen + " && : {}"),
                OTHER: file("two\n", check=seen + " && : {}"),
            }
        }
    )
    assert machine.read(OTHER) == "two\n"


def test_exit_codes_that_mean_yes(machine):
    machine.run({"files": {CONF: file(check="exit 6 # {}", checkOk=[0, 6])}})
    assert machine.read(CONF) == "new\n"


def test_the_staged_file_has_the_directory_and_the_ending_of_the_real_one(machine):
    machine.run({"files": {CONF: file(check="case {} in */etc/demo/.*demo.conf) ;; *) exit 1 ;; esac")}})


# -- killed at any point, the next run finishes the job


SWEEP_OLD = {
    "sysctls": {"net.ipv4.ip_forward": "1"},
    "files": {
        CONF: file("old\n", notify=["reload:demo.service"]),
        "/etc/demo/dropped.conf": file("old\n", notify=["restart:other.service"]),
    },
    "links": {
        "/opt/current": {"target": "/opt/1", "notify": ["restart:demo.service"]},
        "/opt/gone": "/opt/1",
    },
    "units": {"demo.service": {"enabled": True, "started": True}},
}
SWEEP_NEW = {
    "packages": ["demo"],
    "sysctls": {"net.ipv4.conf.all.arp_ignore": "1"},
    "users": [{"name": "speaker", "uid": 7860, "home": "/x"}],
    "directories": {"/opt/data": {"mode": "0700"}},
    "files": {
        CONF: file("new\n", notify=["reload:demo.service"]),
        OTHER: file("new\n", notify=["restart:other.service", "run:true"]),
        "/etc/systemd/system/ours.service": file("[Unit]\n"),
    },
    "links": {"/opt/current": {"target": "/opt/2", "notify": ["restart:demo.service"]}},
    "units": {
        "demo.service": {"enabled": True, "started": True},
        "ours.service": {"enabled": True, "started": True},
    },
}


def prepared(folder):
    from conftest import Machine

    folder.mkdir()
    machine = Machine(folder)
    machine.unit("demo.service")
    machine.unit("other.service", active="active")
    machine.write(CONF, "foreign\n", 0o604)
    machine.write(OTHER, "foreign too\n")
    machine.path("/opt").mkdir()
    machine.path("/opt/current").symlink_to("/foreign")
    return machine


def sweep(tmp_path, step):
    """The machine with the old manifest, killed at one point after the other on the way to the new one.

    Every `step`th point, to save time; EVERY_POINT=1 in the environment tries all of them.
    """
    step = 1 if os.environ.get("EVERY_POINT") else step
    first = prepared(tmp_path / "first")
    first.run(SWEEP_OLD)
    first.calls()
    point, killed = 0, True
    while killed:
        machine = first.copy_to(tmp_path / f"point-{point}")
        killed = machine.killed_at(point, SWEEP_NEW)
        yield point, machine
        shutil.rmtree(tmp_path / f"point-{point}")
        point += step
    assert point > 60  # it was a sweep


def test_killed_at_any_point(tmp_path):
    straight = prepared(tmp_path / "straight")
    straight.run(SWEEP_OLD)
    straight.calls()
    straight.run(SWEEP_NEW)
    due = {c for c in straight.calls() if c.startswith(("systemctl restart", "systemctl reload"))}
    assert due == {
        "systemctl restart --no-block -- other.service",
        "systemctl restart --no-block -- demo.service",
    }
    wanted, record = straight.tree(), straight.record()
    for point, machine in sweep(tmp_path, 2):
        # Between a kill and the next run every file is whole: either the old one or the new one.
        assert machine.read(CONF) in ("old\n", "new\n"), point
        assert machine.read(OTHER) in ("foreign too\n", "new\n"), point
        machine.run(SWEEP_NEW)
        assert machine.tree() == wanted, point
        assert machine.record() == record, point
        assert machine.leftovers() == [], point
        assert machine.state("ours.service") == {"active": "active", "enabled": "enabled"}, point
        # What was due is done, by the run that was killed or by the next one.
        assert due <= set(machine.calls()), point


def test_killed_at_any_point_then_removed(tmp_path):
    foreign = prepared(tmp_path / "foreign").tree()
    for point, machine in sweep(tmp_path, 3):
        machine.remove()
        assert machine.tree() == foreign, point
        state = machine.path("/var/lib/cosyvoice-lvs")
        assert list(state.rglob("*")) in ([state / "layers"], []), point
        assert machine.state("ours.service").get("active", "inactive") == "inactive", point
        assert machine.state("demo.service") == {"active": "inactive", "enabled": "disabled"}, point


def test_killed_then_refused_goes_back_to_the_last_state_that_held(tmp_path):
    refused = {**SWEEP_NEW, "files": {**SWEEP_NEW["files"], CONF: file("bad\n", check="false {}")}}
    good = prepared(tmp_path / "good")
    good.run(SWEEP_OLD)
    for point, machine in sweep(tmp_path, 5):
        applied = machine.record()["state"] == "applied" and machine.read(CONF) == "new\n"
        assert "false refuses the new /etc/demo/demo.conf" in machine.run(refused, code=1)
        assert machine.leftovers() == [], point
        assert machine.record()["state"] == "applied", point
        if not applied:
            left = machine.tree()
            assert left == good.tree(), point


def test_a_kill_while_packages_are_installed_leaves_no_policy_behind(machine):
    machine.write(
        "/usr/sbin/policy-rc.d", "#!/bin/sh\n# cosyvoice-lvs: there while packages are installed\nexit 101\n"
    )
    machine.write(
        "/var/lib/cosyvoice-lvs/layers/test.json",
        json.dumps(
            {
                "owner": "lab/rs-1",
                "state": "applying",
                "transaction": {
                    "base": None,
                    "paths": {},
                    "sysctls": {},
                    "directories": {},
                    "users": [],
                    "notify": [],
                    "units": {},
                },
            }
        ),
    )
    (machine.fake / "packages").write_text("demo\n")
    machine.run({"packages": ["demo"]})
    assert not machine.path("/usr/sbin/policy-rc.d").exists()


# -- what fails after files were put in place is put back


def test_a_reload_that_fails_puts_everything_back(machine):
    machine.unit("demo.service", active="active")
    old = {
        "sysctls": {"net.ipv4.ip_forward": "1"},
        "files": {CONF: file("old\n", notify=["reload:demo.service"])},
        "links": {"/opt/current": "/opt/1"},
    }
    machine.run(old)
    before = machine.tree(without=("run",))
    machine.calls()
    machine.fail("reload-demo.service")
    new = {
        "sysctls": {"net.ipv4.conf.all.arp_ignore": "1"},
        "directories": {"/opt/fresh": {}},
        "files": {CONF: file("new\n", notify=["reload:demo.service"]), OTHER: file()},
        "links": {"/opt/current": "/opt/2"},
    }
    message = machine.run(new, code=1)
    assert "step reload demo.service failed: systemctl reload -- exited with 1" in message
    assert "the journal of demo.service" in message
    # The reload that is to take up the restored file fails here too, and that is said.
    assert "putting the machine back failed as well" in message
    assert machine.tree() == {p: c for p, c in before.items() if not p.startswith("var")}
    machine.fail("reload-demo.service", False)
    machine.calls()
    assert machine.run(old).startswith("layer test:")
    assert machine.calls() == ["systemctl reload -- demo.service"]  # still due
    assert machine.run(old) == "layer test: unchanged"
    assert machine.tree(without=("run",)) == before


def test_a_check_that_fails_puts_everything_back_and_reloads_again(machine):
    machine.unit("demo.service", active="active")
    machine.unit("added.service")
    old = {
        "files": {CONF: file("old\n", notify=["reload:demo.service"])},
        "sysctls": {"net.ipv4.ip_forward": "1"},
    }
    machine.run(old)
    before = machine.tree(without=("run",))
    machine.calls()
    new = {
        "files": {CONF: file("new\n", notify=["reload:demo.service"])},
        "sysctls": {"net.ipv4.ip_forward": "0"},
        "units": {"added.service": {"enabled": True, "started": True}},
        "checks": [{"name": "it answers", "run": "echo nobody there; false", "within": 0}],
    }
    message = machine.run(new, code=1)
    assert message == (
        "cosyvoice-lvs: rs-1: layer test: step check: it answers failed: exit code 1 for 0 s; "
        "the machine was put back to what it was (demo.service reloaded)\n    nobody there"
    )
    assert machine.tree(without=("run",)) == before
    assert machine.state("added.service") == {"active": "inactive", "enabled": "disabled"}
    calls = machine.calls()
    assert calls.count("systemctl reload -- demo.service") == 2
    assert machine.run(old) == "layer test: unchanged"


def test_a_first_deployment_that_fails_leaves_nothing(full):
    before = full.tree()
    message = full.run({**FULL, "checks": [{"name": "no", "run": "false", "within": 0}]}, code=1)
    assert "the machine was put back to what it was" in message
    left = {p: c for p, c in full.tree().items() if not p.startswith(LOADED)}
    left.pop("opt/demo/built", None)
    left.pop("opt/demo", None)  # a step made something in it: not ours to delete
    left.pop("opt", None)
    assert left == before
    assert not full.path("/var/lib/cosyvoice-lvs/layers/test.json").exists()
    assert full.state("ours.service") == {"active": "inactive", "enabled": "disabled"}


def test_a_unit_that_does_not_start_shows_its_journal(machine):
    machine.unit("demo.service")
    machine.fail("start-demo.service")
    message = machine.run({"files": {CONF: file()}, "units": {"demo.service": {"started": True}}}, code=1)
    assert "step wait for demo.service failed: it is failed (exit-code)" in message
    assert "    the journal of demo.service" in message
    assert not machine.path(CONF).exists()


def test_a_step_that_fails_puts_files_back(machine):
    machine.run({"files": {CONF: file("old\n")}})
    message = machine.run(
        {"files": {CONF: file("new\n")}, "steps": [{"name": "build it", "run": "seq 100; exit 3"}]}, code=1
    )
    assert "step build it failed: exit code 3; the machine was put back" in message
    assert "    100" in message
    assert "    71\n" in message
    assert "    70\n" not in message
    assert machine.read(CONF) == "old\n"


def test_a_signal_puts_files_back(machine):
    machine.run({"files": {CONF: file("old\n")}})
    manifest = {
        "layer": "test",
        "owner": "lab/rs-1",
        "files": {CONF: file("new\n")},
        "steps": [{"name": "wait", "run": "touch $COSYVOICE_LVS_ROOT/waiting; sleep 60"}],
    }
    with subprocess.Popen(
        [sys.executable, "-IS", str(APPLY), "apply"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=machine.environment,
    ) as process:
        process.stdin.write(json.dumps(manifest))
        process.stdin.close()
        deadline = time.monotonic() + 20
        while not machine.path("/waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert machine.read(CONF) == "new\n"
        process.send_signal(signal.SIGHUP)  # the connection breaks: no reason to stop
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 1
    assert machine.read(CONF) == "old\n"


# -- what was there before


def test_foreign_files_and_links_come_back(machine):
    machine.write(CONF, "foreign\n", 0o604)
    machine.path(OTHER).symlink_to("/somewhere")
    machine.path("/opt").mkdir()
    machine.path("/opt/current").symlink_to("/foreign")
    before = machine.tree()
    manifest = {"files": {CONF: file(), OTHER: file()}, "links": {"/opt/current": "/opt/1"}}
    machine.run(manifest)
    manifest["files"][CONF] = file("newer\n")
    machine.run(manifest)
    assert not machine.path(OTHER).is_symlink()
    machine.remove()
    assert machine.tree() == before


def test_what_a_new_manifest_lacks_goes_and_what_was_there_comes_back(machine):
    machine.write(CONF, "foreign\n")
    machine.unit("demo.service")
    machine.run(
        {
            "files": {CONF: file(), OTHER: file(), "/etc/new/kept": file(keep=True)},
            "links": {"/opt/a": "/1", "/opt/kept": {"target": "/1", "keep": True}},
            "sysctls": {"net.ipv4.ip_forward": "1"},
            "units": {"demo.service": {"enabled": True, "started": True}},
        }
    )
    message = machine.run({"files": {}})
    assert message == (
        "layer test: demo.service stopped, 3 files taken back (/etc/demo/demo.conf /etc/demo/other.conf "
        "/etc/sysctl.d/60-cosyvoice-lvs-test.conf), 1 sysctl restored, link /opt/a taken back"
    )
    assert machine.read(CONF) == "foreign\n"
    assert not machine.path(OTHER).exists()
    assert machine.read("/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert machine.state("demo.service") == {"active": "inactive", "enabled": "disabled"}
    assert machine.read("/etc/new/kept") == "new\n"
    assert os.readlink(machine.path("/opt/kept")) == "/1"
    assert machine.run({"files": {}}) == "layer test: unchanged"
    machine.remove()
    assert not machine.path("/etc/new").exists()
    assert not machine.path("/opt").exists()


def test_a_dropped_file_is_reloaded_for(machine):
    machine.unit("demo.service", active="active")
    machine.run({"files": {CONF: file(notify=["reload:demo.service", "run:true"])}})
    machine.calls()
    machine.run({"files": {}})
    assert machine.calls() == ["systemctl reload -- demo.service"]


def test_a_unit_that_goes_with_its_file_is_not_called_again(machine):
    unit = "/etc/systemd/system/ours.service"
    machine.run(
        {
            "files": {
                unit: file("[Unit]\n"),
                CONF: file(notify=["reload:ours.service", "restart:ours.service"]),
            },
            "units": {"ours.service": {"enabled": True, "started": True}},
        }
    )
    machine.calls()
    machine.run({"files": {OTHER: file()}})
    assert not [
        call for call in machine.calls() if call.startswith(("systemctl reload", "systemctl restart"))
    ]
    assert machine.state("ours.service") == {"active": "inactive", "enabled": "disabled"}


def test_a_file_may_become_a_link_and_back(machine):
    machine.write(CONF, "foreign\n")
    before = machine.tree()
    machine.run({"files": {CONF: file()}})
    machine.run({"links": {CONF: "/elsewhere"}})
    assert os.readlink(machine.path(CONF)) == "/elsewhere"
    machine.run({"files": {CONF: file()}})
    assert machine.read(CONF) == "new\n"
    machine.run({"links": {CONF: "/elsewhere"}})
    machine.remove()
    assert machine.tree() == before


def test_a_unit_that_ran_before_the_layer_goes_on_running(machine):
    machine.unit("demo.service", active="active", enabled="enabled")
    machine.write(CONF, "foreign\n")
    machine.run(
        {
            "files": {CONF: file(notify=["reload:demo.service"])},
            "units": {"demo.service": {"enabled": True, "started": True}},
        }
    )
    machine.calls()
    machine.remove()
    assert machine.state("demo.service") == {"active": "active", "enabled": "enabled"}
    assert machine.calls() == ["systemctl daemon-reload", "systemctl reload -- demo.service"]


def test_sysctls_shared_by_two_layers(machine):
    one, two = (
        {"sysctls": {"net.ipv4.ip_forward": "1"}},
        {"layer": "two", "sysctls": {"net.ipv4.ip_forward": "1"}},
    )
    machine.run(one)
    machine.run(two)
    machine.remove("test")
    assert machine.read("/proc/sys/net/ipv4/ip_forward") == "1\n"
    machine.remove("two")
    assert machine.read("/proc/sys/net/ipv4/ip_forward") == "0\n"
    machine.run(one)
    message = machine.run({"layer": "two", "sysctls": {"net.ipv4.ip_forward": "0"}}, code=1)
    assert "sysctl net.ipv4.ip_forward: 0 here, 1 in layer test" in message


def test_a_sysctl_that_is_not_there(machine):
    message = machine.run({"files": {CONF: file()}, "sysctls": {"net.ipv4.vs.sloppy_tcp": "1"}}, code=1)
    assert "step set sysctl net.ipv4.vs.sloppy_tcp failed: this kernel has no such key" in message
    assert not machine.path(CONF).exists()


def test_directories(machine):
    machine.path("/srv/there").mkdir(parents=True)
    machine.path("/srv/there").chmod(0o711)
    before = machine.tree()
    manifest = {
        "directories": {
            "/srv/there": {"mode": "0750"},
            "/srv/empty": {},
            "/srv/used": {},
            "/srv/purged": {"purge": True},
        }
    }
    machine.run(manifest)
    assert machine.run(manifest) == "layer test: unchanged"
    machine.write("/srv/used/precious", "data")
    machine.write("/srv/purged/deep/cache", "data")
    machine.remove()
    after = machine.tree()
    assert after.pop("srv/used/precious")
    assert after.pop("srv/used")
    assert after == before


def test_users(machine):
    manifest = {"users": [{"name": "speaker", "uid": 7860, "home": "/x"}]}
    machine.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nother:x:7860:1::/:/bin/sh\n")
    assert "number 7860 is taken by user other" in machine.run(manifest, code=1)
    machine.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nspeaker:x:55:1::/:/bin/sh\n")
    assert "user speaker has number 55 on this machine and should have 7860" in machine.run(manifest, code=1)
    before = "root:x:0:0::/:/bin/sh\nspeaker:x:7860:7860::/:/bin/sh\n"
    machine.write("/etc/passwd", before)
    machine.write("/etc/group", "speaker:x:7860:\n")
    assert machine.run(manifest) == "layer test: unchanged"
    machine.remove()
    assert machine.read("/etc/passwd") == before  # it was there before


def test_a_user_whose_number_is_nobodys_business(machine):
    manifest = {"users": [{"name": "keeper", "home": "/x"}]}
    before = machine.read("/etc/passwd"), machine.read("/etc/group")
    assert machine.compare(manifest)[1:] == ["user keeper: there: missing"]
    assert machine.run(manifest) == "layer test: user keeper made"
    assert machine.calls() == [
        "groupadd --system keeper",
        "useradd --system --gid keeper --no-create-home --home-dir /x --shell /usr/sbin/nologin keeper",
    ]
    assert machine.compare(manifest) == []
    machine.write("/etc/passwd", before[0] + "keeper:x:55:990::/:/bin/sh\n")  # it may be any
    assert machine.run(manifest) == "layer test: unchanged"
    assert machine.compare(manifest) == []
    machine.remove()
    assert (machine.read("/etc/passwd"), machine.read("/etc/group")) == before


def test_a_user_is_taken_back_when_its_unit_has_been_restarted(machine):
    before = machine.read("/etc/passwd")
    machine.fail("userdel-once")
    keeper = {"users": [{"name": "keeper", "home": "/x"}]}
    message = machine.run({**keeper, "steps": [{"name": "build", "run": "false"}]}, code=1)
    assert "the machine was put back to what it was" in message
    assert machine.read("/etc/passwd") == before
    assert machine.calls()[-3:] == ["userdel keeper", "userdel keeper", "groupdel keeper"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owners(machine):
    manifest = {
        "users": [{"name": "speaker", "uid": 7860, "home": "/x"}],
        "directories": {"/srv/data": {"owner": "speaker:speaker"}},
        "files": {CONF: file(owner="root:speaker", mode="0640")},
    }
    machine.run(manifest)
    assert (machine.path("/srv/data").stat().st_uid, machine.path("/srv/data").stat().st_gid) == (7860, 7860)
    assert (machine.path(CONF).stat().st_uid, machine.path(CONF).stat().st_gid) == (0, 7860)
    assert machine.run(manifest) == "layer test: unchanged"
    os.chown(machine.path(CONF), 12, 12)
    assert machine.run(manifest) == "layer test: 1 file changed (/etc/demo/demo.conf)"
    message = machine.run({"files": {OTHER: file(owner="nobody1:root")}}, code=1)
    assert "/etc/demo/other.conf: there is no nobody1:root on this machine" in message


# -- packages


def test_daemons_are_held_while_packages_are_installed(machine):
    machine.run({"packages": ["one", "two"]})
    assert "exit 101" in (machine.fake / "policy").read_text()
    assert not machine.path("/usr/sbin/policy-rc.d").exists()
    assert machine.run({"packages": ["two", "one"]}) == "layer test: unchanged"
    assert machine.run({"packages": ["one", "two", "three"]}) == "layer test: installed three"


def test_a_policy_of_the_machine_is_left_alone(machine):
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n", 0o755)
    machine.run({"packages": ["one"]})
    assert machine.read("/usr/sbin/policy-rc.d") == "#!/bin/sh\nexit 0\n"


def test_package_lists_are_fetched_only_when_needed(machine):
    machine.run({"packages": ["one"]})
    assert not (machine.fake / "updated").exists()
    machine.fail("apt-lists")
    machine.run({"packages": ["one", "two"]})
    assert (machine.fake / "updated").exists()


def test_an_installation_that_was_cut_off_is_finished_first(machine):
    machine.fail("apt-once")
    machine.run({"packages": ["one"]})
    assert "dpkg --configure -a --force-confdef --force-confold" in machine.calls()


def test_packages_that_cannot_be_had(machine):
    machine.fail("apt")
    message = machine.run({"packages": ["one"], "files": {CONF: file()}}, code=1)
    assert "step install packages failed: apt-get install one exited with 1" in message
    assert "    E: Unable to locate package" in message
    assert "to do: see that this machine reaches its package mirror" in message
    assert not machine.path(CONF).exists()
    assert not machine.path("/usr/sbin/policy-rc.d").exists()


# -- notifies


def test_notifies_come_once_in_order_and_not_for_what_was_just_started(machine):
    for unit in ("a.service", "b.service"):
        machine.unit(unit, active="active")
    machine.unit("fresh.service")
    machine.unit("stopped.service")
    both = ["reload:a.service", "reload:b.service"]
    machine.run(
        {
            "files": {
                CONF: file(notify=[*both, "restart:fresh.service", "reload:stopped.service"]),
                OTHER: file(notify=["restart:b.service", "run:touch $COSYVOICE_LVS_ROOT/ran", *both]),
            },
            "units": {"fresh.service": {"started": True}},
        }
    )
    assert machine.calls() == [
        "systemctl start --no-block -- fresh.service",
        "systemctl reload -- a.service",
        "systemctl restart --no-block -- b.service",
    ]
    assert machine.path("/ran").exists()


def test_a_unit_file_that_changes_is_read_again(machine):
    unit = "/etc/systemd/system/ours.service"
    units = {"ours.service": {"enabled": True, "started": True}}
    machine.run({"files": {unit: file("[Unit]\n", notify=["restart:ours.service"])}, "units": units})
    machine.calls()
    machine.run({"files": {unit: file("[Service]\n", notify=["restart:ours.service"])}, "units": units})
    assert machine.calls() == [
        "systemctl reenable --no-reload -- ours.service",
        "systemctl daemon-reload",
        "systemctl restart --no-block -- ours.service",
    ]
    machine.run({"files": {unit + ".d/x.conf": file(), unit: file("[Service]\n")}, "units": units})
    assert machine.calls() == ["systemctl daemon-reload"]


def test_units_can_be_kept_from_running(machine):
    machine.unit("demo.service", active="active", enabled="enabled")
    machine.run({"units": {"demo.service": {"enabled": False, "started": False}}})
    assert machine.state("demo.service") == {"active": "inactive", "enabled": "disabled"}


def test_checks_are_tried_until_they_hold(machine):
    run = "test -e $COSYVOICE_LVS_ROOT/tried || { touch $COSYVOICE_LVS_ROOT/tried; false; }"
    machine.run({"checks": [{"name": "second time", "run": run, "within": 5}]})


def test_a_program_that_hangs_is_killed(machine):
    began = time.monotonic()
    message = machine.run(
        {"steps": [{"name": "hang", "run": "echo begun; sleep 60 & sleep 60", "timeout": 1}]}, code=1
    )
    assert time.monotonic() - began < 20
    assert "step hang failed: exit code 124" in message
    assert "    begun\n    (killed after 1 s)" in message


# -- what is not as it should be


def test_compare_finds_nothing_where_everything_was_applied(full):
    full.run(FULL)
    before = full.tree()
    assert full.compare(FULL) == []
    assert full.tree() == before


def test_compare_before_anything_was_applied_names_everything_and_changes_nothing(full):
    before = full.tree()
    found = full.compare(FULL)
    assert full.tree() == before
    assert found[0] == "the layer: applied: it was never applied here, or has been removed"
    assert [line.split(":")[0] for line in found[1:]] == [
        "package demo",
        "user speaker",
        "directory /opt/demo",
        "directory /srv/data",
        "file /etc/demo/demo.conf",
        "file /etc/systemd/system/ours.service",
        "file /etc/modules-load.d/cosyvoice-lvs-test.conf",
        "file /etc/sysctl.d/60-cosyvoice-lvs-test.conf",
        "kernel module ip_vs",
        "sysctl net.ipv4.vs.sloppy_tcp",
        "sysctl net.ipv4.ip_forward",
        "step",
        "link /opt/demo/current",
        "demo.service",
        "demo.service",
        "ours.service",
        "ours.service",
    ]


def test_compare_says_what_was_changed_by_hand(full):
    full.run(FULL)
    full.path(CONF).write_text("old\n")
    full.path("/opt/demo").chmod(0o777)
    full.path("/proc/sys/net/ipv4/ip_forward").write_text("0\n")
    full.path("/opt/demo/current").unlink()
    full.path("/opt/demo/built").unlink()
    (full.fake / "units/ours.service/active").write_text("failed")
    (full.fake / "units/demo.service/enabled").write_text("disabled")
    assert full.compare(FULL) == [
        "directory /opt/demo: mode 0750: mode 0777",
        "file /etc/demo/demo.conf, line 1: new: old",
        "sysctl net.ipv4.ip_forward: 1: 0",
        "step: build: done: not done, or undone",
        "link /opt/demo/current: /opt/demo/1: missing",
        "demo.service: enabled at boot: not enabled at boot",
        "ours.service: running: failed",
    ]
    full.run(FULL)
    assert full.compare(FULL) == []


def test_compare_names_the_first_line_and_no_line_of_a_secret(machine):
    files = {"files": {CONF: file("one\ntwo\nthree\n")}}
    machine.run(files)
    machine.path(CONF).write_text("one\ntwo\n")
    assert machine.compare(files) == ["file /etc/demo/demo.conf, line 3: three: no such line"]
    secret = machine.compare({**files, "secret": True})
    assert secret == ["file /etc/demo/demo.conf: the content of this stack: another content"]


def test_compare_says_that_a_change_has_not_ended(tmp_path):
    (tmp_path / "a").mkdir()
    machine = Machine(tmp_path / "a")
    files = {"files": {CONF: file(), OTHER: file()}}
    assert machine.killed_at(20, files)
    assert "the layer: applied to its end: a change was begun and has not ended" in machine.compare(files)


# -- who may


def test_owners_of_a_layer(machine):
    machine.run({"files": {CONF: file()}})
    message = machine.run({"owner": "prod/rs-1", "files": {CONF: file("theirs\n")}}, code=1)
    assert message == (
        "cosyvoice-lvs: rs-1: layer test: step check the owner failed: "
        'it belongs to "lab/rs-1" and this deployment is "prod/rs-1"\n'
        "to do: destroy it there first, or take this machine out of one of the two stacks"
    )
    assert machine.read(CONF) == "new\n"
    # A rename: the new name takes over, and the delete of the old one, which comes last, does nothing.
    assert machine.run({"owner": "lab/speaker-1", "files": {CONF: file()}}) == "layer test: unchanged"
    assert machine.remove(owner="lab/rs-1") == 'layer test: belongs to "lab/speaker-1" now; left alone'
    assert machine.remove(owner="prod/rs-1") == 'layer test: belongs to "lab/speaker-1" now; left alone'
    assert machine.read(CONF) == "new\n"
    assert machine.remove(owner="lab/speaker-1") == "layer test: removed"


def test_a_path_belongs_to_one_layer(machine):
    machine.run({"files": {CONF: file()}})
    message = machine.run({"layer": "two", "links": {CONF: "/x"}}, code=1)
    assert "/etc/demo/demo.conf belongs to layer test" in message


def test_one_at_a_time(machine):
    import fcntl

    machine.path("/run").mkdir()
    with open(machine.path("/run/cosyvoice-lvs.lock"), "w") as held:
        held.write("process 1, apply of layer other\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        message = machine.run({"files": {CONF: file()}}, code=1)
    assert "after 0.3 s it is still busy: process 1, apply of layer other" in message
    machine.run({"files": {CONF: file()}})


# -- secrets


def test_secrets_are_never_shown_nor_kept(machine):
    machine.unit("demo.service", active="active")
    secret = {"secret": True, "files": {CONF: file("hunter2\n", mode="0600", check="cat {}")}}
    shown = machine.run(secret)
    shown += machine.run({**secret, "files": {CONF: file("hunter3\n", check="cat {}; false")}}, code=1)
    assert "its output is withheld: the layer is secret" in shown
    shown += machine.run({**secret, "files": {CONF: "hunter4"}, "hunter5": "hunter6"}, code=2)
    shown += machine.run({**secret, "files": {CONF: {"mode": "hunter7"}}}, code=2)
    machine.fail("reload-demo.service")
    changed = {**secret, "files": {CONF: file("hunter8\n", notify=["reload:demo.service"])}}
    shown += machine.run(changed, code=1)
    shown += json.dumps(machine.record())
    machine.fail("reload-demo.service", False)
    shown += machine.run(changed)
    shown += json.dumps(machine.record())
    assert "hunter" not in shown.replace("manifest.hunter5", "")
    for path in machine.path("/var/lib/cosyvoice-lvs").rglob("*"):
        assert path.is_dir() or "hunter" not in path.read_text(), path
    machine.remove()
    assert "hunter" not in json.dumps(machine.tree())


# -- wrong input


WRONG = [
    ("not json", "not JSON"),
    ("[]", "not a JSON object"),
    ("{}", "manifest.layer: null: missing"),
    ({"owner": "rs-1"}, 'owner: "rs-1": expected "stack/machine"'),
    ({"layer": "A_b"}, 'layer: "A_b": expected a DNS label'),
    ({"colour": 1}, "manifest.colour: 1: unknown key"),
    ({"packages": ["Bad Name"]}, 'packages[0]: "Bad Name": expected the name of a Debian package'),
    ({"packages": ["-o=x"]}, "packages[0]"),
    ({"modules": ["a b"]}, "modules[0]"),
    ({"sysctls": {"net.x": 1}}, 'sysctls["net.x"]: 1: expected the value as a text'),
    ({"sysctls": {"../x": "1"}}, "expected a key such as"),
    ({"users": [{"name": "x", "uid": 0, "home": "/x"}]}, "users[0].uid: 0: expected a whole number"),
    ({"directories": {"relative": {}}}, "expected an absolute path"),
    ({"files": {"/etc/../x": {"content": ""}}}, "expected an absolute path"),
    ({"files": {"/proc/x": {"content": ""}}}, "this place is not for files of a layer"),
    ({"files": {"/x": {}}}, 'files["/x"].content: null: missing'),
    ({"files": {"/x": {"content": "", "mode": "644"}}}, 'files["/x"].mode: "644": expected an octal text'),
    ({"files": {"/x": {"content": "", "owner": "root"}}}, 'files["/x"].owner: "root": expected "user:group"'),
    ({"files": {"/x": {"content": "", "check": "true"}}}, "expected a command with {} in it"),
    ({"files": {"/x": {"content": "", "notify": ["reload:x"]}}}, 'files["/x"].notify[0]: "reload:x"'),
    (
        {"files": {"/x": {"content": ""}}, "links": {"/x": "/y"}},
        'links["/x"]: "/x": the same path is in files',
    ),
    ({"files": {"/x": {"content": ""}}, "links": {"/x/y": "/y"}}, "/x above it is a file in this manifest"),
    ({"units": {"demo": {}}}, 'units["demo"]: "demo": expected the full name of a unit'),
    (
        {"units": {"a.service": {"started": "yes"}}},
        'units["a.service"].started: "yes": expected true or false',
    ),
    ({"checks": [{"name": "x"}]}, "checks[0].run: null: missing"),
    ({"checks": [{"name": "x", "run": "y", "within": -1}]}, "checks[0].within: -1: expected a number from 0"),
    (
        {"sysctls": {"a.b": "1"}, "files": {"/etc/sysctl.d/60-cosyvoice-lvs-test.conf": file()}},
        "written from `sysctls`",
    ),
]


@pytest.mark.parametrize(("manifest", "expected"), WRONG, ids=[e for _, e in WRONG])
def test_wrong_manifests(machine, manifest, expected):
    before = machine.tree(without=())
    text = (
        manifest
        if isinstance(manifest, str)
        else json.dumps({"layer": "test", "owner": "lab/rs-1", **manifest})
    )
    result = machine.start("apply", stdin=text)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert machine.tree(without=()) == before


def test_all_mistakes_are_named_at_once(machine):
    message = machine.run(
        {"files": {"x": 3, "/y": {"mode": "9"}}, "units": {"z": {"on": True}}, "what": 1}, code=2
    )
    assert message.startswith(
        "cosyvoice-lvs: rs-1: layer test: step read the manifest failed: the manifest has "
    )
    for part in (
        "manifest.what",
        'files["x"]',
        'files["/y"].mode',
        'files["/y"].content',
        'units["z"]',
        ".on",
    ):
        assert part in message


def test_what_the_machine_itself_forbids_is_refused_before_anything_is_changed(machine):
    machine.path("/etc/demo/demo.conf").mkdir(parents=True)
    before = machine.tree()
    message = machine.run({"packages": ["one"], "files": {CONF: file()}}, code=1)
    assert "/etc/demo/demo.conf is a directory on this machine" in message
    assert machine.tree() == before
    assert machine.calls() == []
    message = machine.run(
        {"packages": ["one"], "preflight": [{"name": "disk", "run": "echo full; false", "fix": "make room"}]},
        code=1,
    )
    assert "step preflight: disk failed: exit code 1\n    full\nto do: make room" in message
    assert machine.calls() == []


@pytest.mark.parametrize(
    "arguments", [[], ["apply", "x"], ["remove"], ["remove", "x"], ["remove", "x", "--owner"]]
)
def test_wrong_calls(machine, arguments):
    result = machine.start(*arguments)
    assert result.returncode == 2
    assert "usage:" in result.stderr


# -- removal goes on past what fails


def test_a_removal_that_cannot_finish_says_so_and_can_be_run_again(machine):
    machine.unit("demo.service")
    machine.fail("stop-demo.service")
    machine.run({"files": {CONF: file()}, "units": {"demo.service": {"enabled": True, "started": True}}})
    message = machine.remove(code=1)
    assert "step remove failed: 1 thing left undone" in message
    assert "stop of demo.service failed" in message
    assert not machine.path(CONF).exists()
    machine.fail("stop-demo.service", False)
    assert machine.remove() == "layer test: removed"
    assert machine.state("demo.service") == {"active": "inactive", "enabled": "disabled"}


@needs_mounts
def test_a_mount_point_is_neither_changed_nor_purged(machine):
    manifest = {
        "layer": "test",
        "owner": "lab/rs-1",
        "directories": {"/srv/x": {"purge": True}, "/srv/x/share": {}},
    }
    machine.run({"directories": manifest["directories"]})
    share = machine.path("/srv/x/share")
    program = f"""
        mount -t tmpfs share {share} && chmod 0700 {share} && echo kept > {share}/result
        {sys.executable} -IS {APPLY} apply || exit 1
        stat -c %a {share}
        {sys.executable} -IS {APPLY} remove test --owner lab/rs-1
        cat {share}/result
    """
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", program],
        input=json.dumps(manifest),
        capture_output=True,
        text=True,
        env=machine.environment,
        check=False,
    )
    assert result.stdout == "layer test: unchanged\n700\nkept\n", result.stderr
    assert "something is mounted on /srv/x/share" in result.stderr


# -- a program around the change


GATE = """
log() { echo "$*" >>"$COSYVOICE_LVS_ROOT/gate"; }
log "live: $(cat "$COSYVOICE_LVS_ROOT/etc/demo/demo.conf" 2>/dev/null)"
echo "say waiting for rs-2"
%s
read -r outcome || outcome=eof
log "$outcome"
%s
"""


def gated(machine, before="echo go", after=":", **more):
    """The program is a file on the machine: a manifest's own files come too late for it."""
    machine.write("/gate.sh", GATE % (before, after))
    around = {"name": "take the turn", "run": f"sh {machine.path('/gate.sh')}", **more}
    return {
        "files": {CONF: file(notify=["restart:demo.service"])},
        "units": {"demo.service": {"enabled": True, "started": True}},
        "around": around,
    }


@pytest.fixture
def running(full):
    full.unit("demo.service", active="active", enabled="enabled")
    full.write(CONF, "old\n")
    return full


def gate(machine):
    return machine.read("/gate").splitlines() if machine.path("/gate").exists() else []


def test_a_program_stands_around_a_change(running):
    manifest = gated(running)
    said = running.run(manifest)
    assert said.splitlines()[0] == "waiting for rs-2"
    assert gate(running) == ["live: old", "done"]
    assert running.read(CONF) == "new\n"
    running.path("/gate").unlink()
    assert running.run(manifest) == "layer test: unchanged"
    assert gate(running) == [], "nothing changes, so nobody is asked"


def test_a_change_that_disturbs_no_running_unit_asks_nobody(full):
    full.run(gated(full))
    assert gate(full) == [], "demo.service did not run"


@pytest.mark.parametrize("before", ["echo 'no rs-3 is broken'", "exit 3"])
def test_a_refused_change_touches_nothing(running, before):
    said = running.run(gated(running, before), code=1)
    assert "step take the turn failed: " in said
    assert "rs-3 is broken" in said or "ended without a word" in said
    assert running.read(CONF) == "old\n"
    assert running.calls() == []


def test_the_program_hears_of_a_failure_after_everything_is_back(running):
    running.fail("restart-demo.service")
    manifest = gated(running, after='log "$(cat "$COSYVOICE_LVS_ROOT/etc/demo/demo.conf")"')
    running.run(manifest, code=1)
    assert gate(running)[0] == "live: old"
    assert gate(running)[1].startswith("failed wait for demo.service: it is failed")
    assert gate(running)[2] == "old"


def test_what_the_program_says_at_the_end_fails_the_run_and_undoes_nothing(running):
    said = running.run(gated(running, after="echo 'no rs-1 is not back in the pool'; exit 1"), code=1)
    assert "rs-1 is not back in the pool" in said
    assert running.read(CONF) == "new\n"
    assert running.record()["state"] == "applied"


def test_waiting_for_go_has_an_end(running):
    said = running.run(gated(running, "sleep 30", within=1), code=1)
    assert "took longer than it may" in said
    assert running.read(CONF) == "old\n"


def test_a_caller_that_goes_away_ends_the_wait(running):
    manifest = {"layer": "test", "owner": "lab/rs-1", **gated(running, "sleep 30")}
    applier = subprocess.Popen(
        [sys.executable, "-IS", str(APPLY), "apply"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=running.environment,
    )
    applier.stdin.write(json.dumps(manifest).encode())
    applier.stdin.close()
    assert applier.stdout.readline() == b"waiting for rs-2\n"
    applier.stdout.close()
    assert applier.wait(10) == 1
    assert running.read(CONF) == "old\n"


def test_a_killed_applier_ends_the_program_and_the_next_run_asks_again(running):
    manifest = gated(running, before="echo go; sleep 0.3")
    count = 1
    while gate(running) == [] and count < 60:
        running.killed_at(count, manifest)
        count += 1
    assert running.read(CONF) == "old\n"
    time.sleep(0.6)
    assert gate(running)[-1] == "eof"
    running.run(manifest)
    assert gate(running)[-1] == "done"
    assert running.read(CONF) == "new\n"
