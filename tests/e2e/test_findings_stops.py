"""What a hard look found: stops while Docker's engine or a name server hangs, the memory of idle tunnels, limits of
IPv6 clients, and symbolic links where a socket or a file should be.
"""
import contextlib
import ctypes
import http.client
import http.server
import json
import os
import pathlib
import random
import re
import resource
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import BINARY, HEALTH, POOL, SLOW, Ringmaster, alive, call, until
from flexible import config
from test_streams import UPGRADE, read_head

DRAIN, GRACE = 0.1, 0.2
BRIEF = f'drain = "{DRAIN * 1000:.0f}ms"\ngrace = "{GRACE * 1000:.0f}ms"\n'


class Own(Ringmaster):
    """A Ringmaster that is started by another command, such as one that enters a namespace first."""

    def __init__(self, directory, config, before=()):
        self.before = list(before)
        super().__init__(directory, config, wait=False)

    def start(self, wait=True):
        command = [*self.before, BINARY, "up", "--config", str(self.config)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def find_addresses(self):
        addresses = self.directory / "state/addresses.json"
        until(lambda: addresses.exists() or self.process.poll() is not None, what="addresses.json")
        assert self.process.poll() is None, self.log
        found = json.loads(addresses.read_text())
        split = lambda text: (text.rsplit(":", 1)[0].strip("[]"), int(text.rsplit(":", 1)[1]))
        self.admin, self.traffic = split(found["admin"]), [split(text) for text in found["listeners"]]

    def is_ready(self):
        """All replicas that there should be are there, and ready."""
        try:
            pools = self.get_admin("/v1/pools")["pools"]
        except OSError:
            return False
        return all(pool["replicas"] and pool["ready"] == len(pool["replicas"]) for pool in pools)

    def end(self):
        """In order; one that has been told to stop already ends at once."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert "Sanitizer" not in self.log and "broken invariant" not in self.log, self.log[-20000:]


@pytest.fixture
def own(directory):
    """own(config, …) → an Own; all have ended afterwards, in whatever way."""
    running = []

    def begin(config, **options):
        running.append(Own(directory, config, **options))
        return running[-1]

    yield begin
    for ringmaster in running:
        ringmaster.end()


# --- a stop ends though Docker's engine hangs ---

class Server(http.server.BaseHTTPRequestHandler):
    """What the containers would run."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class DockerCalls(Server):
    """Docker's API, as far as it needs to be there for a container to be started and ended."""

    def answer(self):
        engine, path = self.server, re.sub(r"^/v1\.\d+", "", self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = f"{self.command} {path}"
        engine.calls.append(what)
        if re.search(engine.hangs, what):
            engine.closing.wait()
            self.close_connection = True
        elif path == "/events" or path.endswith("/logs"):
            self.stream(path)
        elif what == "POST /containers/create":
            name = json.loads(body)["Hostname"]
            self.say(201, {"Id": name.encode().hex().ljust(64, "0")})
        elif self.command == "POST" and path.endswith(("/stop", "/kill")):
            engine.ended.set()
            self.say(204)
        elif self.command in ("POST", "DELETE"):
            self.say(204)
        elif path.startswith("/networks/"):
            self.say(200, {"Labels": {}, "Containers": {}})
        elif re.fullmatch(r"/containers/\w+/json", path):
            ports = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(engine.port)}]}
            self.say(200, {"State": {"Running": True}, "NetworkSettings": {"Ports": ports}})
        else:  # /_ping and lists
            self.say(200, [])

    do_GET = do_POST = do_DELETE = answer

    def say(self, status, content=None):
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, path):
        """No line, but that of a container's end."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        if path == "/events":
            while not self.server.ended.wait(0.1) and not self.server.closing.is_set():
                pass
            identity = b"Server1".hex().ljust(64, "0")
            event = {"Type": "container", "Action": "die", "Actor": {"ID": identity, "Attributes": {"exitCode": "0"}}}
            self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()
        self.server.closing.wait()


class Docker(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 100

    def __init__(self, path, port, hangs):
        super().__init__(path, DockerCalls)
        self.port = port    # where the containers' server is
        self.hangs = hangs  # a pattern: calls that never get an answer
        self.calls = []
        self.ended = threading.Event()
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def end(self):
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # who asked has left


CONTAINERS = """
docker = "unix:{docker}"
[[listener]]
address = "127.0.0.1:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
image = "nothing"
replicas = 1
""" + BRIEF + """
[pool.web.container]
reach = "published"
[pool.web.health]
path = "/"
"""

# What hangs, and the call that is awaited before the stop; "": until the container serves.
DOCKERS = {
    "from the beginning": ("", "GET /_ping"),
    "when a container is to be made": ("POST /containers/create", "POST /containers/create"),
    "when a container is to be started": ("POST .*/start", "POST .*/start"),
    "when a container is to be ended": ("(POST .*/(stop|kill))|DELETE", ""),
    "when a container is to be removed": ("DELETE", ""),
}


class HungDocker:
    """A Ringmaster whose Docker engine hangs in one of those ways, and how long its stop took."""

    def __init__(self, way, port):
        hangs, self.awaited = DOCKERS[way]
        self.directory = tempfile.mkdtemp(prefix="rm-")
        self.docker = Docker(f"{self.directory}/docker.sock", port, hangs)
        self.ringmaster = Own(self.directory, CONTAINERS.format(docker=f"{self.directory}/docker.sock"))
        self.took = None

    def await_state(self):
        self.ringmaster.find_addresses()
        if self.awaited:
            until(lambda: any(re.search(self.awaited, what) for what in list(self.docker.calls)), what=self.awaited)
        else:
            until(self.ringmaster.is_ready, what="a container that serves")
            assert self.ringmaster.get("/").status == 200
        # A Docker that hangs keeps nobody from looking.
        self.engine = until(self.engine_pid, what="the engine")

    def engine_pid(self):
        try:
            return self.ringmaster.engine_pid()
        except OSError:
            return None

    def end(self):
        self.ringmaster.end()
        self.docker.end()
        shutil.rmtree(self.directory, ignore_errors=True)


# The servers' `drain` and `grace`, what the master gives all else, and time for a machine that is busy. The end of the
# longest of these waits would come after half a minute by itself: it must not be waited for in a slow build either.
STOP_MAX = DRAIN + GRACE + 15 + 2 + 2 * SLOW


@pytest.fixture(scope="module")
def hung_dockers():
    """All at once: each stop may take a quarter of a minute, in which nothing is to do."""
    with contextlib.ExitStack() as ending:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        ending.callback(server.server_close)
        ending.callback(server.shutdown)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        cases = {}
        for way in DOCKERS:
            cases[way] = HungDocker(way, server.server_address[1])
            ending.callback(cases[way].end)
        for case in cases.values():
            case.await_state()
        began = time.monotonic()
        for case in cases.values():
            case.ringmaster.process.terminate()
        while any(case.took is None for case in cases.values()) and time.monotonic() < began + STOP_MAX + 1:
            for case in cases.values():
                if case.took is None and case.ringmaster.process.poll() is not None:
                    case.took = time.monotonic() - began
            time.sleep(0.01)  # the pace of the clock
        yield cases


@pytest.mark.parametrize("way", DOCKERS)
def test_a_stop_ends_though_docker_hangs(hung_dockers, way):
    case = hung_dockers[way]
    assert case.took is not None and case.took < STOP_MAX, (case.took, case.ringmaster.log)
    # What was left undone is said.
    undone = "not everything has ended" in case.ringmaster.log
    assert case.ringmaster.process.returncode == (1 if undone else 0), case.ringmaster.log
    until(lambda: not alive(case.engine), 2, "the engine's end")


# --- a stop ends though the name server is dead ---

def enters_mount_namespaces():
    if os.geteuid() != 0 or shutil.which("unshare") is None or not os.path.exists("/etc/resolv.conf"):
        return False
    tried = ["unshare", "--mount", "mount", "--bind", "/etc/resolv.conf", "/etc/resolv.conf"]
    return subprocess.run(tried, capture_output=True).returncode == 0


with_own_names = pytest.mark.skipif(not enters_mount_namespaces(),
                                    reason="SKIPPED: an own /etc/resolv.conf needs root, and a mount namespace")


class NameServer:
    """Says that every name is 127.0.0.1, until it falls silent."""

    def __init__(self, answers):
        self.answers = answers
        self.unanswered = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.05)
        # The port is always 53, so it is the address that nobody else may have.
        self.address = "127." + ".".join(str(random.randint(2, 250)) for _ in range(3))
        try:
            self.socket.bind((self.address, 53))
        except OSError as error:
            self.socket.close()
            pytest.skip(f"SKIPPED: no name server can be at {self.address}:53 here: {error}")
        self.ending = False
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while not self.ending:
            try:
                query, peer = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            if self.answers:
                self.socket.sendto(self.answer(query), peer)
            else:
                self.unanswered += 1

    @staticmethod
    def answer(query):
        end = query.index(0, 12) + 5  # of the question: name, type and class
        of_ipv4 = query[end - 4:end - 2] == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1" + (0).to_bytes(4, "big") + b"\0\4\x7f\0\0\1"  # the name asked for, for 0 s
        head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if of_ipv4 else b"\0\0") + b"\0\0\0\0"
        return head + query[12:end] + (record if of_ipv4 else b"")

    def end(self):
        self.ending = True
        self.thread.join()
        self.socket.close()


NAMED = """
[[listener]]
address = "127.0.0.1:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
servers = [{servers}]
resolve_interval = "100ms"
""" + BRIEF + """
[pool.web.health]
path = "/"
"""


@pytest.fixture
def named(own, directory):
    """named(answers) → a name server, and a Ringmaster that asks it alone for the address of its three servers."""
    with contextlib.ExitStack() as ending:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        server.daemon_threads = True
        ending.callback(server.server_close)
        ending.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        def begin(answers):
            names = NameServer(answers)
            ending.callback(names.end)
            folder = pathlib.Path(directory)
            # For longer than any stop may take: no lookup gives up by itself.
            options = "options timeout:30 attempts:5\nsearch .\n"
            (folder / "resolv.conf").write_text(f"nameserver {names.address}\n{options}")
            (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: dns\n")
            bind = "for f in resolv nsswitch; do mount --bind $0/$f.conf /etc/$f.conf || exit 1; done; exec \"$@\""
            servers = ", ".join(f'"s{i}.servers.test:{server.server_address[1]}"' for i in range(3))
            before = ["unshare", "--mount", "/bin/sh", "-c", bind, directory]
            return names, own(NAMED.format(servers=servers), before=before)

        yield begin


def end_of(ringmaster, limit):
    """How long a stop took, if it took no longer than that."""
    began = time.monotonic()
    ringmaster.process.terminate()
    try:
        code = ringmaster.process.wait(limit)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"no end within {limit:.1f} s: {ringmaster.log}") from None
    assert code == 0 and ringmaster.log.rstrip().endswith("stopped"), (code, ringmaster.log)
    return time.monotonic() - began


# Nothing is waited for but the servers' `drain` and `grace`; the rest is for a machine that is busy.
PROMPT_MAX = DRAIN + GRACE + 4 * SLOW


@with_own_names
def test_a_stop_ends_though_the_name_server_has_died(named):
    names, ringmaster = named(answers=True)
    ringmaster.find_addresses()
    until(ringmaster.is_ready, what="a server whose address was found")
    names.answers = False
    until(lambda: names.unanswered > 0, what="a lookup that hangs")
    assert ringmaster.get("/").status == 200
    end_of(ringmaster, PROMPT_MAX)


@with_own_names
def test_a_stop_ends_though_no_name_has_been_found_yet(named):
    names, ringmaster = named(answers=False)
    until(lambda: names.unanswered > 0 or ringmaster.process.poll() is not None, what="the first lookup")
    assert ringmaster.process.poll() is None, ringmaster.log
    end_of(ringmaster, PROMPT_MAX)


# --- an idle tunnel holds no buffers ---

def private_bytes(pid):
    """What a process has written to, and no other process has."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(re.search(r"Private_Dirty:\s+(\d+)", text)[1])


