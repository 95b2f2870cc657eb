"""What a hard look found on a request's way: each test has its finding's number, and fails without its mending."""
import concurrent.futures
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

import flexible
from conftest import SLOW, Answer, call, free_port, until
from flexible import Background, config, field

RECORDER = pathlib.Path(__file__).with_name("recorder_server.py")


def recorder(**options):
    """A pool of recorder_server.py."""
    return config(**({"replicas": 1} | options)).replace(str(flexible.SERVER), str(RECORDER))


def recorded(ringmaster):
    """Method, target and body of all that has reached the replica, which is asked past the balancer."""
    host, port = ringmaster.replicas()[0]["endpoint"].rsplit(":", 1)
    return [(method, target, body) for method, target, _, body in call((host, int(port)), "GET", "/recorded").json]


def fields_seen(ringmaster, target):
    """The fields of the one request for `target` that has reached the replica, by lower-case name."""
    host, port = ringmaster.replicas()[0]["endpoint"].rsplit(":", 1)
    [fields] = [fields for _, its, fields, _ in call((host, int(port)), "GET", "/recorded").json if its == target]
    return {name.lower(): value for name, value in fields}


def metric(ringmaster, name):
    text = call(ringmaster.admin, "GET", "/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"ringmaster_{name}"))


class Client:
    """One connection, on which requests are written as they are."""

    def __init__(self, address, timeout=5, receive_buffer=0):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket.settimeout(timeout * SLOW)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("it ended without an answer")
        headers = http.client.parse_headers(self.file)
        return Answer(int(line.split()[1]), dict(headers), self.file.read(int(headers.get("Content-Length", 0))))

    def ask(self, path, *fields):
        self.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode())
        return self.answer()

    def ended(self):
        """Whether the other side has ended it; nothing else may have come."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


# --- 1: what follows a body ---

EVIL = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"y" * 50_000  # more than the buffer holds


def chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def post(target, body, framing=b""):
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s" % (target, framing or b"Content-Length: %d" % len(body), body)


def small_chunked(number):
    """(what is sent, where the splits begin, what must reach the replica)"""
    first = post(b"/first/%d" % number, chunks(b"hello", b" ", b"world!"), b"Transfer-Encoding: chunked")
    second = b"GET /second/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number
    return first + second, 1, [("POST", f"/first/{number}", "hello world!"), ("GET", f"/second/{number}", "")]


def large(number, framing, body):
    second = post(b"/second/%d" % number, EVIL)
    stream = post(b"/first/%d" % number, body, framing) + second
    requests = [("POST", f"/first/{number}", LARGE.decode()), ("POST", f"/second/{number}", EVIL.decode())]
    return stream, len(stream) - len(second) - 20, requests


def large_chunked(number):
    return large(number, b"Transfer-Encoding: chunked", chunks(LARGE[:20_000], LARGE[20_000:]))


def with_length(number):
    return large(number, b"", LARGE)


@pytest.mark.parametrize("make", [small_chunked, large_chunked, with_length])
def test_01_what_is_pipelined_behind_a_streamed_body_is_the_next_request(start, make):
    """Wherever the bytes are cut in two, each request arrives once, whole and in order, and no body as a request."""
    ringmaster = start(recorder())
    failed = threading.Event()

    def try_at(position):
        # The numbers have the same length everywhere, so that a position means the same in each stream.
        stream, _, requests = make(1000 + position % 1000)
        if failed.is_set():
            return []
        try:
            with Client(ringmaster.traffic[0], timeout=2) as client:
                client.send(stream[:position])
                time.sleep(0.003)  # the second half comes in a segment of its own
                client.send(stream[position:])
                for method, target, _ in requests:
                    assert client.answer().text == f"{method} {target}"
        except (OSError, AssertionError) as error:
            failed.set()
            before, after = stream[max(0, position - 20):position], stream[position:position + 20]
            raise AssertionError(f"cut at byte {position}, {before} | {after}: {error!r}") from error
        return requests

    stream, begin, _ = make(1000)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        expected = sum(threads.map(try_at, range(begin, len(stream) + 1)), [])
    # Compared before it is asserted: what pytest would print of a difference is megabytes.
    same = sorted(recorded(ringmaster)) == sorted(expected)
    assert same, "the replica has got something else than was sent"


# --- 5: slow downloads ---

def read_slowly(client, bytes_each, pause, seconds):
    got = 0
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        got += len(client.socket.recv(bytes_each))
        time.sleep(pause)
    return got


def read_all(client):
    got = 0
    try:
        while piece := client.socket.recv(1 << 20):
            got += len(piece)
    except ConnectionResetError:
        pass
    return got


def ask_for_bytes(address, size):
    """A client that takes little at once, so that what it does not read stays with Ringmaster."""
    client = Client(address, receive_buffer=4096)
    client.send(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
    return client


def test_05_a_slow_download_is_not_cut_while_it_goes_on(start):
    ringmaster = start('[timeouts]\nbody = "1s"\n' + config(replicas=1))
    size = 3_000_000
    with ask_for_bytes(ringmaster.traffic[0], size) as client:
        got = read_slowly(client, 4096, 4096 / 64_000, 2.5)
        assert got < size / 4, "it was to be slow"
        got += read_all(client)
    assert got > size, f"cut after {got} bytes"


def test_05_a_client_that_reads_nothing_is_cut(start):
    ringmaster = start('[timeouts]\nbody = "300ms"\n' + config(replicas=1))
    size = 20_000_000  # more than the kernel takes for a client
    with ask_for_bytes(ringmaster.traffic[0], size) as client:
        until(lambda: metric(ringmaster, "route_aborted_total") == 1, 5)
        assert read_all(client) < size
    until(lambda: ringmaster.replicas()[0]["in_flight"] == 0)


# --- 6: nobody is there ---

def listed(port, rest=""):
    return f"""
