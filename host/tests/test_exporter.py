"""Readings: what is made of what programs and the kernel say; of keepalived, where namespaces are allowed."""

import hashlib
import http.server
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from conftest import needs_keepalived, needs_network

HOST = pathlib.Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("exporter", HOST / "exporter.py")
exporter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exporter)

SMI = """#!/bin/sh
# A made-up nvidia-smi: no GPU is behind it.
cat <<END
GPU-AAAA0000, 00000000:01:00.0, 0, Made-up GPU, 999.99, 42, 7, 1024, 4096, 61, 123.50, 300.00
GPU-BBBB0000, 00000000:C1:00.0, 1, Made-up GPU, 999.99, 0, 0, 5, 4096, 30, [N/A], 300.00
END
exit ${SMI_STATUS:-0}
"""
# What a NVIDIA H200 answered while the engine spoke, 2026-11-26; the UUID is another.
H200 = """#!/bin/sh
cat <<END
GPU-CCCC0000, 00000000:00:06.0, 0, NVIDIA H200, 580.159.04, 45, 3, 4499, 143771, 42, 168.49, 700.00
END
"""
KERNEL_LOG = (
    "6,1,1000000,-;Linux version made up\n",
    "4,2,61000000,-;NVRM: Xid (PCI:0000:c1:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off\n",
    "4,3,62000000,-;NVRM: Xid (PCI:0000:c1:00): 79, again\n",
    "4,4,63000000,-;NVRM: Xid (PCI:0000:01:00): 13, pid=7, name=python\n",
)


def samples(text):
    """{name{labels}: value} of a text; every family has its words and its kind once, before its samples."""
    found, families = {}, []
    for line in str(text).splitlines():
        if line.startswith("# HELP "):
            families.append(line.split()[2])
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name.split("{")[0] == families[-1]
            assert name not in found
            found[name] = float(value)
    assert len(families) == len(set(families))
    return found