def carry(client, piece):
    client.sendall(piece)
    got = b""
    while len(got) < len(piece):
        more = client.recv(65536)
        assert more, "the tunnel has ended"
        got += more
    assert got == piece.upper()


@pytest.mark.skipif(SLOW > 1, reason="SKIPPED: a sanitizer's memory is not the program's")
def test_an_idle_tunnel_holds_no_buffers(start):
    ringmaster = start("workers = 1\n" + config(replicas=1))
    engine = ringmaster.engine_pid()
    # Large, so that of each buffer that has it a good part is written to.
    upgrade = UPGRADE.replace(b"Host: x", b"Host: x\r\nX-Large: " + b"x" * 14000)
    with contextlib.ExitStack() as clients:

        def open_some(count):
            opened = []
            for _ in range(count):  # one after the other, as each needs buffers for a moment
                client = clients.enter_context(socket.create_connection(ringmaster.traffic[0], timeout=10 * SLOW))
                client.sendall(upgrade)
                assert read_head(client).startswith(b"HTTP/1.1 101 ")
                carry(client, b"y" * 20000)
                opened.append(client)
            return opened

        first = open_some(20)  # what they bring stays for all
        before = private_bytes(engine)
        tunnels = open_some(300)
        metrics = call(ringmaster.admin, "GET", "/metrics").text
        assert f'ringmaster_pool_tunnels{{pool="web"}} {len(first + tunnels)}' in metrics
        each = (private_bytes(engine) - before) / len(tunnels)
        assert each < 32 * 1024, f"a tunnel costs {each:.0f} bytes: more than one buffer has"
        for client in first + tunnels:
            carry(client, b"still here")


