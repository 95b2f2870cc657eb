"""What a hard look found at the master: health, the engine's silence, logs, starts and stops, the state, the admin API.

The number in a test's name is that of the finding. Servers are told what to do by paths and by files in `directory`.
"""
import collections
import ctypes
import fcntl
import grp
import http.client
import json
import os
import pathlib
import pwd
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from conftest import BINARY, HEALTH, POOL, SLOW, Ringmaster, alive, call, children_of, free_port, until
from flexible import Background

# Usage: server.py PORT FOLDER [--single]. With --single it serves one request at a time, checks included.
SERVER = """
import http.server, os, pathlib, subprocess, sys, threading, time
PORT, FOLDER = int(sys.argv[1]), pathlib.Path(sys.argv[2])
SINGLE = "--single" in sys.argv
Base = http.server.HTTPServer if SINGLE else http.server.ThreadingHTTPServer

def spam():
    while True: os.write(1, b"a line that nobody wants to read, again and again\\n" * 40)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0" if SINGLE else "HTTP/1.1"
    def reply(self, status, body=b""):
        head = f"{self.protocol_version} {status} X\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
        self.wfile.write(head.encode() + body)
    def do_GET(self):
        what, _, number = self.path[1:].partition("/")
        if what == "health":
            if (FOLDER / "slow").exists(): time.sleep(1.5)
            self.reply(500 if (FOLDER / f"ill-{os.getpid()}").exists() else 200)
            return
        if what == "sleep": time.sleep(int(number) / 1000)
        if what == "print": os.write(1, b"one line of many, and a long one: pipes are full soon\\n" * int(number))
        if what == "spam": threading.Thread(target=spam, daemon=True).start()
        # The outer shells end at once, and what they have started outlives them by a moment.
        if what == "orphans":
            one = f"((sleep 0.02; echo >> {FOLDER}/orphans) &)"
            subprocess.run(f"for i in $(seq {number}); do {one}; done", shell=True)
        self.reply(200, str(os.getpid()).encode())
    def do_POST(self):
        (FOLDER / "posted.new").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        (FOLDER / "posted.new").rename(FOLDER / "posted")
        self.reply(200, b"{}")
    def log_message(self, *arguments): pass

class Server(Base):
    daemon_threads = True
    request_queue_size = 128
    def handle_error(self, request, client_address): pass

if (FOLDER / "lingers").exists(): time.sleep(0.4)
Server(("127.0.0.1", PORT), Handler).serve_forever()
"""
CHECKS = 'path = "/health"\ninterval = "50ms"\ntimeout = "200ms"\nfall = 1\nrise = 1\nkill_after = "300ms"\n'