@pytest.fixture
def smi(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    yield program
    # What was killed for its time is still dying, and would be taken for the next test's.
    while exporter.stuck:
        exporter.stuck.popitem()[1].wait()


class Log:
    """A kernel log that gives a record a read, as /dev/kmsg does."""

    def __init__(self, monkeypatch, records):
        self.records, self.real, opened = list(records), os.read, os.open

        def open_(path, *rest):
            return -7 if path == "/dev/kmsg" else opened(path, *rest)

        monkeypatch.setattr(exporter.os, "open", open_)
        monkeypatch.setattr(exporter.os, "read", self.read)

    def read(self, descriptor, size):
        if descriptor != -7:
            return self.real(descriptor, size)
        if not self.records:
            raise BlockingIOError
        record = self.records.pop(0)
        if record is None:
            raise BrokenPipeError
        return record.encode()


def test_a_gpu_has_the_names_and_units_of_the_public_exporter(smi):
    found = samples(exporter.Gpu("/nowhere").read())
    assert found['nvidia_smi_utilization_gpu_ratio{uuid="aaaa0000"}'] == pytest.approx(0.42)
    assert found['nvidia_smi_memory_used_bytes{uuid="aaaa0000"}'] == 1024 * 2**20
    assert found['nvidia_smi_memory_total_bytes{uuid="bbbb0000"}'] == 4096 * 2**20
    assert found['nvidia_smi_temperature_gpu{uuid="aaaa0000"}'] == 61
    assert found['nvidia_smi_power_draw_watts{uuid="aaaa0000"}'] == 123.5
    assert found["nvidia_smi_command_exit_code"] == 0
    assert 'nvidia_smi_power_draw_watts{uuid="bbbb0000"}' not in found
    info = [name for name in found if name.startswith("nvidia_smi_gpu_info{")]
    assert len(info) == 2
    assert 'name="Made-up GPU",driver_version="999.99"' in info[0]


def test_a_real_gpus_answer_is_understood(smi, monkeypatch):
    smi.write_text(H200)
    Log(monkeypatch, ["4,5,64000000,-;NVRM: Xid (PCI:0000:00:06): 79, made up\n"])
    found = samples(exporter.Gpu().read())
    uuid = 'uuid="cccc0000"'
    assert found[f"nvidia_smi_utilization_gpu_ratio{{{uuid}}}"] == pytest.approx(0.45)
    assert found[f"nvidia_smi_memory_total_bytes{{{uuid}}}"] == 143771 * 2**20
    assert found[f"nvidia_smi_enforced_power_limit_watts{{{uuid}}}"] == 700
    assert found[f'nvidia_smi_xid_errors_total{{{uuid},xid="79"}}'] == 1
    assert sum(name.endswith(f"{{{uuid}}}") for name in found) == len(exporter.GPU_FIELDS)


def test_errors_of_the_kernels_log_are_counted_by_gpu_also_when_part_of_it_was_overwritten(smi, monkeypatch):
    log = Log(monkeypatch, [*KERNEL_LOG[:2], None, *KERNEL_LOG[2:]])
    gpu = exporter.Gpu()
    found = samples(gpu.read())
    assert found['nvidia_smi_xid_errors_total{uuid="bbbb0000",xid="79"}'] == 2
    assert found['nvidia_smi_xid_errors_total{uuid="aaaa0000",xid="13"}'] == 1
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    last = found['nvidia_smi_xid_last_timestamp_seconds{uuid="bbbb0000",xid="79"}']
    assert last == pytest.approx(boot + 62, abs=1)
    log.records.append("4,9,70000000,-;NVRM: Xid (PCI:0000:01:00): 13, again\n")
    assert samples(gpu.read())['nvidia_smi_xid_errors_total{uuid="aaaa0000",xid="13"}'] == 2


def test_a_gpu_that_cannot_be_read_says_so_and_a_machine_without_one_says_nothing(smi, monkeypatch):
    monkeypatch.setenv("SMI_STATUS", "9")
    assert samples(exporter.Gpu("/nowhere").read()) == {"nvidia_smi_command_exit_code": 9}
    monkeypatch.setattr(exporter, "NVIDIA_SMI_LIMIT", 0.3)
    smi.write_text("#!/bin/sh\nexec sleep 30\n")
    assert samples(exporter.Gpu("/nowhere").read()) == {"nvidia_smi_command_exit_code": -1}
    smi.unlink()
    assert exporter.Gpu("/nowhere").read() is None


def test_a_program_that_cannot_be_killed_is_neither_waited_for_nor_started_again(smi, monkeypatch):
    monkeypatch.setattr(exporter, "NVIDIA_SMI_LIMIT", 0.3)
    started = smi.parent / "started"
    smi.write_text(f"#!/bin/sh\necho >>{started}\nexec sleep 30\n")
    # As one that waits in the kernel for a GPU that is gone.
    monkeypatch.setattr(exporter.subprocess.Popen, "kill", lambda self: None)
    gpu = exporter.Gpu("/nowhere")
    try:
        for _ in range(3):
            began = time.monotonic()
            assert samples(gpu.read()) == {"nvidia_smi_command_exit_code": -1}
            assert time.monotonic() - began < 10
        # On a busy computer it is given up before it has begun.
        end = time.monotonic() + 30
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert len(started.read_text().splitlines()) == 1
    finally:
        monkeypatch.undo()
        process = exporter.stuck.pop("nvidia-smi")
        process.kill()
        process.wait()


def test_what_makes_no_sense_hides_neither_the_other_gpus_nor_fills_the_memory(smi, monkeypatch):
    monkeypatch.setenv("SMI_STATUS", "0")
    broken = "GPU-CCCC0000, [Unknown Error], 2, x, y, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]"
    smi.write_text(SMI.replace("GPU-BBBB0000", f"{broken}\n,,,\n\x00\x01\nGPU-BBBB0000"))
    found = samples(exporter.Gpu("/nowhere").read())
    assert len([name for name in found if name.startswith("nvidia_smi_gpu_info{")]) == 2
    smi.write_text("#!/bin/sh\nexec yes GPU\n")
    found = samples(exporter.Gpu("/nowhere").read())
    assert list(found) == ["nvidia_smi_command_exit_code"]
    assert found["nvidia_smi_command_exit_code"] != 0


STATUS = """Active connections: 291
server accepts handled requests
 16630948 16630947 31070465
Reading: 6 Writing: 179 Waiting: 106
"""


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + self.server.page)

    def log_message(self, *_):
        pass