# --- the limits of a client with IPv6 are those of its network, a /64 ---

def makes_network_namespaces():
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/proc/net/if_inet6"):
        return False
    name = f"rmtry6{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return False
    tried = ["ip", "-n", name, "addr", "add", "fd00:52:4d:1::1/64", "dev", "lo", "nodad"]
    good = subprocess.run(tried, capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return good


with_own_network = pytest.mark.skipif(not makes_network_namespaces(),
                                      reason="SKIPPED: a network namespace with IPv6 needs root and iproute2")

# The networks differ in the last of their 64 bits only, clients in the bit that follows, too.
ONE, OTHER = "fd00:52:4d:2", "fd00:52:4d:3"
CLIENTS = ["::1", ":8000::1", "::2", ":ffff:ffff:ffff:ffff", "::3", "::4", "::5", "::6"]


class Space:
    """A network namespace in which all of that are addresses of its own."""

    def __init__(self):
        self.name = f"rm{os.getpid()}v6"
        self.run("netns", "add", self.name)

    def fill(self):
        self.inside("link", "set", "lo", "up")
        for network in (ONE, OTHER):
            for client in CLIENTS:
                self.inside("addr", "add", f"{network}{client}/64", "dev", "lo", "nodad")

    @staticmethod
    def run(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def inside(self, *arguments):
        self.run("-n", self.name, *arguments)

    def within(self, what):
        """What a thread does in the namespace. Sockets that are made there stay there, whoever uses them."""
        result = []

        def work():
            clone_newnet = 0x40000000
            with open(f"/run/netns/{self.name}") as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), clone_newnet) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            result.append(what())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert result, "the thread has failed"
        return result[0]

    def connect(self, client, to):
        return self.within(lambda: socket.create_connection(to, timeout=10 * SLOW, source_address=(client, 0)))

    def end(self):
        self.run("netns", "del", self.name)