class Own(Ringmaster):
    """A Ringmaster whose process has other options than the usual ones, or whose admin API wants a token."""

    def __init__(self, directory, config, wait=True, token="", **options):
        self.options, self.headers = options, {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(directory, config, wait)

    def start(self, wait=True):
        addresses = self.directory / "state/addresses.json"
        addresses.unlink(missing_ok=True)
        options = {"stderr": open(self.log_path, "ab")} | self.options
        self.process = subprocess.Popen([BINARY, "up", "--config", str(self.config)], **options)
        if wait:
            self.await_ready()

    def find_addresses(self):
        addresses = self.directory / "state/addresses.json"
        until(lambda: addresses.exists() or self.process.poll() is not None, what="addresses.json")
        assert self.process.poll() is None, self.log
        found = json.loads(addresses.read_text())
        split = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
        self.admin, self.traffic = split(found["admin"]), [split(text) for text in found["listeners"]]

    def await_ready(self, seconds=10.0):
        self.find_addresses()
        until(self.serves, seconds, what="all replicas ready")

    def get_admin(self, path):
        return call(self.admin, "GET", path, headers=self.headers, timeout=2).json


@pytest.fixture
def own(directory):
    """As `start`, for Own."""
    running = []

    def begin(config, **options):
        made = Own.__new__(Own)  # known here even if it does not get ready
        running.append(made)
        made.__init__(directory, config, **options)
        return made

    yield begin
    for ringmaster in running:
        if not hasattr(ringmaster, "process") or ringmaster.process is None:
            continue
        code = ringmaster.stop()
        assert "Sanitizer" not in ringmaster.log and "broken invariant" not in ringmaster.log, ringmaster.log[-20000:]
        if hasattr(ringmaster, "admin"):  # it had begun to serve
            assert code in (0, -signal.SIGKILL), ringmaster.log[-5000:]


@pytest.fixture
def folder(directory):
    """Where SERVER is, and where it looks for what it should do."""
    path = pathlib.Path(directory)
    (path / "server.py").write_text(SERVER)
    return path


def fleet(folder, replicas=3, top="", pool="", health=CHECKS, rest="", argument="", before=""):
    """A configuration with `replicas` of SERVER; `before` is done by a shell, whose place the server then takes."""
    script = f"{before}\nexec {sys.executable} {folder}/server.py {{port}} {folder} {argument}"
    command = f'["/bin/sh", "-c", """{script}"""]'
    return f"""{top}
[[listener]]
address = "127.0.0.1:0"
pool = "web"
classic = true
[admin]
address = "127.0.0.1:0"
[pool.web]
command = {command}
replicas = {replicas}
slow_start = "0ms"
{pool}
[pool.web.health]
{health}
{rest}
"""


def pids(ringmaster):
    return {replica["slot"]: replica["pid"] for replica in ringmaster.replicas()}


def status_of(address, path, timeout=5):
    """The status of a request; or what went wrong with it, as text."""
    try:
        return call(address, "GET", path, timeout=timeout).status
    except OSError as error:
        return repr(error)


def admin_call(ringmaster, method, path, body=None, token=None):
    """The status of a call of the admin API."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    return call(ringmaster.admin, method, path, body, headers).status


def is_replaced(ringmaster, before):
    """Whether that replica's slot is served by a successor."""
    try:
        now = {replica["slot"]: replica for replica in ringmaster.replicas()}.get(before["slot"])
    except OSError:  # nobody answers
        return False
    return now is not None and now["epoch"] > before["epoch"] and now["state"] == "ready"


# --- 2: kill_after ---

def test_02_slow_checks_of_all_replicas_do_not_become_an_outage(start, folder):
    ringmaster = start(fleet(folder))
    before = pids(ringmaster)
    (folder / "slow").touch()
    statuses, end = [], time.monotonic() + 2
    while time.monotonic() < end:
        statuses.append(status_of(ringmaster.traffic[0], "/pid"))
        time.sleep(0.005)  # the pace of the traffic
    (folder / "slow").unlink()
    assert ringmaster.log.count(" is unhealthy\n") >= 3  # the checks did fail, and for longer than kill_after
    assert set(statuses) == {200}, statuses
    assert pids(ringmaster) == before


def test_02_one_ill_replica_is_replaced_after_kill_after_without_any_traffic(start, folder):
    # True before as well: whoever spares a fleet must not spare the one that is really ill.
    ringmaster = start(fleet(folder, replicas=4))
    before = pids(ringmaster)
    ill = ringmaster.replicas()[2]
    (folder / f"ill-{ill['pid']}").touch()
    until(lambda: is_replaced(ringmaster, ill), 4, "its successor")
    assert not alive(ill["pid"])
    assert pids(ringmaster) == before | {ill["slot"]: pids(ringmaster)[ill["slot"]]}


@pytest.mark.parametrize("setting", ["", "max_unavailable = 1\n"], ids=["by default", "when set to 1"])
def test_02_of_two_ill_replicas_of_five_only_one_at_a_time_is_replaced(start, folder, setting):
    # A check may take its time on a busy machine: a successor that missed one would not look like one.
    ringmaster = start(fleet(folder, replicas=5, health=CHECKS.replace('"200ms"', '"2s"') + setting))
    (folder / "lingers").touch()  # successors take a while to start, which nobody who looks can miss
    ill = ringmaster.replicas()[:2]
    for replica in ill:
        (folder / f"ill-{replica['pid']}").touch()

    def both_are_replaced():
        dead = [not alive(replica["pid"]) for replica in ill]  # looked at before `back`: never blames a good order
        back = [is_replaced(ringmaster, replica) for replica in ill]
        assert not all(dead) or any(back), "both are being replaced at the same time"
        return all(back)

    until(both_are_replaced, 6, "successors of both")


# --- an engine that outlives its master for a moment ---

def test_a_master_starts_though_the_engine_of_a_killed_one_has_not_ended_yet(own, folder):
    # What an engine does in its last moments can take time, on a slow disk for example. A debugger's stop stands for that:
    # the kernel takes no process away that is being traced before its tracer has seen the end.
    port = free_port()
    config = POOL.replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"', 1) + HEALTH
    ringmaster = own(config)
    old = ringmaster.engine_pid()
    trace = "import ctypes, os, sys, time; c = ctypes.CDLL(None); c.ptrace(0x4206, int(sys.argv[1]), 0, 0x40); print(1, flush=True); time.sleep(1); os._exit(0)"
    tracer = subprocess.Popen([sys.executable, "-c", trace, str(old)], stdout=subprocess.PIPE)
    assert tracer.stdout.readline() == b"1\n"  # PTRACE_SEIZE with PTRACE_O_TRACEEXIT: the engine stops in the middle of its end
    ringmaster.process.kill()
    ringmaster.process.wait()
    assert pathlib.Path(f"/proc/{old}").exists()
    ringmaster.start()
    assert ringmaster.rep()["N"] == 3 and ringmaster.engine_pid() != old
    tracer.wait()


# --- 3: an engine that is stuck ---

def test_03_an_engine_that_does_not_answer_is_killed_and_another_serves(start):
    ringmaster = start('engine_timeout = "1s"\n' + POOL + HEALTH)
    engine, before = ringmaster.engine_pid(), pids(ringmaster)
    os.kill(engine, signal.SIGSTOP)
    try:
        began = time.monotonic()
        until(lambda: status_of(ringmaster.traffic[0], "/home", timeout=4) == 200, 4, "an answer of another engine")
        assert time.monotonic() - began < 4 * SLOW
        assert ringmaster.engine_pid() != engine and not alive(engine)
    finally:
        if alive(engine):
            os.kill(engine, signal.SIGCONT)
    said = [line for line in ringmaster.log.splitlines() if "engine" in line and "answer" in line]
    assert said and "killed" in ringmaster.log, ringmaster.log
    assert pids(ringmaster) == before  # replicas are not to blame


# --- 4: those who read what we write ---

def test_04_a_log_that_nobody_reads_does_not_freeze_the_master(own, folder):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    ringmaster = own(fleet(folder), stderr=writer)
    os.close(writer)
    try:
        assert status_of(ringmaster.traffic[0], "/print/300") == 200
        unread = lambda: struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0" * 4))[0]
        until(lambda: unread() > 0, what="something in the pipe, which has no room for all of it")
        victim = ringmaster.replicas()[0]
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: is_replaced(ringmaster, victim), 3, "its successor")
        assert status_of(ringmaster.traffic[0], "/pid") == 200
        ringmaster.process.terminate()
        assert ringmaster.process.wait(10 * SLOW) == 0
    finally:
        ringmaster.process.kill()
        ringmaster.process.wait()
        os.close(reader)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_04_a_replica_that_writes_without_end_costs_the_master_less_than_half_a_core(start, folder):
    ringmaster = start(fleet(folder, replicas=2))
    assert status_of(ringmaster.traffic[0], "/spam") == 200
    before, began = cpu_seconds(ringmaster.process.pid), time.monotonic()
    statuses = []
    while time.monotonic() - began < 2:
        statuses.append(status_of(ringmaster.traffic[0], "/pid"))
        time.sleep(0.02)  # the pace of the traffic
    share = (cpu_seconds(ringmaster.process.pid) - before) / (time.monotonic() - began)
    assert set(statuses) == {200}, statuses
    assert share < 0.5, f"the master takes {share:.0%} of a core"


