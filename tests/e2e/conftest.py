"""Fixtures for the end-to-end tests: a real Ringmaster on free ports with real servers, and its orderly end.

RINGMASTER_BIN names the binary under test. Nothing here sleeps for a fixed time to wait for a state: `until` polls with
a deadline. RINGMASTER_SKIPS, if set, names a file to which a line is added for each test that was skipped.
"""
import errno
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RINGMASTER_BIN", str(ROOT / "build/release/ringmaster"))
# Sanitizers make everything slower; limits on time are stretched by this much.
SLOW = float(os.environ.get("RINGMASTER_SLOW", "1"))


def pytest_configure(config):
    # What a thread raises that is none of `Clients` would only be printed.
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")
    config.addinivalue_line("markers", "measures: looks at times that others on the machine change: to be run alone")


def note_skip(report):
    file = os.environ.get("RINGMASTER_SKIPS")
    if not file or not report.skipped or hasattr(report, "wasxfail"):
        return
    path, _, test = report.nodeid.partition("::")
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = " ".join(reason.removeprefix("Skipped: ").split())
    line = f"{pathlib.PurePath(path).name}::{test or 'all of it'}: {reason}\n"
    # One write at the end of the file: several files' tests run at the same time.
    target = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(target, line.encode())
    finally:
        os.close(target)


def pytest_runtest_logreport(report):
    note_skip(report)


def pytest_collectreport(report):
    note_skip(report)


def until(check, seconds=10.0, what="the state waited for"):
    """Polls `check` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {seconds * SLOW:.0f} s"
        time.sleep(0.002)


class Clients:
    """Work in threads beside a test. What one of them raises, a failed assert too, the test raises: at `join`, which
    the end of a `with` block calls. Those that go on for as long as the test look at `stopping`, which it sets.
    """

    def __init__(self):
        self.stopping = threading.Event()
        self.threads, self.results, self.errors = [], [], []

    def begin(self, work, *arguments, **options):
        """Calls `work` in a thread of its own."""
        place = len(self.results)
        self.results.append(None)

        def run():
            try:
                self.results[place] = work(*arguments, **options)
            except BaseException as error:  # pytest's own outcomes are no Exceptions
                self.errors.append(error)

        # Daemons: one that hangs fails the test, but does not keep pytest from ending.
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def check(self):
        """Raises the first exception that any of them has raised so far."""
        if self.errors:
            raise self.errors[0]

    def join(self, seconds=60):
        """Waits for the end of all; what each returned, in the order in which they were begun."""
        deadline = time.monotonic() + seconds * SLOW
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.check()
        hanging = sum(thread.is_alive() for thread in self.threads)
        assert hanging == 0, f"{hanging} of {len(self.threads)} clients have not ended after {seconds * SLOW:.0f} s"
        return self.results

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        try:
            self.join(60 if error is None else 5)
        except BaseException as other:
            if error is None or other is error:
                raise
            error.add_note(f"and a client: {other!r}")  # the block's own is not hidden


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def call(address, method, path, body=None, headers=None, timeout=30):
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=timeout * SLOW)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def free_port():
    """A port that nobody listens on, and none of those that the kernel gives to connections and to whoever asks for any
    port: others that run at the same time could have it before it is used.
    """
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, lowest) if lowest > 12_000 else 0))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return s.getsockname()[1]
    raise AssertionError("no port is free")


POOL = """
[[listener]]
address = "127.0.0.1:0"
pool = "web"
classic = true

[admin]
address = "127.0.0.1:0"