@pytest.fixture
def space():
    made = Space()
    try:
        made.fill()
        yield made
    finally:
        made.end()


# Limits of connections are each worker's, so there is one.
V6 = """
workers = 1
{top}
[[listener]]
address = "[::]:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
command = ["{{ringmaster}}", "replica", "--listen", "unix:{{socket}}", "--name", "{{name}}"]
{rest}
[pool.web.health]
path = "/heartbeat"
"""


def begin_in(space, own, **parts):
    settings = V6.format(**{"top": "", "rest": ""} | parts)
    ringmaster = own(settings, before=["ip", "netns", "exec", space.name])
    ringmaster.find_addresses()
    until(lambda: space.within(ringmaster.is_ready), what="a replica that is ready")
    return ringmaster, (f"{ONE}::1", ringmaster.traffic[0][1])


def ask(connection):
    """The status of a request on a connection that stays; or that of a refusal."""
    try:
        connection.sendall(b"GET /home HTTP/1.1\r\nHost: x\r\n\r\n")
    except OSError:
        pass  # refused before it was asked: the answer is there
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        return answer.status, answer.read().decode()
    finally:
        answer.close()


@with_own_network
def test_a_limit_of_connections_counts_an_ipv6_network(own, space):
    ringmaster, to = begin_in(space, own, top="connections_per_address_max = 3")
    with contextlib.ExitStack() as connections:
        connect = lambda client: connections.enter_context(space.connect(client, to))
        first = [connect(ONE + client) for client in CLIENTS[:3]]
        assert [ask(connection)[0] for connection in first] == [200] * 3
        for client in CLIENTS:  # those that have none so far, and those that have one
            status, why = ask(connect(ONE + client))
            assert status == 503 and "too many connections from this address" in why, (client, status, why)
        others = [connect(OTHER + client) for client in CLIENTS[:3]]
        assert [ask(connection)[0] for connection in others] == [200] * 3
        assert ask(connect(OTHER + CLIENTS[3]))[0] == 503
        # What one client gives back another one may have.
        first[0].close()
        until(lambda: ask(connect(ONE + CLIENTS[4]))[0] == 200, what="a place that is free again")
        assert ask(connect(ONE + CLIENTS[5]))[0] == 503
        assert [ask(connection)[0] for connection in first[1:]] == [200] * 2, "the others keep theirs"


