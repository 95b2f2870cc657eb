"""Clients that hold what others need; what the admin API, registration and the start of replicas can be made to do."""
import concurrent.futures
import contextlib
import ctypes
import http.client
import itertools
import json
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import stat
import statistics
import subprocess
import sys
import threading
import time

import pytest

from conftest import BINARY, HEALTH, POOL, SLOW, call, children_of, free_port, until
from flexible import config, field
from test_findings_master import READ_TOKEN, TOKEN, admin_call, folder, own, with_tokens  # noqa: F401 (fixtures, too)
from test_findings_requests import Client, ask_for_bytes, metric
from test_security_requests import statuses, upstream  # noqa: F401 (a fixture)


def ms(number):
    return f'"{int(number * SLOW)}ms"'


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- slow clients ---

class Slow:
    """A connection whose other side is to end it; `received` is what it says before."""

    def __init__(self, address, data):
        self.socket = socket.create_connection(address)
        self.socket.sendall(data)
        self.socket.setblocking(False)
        self.received, self.cut = b"", False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def is_cut(self):
        try:
            while not self.cut and (piece := self.socket.recv(65536)):
                self.received += piece
            self.cut = True
        except BlockingIOError:
            pass
        except OSError:
            self.cut = True
        return self.cut

    def dribble(self):
        if not self.is_cut():
            try:
                self.socket.send(b"x")
            except OSError:
                pass


def test_clients_that_are_slow_in_six_ways_are_cut_and_others_are_served(start):
    """Heads a byte at a time, bodies that stop, answers that nobody reads, silence ("slowloris", CVE-2007-6750)."""
    ringmaster = start(f"[timeouts]\nhead = {ms(500)}\nbody = {ms(500)}\nidle = {ms(500)}\n" + config(replicas=2))
    address = ringmaster.traffic[0]
    upload = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nhalf"
    asking = b"GET /echo HTTP/1.1\r\nHost: x\r\n"
    starts = {"head": asking + b"A: ", "silent": b"", "idle": asking + b"\r\n", "small body": upload % 100,
              "large body": upload % 1_000_000}

    def healthy():
        times = []
        while not stopping.is_set():
            began = time.monotonic()
            assert call(address, "GET", "/echo").status == 200
            times.append(time.monotonic() - began)
        return times

    stopping = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as threads, contextlib.ExitStack() as open_ones:
        open_ones.callback(stopping.set)
        running = threads.submit(healthy)
        some = lambda begin: [open_ones.enter_context(Slow(address, begin)) for _ in range(20)]
        slow = {name: some(begin) for name, begin in starts.items()}
        # More than the kernel takes for a client.
        unread = [open_ones.enter_context(ask_for_bytes(address, 20_000_000)) for _ in range(3)]

        def all_cut():
            for one in slow["head"]:
                one.dribble()
            time.sleep(0.02)
            return all([one.is_cut() for kind in slow.values() for one in kind])

        until(all_cut, 8, "the end of all slow ones")
        until(lambda: metric(ringmaster, "route_aborted_total") == len(unread), 8, "the end of those that read nothing")
        stopping.set()
        times = running.result()
    answers = {name: {tuple(statuses(one.received)) for one in kind} for name, kind in slow.items()}
    late = {(408,)}
    assert answers == {"head": late, "silent": {()}, "idle": {(200,)}, "small body": late, "large body": late}
    assert len(times) >= 10 and statistics.median(times) < 0.25 * SLOW, times
    until(lambda: sum(replica["in_flight"] for replica in ringmaster.replicas()) == 0, what="nothing in flight")


def test_a_slow_client_that_has_been_cut_holds_no_place_of_others(start):
    """What comes after a 408 is read for politeness (RFC 9112 section 9.6): not while somebody waits for the place."""
    ringmaster = start(f"workers = 1\nconnections_max = 10\n[timeouts]\nhead = {ms(300)}\n" + config(replicas=1))
    with contextlib.ExitStack() as open_ones:
        slow = [open_ones.enter_context(Slow(ringmaster.traffic[0], b"GET /echo HTTP/1.1\r\nA: ")) for _ in range(10)]
        newcomer = open_ones.enter_context(Client(ringmaster.traffic[0]))
        newcomer.send(b"GET /slow/any/0 HTTP/1.1\r\nHost: x\r\n\r\n")

        def answered():
            for one in slow:
                with contextlib.suppress(OSError):
                    one.socket.send(b"x")
            return select.select([newcomer.socket], [], [], 0.02)[0]

        until(answered, 3, "an answer for who came later")
        assert newcomer.answer().status == 200