[[listener]]
address = "127.0.0.1:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
servers = ["127.0.0.1:{port}"]
[pool.web.health]
path = "/health"
interval = "500ms"
{rest}
"""


def assert_soon_refused(address):
    began = time.monotonic()
    answer = call(address, "GET", "/echo")
    took = time.monotonic() - began
    assert answer.status in (502, 503) and took < 2 * SLOW, (answer.status, took)


def test_06_a_pool_whose_only_server_is_not_there_refuses_at_once(start):
    ringmaster = start(listed(free_port()), wait=False)
    addresses = ringmaster.directory / "state/addresses.json"
    found = json.loads(until(lambda: addresses.exists() and addresses.read_text()))
    host, port = found["listeners"][0].rsplit(":", 1)
    assert_soon_refused((host, int(port)))


def test_06_a_server_that_has_just_died_is_not_waited_for(start):
    port = free_port()
    with subprocess.Popen(["/usr/bin/python3", str(flexible.SERVER), str(port), "A"]) as server:
        try:
            ringmaster = start(listed(port))
            assert ringmaster.get("/echo").status == 200
        finally:
            server.send_signal(signal.SIGKILL)
    assert_soon_refused(ringmaster.traffic[0])  # no check has found it out yet
    assert_soon_refused(ringmaster.traffic[0])


# --- 7: the limit of connections ---

def test_07_newcomers_are_served_at_the_limit_and_the_oldest_idle_connections_go(start):
    """However the kernel spreads them over the workers: there are more than both would take with a limit each."""
    ringmaster = start("workers = 2\nconnections_max = 10\n" + config(replicas=1))
    address = ringmaster.traffic[0]
    clients = []
    try:
        for number in range(25):
            clients.append(Client(address, timeout=2))
            try:
                assert clients[-1].ask("/slow/none/0").status == 200
            except OSError as error:
                raise AssertionError(f"connection {number + 1} got no answer: {error!r}") from error
        until(lambda: sum(not client.ended() for client in clients) <= 10, what="no more open ones than the limit")
        assert clients[0].ended() and not clients[-1].ended()
    finally:
        for client in clients:
            client.__exit__()
    lines = [line for line in ringmaster.log.splitlines() if re.search(r"connections.*(no more|full)", line)]
    assert len(lines) <= 1, lines


def test_07_newcomers_wait_while_all_are_busy_and_none_is_reset(start):
    """They come at once, so that each finds another that has been accepted and not been heard yet."""
    ringmaster = start("workers = 1\nconnections_max = 2\n" + config(replicas=1))
    address = ringmaster.traffic[0]
    busy = [Background(address, "/slow/any/700") for _ in range(2)]
    until(lambda: ringmaster.replicas()[0]["in_flight"] == 2)
    crowd = [Background(address, "/slow/none/0") for _ in range(20)]
    answers = [request.wait() for request in busy + crowd]
    assert [getattr(answer, "status", answer) for answer in answers] == [200] * 22


# --- 8: a full backlog ---

ONE_AT_A_TIME = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
while True:
    with listener.accept()[0] as connection:
        data = b""
        while b"\\r\\n\\r\\n" not in data:
            piece = connection.recv(65536)
            if not piece: break
            data += piece
        if not data.startswith(b"GET /health "): time.sleep(0.1)
        try: connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
        except OSError: pass
"""