LIMITED = """
[[route]]
prefix = "/"
pool = "web"
[route.rate]
per_second = 1
burst = 2
"""


def check_rate(status_of):
    """`status_of(address)`: of a request from there. A client more is a request more than the burst of 2 has."""
    statuses, began = [], time.monotonic()
    for client in CLIENTS:
        statuses.append(status_of(ONE + client))
    passed = time.monotonic() - began
    assert set(statuses) <= {200, 429} and statuses[:2] == [200, 200], statuses
    assert statuses.count(200) <= 3 + int(passed), (statuses, passed)  # 2, and what comes back in that time
    assert 429 in statuses, f"too slow to learn anything: {passed} s"
    assert [status_of(OTHER + client) for client in CLIENTS[:2]] == [200, 200]


@with_own_network
def test_a_limit_of_requests_counts_an_ipv6_network(own, space):
    ringmaster, to = begin_in(space, own, rest=LIMITED)

    def status_of(client):
        with space.connect(client, to) as connection:
            return ask(connection)[0]

    check_rate(status_of)


def test_a_limit_of_requests_counts_an_ipv6_network_of_which_a_trusted_peer_tells(start):
    trusting = POOL.replace("classic = true", 'trusted = ["127.0.0.0/8"]').replace("replicas = 3", "replicas = 1")
    ringmaster = start(trusting + HEALTH + LIMITED)
    check_rate(lambda client: ringmaster.get("/home", headers={"X-Forwarded-For": client}).status)


# --- a symbolic link is not followed, whatever else goes wrong ---

class Secret(Server):
    """What the engine must not be led to."""

    def answer(self):
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    do_GET = answer


class SecretServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def secret(directory):
    """A server at a Unix socket that is none of ours; it notes what it was asked."""
    with SecretServer(f"{directory}/secret.sock", Secret) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


# Nothing that comes and goes by itself: checks are rare, and no connection to a replica is kept.
QUIET = """
workers = 1
[timeouts]
replica_idle = "1ms"
[access_log]
format = "json"
path = "{log}"
""" + POOL.replace("{", "{{").replace("}", "}}").replace("replicas = 3", 'replicas = 1\nqueue_wait = "50ms"') + """
[pool.web.health]
path = "/heartbeat"
interval = "1h"
"""


@pytest.fixture
def quiet(start, directory):
    """A Ringmaster with one replica and nothing under way, and the path of the replica's socket."""
    ringmaster = start(QUIET.format(log=f"{directory}/access"))
    return ringmaster, pathlib.Path(ringmaster.replicas()[0]["endpoint"].removeprefix("unix:"))