# --- 16: those that hang, and those that only work ---

def test_16_a_replica_that_hangs_while_it_starts_is_replaced(own, folder):
    hang_once = f"if mkdir {folder}/hung; then echo $$ > {folder}/hung/pid; exec sleep 1000; fi"
    config = fleet(folder, replicas=1, pool='start_timeout = "500ms"\n', before=hang_once)
    ringmaster = own(config, wait=False)
    ringmaster.await_ready(5)
    assert not alive(int((folder / "hung/pid").read_text()))


def test_16_a_server_that_does_one_thing_at_a_time_is_not_killed_while_it_works(start, folder):
    ringmaster = start(fleet(folder, health=CHECKS.replace("200ms", "100ms"), argument="--single"))
    before = pids(ringmaster)
    working = Background(ringmaster.traffic[0], "/sleep/2500")  # meanwhile it cannot answer a check
    answer = working.wait()
    assert getattr(answer, "status", answer) == 200
    assert int(answer.text) in before.values() and pids(ringmaster) == before
    until(lambda: all(replica["state"] == "ready" for replica in ringmaster.replicas()), what="all ready again")


# --- 17: the end in order ---

def under_way(ringmaster, path):
    """A request that is being worked on."""
    request = Background(ringmaster.traffic[0], path)
    until(lambda: sum(replica["in_flight"] for replica in ringmaster.replicas()) == 1, what="the request under way")
    return request


def test_17_a_long_request_gets_its_answer_before_the_end(start):
    # Takes 8 s: the drain was cut at 5 s, and only a request that is longer can show it.
    ringmaster = start(POOL.replace("replicas = 3", 'replicas = 3\ndrain = "20s"') + HEALTH)
    request = under_way(ringmaster, "/sleep/7000")
    assert ringmaster.stop() == 0
    answer = request.wait()
    assert getattr(answer, "status", answer) == 200 and answer.json["slept_ms"] == 7000


def test_17_a_stop_is_said_by_readyz_at_once_while_requests_go_on(ringmaster):
    request = under_way(ringmaster, "/sleep/1500")
    assert status_of(ringmaster.admin, "/readyz") == 200
    ringmaster.process.terminate()
    try:
        until(lambda: status_of(ringmaster.admin, "/readyz") == 503, 0.5, "/readyz with 503")
        assert request.answer is None  # it is still under way
    finally:
        answer = request.wait()
        ringmaster.process.wait(10 * SLOW)  # a second signal would end it at once
    assert getattr(answer, "status", answer) == 200