def test_nginx_is_read_under_the_public_names_and_what_does_not_answer_as_it_is_down():
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        door = exporter.Door(f"http://127.0.0.1:{server.server_port}/status")
        server.page = STATUS.encode()
        assert samples(door.read()) == {
            "nginx_up": 1,
            "nginx_connections_active": 291,
            "nginx_connections_accepted": 16630948,
            "nginx_connections_handled": 16630947,
            "nginx_http_requests_total": 31070465,
            "nginx_connections_reading": 6,
            "nginx_connections_writing": 179,
            "nginx_connections_waiting": 106,
        }
        for page in (b"\xff<html>", b"", STATUS.replace("Waiting", "x").encode()):
            server.page = page
            assert samples(door.read()) == {"nginx_up": 0}
        server.shutdown()
    assert samples(door.read()) == {"nginx_up": 0}


@pytest.mark.parametrize(
    ("bus", "key"),
    [("00000000:01:00.0", "0:01:00"), ("0000:01:00", "0:01:00"), ("0001:C1:00.0", "1:c1:00")],
)
def test_one_bus_address_in_two_spellings(bus, key):
    assert exporter.bus_key(bus) == key


def test_who_has_an_address_is_the_kernels_word(tmp_path):
    assert exporter.holds("127.0.0.1")
    assert not exporter.holds("192.0.2.100")
    assert exporter.holds("192.0.2.100", tmp_path / "missing") is None
    table = tmp_path / "fib_trie"
    # An address that is only a neighbour's route, and one whose text begins like another's.
    table.write_text("  |-- 192.0.2.1\n     /32 link UNICAST\n  |-- 192.0.2.10\n     /32 host LOCAL\n")
    assert exporter.holds("192.0.2.10", table)
    assert not exporter.holds("192.0.2.1", table)


WATCHED = """
import importlib.util, json, subprocess, sys
spec = importlib.util.spec_from_file_location("exporter", sys.argv[1])
exporter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exporter)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


ip("link", "set", "lo", "up")
arrivals, counts = exporter.Arrivals("192.0.2.100"), []
ip("address", "add", "192.0.2.101/32", "dev", "lo")
counts.append(arrivals.count())
ip("address", "add", "192.0.2.100/32", "dev", "lo")
counts.append(arrivals.count())
ip("address", "change", "192.0.2.100/32", "dev", "lo", "valid_lft", "600", "preferred_lft", "300")
counts.append(arrivals.count())
for times in range(3):
    ip("address", "del", "192.0.2.100/32", "dev", "lo")
    ip("address", "add", "192.0.2.100/32", "dev", "lo")
counts.append(arrivals.count())
counts.append(exporter.Arrivals("192.0.2.100").count())
turn = ["address del 192.0.2.101/32 dev lo", "address add 192.0.2.101/32 dev lo"]
subprocess.run(["ip", "-batch", "-"], input="\\n".join(turn * 4000), text=True, check=True)
arrivals.count()
ip("address", "del", "192.0.2.100/32", "dev", "lo")
ip("address", "add", "192.0.2.100/32", "dev", "lo")
counts.append(arrivals.count())
print(json.dumps(counts))
"""