# --- more connections than there can be ---

def test_a_flood_leaves_descriptors_for_checks_and_the_admin_api(own):
    """A flood over the cap, which goes by the descriptors that there are: newcomers wait, and nothing spins."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    timeouts = f"[timeouts]\nhead = {ms(400)}\nlinger = {ms(100)}\n"
    ringmaster = own("workers = 2\n" + timeouts + POOL + HEALTH, preexec_fn=limit)
    engine = ringmaster.engine_pid()
    before, began = cpu_seconds(engine), time.monotonic()
    with contextlib.ExitStack() as open_ones:
        start = b"GET /home HTTP/1.1\r\nHo"
        flood = [open_ones.enter_context(Slow(ringmaster.traffic[0], start)) for _ in range(90)]
        until(lambda: "newcomers wait" in ringmaster.log, what="the line")
        for _ in range(20):
            assert call(ringmaster.admin, "GET", "/healthz").status == 200
        assert ringmaster.serves(), "all replicas are still ready"
        assert len(os.listdir(f"/proc/{engine}/fd")) < 200
        # Who comes last gets its turn, when the others have been cut.
        assert call(ringmaster.traffic[0], "GET", "/home").status == 200
        until(lambda: all([one.is_cut() for one in flood]), 15, "the end of the flood")
        assert {tuple(statuses(one.received)) for one in flood} == {(408,)}
    assert cpu_seconds(engine) - before < 0.5 * (time.monotonic() - began) + 0.2 * SLOW
    assert "Too many open files" not in ringmaster.log and ringmaster.engine_pid() == engine


@pytest.mark.skipif(SLOW > 1, reason="NOT TESTED: a sanitizer needs descriptors for its own checks")
def test_without_a_descriptor_left_nothing_spins_and_nobody_is_lost(start):
    """A flood that uses up descriptors: accept(2) then fails at once, for as long as somebody waits (EMFILE)."""
    ringmaster = start("workers = 1\n" + POOL + HEALTH)
    engine, pids = ringmaster.engine_pid(), [replica["pid"] for replica in ringmaster.replicas()]
    before_limit = resource.prlimit(engine, resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as open_ones:
        connect = lambda address: open_ones.enter_context(Client(address))
        client, admin = connect(ringmaster.traffic[0]), connect(ringmaster.admin)
        assert client.ask("/home").status == 200
        admin.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert admin.answer().status == 200
        resource.prlimit(engine, resource.RLIMIT_NOFILE, (1, before_limit[1]))
        try:
            newcomers = [connect(address) for address in [ringmaster.traffic[0]] * 20 + [ringmaster.admin] * 3]
            for number, newcomer in enumerate(newcomers):
                newcomer.send(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (b"/home" if number < 20 else b"/readyz"))
            until(lambda: "Too many open files" in ringmaster.log, what="the line")
            before, lines, began = cpu_seconds(engine), ringmaster.log.count("\n"), time.monotonic()
            while time.monotonic() - began < 1:  # what it costs is measured for a second
                admin.send(b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert admin.answer().status == 200, "who is connected is served"
                assert client.ask("/home").status == 200
                time.sleep(0.1)
            took = time.monotonic() - began
            assert cpu_seconds(engine) - before < 0.3 * took + 0.1 * SLOW
            assert ringmaster.log.count("\n") - lines < 40 * took + 10
            assert not any(newcomer.ended() for newcomer in newcomers)
        finally:
            resource.prlimit(engine, resource.RLIMIT_NOFILE, before_limit)
        for newcomer in newcomers:
            newcomer.socket.setblocking(True)
            newcomer.socket.settimeout(20 * SLOW)
            assert newcomer.answer().status == 200
    until(ringmaster.serves, what="all replicas ready")
    assert [replica["pid"] for replica in ringmaster.replicas()] == pids and ringmaster.engine_pid() == engine


# --- the admin API, and web pages that call it (CSRF; DNS rebinding: Caddy's CVE-2026-27589) ---

QUEUE = '[queue.default]\npool = "web"\npath = "/task"\n'
READS = ["/v1/status", "/metrics", "/v1/pools", "/v1/pools/web", "/v1/pools/web/output?name=Server%201",
         "/v1/openapi.json", "/v1/tasks", "/v1/queues", "/v1/nothing"]
BODILESS = [("POST", "/v1/stop"), ("POST", "/v1/queues/default:pause"), ("POST", "/v1/queues/default:resume"),
            ("POST", "/v1/tasks/0123456789abcdef:cancel")]
CHANGES = [("POST", "/v1/pools/web/replicas", '{"n":1}'), ("DELETE", "/v1/pools/web/replicas", '{"n":1}'),
           ("PUT", "/v1/pools/web/size", '{"n":1}'), ("PUT", "/v1/queues/default", '{"paused":true}'),
           ("POST", "/v1/tasks", '{"type":"x","payload":{}}'), ("POST", "/v1/tasks:batch", '{"tasks":[]}'),
           ("POST", "/v1/work:lease", '{"worker":"w"}')]
WITHOUT_BODY = [(*one, "{}") for one in BODILESS]
CALLS = [(method, path, None) for path in READS for method in ("GET", "HEAD")] + WITHOUT_BODY + CHANGES
JSON = {"Content-Type": "application/json"}


def shape(ringmaster, headers=None):
    """What a change would change."""
    get = lambda path: call(ringmaster.admin, "GET", path, headers=headers).json
    pool, [queue] = get("/v1/pools/web"), get("/v1/queues")["queues"]
    return [replica["name"] for replica in pool["replicas"]], queue["paused"], queue["accepted"]


def with_queue(start):
    ringmaster = start(POOL + HEALTH + QUEUE)
    until(lambda: call(ringmaster.admin, "GET", "/v1/tasks").status == 200, what="the store of tasks")
    return ringmaster


def test_admin_calls_are_refused_to_web_pages_and_under_strange_hosts(start):
    """Whatever Origin it has, ours too: 403, and no field that would let a page read the answer."""
    ringmaster = with_queue(start)
    before, port = shape(ringmaster), ringmaster.admin[1]
    origins = ["http://evil.example", "null", f"http://127.0.0.1:{port}", f"http://localhost:{port}", ""]
    hosts = ["evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0",
             f"[::ffff:127.0.0.1]:{port}", "local", "127.0.0.1."]
    strange = [{"Origin": origin} for origin in origins] + [{"Host": host} for host in hosts]

    def refuses(method, path, body, headers):
        answer = call(ringmaster.admin, method, path, body, headers)
        assert answer.status == 403, (method, path, headers, answer.status)
        assert not any(name.lower().startswith("access-control-") for name in answer.headers), answer.headers

    for method, path, body in CALLS:
        for headers in strange:
            refuses(method, path, body, JSON | headers)
        refuses("OPTIONS", path, None, {"Origin": "http://evil.example", "Access-Control-Request-Method": method})
    for line in ("GET http://evil.example/v1/status HTTP/1.1\r\nHost: localhost", "GET /v1/status HTTP/1.0"):
        with Client(ringmaster.admin) as client:  # the absolute form counts more than Host; HTTP/1.0 may have none
            client.send(f"{line}\r\n\r\n".encode())
            assert client.answer().status == 403, line
    assert shape(ringmaster) == before and ringmaster.process.poll() is None


# What a form of a web page can send without asking first ("CORS-safelisted" by the Fetch standard), and what looks so.
FORMS = [{"Content-Type": kind} for kind in ("text/plain", "application/x-www-form-urlencoded",
                                             "multipart/form-data; boundary=x", "text/plain; application/json")]


def test_a_change_with_a_body_that_is_not_said_to_be_json_is_refused(start):
    """Cross-site request forgery: a web page's form can send JSON, but not say so."""
    ringmaster = with_queue(start)
    before = shape(ringmaster)
    for method, path, body in CHANGES:
        for headers in [{}, {"Content-Type": ""}] + FORMS:
            assert call(ringmaster.admin, method, path, body, headers).status == 415, (method, path, headers)
    assert shape(ringmaster) == before