def end_of(connection):
    """What a connection with a request comes to."""
    received = b""
    try:
        connection.sendall(b"GET /home HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        while piece := connection.recv(65536):
            received += piece
    except OSError as error:
        return repr(error)
    finally:
        connection.close()
    return received[:12].decode("latin-1") or "closed without an answer"


def test_17_connections_that_come_during_a_stop_are_refused_or_answered(ringmaster):
    request = under_way(ringmaster, "/sleep/1000")
    ringmaster.process.terminate()
    ends, connections, threads = [], [], []
    while ringmaster.process.poll() is None:
        try:
            connections.append(socket.create_connection(ringmaster.traffic[0], timeout=10 * SLOW))
        except ConnectionRefusedError:
            ends.append("refused")
            time.sleep(0.02)  # the pace of those who come
            continue
        threads.append(threading.Thread(target=lambda c=connections[-1]: ends.append(end_of(c))))
        threads[-1].start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert set(ends) <= {"refused", "HTTP/1.1 200", "HTTP/1.1 503"} and len(ends) > 10 / SLOW, collections.Counter(ends)
    assert request.wait().status == 200 and ringmaster.process.returncode == 0


def test_17_the_command_to_stop_returns_after_the_end(ringmaster):
    request = under_way(ringmaster, "/sleep/1000")
    stopped = ringmaster.cli("stop")
    assert stopped.returncode == 0, stopped.stderr
    until(lambda: ringmaster.process.poll() is not None, 0.2, "the end of the process")
    assert request.wait().status == 200
    ringmaster.start()  # the next one on the same state finds nobody in its way
    assert ringmaster.get("/home").status == 200


def test_17_the_command_to_stop_can_be_told_not_to_wait(ringmaster):
    request = under_way(ringmaster, "/sleep/1500")
    began = time.monotonic()
    stopped = ringmaster.cli("stop", "--no-wait")
    assert stopped.returncode == 0, stopped.stderr
    assert time.monotonic() - began < 1 * SLOW and ringmaster.process.poll() is None
    assert request.wait().status == 200
    until(lambda: ringmaster.process.poll() is not None, what="the end")


# --- 18: limits ---

def test_18_more_replicas_than_there_can_be_are_a_fault_of_the_configuration(folder):
    pools = [f'[pool.{name}]\ncommand = ["{{ringmaster}}", "replica"]\nreplicas = 1\nreplicas_max = {most}\n'
             'policy = "maglev"\nkey = "request_id"\n' for name, most in (("one", 6400), ("two", 10000))]
    file = folder / "large.toml"
    file.write_text('[[listener]]\naddress = "127.0.0.1:0"\npool = "one"\n' + "".join(pools))
    checked = subprocess.run([BINARY, "check", str(file)], capture_output=True, text=True)
    assert checked.returncode == 2 and "replicas_max" in checked.stderr, checked


def test_18_the_descriptors_limit_that_shells_give_is_raised_for_many_replicas(own):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= 4096
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    ringmaster = own(POOL.replace("replicas = 3", "replicas = 24") + HEALTH, preexec_fn=few, wait=False)
    ringmaster.await_ready(5)
    assert len(ringmaster.replicas()) == 24
    assert [status_of(ringmaster.traffic[0], "/home") for _ in range(10)] == [200] * 10


def test_18_an_engine_is_started_though_replicas_have_used_up_all_descriptors(own):
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    ringmaster = own(POOL.replace("replicas = 3", "replicas = 40") + HEALTH, preexec_fn=limit, wait=False)
    ringmaster.find_addresses()
    until(lambda: "40 servers need about 11" in ringmaster.log and "the limit is 64" in ringmaster.log, what="a warning beforehand")
    until(lambda: "Too many open files" in ringmaster.log, what="the last descriptor taken")
    until(lambda: status_of(ringmaster.traffic[0], "/home") == 200, what="an answer")
    engine = ringmaster.engine_pid()
    os.kill(engine, signal.SIGKILL)
    until(lambda: not alive(engine), what="its end")
    until(lambda: status_of(ringmaster.traffic[0], "/home") == 200, what="an answer of the next engine")


# --- 19: what must survive ---

def test_19_a_thousand_listed_servers_are_taken_in_without_writing_all_of_them_for_each(own):
    servers = [f"127.7.{i // 250}.{i % 250 + 1}:1" for i in range(1000)]
    config = f"""
[[listener]]
address = "127.0.0.1:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
servers = {json.dumps(servers)}
replicas_max = 1100
policy = "least_requests"
[pool.web.health]
interval = "30s"
"""
    began = time.monotonic()
    ringmaster = own(config, wait=False)
    ringmaster.find_addresses()
    until(lambda: status_of(ringmaster.admin, "/healthz") == 200, 20, "an answer of the admin API")
    seconds = time.monotonic() - began
    until(lambda: len(ringmaster.replicas()) == 1000, 20, "all of them")
    lines = pathlib.Path(f"/proc/{ringmaster.process.pid}/io").read_text().splitlines()
    counts = dict(line.split(": ") for line in lines)
    written = max(int(counts["wchar"]), int(counts["write_bytes"]))  # in a file system in memory only the first counts
    assert written < 20e6, f"{written / 1e6:.0f} MB were written"
    assert seconds < 2 * SLOW, f"the admin API answered after {seconds:.1f} s"


def test_19_a_change_that_cannot_be_saved_is_refused_and_not_made(ringmaster):
    # A directory where the new file should be: no write can succeed.
    blocked = ringmaster.directory / "state/desired.json.new"
    blocked.mkdir()
    names, before, family = ringmaster.rep(), pids(ringmaster), set(children_of(ringmaster.process.pid))
    for method, path, name in (("POST", "/add", "S4"), ("DELETE", "/rm", "Server 2")):
        answer = ringmaster.call(method, path, json.dumps({"n": 1, "hostnames": [name]}))
        assert answer.status == 507 and answer.json["status"] == "failure", (path, answer.status, answer.text)
        assert ringmaster.rep() == names and pids(ringmaster) == before
        assert set(children_of(ringmaster.process.pid)) == family
    blocked.rmdir()
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S4"]}').json["message"]["N"] == 4
    assert ringmaster.call("DELETE", "/rm", '{"n":1,"hostnames":["S4"]}').json["message"]["N"] == 3


def test_19_what_could_not_be_saved_is_saved_once_it_can_be(ringmaster):
    state = ringmaster.directory / "state"
    (state / "desired.json.new").mkdir()
    victim = ringmaster.replicas()[0]
    os.kill(victim["pid"], signal.SIGKILL)
    until(lambda: is_replaced(ringmaster, victim), what="the successor")
    name = ringmaster.replicas()[0]["name"]
    assert name not in (state / "desired.json").read_text()
    (state / "desired.json.new").rmdir()
    until(lambda: name in (state / "desired.json").read_text(), 5, "the name on the disk")


def test_19_a_state_that_cannot_be_read_stops_the_start(ringmaster):
    assert ringmaster.stop() == 0
    file = ringmaster.directory / "state/desired.json"
    file.unlink()
    file.mkdir()
    second = subprocess.Popen([BINARY, "up", "--config", str(ringmaster.config)], stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: second.poll() is not None, 3, "its end, as it does not know which servers there were")
        said = second.stderr.read()
    finally:
        second.kill()
        second.wait()
        second.stderr.close()
    assert second.returncode == 1 and str(file) in said, said
    assert file.is_dir() and not list(file.iterdir()) and not list(file.parent.glob("desired.json?*"))


# --- 20: whom replicas run as, and what they leave behind ---

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a replica as another user")


@as_root
def test_20_replicas_run_as_the_user_and_group_that_are_set(start, directory):
    os.chmod(directory, 0o755)  # others must be able to come to their socket in it
    ringmaster = start(POOL.replace("replicas = 3", 'replicas = 2\nuser = "nobody"\ngroup = "nogroup"') + HEALTH)
    user, group = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid

    def is_harmless(pid):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        shown = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert shown["Uid"].split() == [str(user)] * 4 and shown["Gid"].split() == [str(group)] * 4
        assert int(shown["CapEff"], 16) == 0 and shown["Groups"].split() in ([], [str(group)])
        return True

    assert all(is_harmless(pid) for pid in pids(ringmaster).values())
    assert all(replica["endpoint"].startswith("unix:") for replica in ringmaster.replicas())
    assert [status_of(ringmaster.traffic[0], "/home") for _ in range(10)] == [200] * 10
    victim = ringmaster.replicas()[0]
    os.kill(victim["pid"], signal.SIGKILL)
    until(lambda: is_replaced(ringmaster, victim), what="the successor")
    assert is_harmless(pids(ringmaster)[victim["slot"]])


@as_root
def test_20_root_is_warned_of_replicas_that_would_run_as_root(folder):
    file = folder / "root.toml"
    file.write_text(POOL.replace("web", "frontdesk"))
    checked = subprocess.run([BINARY, "check", str(file)], capture_output=True, text=True)
    lines = (checked.stdout + checked.stderr).lower().splitlines()
    assert checked.returncode == 0 and "no faults" in checked.stdout
    assert any("warning" in line and "frontdesk" in line for line in lines), checked


def test_20_a_replica_inherits_no_descriptor_of_who_started_the_master(own, folder):
    with open(folder / "secret", "w") as secret:
        ringmaster = own(POOL + HEALTH, pass_fds=[secret.fileno()])
        for pid in pids(ringmaster).values():
            there = [entry.resolve() for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()]  # some end meanwhile
            assert folder / "secret" not in there, there


def test_20_what_a_replica_has_started_in_a_session_of_its_own_ends_with_it(start, folder):
    before = f"setsid sleep 1000 &\necho $! >> {folder}/sleeps"
    ringmaster = start(fleet(folder, replicas=1, before=before))
    sleeps = lambda: [int(pid) for pid in (folder / "sleeps").read_text().split()]
    try:
        victim, [sleep] = ringmaster.replicas()[0], sleeps()
        until(lambda: os.getsid(sleep) == sleep, what="its own session")
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: not alive(sleep), 3, "its end")
        until(lambda: is_replaced(ringmaster, victim), what="the successor")
        assert alive(sleeps()[1]), "that one is the successor's"
    finally:
        for sleep in sleeps():
            if alive(sleep):
                os.kill(sleep, signal.SIGKILL)


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def own_cgroup():
    """The folder of this process's control group, if it may be divided by whoever is in it."""
    place = next((line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::")), "")
    for line in open("/proc/self/mountinfo"):
        if " - cgroup2 " in line and place:
            root, point = line.split()[3:5]
            folder = pathlib.Path(point, place.removeprefix(root).lstrip("/"))
            if os.access(folder / "cgroup.procs", os.W_OK) and not (folder / "cgroup.type").exists():
                return folder


@pytest.mark.skipif(own_cgroup() is None, reason="no control group (cgroup v2) that may be divided")
@pytest.mark.parametrize("end", ["replica", "master"])
def test_20_with_a_cgroup_what_a_replica_has_started_ends_with_it_though_it_hides(start, folder, end):
    # In a session of its own, a child of nobody's, and without the environment that it could be known by.
    before = f"setsid env -i /bin/sh -c 'sleep 1000 & echo $! >> {folder}/sleeps' &"
    ringmaster = start(fleet(folder, replicas=1, before=before))
    sleeps = lambda: [int(pid) for pid in (folder / "sleeps").read_text().split()]
    groups = lambda: [path for path in own_cgroup().iterdir() if path.is_dir() and f"{ringmaster.directory}/state/web.".replace("/", ":") in path.name]
    until(lambda: (folder / "sleeps").exists() and sleeps(), what="the hidden process")
    hidden = sleeps()[0]
    assert alive(hidden) and len(groups()) == 1
    if end == "replica":
        os.kill(ringmaster.replicas()[0]["pid"], signal.SIGKILL)
        until(lambda: not alive(hidden), 2, "its end")
        until(lambda: len(sleeps()) == 2, what="that of the successor")
    else:
        ringmaster.process.kill()
        ringmaster.process.wait()
        assert alive(hidden)  # nobody was there to end it
        ringmaster.start()
        assert not alive(hidden)
    ringmaster.stop()
    until(lambda: not any(alive(pid) for pid in sleeps()), 2, "the end of all")
    until(lambda: not groups(), 2, "no group is left")


def test_20_orphans_that_come_to_the_master_are_reaped(own, folder):
    # As process 1 of a container it gets all orphans; as their "subreaper" it gets them everywhere, and here surely.
    pr_set_child_subreaper = 36
    subreaper = lambda: ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    ringmaster = own(fleet(folder, replicas=1), preexec_fn=subreaper)
    assert status_of(ringmaster.traffic[0], "/orphans/20") == 200
    ended = lambda: (folder / "orphans").exists() and len((folder / "orphans").read_text().split("\n")) == 21
    until(ended, what="the orphans' last words")
    master = ringmaster.process.pid
    zombies = lambda: [pid for pid in children_of(master) if is_zombie(pid)]
    until(lambda: not zombies(), 2, "the end of zombies")
    assert status_of(ringmaster.traffic[0], "/pid") == 200


# --- 22: who may register what ---

REGISTER = """
[[listener]]
address = "127.0.0.1:0"
pool = "web"
classic = true
[admin]
address = "127.0.0.1:0"
[pool.web.health]
when = "idle"
interval = "1s"
[pool.web.register]
from = ["127.0.0.0/8"]
"""


def announce(ringmaster, path, url, peer="127.0.0.1", headers=None):
    """What somebody at the address `peer` tells of a server; the status of the answer."""
    connection = http.client.HTTPConnection(*ringmaster.traffic[0], timeout=10 * SLOW, source_address=(peer, 0))
    try:
        connection.request("POST", path, json.dumps({"url": url}), headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_22_without_a_token_a_peer_registers_and_takes_out_its_own_address_only(start):
    ringmaster = start(REGISTER)
    url = f"http://127.0.0.2:{free_port()}"
    assert announce(ringmaster, "/server_up", url) == 403
    assert ringmaster.rep()["N"] == 0
    assert announce(ringmaster, "/server_up", url, peer="127.0.0.2") == 200
    assert announce(ringmaster, "/server_down", url) == 403
    assert announce(ringmaster, "/server_up", url.replace("127.0.0.2", "127.0.0.1")) == 200
    assert ringmaster.rep()["N"] == 2
    assert announce(ringmaster, "/server_down", url, peer="127.0.0.2") == 200
    assert ringmaster.rep()["N"] == 1


def test_22_who_knows_the_token_may_speak_for_others(start):
    ringmaster = start(REGISTER + 'token = "0123456789abcdef"\n')
    url, token = f"http://127.0.0.2:{free_port()}", {"Authorization": "Bearer 0123456789abcdef"}
    assert announce(ringmaster, "/server_up", url) == 403
    assert announce(ringmaster, "/server_up", url, headers=token) == 200
    assert announce(ringmaster, "/server_down", url, headers=token) == 200


def test_22_a_peer_has_so_many_seats_and_no_more(start):
    ringmaster = start(REGISTER + "per_peer_max = 3\n")
    urls = [f"http://127.0.0.1:{port}" for port in (1, 2, 3, 4)]  # nobody is there, and nobody need be
    assert [announce(ringmaster, "/server_up", url) for url in urls] == [200, 200, 200, 409]
    assert ringmaster.rep()["N"] == 3
    assert announce(ringmaster, "/server_up", urls[0]) == 200  # who is in may say so again
    assert announce(ringmaster, "/server_up", "http://127.0.0.2:1", peer="127.0.0.2") == 200  # others have their own
    assert announce(ringmaster, "/server_down", urls[1]) == 200
    assert announce(ringmaster, "/server_up", urls[3]) == 200
    assert ringmaster.rep()["N"] == 4


# --- 25: how commands find the admin API ---

def run(*arguments):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=20 * SLOW)


def test_25_the_admin_api_can_be_named_by_its_url(ringmaster):
    address = "%s:%d" % ringmaster.admin
    for name in (address, f"http://{address}", f"http://{address}/"):
        shown = run("status", "--admin", name)
        assert shown.returncode == 0 and "3 of 3 ready" in shown.stdout, (name, shown)


def test_25_the_admin_api_is_found_in_the_configuration(start):
    port = free_port()
    fixed = POOL.replace('[admin]\naddress = "127.0.0.1:0"', f'[admin]\naddress = "127.0.0.1:{port}"')
    ringmaster = start(fixed + HEALTH)
    assert ringmaster.admin[1] == port
    shown = run("status", "--config", str(ringmaster.config))
    assert shown.returncode == 0 and "3 of 3 ready" in shown.stdout, shown


# --- 23: what one sends is what is done ---

def test_23_a_payload_is_delivered_byte_for_byte_after_a_crash_too(start, folder):
    payload = '{"b": 1.10, "a": [1E2, 0.1e-5, "\\u00e9"], "b2":  12345678901234567890123}'
    ringmaster = start(fleet(folder, replicas=1, rest='[queue.default]\npool = "web"\npath = "/task"\n'))
    until(lambda: status_of(ringmaster.admin, "/v1/tasks") == 200, what="the store of tasks")
    for crash, delay_ms in ((False, 0), (True, 500)):
        body = '{"type": "x", "payload": %s, "delay_ms": %d}' % (payload, delay_ms)
        assert admin_call(ringmaster, "POST", "/v1/tasks", body) == 202
        if crash:
            ringmaster.process.kill()
            ringmaster.process.wait()
            ringmaster.start()
        until(lambda: (folder / "posted").exists(), what="the task")
        assert (folder / "posted").read_bytes().decode() == payload
        (folder / "posted").unlink()


def test_23_a_change_with_a_key_is_made_once(ringmaster):
    key = {"Idempotency-Key": "k"}
    first, second = [ringmaster.call("POST", "/add", '{"n":1}', key) for _ in range(2)]
    assert (first.status, first.json["message"]["N"]) == (200, 4)
    assert (second.status, second.text) == (200, first.text)
    other = ringmaster.call("POST", "/add", '{"n":2}', key)
    assert other.status in (409, 422) and other.json["status"] == "failure", other.text
    assert ringmaster.rep()["N"] == 4
    assert ringmaster.call("POST", "/add", '{"n":1}', {"Idempotency-Key": "another"}).json["message"]["N"] == 5


def test_23_a_pool_is_given_a_size(ringmaster):
    resize = lambda n: admin_call(ringmaster, "PUT", "/v1/pools/web/size", json.dumps({"n": n}))
    for n in (5, 2, 2):
        assert resize(n) == 200
        assert ringmaster.rep()["N"] == n
    until(lambda: len(ringmaster.replicas()) == 2, what="the end of the others")
    before = pids(ringmaster)
    assert 400 <= resize(1000) < 500 and pids(ringmaster) == before  # more than replicas_max


# --- 21: who may use the admin API ---

TOKEN, READ_TOKEN = "may-change-0123456789abcdef", "may-read-0123456789abcdef"
CHANGE = ("POST", "/v1/pools/web/replicas", '{"n":1}')


def with_tokens(own, folder, *settings):
    for name, token in (("token_file", TOKEN), ("read_token_file", READ_TOKEN)):
        (folder / name).write_text(token + "\n")
        (folder / name).chmod(0o600)
    lines = "".join(f'{name} = "{folder}/{name}"\n' for name in settings)
    return own(POOL.replace("[admin]\n", "[admin]\n" + lines) + HEALTH, token=TOKEN)


def test_21_with_a_token_only_who_shows_it_uses_the_admin_api(own, folder):
    ringmaster = with_tokens(own, folder, "token_file")
    assert [admin_call(ringmaster, "GET", path) for path in ("/healthz", "/readyz")] == [200, 200]
    for path in ("/v1/status", "/v1/pools", "/v1/pools/web", "/metrics", "/v1/openapi.json"):
        wanted = [(None, 401), (TOKEN[:-1], 401), (TOKEN + "1", 401), (READ_TOKEN, 401), (TOKEN, 200)]
        assert [(token, admin_call(ringmaster, "GET", path, token=token)) for token, _ in wanted] == wanted, path
    for method, path in (("POST", "/v1/stop"), ("GET", "/v1/tasks"), ("POST", "/v1/tasks"), ("GET", "/nothing")):
        assert admin_call(ringmaster, method, path, None if method == "GET" else "{}") == 401, path
    assert admin_call(ringmaster, *CHANGE) == 401
    assert ringmaster.rep()["N"] == 3
    assert admin_call(ringmaster, *CHANGE, token=TOKEN) == 200 and ringmaster.rep()["N"] == 4


def test_21_commands_show_the_token_of_a_file(own, folder):
    ringmaster = with_tokens(own, folder, "token_file")
    shown = ringmaster.cli("status", "--token-file", str(folder / "token_file"))
    assert shown.returncode == 0 and "3 of 3 ready" in shown.stdout, shown
    assert ringmaster.cli("status").returncode == 1
    added = ringmaster.cli("add", "1", "S4", "--token-file", str(folder / "token_file"))
    assert added.returncode == 0 and "S4" in added.stdout, added


def test_21_who_may_only_read_makes_no_change(own, folder):
    ringmaster = with_tokens(own, folder, "token_file", "read_token_file")
    assert admin_call(ringmaster, "GET", "/v1/status", token=READ_TOKEN) == 200
    assert admin_call(ringmaster, *CHANGE, token=READ_TOKEN) == 403
    assert admin_call(ringmaster, "POST", "/v1/stop", "{}", token=READ_TOKEN) == 403
    assert ringmaster.rep()["N"] == 3 and ringmaster.process.poll() is None
    assert admin_call(ringmaster, "GET", "/v1/status") == 401
    assert admin_call(ringmaster, *CHANGE, token=TOKEN) == 200


def test_21_changes_leave_a_line_in_the_log(ringmaster):
    audit = lambda: [line for line in ringmaster.log.splitlines() if "audit" in line]

    def line_of(change, status):
        before = len(audit())
        assert change() == status
        return until(lambda: audit()[before:], 2, "a line")[0]

    added = line_of(lambda: admin_call(ringmaster, *CHANGE), 200)
    refused = line_of(lambda: admin_call(ringmaster, "POST", CHANGE[1], '{"n":1000}'), 409)
    removed = line_of(lambda: ringmaster.call("DELETE", "/rm", '{"n":1}').status, 200)
    assert all("add" in line or CHANGE[1] in line for line in (added, refused))
    assert "/rm" in removed or "rm" in removed.split() or "remove" in removed
    failed = lambda line: re.search("409|at most|refused|denied|failed|too.large", line) is not None
    assert [failed(line) for line in (added, refused, removed)] == [False, True, False]
    before = len(audit())
    assert admin_call(ringmaster, "GET", "/v1/status") == 200 and len(audit()) == before  # that changes nothing


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a process of another user")
def test_21_the_unix_socket_serves_its_own_user_alone_whatever_its_mode(ringmaster):
    socket_path = ringmaster.directory / "state/admin.sock"
    for path, mode in ((ringmaster.directory, 0o755), (ringmaster.directory / "state", 0o755), (socket_path, 0o666)):
        path.chmod(mode)
    ask = """import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"POST /v1/stop HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
print(s.recv(12).decode())"""
    other = subprocess.run(["/usr/bin/python3", "-c", ask, socket_path], capture_output=True, text=True, user=65534, timeout=30 * SLOW)
    assert other.stdout == "HTTP/1.1 403\n", other
    until(lambda: "audit: user 65534 from unix:: POST /v1/stop : refused" in ringmaster.log, 2, "the line of the audit")
    assert ringmaster.cli("status").returncode == 0 and ringmaster.process.poll() is None
    own = subprocess.run(["/usr/bin/python3", "-c", ask, socket_path], capture_output=True, text=True, timeout=30 * SLOW)
    assert own.stdout == "HTTP/1.1 202\n", own
    ringmaster.process.wait(30 * SLOW)


def test_21_calls_of_the_classic_listener_are_refused_under_another_host(start):
    ringmaster = start()
    evil = {"Host": "evil.example"}
    for method, path, body in (("GET", "/rep", None), ("POST", "/add", '{"n":1}'), ("DELETE", "/rm", '{"n":1}')):
        assert ringmaster.call(method, path, body, evil).status == 403, path
    assert ringmaster.rep()["N"] == 3
    for host in ("localhost", "127.0.0.1:1", "[::1]"):
        assert ringmaster.get("/rep", headers={"Host": host}).status == 200, host
    assert ringmaster.get("/home", headers=evil).status == 200


def test_21_a_classic_listener_beyond_loopback_is_called_by_any_name(start):
    # True before as well: who lists classic_from has names of his own for that address.
    beyond = POOL.replace('"127.0.0.1:0"', '"0.0.0.0:0"', 1)
    ringmaster = start(beyond.replace("classic = true", 'classic = true\nclassic_from = ["127.0.0.0/8"]') + HEALTH)
    assert ringmaster.get("/rep", headers={"Host": "balancer.example"}).status == 200