[pool.web]
command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]
replicas = 3
key = "request_id"
"""
HEALTH = '[pool.web.health]\npath = "/heartbeat"\n'


class Ringmaster:
    """A running `ringmaster up`, with the calls that tests make of it."""
    first = ("Server 1", "Server 2", "Server 3")  # POOL's replicas

    def __init__(self, directory, config, wait=True):
        self.directory = pathlib.Path(directory)
        self.config = self.directory / "ringmaster.toml"
        self.config.write_text(f'state_dir = "{self.directory}/state"\n' + config)
        self.log_path = self.directory / "log"
        self.process = None
        self.start(wait)

    def start(self, wait=True):
        addresses = self.directory / "state/addresses.json"
        addresses.unlink(missing_ok=True)
        self.process = subprocess.Popen([BINARY, "up", "--config", str(self.config)], stderr=open(self.log_path, "ab"))
        if not wait:
            return
        until(lambda: addresses.exists() or self.process.poll() is not None, what="addresses.json")
        assert self.process.poll() is None, self.log
        found = json.loads(addresses.read_text())
        split = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
        self.admin = split(found["admin"])
        self.traffic = [split(text) for text in found["listeners"]]
        until(self.serves, what="all replicas ready")

    def serves(self):
        try:
            pools = self.get_admin("/v1/pools")["pools"]
        except OSError:
            return False
        settings = tomllib.loads(self.config.read_text())["pool"]
        seats = lambda pool: pool.get("servers") or (("command" in pool or "image" in pool) and pool.get("replicas", 3))
        return all(pool["ready"] == len(pool["replicas"]) and (pool["replicas"] or not seats(settings[pool["name"]])) for pool in pools)

    @property
    def log(self):
        return self.log_path.read_text()

    def call(self, method, path, body=None, headers=None, listener=0, timeout=30):
        return call(self.traffic[listener], method, path, body, headers, timeout)

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def get_admin(self, path):
        return call(self.admin, "GET", path).json

    def pool(self, name="web"):
        return self.get_admin(f"/v1/pools/{name}")

    def replicas(self, name="web"):
        return self.pool(name)["replicas"]

    def rep(self):
        return self.get("/rep").json["message"]

    def engine_pid(self):
        return self.get_admin("/v1/status")["engine"]["pid"]

    def cli(self, *arguments):
        return subprocess.run([BINARY, *arguments, "--admin", "%s:%d" % self.admin], capture_output=True, text=True)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return self.process.returncode


@pytest.fixture
def directory():
    # Short, since it holds Unix sockets.
    path = tempfile.mkdtemp(prefix="rm-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


class SmallDisk:
    """A file system of 4 MB, mounted on a folder; full only when it has been filled up."""

    def __init__(self, path):
        self.path = path
        self.ballast = path / "ballast"

    def fill(self):
        """Until no new file can have a byte. What others free later can be taken by another `fill`."""
        target = os.open(self.ballast, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            while True:
                os.write(target, b"x" * 65536)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        finally:
            os.close(target)
        assert os.statvfs(self.path).f_bavail == 0

    def free(self):
        self.ballast.unlink()


@pytest.fixture
def small_disk(directory):
    """The state directory of the Ringmaster to be started is a small disk of its own. Ask for it before `start`."""
    state = pathlib.Path(directory) / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0750", "tmpfs", str(state)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: no small file system can be mounted here, as root may: {mounted.stderr.strip()}")
    yield SmallDisk(state)
    subprocess.run(["umount", "-l", str(state)], check=True)  # lazily: something of a failed test may still be there


@pytest.fixture
def start(directory):
    """start(config) → a Ringmaster; all are stopped at the end, and their end must be clean."""
    running = []

    def begin(config=POOL + HEALTH, **options):
        running.append(Ringmaster(directory, config, **options))
        return running[-1]

    yield begin
    for ringmaster in running:
        code = ringmaster.stop()
        log = ringmaster.log
        assert "Sanitizer" not in log and "broken invariant" not in log, log[-20000:]
        assert code in (0, -signal.SIGKILL), log[-5000:]


@pytest.fixture
def ringmaster(start):
    return start()


def children_of(pid):
    """All descendants of a process."""
    try:
        direct = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in direct] + [grand for child in direct for grand in children_of(int(child))]


def alive(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"