@needs_network
def test_every_arrival_of_the_vip_is_counted_however_short_it_stayed(tmp_path):
    (tmp_path / "watch.py").write_text(WATCHED)
    run = subprocess.run(
        ["unshare", "-rn", sys.executable, tmp_path / "watch.py", HOST / "exporter.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [0, 1, 1, 4, 0, 5]


def test_a_signal_is_for_those_that_take_it():
    number = int(signal.SIGRTMIN) + 2
    sleeper = subprocess.Popen(["sleep", "60"])
    taker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import signal; signal.signal({number}, print); print(flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        taker.stdout.readline()
        assert exporter.takes(taker.pid, number)
        assert not exporter.takes(taker.pid, number + 1)
        assert not exporter.takes(sleeper.pid, number)
        assert {taker.pid, sleeper.pid} <= set(exporter.children(os.getpid()))
    finally:
        for process in (taker, sleeper):
            process.kill()
            process.wait()
        taker.stdout.close()


def test_a_file_of_others_is_not_taken_for_keepalived_s(tmp_path):
    real = tmp_path / "real"
    real.write_text("[]")
    assert exporter.read_as_roots(real) == "[]"
    link = tmp_path / "link"
    link.symlink_to(real)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (link, fifo):
        with pytest.raises(OSError):
            exporter.read_as_roots(path)


def test_readings_are_put_in_place_whole_and_never_through_a_link_of_others(tmp_path):
    path, other = tmp_path / "gpu.prom", tmp_path / "other"
    other.write_text("of others")
    other.chmod(0o600)
    (tmp_path / "gpu.prom.new").symlink_to(other)
    exporter.publish(str(path), "a 1\n")
    assert path.read_text() == "a 1\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert (other.read_text(), other.stat().st_mode & 0o777) == ("of others", 0o600)
    exporter.publish(str(path), None)
    assert not path.exists()
    exporter.publish(str(path), None)


def test_units_by_what_systemd_says(tmp_path, monkeypatch):
    program = tmp_path / "systemctl"
    program.write_text(
        "#!/bin/sh\n"
        "printf 'Id=a.service\\nActiveState=active\\nNRestarts=3\\n\\n'\n"
        "printf 'Id=b.service\\nActiveState=failed\\nNRestarts=0\\n\\n'\n"
        "printf 'Id=c.mount\\nActiveState=active\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    servers = [{"name": "rs-1", "address": "192.0.2.1"}]
    config = {"vip": "192.0.2.100", "units": ["a.service"], "realServers": servers}
    found = samples(exporter.Director(config).read())
    assert found['lvs_unit_active{unit="a.service"}'] == 1
    assert found['lvs_unit_active{unit="b.service"}'] == 0
    assert found['lvs_unit_restarts_total{unit="a.service"}'] == 3
    assert 'lvs_unit_restarts_total{unit="c.mount"}' not in found
    assert found["lvs_expected_real_servers"] == 1
    assert found['lvs_real_server_info{server="rs-1",remote_address="192.0.2.1"}'] == 1
    assert found["keepalived_up"] == 0
    assert found["lvs_vip_held"] == 0


def test_words_from_outside_cannot_break_the_format():
    text = exporter.Text()
    text.add("made_up", 1, {"name": 'a"b\\c\nd'})
    assert str(text).splitlines()[-1] == 'made_up{name="a\\"b\\\\c d"} 1'


def test_a_file_is_replaced_whole_and_goes_with_the_program(tmp_path):
    program = textwrap.dedent(
        f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("exporter", {str(HOST / "exporter.py")!r})
        exporter = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(exporter)
        class Reader:
            def read(self):
                text = exporter.Text()
                text.add("made_up", 1)
                return text
        exporter.run(Reader(), {str(tmp_path / "made-up.prom")!r}, 0.1)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "made-up.prom").exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        assert (tmp_path / "made-up.prom").stat().st_mode & 0o777 == 0o644
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert list(tmp_path.iterdir()) == []


def sentence(monkeypatch, config):
    """What is read with this configuration, and how the VIP was asked. verify itself has tests of its own."""
    monkeypatch.setattr(exporter.Sentence, "__init__", lambda self, given: vars(self).update(config=given))
    reader, asked = exporter.Sentence(config), []

    class Verify:
        def speak(self, *arguments):
            asked.append(arguments)
            return "rs-1", b"sound"

        def fault_of_sound(self, sound):
            return None if sound == b"sound" else "is silent"

    reader.verify = Verify()
    found = samples(reader.read())
    return found, asked


SENTENCE = {"interval": 60, "vip": "192.0.2.100", "port": 7860, "sentence": "x", "timeout": 30}


def test_a_sentence_is_asked_for_at_the_plain_port(monkeypatch):
    found, asked = sentence(monkeypatch, {**SENTENCE, "https": None})
    assert asked == [("192.0.2.100", (7860, None), "x", None, 30)]
    assert found["tts_probe_success"] == 1
    assert found['tts_probe_served_by_info{server="rs-1"}'] == 1


def test_a_sentence_is_asked_for_by_https_with_what_the_files_say_at_that_moment(tmp_path, monkeypatch):
    der = [b"made-up leaf", b"made-up issuer"]
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, der))
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key"
    https = {"serverName": "speech.example.org", "certificate": str(certificate), "key": str(key)}
    config = {**SENTENCE, "port": 443, "https": https}
    found, asked = sentence(monkeypatch, config)
    assert (found["tts_probe_success"], asked) == (0, [])
    certificate.write_text("no certificate")
    key.write_text("made-up-key")
    assert sentence(monkeypatch, config)[0]["tts_probe_success"] == 0
    certificate.write_text(f"subject=made up\n{chain}")
    found, asked = sentence(monkeypatch, config)
    fingerprint = hashlib.sha256(der[0]).hexdigest()
    tls = {"serverName": "speech.example.org", "fingerprint": fingerprint, "key": "made-up-key"}
    assert asked == [("192.0.2.100", (443, tls), "x", None, 30)]
    assert found["tts_probe_success"] == 1
    assert sentence(monkeypatch, {**config, "https": {**https, "key": None}})[1][0][1][1]["key"] is None


@pytest.mark.parametrize(
    "argv", [[], ["director"], ["director", "/nowhere"], ["gpu", "often"], ["other", "/dev/null"]]
)
def test_a_wrong_call_says_what_to_do(argv):
    command = [sys.executable, HOST / "exporter.py", *argv]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "To do: " in run.stderr


@needs_keepalived
def test_keepalived_is_asked_and_one_that_hangs_does_not_answer(tmp_path):
    (tmp_path / "keepalived.conf").write_text(
        textwrap.dedent(
            """
            global_defs {
                router_id made-up
                vrrp_version 3
            }
            vrrp_instance cosyvoice {
                state BACKUP
                nopreempt
                interface here
                virtual_router_id 51
                priority 100
                advert_int 0.1
                virtual_ipaddress {
                    192.0.2.100/32 dev here label here:vip
                }
            }
            """
        )
    )
    config = {"vip": "192.0.2.100", "units": [], "realServers": []}
    (tmp_path / "ask.py").write_text(
        textwrap.dedent(
            f"""
            import importlib.util, json, os, signal, time
            spec = importlib.util.spec_from_file_location("exporter", "{tmp_path}/exporter.py")
            exporter = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(exporter)
            director = exporter.Director({config!r})
            end = time.monotonic() + 60
            texts = [str(director.read())]
            while 'keepalived_vrrp_state{{iname="cosyvoice",intf="here",vrid="51"}} 2' not in texts[-1]:
                assert time.monotonic() < end, texts[-1]
                time.sleep(0.2)
                texts.append(str(director.read()))
            parent = int(open("/run/keepalived.pid").read())
            mine = [parent, *exporter.children(parent)]
            for pid in mine:
                os.kill(pid, signal.SIGSTOP)
            texts.append(str(director.read()))
            for pid in mine:
                os.kill(pid, signal.SIGCONT)
            texts.append(str(director.read()))
            print(json.dumps(texts[-3:]))
            """
        )
    )
    script = f"""
        set -e
        mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
        ip link set lo up
        ip link add here type veth peer name there; ip link set here up; ip link set there up
        ip address add 192.0.2.11/24 dev here
        keepalived -P -n -f {tmp_path}/keepalived.conf -p /run/keepalived.pid -r /run/v.pid >/dev/null 2>&1 &
        status=0; /usr/bin/python3 {tmp_path}/ask.py || status=$?
        kill $(cat /run/keepalived.pid); wait; exit $status
        """
    shutil.copy(HOST / "exporter.py", tmp_path)
    # All of this must stay in sight, and /tmp is a new one there.
    place = pathlib.Path("/var/tmp") / f"{os.getpid()}-{tmp_path.name}"
    shutil.copytree(tmp_path, place)
    ask = place / "ask.py"
    ask.write_text(ask.read_text().replace(str(tmp_path), str(place)))
    try:
        run = subprocess.run(
            ["unshare", "-rnm", "sh", "-c", script.replace(str(tmp_path), str(place))],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=place,
            # keepalived writes to $TMPDIR, which no unit of systemd's has.
            env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )
    finally:
        shutil.rmtree(place)
    assert run.returncode == 0, run.stderr
    well, hung, again = (samples(text) for text in json.loads(run.stdout))
    labels = '{iname="cosyvoice",intf="here",vrid="51"}'
    assert well["keepalived_up"] == 1
    assert well[f"keepalived_become_master_total{labels}"] == 1
    assert well[f"keepalived_advertisements_sent_total{labels}"] > 0
    assert well["lvs_vip_held"] == 1
    assert hung["keepalived_up"] == 0
    assert hung["lvs_vip_held"] == 1, "the address is still there"
    assert f"keepalived_vrrp_state{labels}" not in hung
    assert again["keepalived_up"] == 1
