"""Fixtures for the end-to-end tests: a real Ringmaster on free ports with real servers, and its orderly end.

RINGMASTER_BIN names the binary under test. Nothing here sleeps for a fixed time to wait for a state: `until` polls with a
deadline.
"""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RINGMASTER_BIN", str(ROOT / "build/release/ringmaster"))
# Sanitizers make everything slower; limits on time are stretched by this much.
SLOW = float(os.environ.get("RINGMASTER_SLOW", "1"))


def until(check, seconds=10.0, what="the state waited for"):
    """Polls `check` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {seconds * SLOW:.0f} s"
        time.sleep(0.002)


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
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
        return all(pool["ready"] == len(pool["replicas"]) for pool in pools)

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