@pytest.mark.parametrize("method, path", BODILESS[:3])
def test_a_form_of_a_web_page_makes_no_change_that_needs_no_body(start, method, path):
    """Cross-site request forgery: a browser that sends no Origin with a form could else stop everything."""
    ringmaster = with_queue(start)
    before = shape(ringmaster)
    for headers in FORMS:
        assert call(ringmaster.admin, method, path, "a=b", headers).status == 415, headers
    assert shape(ringmaster) == before and ringmaster.process.poll() is None


SERVER = '{"url":"http://127.0.0.1:9"}'
CLASSIC_CALLS = [
    ("GET", "/rep", None), ("GET", "/get", None), ("POST", "/add", '{"n":1}'), ("DELETE", "/rm", '{"n":1}'),
    ("GET", "/servers", None), ("POST", "/server_up", SERVER), ("POST", "/server_down", SERVER),
    ("GET", "/get-tasks", None), ("GET", "/tasks/0123456789abcdef", None), ("POST", "/tasks", '{"expression":"1"}'),
]


@pytest.mark.parametrize("one", CLASSIC_CALLS, ids=lambda one: f"{one[0]} {one[1]}")
def test_classic_calls_are_refused_to_web_pages_and_under_a_strange_host(start, one):
    """Without a token or a list of callers nothing else tells a web page's call on loopback (CVE-2026-27589)."""
    ringmaster = start(POOL + "[pool.web.register]\n" + HEALTH + QUEUE)
    until(lambda: call(ringmaster.admin, "GET", "/v1/tasks").status == 200, what="the store of tasks")
    before = shape(ringmaster)
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        answer = ringmaster.call(*one, headers)
        assert answer.status == 403, (headers, answer.text)
    assert shape(ringmaster) == before