@pytest.mark.parametrize("replicas, policy", [(1, 'policy = "least_requests"\n'), (2, 'key = "request_id"\n')])
def test_08_requests_wait_while_every_backlog_is_full(start, directory, replicas, policy):
    script = pathlib.Path(directory) / "one_at_a_time.py"
    script.write_text(ONE_AT_A_TIME)
    # One check, when it starts: others would need a place in the backlog as well.
    pool = config(policy, replicas=replicas, health='path = "/health"\ninterval = "60s"\n')
    ringmaster = start(re.sub(r"(?m)^command = .*$", f'command = ["/usr/bin/python3", "{script}", "{{socket}}"]', pool))
    requests = [Background(ringmaster.traffic[0], f"/{number}") for number in range(12)]
    answers = [request.wait() for request in requests]
    assert [getattr(answer, "status", answer) for answer in answers] == [200] * 12
    assert ringmaster.pool()["waiting"] == 0


# --- 9: slow uploads ---

def test_09_a_small_chunked_body_that_comes_slowly_holds_no_replica(start):
    ringmaster = start(recorder(pool="max_in_flight = 1\n"))
    body = bytes(range(65, 90)) * 4
    stream = post(b"/slowly", chunks(body[:40], body[40:]), b"Transfer-Encoding: chunked")
    cut = stream.index(body[:40]) + 60  # in the second chunk
    with Client(ringmaster.traffic[0]) as slow:
        slow.send(stream[:cut])
        # More than one: the first may be quicker than the part of the body.
        for _ in range(5):
            assert call(ringmaster.traffic[0], "GET", "/quick", timeout=2).status == 200
        assert ringmaster.replicas()[0]["in_flight"] == 0
        slow.send(stream[cut:])
        assert slow.answer().text == "POST /slowly"
    assert recorded(ringmaster) == [("GET", "/quick", "")] * 5 + [("POST", "/slowly", body.decode())]


# --- 10: connections that have been authenticated ---

def test_10_a_connection_on_which_somebody_has_authenticated_is_his_alone(start):
    """NTLM and Negotiate authenticate the connection, not the request: whoever got it next would be "alice"."""
    ringmaster = start("workers = 1\n" + recorder())
    address = ringmaster.traffic[0]
    with Client(address) as alice, Client(address) as other:
        assert alice.ask("/private").status == 401
        assert alice.ask("/private?quick", "Authorization: NTLM xyz").text == "alice"
        assert other.ask("/private").status == 401, "without credentials he is somebody else"
        again = alice.ask("/private?quick")
        assert (again.status, again.text) == (200, "alice"), "her connection to the replica stays her own"
        assert other.ask("/private").status == 401
        assert alice.ask("/private?quick").status == 200
    # Nor does it go back to the pool when she has left.
    for _ in range(3):
        with Client(address) as later:
            assert later.ask("/private").status == 401


def test_10_a_slow_request_on_such_a_connection_gets_no_second_try_beside_it(start):
    ringmaster = start("workers = 1\n" + recorder(replicas=2, pool='policy = "round_robin"\n[pool.web.retry]\nhedge_percentile = 90\n'))
    with Client(ringmaster.traffic[0]) as alice:
        for _ in range(200):
            assert alice.ask("/quick").status == 200  # so that hedging knows how long answers take
        assert alice.ask("/private?quick", "Authorization: NTLM xyz").text == "alice"
        for _ in range(3):
            assert alice.ask("/private").text == "alice", "another connection would have answered 401 at once"


# --- 11: upgrades that nobody takes up ---

@pytest.mark.parametrize("body", [b"abc", b""])
def test_11_an_upgrade_to_h2c_is_ignored_with_a_body_as_well(start, body):
    """A server may always go on in HTTP/1.1 (RFC 9110 section 7.8), and whoever does must not pass the offer on."""
    ringmaster = start(recorder())
    with Client(ringmaster.traffic[0]) as client:
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        client.send(post(b"/upgrade", body, offer + b"Content-Length: %d" % len(body)))
        answer = client.answer()
        assert answer.status == 200 and field(answer, "Upgrade") is None
        assert client.ask("/after").status == 200
    assert recorded(ringmaster) == [("POST", "/upgrade", body.decode()), ("GET", "/after", "")]
    seen = fields_seen(ringmaster, "/upgrade")
    assert "upgrade" not in seen and "http2-settings" not in seen
    assert "upgrade" not in seen.get("connection", "").lower()