@contextlib.contextmanager
def led_to(secret, path):
    """Another socket in the place of that one, which is put aside meanwhile."""
    aside = path.with_suffix(".aside")
    path.rename(aside)
    path.symlink_to(secret.server_address)
    yield
    aside.rename(path)


def test_the_engine_follows_no_link_in_place_of_a_replicas_socket(quiet, secret, directory):
    ringmaster, path = quiet
    with led_to(secret, path):
        answer = ringmaster.get("/home")
        assert answer.status == 502 and "secret" not in answer.text, answer.text
        assert not secret.asked
    lines = lambda: pathlib.Path(directory, "access").read_text().splitlines()
    logged = json.loads(until(lines, what="a line in the access log")[0])
    assert logged["status"] == 502 and "'Server 1' failed: refused" in logged["reason"], logged
    until(lambda: ringmaster.get("/home").status == 200, what="an answer by the socket itself")


def open_files(pid):
    """Of a process: descriptor → what it is."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


def inode_at_the_other_end(client):
    """The inode of the server's end of a connection within this machine; 0 before it has been accepted."""
    here, there = (f":{address[1]:04X}" for address in (client.getsockname(), client.getpeername()))
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1].endswith(there) and fields[2].endswith(here):
            return int(fields[9])
    return 0


@pytest.mark.skipif(SLOW > 1, reason="SKIPPED: a sanitizer needs descriptors itself, to look at memory")
def test_the_engine_follows_no_link_though_it_has_no_descriptor_left_to_look(quiet, secret):
    ringmaster, path = quiet
    engine = ringmaster.engine_pid()
    with socket.create_connection(ringmaster.traffic[0], timeout=10 * SLOW) as client:
        inode = until(lambda: inode_at_the_other_end(client), what="the engine's end of the connection")
        used, since = {}, time.monotonic()

        def is_settled():
            """The client is in, and for a while nobody else has come or gone."""
            nonlocal used, since
            before, used = used, open_files(engine)
            since = since if used == before else time.monotonic()
            return f"socket:[{inode}]" in used.values() and time.monotonic() - since > 0.2

        until(is_settled, what="descriptors that stay as they are")
        limits = resource.prlimit(engine, resource.RLIMIT_NOFILE)
        # Room for the socket that is to be connected, and none for a look at what is at its path.
        free = [number for number in range(max(used) + 3) if number not in used]
        resource.prlimit(engine, resource.RLIMIT_NOFILE, (free[1], limits[1]))
        try:
            with led_to(secret, path):
                status, text = ask(client)
                assert status in (502, 503) and "secret" not in text, text
                assert not secret.asked
            assert ask(client)[0] in (502, 503), "it was able to look: nothing has been learnt"
        finally:
            resource.prlimit(engine, resource.RLIMIT_NOFILE, limits)
        until(lambda: ask(client)[0] == 200, what="an answer by the socket itself")


def test_a_link_in_place_of_the_admin_apis_socket_stops_the_start(own, secret, directory):
    link = pathlib.Path(directory, "state/admin.sock")
    link.parent.mkdir()
    link.symlink_to(secret.server_address)
    ringmaster = own(POOL + HEALTH)
    assert ringmaster.process.wait(10 * SLOW) == 1
    assert f"listen on unix:{link}: File exists" in ringmaster.log
    assert link.is_symlink() and os.path.exists(secret.server_address) and not secret.asked


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: only root can give a file to another user")
def test_a_file_that_a_link_leads_to_is_not_given_to_the_engines_user(start, directory):
    os.chmod(directory, 0o755)  # that user has to be able to come to the sockets in it
    other, tasks = pathlib.Path(directory, "other"), pathlib.Path(directory, "state/tasks")
    tasks.mkdir(parents=True)
    (tasks / "own").touch()
    other.touch(mode=0o600)
    (tasks / "link").symlink_to(other)
    start('engine_user = "nobody"\n' + POOL + HEALTH)
    assert (tasks / "own").owner() == "nobody"
    after = other.stat()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o777) == (os.getuid(), os.getgid(), 0o600)