def test_only_the_whole_token_in_its_own_field_opens_the_admin_api(own, folder):
    """No token, a wrong one, or one elsewhere: 401 with a challenge (RFC 9110 section 11.6.1, RFC 6750 section 2.1)."""
    ringmaster = with_tokens(own, folder, "token_file", "read_token_file")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    wrong = ["", "Bearer", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN} x", f"Bearer {TOKEN},", f'Bearer "{TOKEN}"',
             f"Bearer {TOKEN.upper()}", f"Bearer x, Bearer {TOKEN}"]
    elsewhere = [{}, {"Authorization_": bearer["Authorization"]}, {"Proxy-Authorization": bearer["Authorization"]},
                 {"Cookie": "Authorization=" + bearer["Authorization"]}, {"X-Forwarded-For": "127.0.0.1"}]
    for headers in [{"Authorization": value} for value in wrong] + elsewhere:
        answer = call(ringmaster.admin, "GET", "/v1/status", headers=headers)
        assert answer.status == 401 and field(answer, "WWW-Authenticate") == "Bearer", (headers, answer.status)
    # What needs no token is no way to what does.
    for path in ("/healthz/../v1/status", "/healthz/%2e%2e/v1/status", "//v1/status", "/v1/%73tatus", "/healthz/",
                 "/readyz/x", f"/v1/status?token={TOKEN}", "/v1/status?/healthz", "/V1/status"):
        assert call(ringmaster.admin, "GET", path).status == 401, path
    assert call(ringmaster.admin, "GET", "/v1/status", headers=bearer | {"Origin": "http://evil.example"}).status == 403
    assert call(ringmaster.admin, "GET", "/v1/status", headers=bearer | {"Host": "balancer.example"}).status == 200
    for method, path, body in WITHOUT_BODY + CHANGES:
        assert admin_call(ringmaster, method, path, body, READ_TOKEN) == 403, path
    assert len(ringmaster.replicas()) == 3 and ringmaster.process.poll() is None
    assert TOKEN not in ringmaster.log and READ_TOKEN not in ringmaster.log


def test_the_unix_socket_is_the_owners_and_wants_the_token_as_well(own, folder):
    """Local users who are not the owner have no way round the token."""
    ringmaster = with_tokens(own, folder, "token_file")
    path = ringmaster.directory / "state/admin.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for token, status in ((None, 401), (TOKEN, 200)):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {token}"} if token else {})
        assert connection.getresponse().status == status
        connection.close()


# --- registration as a way to make requests of one's choice (server-side request forgery) ---

REGISTER_TOKEN = "0123456789abcdef"