# --- 12: early answers ---

def upload(address, target, framing, body):
    """Sends all, piece by piece, whatever comes back meanwhile, and reads only then; 0 if the answer was lost."""
    stream = post(target, body, framing)
    with Client(address) as client:
        try:
            for begin in range(0, len(stream), 250_000):
                client.send(stream[begin:begin + 250_000])
                time.sleep(0.001)
            return client.answer().status
        except OSError:
            return 0


UPLOAD = b"z" * 5_000_000
UPLOADS = [(b"", UPLOAD), (b"Transfer-Encoding: chunked", chunks(*[UPLOAD[:50_000]] * 100))]


@pytest.mark.parametrize("framing, body", UPLOADS, ids=["length", "chunked"])
def test_12_a_refusal_reaches_a_client_that_is_still_uploading(start, framing, body):
    ringmaster = start(recorder(listener='body_bytes_max = "1MiB"\n'))
    assert [upload(ringmaster.traffic[0], b"/upload", framing, body) for _ in range(5)] == [413] * 5
    assert recorded(ringmaster) == [], "no whole request has come to the replica"


@pytest.mark.parametrize("framing, body", UPLOADS, ids=["length", "chunked"])
def test_12_a_replicas_early_answer_reaches_a_client_that_is_still_uploading(start, framing, body):
    ringmaster = start(recorder())
    assert [upload(ringmaster.traffic[0], b"/deny", framing, body) for _ in range(5)] == [401] * 5
    assert ringmaster.get("/after").status == 200


# --- 13: answers that say nothing of the replica's health ---

@pytest.mark.parametrize("status", [501, 505])
def test_13_what_a_client_asked_for_in_vain_ejects_nobody(start, status):
    """Whoever asks for a method or version that is not there must not be able to take replicas out."""
    ringmaster = start(config('policy = "round_robin"\n[pool.web.eject]\nerrors = 3\n'))
    for name in "ABC":
        assert {ringmaster.get(f"/only/{name}/{status}").status for _ in range(20)} == {200, status}
    assert not any(replica["ejected"] for replica in ringmaster.replicas())
    assert {field(ringmaster.get("/echo"), "X-Replica") for _ in range(12)} == {"A", "B", "C"}
    assert "eject" not in ringmaster.log


# --- 14: refusals are seen, and tell nothing of the inside ---

REFUSED = {
    400: b"GET / HTTP/1.1\r\nHost: x\r\nNo Field\r\n\r\n",
    405: b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    413: post(b"/upload", b"x" * 1001),
    431: b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
}


def test_14_refused_requests_are_in_the_access_log_and_in_the_metrics(start, directory):
    log = pathlib.Path(directory) / "access.log"
    pool = config(listener="body_bytes_max = 1000\n", replicas=1)
    ringmaster = start(f'[access_log]\nformat = "json"\npath = "{log}"\n' + pool)
    assert ringmaster.get("/echo").status == 200
    for status, request in REFUSED.items():
        with Client(ringmaster.traffic[0]) as client:
            client.send(request)
            assert client.answer().status == status

    def lines():
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    try:
        until(lambda: len(lines()) >= 5, 5)
    finally:
        assert sorted(line["status"] for line in lines()) == sorted([200, *REFUSED])
    reasons = {line["status"]: line.get("reason") for line in lines()}
    assert all(isinstance(reasons[status], str) and reasons[status] for status in REFUSED), reasons
    assert not reasons[200], reasons
    metrics = call(ringmaster.admin, "GET", "/metrics").text
    counted = [line for line in metrics.splitlines() if re.search(r'rejected.*\{.*(status|reason)="', line)]
    # A body over its limit is refused by a listener or a route, and may be counted elsewhere.
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) >= 3, counted


def inner_names(text):
    return text.replace('names = ["A", "B", "C", "D"]', 'names = ["inner-one"]')


def test_14_an_error_tells_clients_nothing_of_the_inside(start):
    ringmaster = start(inner_names(recorder()))
    port = ringmaster.replicas()[0]["endpoint"].rsplit(":", 1)[1]
    answer = ringmaster.call("POST", "/close")
    assert answer.status == 502 and answer.body
    assert "inner-one" not in answer.text and "127.0.0.1" not in answer.text and port not in answer.text, answer.text