def registering(ports=(0, 0, 0), rest="", token=True):
    first, second, admin = ports
    return f"""
[[listener]]
address = "127.0.0.1:{first}"
pool = "web"
classic = true
[[listener]]
address = "127.0.0.1:{second}"
pool = "web"
[admin]
address = "127.0.0.1:{admin}"
[pool.web]
slow_start = "0ms"
[pool.web.health]
path = "/health"
interval = "50ms"
[pool.web.register]
from = ["127.0.0.0/8", "::1/128"]
{f'token = "{REGISTER_TOKEN}"' if token else ""}
{rest}
"""


def announce(ringmaster, url, headers=None):
    shown = {"Authorization": f"Bearer {REGISTER_TOKEN}"} | (headers or {})
    return ringmaster.call("POST", "/server_up", json.dumps({"url": url}), shown)


def test_ringmasters_own_addresses_cannot_be_registered_in_other_spellings_either(start):
    """Request forgery by registration: requests would go round in circles, or reach the admin API."""
    ports = [free_port() for _ in range(3)]
    ringmaster = start(registering(ports))
    v6 = ["[::1]"] if pathlib.Path("/proc/net/if_inet6").exists() else []
    hosts = ["127.0.0.1", "localhost", "127.9.9.9", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1"] + v6
    for host, port in itertools.product(hosts, ports):
        assert announce(ringmaster, f"http://{host}:{port}").status in (400, 403), (host, port)
    assert ringmaster.rep()["N"] == 0
    assert announce(ringmaster, f"http://127.0.0.1:{free_port()}").status == 200, "a port that is not ours"


def test_an_address_is_judged_by_what_it_means_and_a_url_by_its_form(start):
    """Request forgery: metadata services, link-local and mapped addresses, Unix sockets, files, other schemes."""
    ringmaster = start(registering())
    hosts = ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
             "[::ffff:169.254.169.254]", "[::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]", "[fe80::1]",
             "[fe80::1%25lo]", "[fe80::1%lo]", "[::ffff:127.0.0.1]:1", "[::]:1", "0:1", "0.0.0.0:1", "224.0.0.1:1",
             "255.255.255.255:1", "[ff02::1]:1", "unix", "unix:1", "unix:%2Frun%2Fdocker.sock", "/x", " 127.0.0.1:1",
             "127.0.0.1:1@169.254.169.254", "169.254.169.254#@127.0.0.1:1", "127.0.0.1:1\\@169.254.169.254",
             "127.0.0.1:1?x", "127.0.0.1:1#x", "127.0.0.1:1\r\nX: y", "127.0.0.1\0:1", "127.0.0.1:0", "127.0.0.1:65536",
             "127.0.0.1:+80", "127.0.0.1:-1", "127.0.0.1:1/.."]
    others = ["unix:/run/docker.sock", "http+unix://%2Frun%2Fdocker.sock", "file:/etc/passwd", "gopher://127.0.0.1:1",
              "ftp://127.0.0.1:1", "//127.0.0.1:1", "127.0.0.1:1", "http:127.0.0.1:1", ""]
    for url in ["http://" + host for host in hosts] + others:
        answer = announce(ringmaster, url)
        assert answer.status in (400, 403), (url, answer.status)
    assert ringmaster.rep()["N"] == 0


def test_whom_a_server_speaks_for_is_not_its_own_word(start):
    """Without a token each may announce its own address; fields that name another are nobody's whom we trust."""
    ringmaster = start(registering(token=False))
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Host"):
        headers = {name: "for=127.0.0.2" if name == "Forwarded" else "127.0.0.2"}
        assert announce(ringmaster, f"http://127.0.0.2:{free_port()}", headers).status == 403, name
    assert ringmaster.rep()["N"] == 0


def test_neither_checks_nor_requests_follow_a_redirect(start, upstream):
    """Request forgery: redirects (RFC 9110 section 15.4) would lead to where no server may be registered."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        there = "http://127.0.0.1:%d/health" % trap.getsockname()[1]

        def redirect(peer):
            peer.answer(302, b"", f"Location: {there}\r\n".encode())

        def serve(_, peer):
            peer.take_request()
            redirect(peer)

        server = upstream(serve, redirect)
        ringmaster = start(registering())
        assert announce(ringmaster, f"http://127.0.0.1:{server.port}").status == 200
        # By default 302 is as good as 200: what counts is that it answers.
        until(lambda: server.checks >= 5 and ringmaster.replicas()[0]["state"] == "ready", what="some checks")
        answer = until(lambda: (answer := ringmaster.get("/x")).status != 503 and answer)
        assert answer.status == 302 and field(answer, "Location") == there
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def has_mounts_of_its_own():
    return shutil.which("unshare") and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_mounts_of_its_own(), reason="NOT TESTED: hosts of its own need a mount namespace")
def test_a_registered_name_is_looked_up_once_and_judged_by_all_its_addresses(own, folder, upstream):
    """Request forgery by a name that leads elsewhere later (DNS rebinding): no check and no restart follows it."""
    hosts = folder / "hosts"

    def hosts_of_its_own():
        libc, private, bind = ctypes.CDLL(None, use_errno=True), 1 << 18 | 1 << 14, 1 << 12
        assert libc.unshare(0x20000) == 0 and libc.mount(None, b"/", None, private, None) == 0
        assert libc.mount(str(hosts).encode(), b"/etc/hosts", None, bind, None) == 0

    hosts.write_text("127.0.0.1 localhost moving.test both.test\n169.254.169.254 metadata.test\n10.9.8.7 both.test\n")
    server, other = upstream(), upstream()
    with socket.create_server(("127.0.0.9", server.port)) as trap:
        ringmaster = own(registering(), preexec_fn=hosts_of_its_own)
        assert announce(ringmaster, "http://metadata.test").status == 403
        assert announce(ringmaster, f"http://moving.test:{server.port}").status == 200
        assert announce(ringmaster, f"http://both.test:{other.port}").status == 200
        endpoints = [f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}"]
        until(lambda: ringmaster.pool()["ready"] == 2, what="both ready")
        assert [one["endpoint"] for one in ringmaster.replicas()] == endpoints
        hosts.write_text("127.0.0.9 moving.test both.test\n")  # in place: it is the mounted file
        checks = server.checks
        until(lambda: server.checks >= checks + 3, what="some checks")
        ringmaster.stop()
        ringmaster.start()
        until(lambda: ringmaster.get("/after").status == 200)
        assert [one["endpoint"] for one in ringmaster.replicas()] == endpoints
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


# --- what a replica is given ---

# Usage: reporter.py PORT. Tells what it has been given, before anything else could change it.
REPORTER = """
import ctypes, http.server, json, os, socket, sys
fds = {}
for name in os.listdir("/proc/self/fd"):
    try: fds[name] = os.readlink("/proc/self/fd/" + name)
    except OSError: pass  # that of the listing itself
signal_of_end = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signal_of_end), 0, 0, 0)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
REPORT = {"fds": fds, "pid": os.getpid(), "session": os.getsid(0), "group": os.getpgid(0), "parent": os.getppid(),
          "signal_of_end": signal_of_end.value, "no_new_privs": status["NoNewPrivs"],
          "blocked": int(status["SigBlk"], 16), "command": open("/proc/self/cmdline").read(),
          "environment": [line for line in open("/proc/self/environ").read().split("\\0") if line]}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(REPORT).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self): return "-"
    def log_message(self, *arguments): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def server_bind(self): socket.socket.bind(self.socket, self.server_address)