def test_14_what_an_error_tells_is_the_listeners_choice(start):
    more = """
[[listener]]
address = "127.0.0.1:0"
pool = "web"
error_detail = true
[[listener]]
address = "127.0.0.1:0"
pool = "web"
error_pages = { "502" = "<h1>sorry</h1>" }
"""
    ringmaster = start(inner_names(recorder(rest=more)))
    plain, detailed, page = [ringmaster.call("POST", "/close", listener=listener) for listener in range(3)]
    assert plain.status == detailed.status == page.status == 502
    assert "inner-one" not in plain.text and "inner-one" in detailed.text, (plain.text, detailed.text)
    assert page.text == "<h1>sorry</h1>" and field(page, "Content-Type") == "text/html; charset=utf-8"


# --- 15: what some need and most do not ---

@pytest.mark.skipif(not pathlib.Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_15_one_listener_takes_both_families_and_names_clients_plainly(start):
    ringmaster = start(config(listener="dual_stack = true\n", replicas=1).replace("127.0.0.1:0", "[::]:0", 1))
    port = ringmaster.traffic[0][1]
    for address in ("127.0.0.1", "::1"):
        answer = call((address, port), "GET", "/echo")
        seen = {name.lower(): value for name, value in answer.json["headers"]}
        assert answer.status == 200 and seen["x-forwarded-for"] == address, "not ::ffff:127.0.0.1"


def test_15_unusual_answers_are_refused(start):
    ringmaster = start(recorder())
    for path in ("/status/600", "/status/999", "/fields/120"):
        assert ringmaster.get(path).status == 502, path
    assert ringmaster.get("/status/599").status == 599 and ringmaster.get("/fields/90").status == 200


def test_15_unusual_answers_pass_if_the_pool_says_so(start):
    ringmaster = start(recorder(pool="status_max = 999\nfields_max = 200\n"))
    for status in (600, 999):
        answer = ringmaster.get(f"/status/{status}")
        assert (answer.status, answer.text) == (status, "ok")
    with Client(ringmaster.traffic[0]) as client:  # http.client takes no more than a hundred fields
        client.send(b"GET /fields/120 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = client.file.read()
    assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"\r\n\r\nok")
    assert all(b"\r\nX-%d: %d\r\n" % (i, i) in received for i in range(118))
    assert ringmaster.get("/fields/300").status == 502
    assert ringmaster.get("/after").status == 200


PATHS = """
[[route]]
name = "closed"
prefix = "/private"
status = 403
body = "no"
[[route]]
name = "strict"
prefix = "/strict"
pool = "web"
paths = "strict"
[[route]]
name = "normal"
prefix = "/normal"
pool = "web"
paths = "normal"
[[route]]
name = "raw"
prefix = "/raw"
pool = "web"
paths = "raw"
"""


def test_15_a_route_says_how_paths_are_read(start):
    ringmaster = start(recorder(rest=PATHS))

    def seen(path):
        """What the replica got, or the status of a refusal."""
        answer = ringmaster.get(path)
        return answer.text.removeprefix("GET ") if answer.status == 200 else answer.status

    # By default, and by name.
    for prefix in ("", "/normal"):
        assert seen(prefix + "/a%2fb//./c%7e?x=%7e") == prefix + "/a%2Fb/c~?x=%7e"
    # Strict: what two readers could read in two ways is refused, and so is what is not in normal form.
    for path in ("", "/", "/a/b.c;d=1?x=%2F//..;", "/a%20b%C3%A9", "/.well-known/..a/b.."):
        assert seen("/strict" + path) == "/strict" + path
    for path in ("/a%2Fb", "/a%2fb", "/a%5Cb", "/a%5cb", "/a/..;/b", "/a..;x", "//a", "/a//b",
                 "/./a", "/a/../b", "/a/..", "/%61", "/a%c3%a9", "/a%2e%2e/b"):
        assert seen("/strict" + path) == 400, path
    for path in ("/x/../strict/a", "//strict/a", "/%73trict/a", "/./strict/a"):
        assert seen(path) == 400, "its normal form is a strict route's"
    # Raw: what came is what is matched and sent …
    for path in ("/raw/a%2Fb//c%7e", "/raw/a%5cb/./c?x=%7e//y", "/raw/a/../b", "/raw//", "/raw/%61"):
        assert seen(path) == path
    # … but no way round another route.
    for path in ("/raw/../private/x", "/raw/%2e%2e/private/x", "/raw/..//strict/x", "/raw/a/../../private"):
        assert seen(path) == 400, path
    assert seen("/private/x") == 403
    assert not any("private" in target for _, target, _ in recorded(ringmaster))