server = Server(("127.0.0.1", int(sys.argv[1])), Handler, bind_and_activate="LISTEN_FDS" not in os.environ)
if "LISTEN_FDS" in os.environ: server.socket = socket.socket(fileno=3)
server.serve_forever()
"""
# What it may have of its starter's environment, what it is told, and what the configuration gives it.
MAY_HAVE = {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS",
            "SERVER_ID", "SERVER_NAME", "PORT", "LISTEN_FDS", "LISTEN_PID", "RINGMASTER_REPLICA", "GREETING"}
SECRETS = ["of-the-environment-0123", "of-the-cookie-0123456", "of-the-register-0123", TOKEN]


def reports_of(ringmaster):
    endpoints = [one["endpoint"].rsplit(":", 1) for one in ringmaster.replicas()]
    return [call((host, int(port)), "GET", "/").json for host, port in endpoints]


@pytest.mark.parametrize("inherits", [False, True], ids=["port", "inherited socket"])
def test_a_replica_gets_what_it_is_promised_and_nothing_of_its_starters(own, folder, inherits):
    """Its own session, no new privileges, its end with the master's, three descriptors, no secret; a successor, too."""
    (folder / "reporter.py").write_text(REPORTER)
    (folder / "token").write_text(TOKEN + "\n")
    pool = f"""
[[listener]]
address = "127.0.0.1:0"
pool = "web"
classic = true
[admin]
address = "127.0.0.1:0"
token_file = "{folder}/token"
[pool.web]
command = ["{sys.executable}", "{folder}/reporter.py", "{{port}}"]
replicas = 1
listen_fds = {str(inherits).lower()}
[pool.web.environment]
GREETING = "hello"
[pool.web.sticky]
cookie = "seat"
secret = "{SECRETS[1]}"
[pool.web.register]
token = "{SECRETS[2]}"
"""
    with open(folder / "open", "w") as inherited:
        environment = os.environ | {"DATABASE_PASSWORD": SECRETS[0], "LD_LIBRARY_PATH": "/nowhere"}
        ringmaster = own(pool, token=TOKEN, pass_fds=[inherited.fileno()], env=environment)
        master = ringmaster.process.pid
        reports = reports_of(ringmaster)
        os.kill(reports[0]["pid"], signal.SIGKILL)
        state = lambda: [(one["epoch"], one["state"]) for one in ringmaster.replicas()]
        until(lambda: state() == [(2, "ready")], what="the successor")
        reports += reports_of(ringmaster)
        assert admin_call(ringmaster, "POST", "/v1/pools/web/replicas", '{"n":1}', TOKEN) == 200
        until(ringmaster.serves)
        reports += reports_of(ringmaster)
        assert len(reports) == 4 and len({report["pid"] for report in reports}) == 3
        for report in reports:
            assert set(report["fds"]) == {"0", "1", "2"} | ({"3"} if inherits else set()), report["fds"]
            assert report["fds"]["0"] == "/dev/null"
            assert report["fds"]["1"].startswith("pipe:") and report["fds"]["2"].startswith("pipe:")
            assert (report["no_new_privs"], report["blocked"], report["signal_of_end"]) == ("1", 0, signal.SIGKILL)
            assert report["session"] == report["group"] == report["pid"] and report["parent"] == master
            assert {line.split("=", 1)[0] for line in report["environment"]} <= MAY_HAVE, report["environment"]
            assert "GREETING=hello" in report["environment"]
            assert not any(secret in report["command"] + str(report["environment"]) for secret in SECRETS)
        # Command lines are for all users to see; and the engine has no use for others' descriptors, either.
        for pid in [master, *children_of(master)]:
            shown = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
            assert not any(secret in shown for secret in SECRETS), shown
        engine = [entry.resolve() for entry in pathlib.Path(f"/proc/{ringmaster.engine_pid()}/fd").iterdir()]
        assert folder / "open" not in engine


def command_line(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def test_calls_that_add_servers_do_not_say_what_is_started(ringmaster):
    """Commands come from the configuration only; names are no way to put words into them."""
    marker = ringmaster.directory / "started"
    wish = {"n": 1, "command": ["/usr/bin/touch", str(marker)], "image": "evil", "user": "root", "directory": "/",
            "environment": {"LD_PRELOAD": "/evil.so"}, "listen_fds": True, "servers": ["127.0.0.1:1"]}
    bad_names = ["$(touch x)", "`touch x`", "a;touch x", "{socket}", "{ringmaster}", "../x", "/bin/sh", "--listen",
                 "a\nb", "a\0b", "a=b", "x" * 64, "", ["a"], {"a": 1}]
    calls = [(ringmaster.admin, "POST", "/v1/pools/web/replicas", "names"),
             (ringmaster.traffic[0], "POST", "/add", "hostnames")]
    for address, method, path, names in calls:
        assert call(address, method, path, json.dumps(wish | {names: ["N" + path[-1]]}), JSON).status in (200, 400)
        for name in bad_names:
            assert call(address, method, path, json.dumps({"n": 1, names: [name]}), JSON).status == 400, (path, name)
    assert call(ringmaster.admin, "PUT", "/v1/pools/web/size", json.dumps(wish | {"n": 6}), JSON).status in (200, 400)
    until(ringmaster.serves)
    assert not marker.exists()
    assert len(ringmaster.replicas()) >= 3
    for one in ringmaster.replicas():
        words = command_line(one["pid"])
        assert words[:3] == [BINARY, "replica", "--listen"] and words[3].startswith("unix:"), words
        assert words[4:] == ["--name", one["name"]], words
