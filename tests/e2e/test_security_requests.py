"""Requests that are made to be read in two ways: what reaches the replica, and what the next request is.

Where the recorder says too little (trailers, 101, connections), a server within the test keeps every byte that it gets.
"""
import contextlib
import itertools
import re
import socket
import threading

import pytest

from conftest import until
from flexible import field
from test_findings_requests import EVIL, LARGE, Client, chunks, fields_seen, listed, post, recorded, recorder

AFTER = b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n"


class Peer:
    """One connection to an Upstream, and all that has been read from it."""

    def __init__(self, connection):
        self.connection, self.received, self.taken = connection, b"", 0

    def read(self, flags=0):
        piece = self.connection.recv(65536, flags)
        if not piece:
            raise EOFError
        self.received += piece

    def take(self, end):
        """What comes next, up to `end`."""
        while (found := self.received.find(end, self.taken)) < 0:
            self.read()
        return self.take_bytes(found + len(end) - self.taken)

    def take_bytes(self, count):
        while len(self.received) < self.taken + count:
            self.read()
        self.taken += count
        return self.received[self.taken - count:self.taken]

    def read_what_is_here(self):
        with contextlib.suppress(BlockingIOError):
            self.read(socket.MSG_DONTWAIT)

    def take_request(self):
        head = self.take(b"\r\n\r\n")
        if length := re.search(rb"\r\nContent-Length: (\d+)\r\n", head):
            return head, self.take_bytes(int(length[1]))
        body = b""
        while b"\r\nTransfer-Encoding: chunked\r\n" in head and (size := int(self.take(b"\r\n"), 16)):
            body += self.take_bytes(size)
            self.take(b"\r\n")
        if b"\r\nTransfer-Encoding: chunked\r\n" in head:
            self.take(b"\r\n")
        return head, body

    def send(self, data):
        self.connection.sendall(data)

    def answer(self, status, body=b"", extra=b""):
        self.send(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), extra, body))


def answer_everything(upstream, peer):
    head, body = peer.take_request()
    upstream.requests.append((head, body))
    peer.answer(200, b" ".join(head.split(b" ")[:2]))


class Upstream:
    """A server: `serve(upstream, peer)` answers one request after the other, and `check(peer)` those for its health."""

    def __init__(self, serve, check):
        self.serve, self.check, self.checks = serve, check, 0
        self.peers, self.requests = [], []  # of others than checks
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        peer = Peer(connection)
        with connection:
            try:
                if connection.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"GET /health ":
                    peer.take_request()
                    self.check(peer)
                    self.checks += 1
                    return
                self.peers.append(peer)
                while True:
                    self.serve(self, peer)
            except (EOFError, OSError, ValueError):
                pass

    def received(self):
        return b"".join(peer.received for peer in self.peers)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.listener.close()
        self.thread.join()


@pytest.fixture
def upstream():
    running = []

    def begin(serve=answer_everything, check=lambda peer: peer.answer(200, b"", b"Connection: close\r\n")):
        running.append(Upstream(serve, check))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


def begin_before(start, server):
    """A Ringmaster whose server has been taken in: until then it has none, and `start` does not wait for it."""
    ringmaster = start("workers = 1\n" + listed(server.port))
    until(lambda: ringmaster.get("/health").status == 200, what="a server")
    return ringmaster


def rest(client):
    """All that still comes until the other side ends; it must end."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.file.read1(65536):
            received += piece
    return received


def statuses(received):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def send_late(client, data):
    """What a client sends after the other side may have ended; then nobody takes it."""
    with contextlib.suppress(OSError):
        client.send(data)


# --- trailers (RFC 9110 section 6.5.1, RFC 9112 section 7.1.2) ---

TRAILERS = (b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\nHost: of-trailer\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nUpgrade: websocket\r\nAuthorization: of-trailer\r\nCookie: a=of-trailer\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n"
            b"X-Other: of-trailer\r\n")


def chunked(target, body, trailers):
    framing = b"Trailer: Authorization, X-Other\r\nTransfer-Encoding: chunked"
    return post(target, chunks(body)[:-2] + trailers + b"\r\n", framing)


@pytest.mark.parametrize("body", [b"hello", LARGE], ids=["buffered", "streamed"])
def test_trailer_fields_reach_no_replica_and_change_nothing(start, upstream, body):
    """Framing, routing, credentials, addresses: they are neither merged into the head nor passed on as trailers."""
    server = upstream()
    ringmaster = begin_before(start, server)
    stream = chunked(b"/first", body, TRAILERS) + AFTER
    cut = stream.index(TRAILERS) + 30
    with Client(ringmaster.traffic[0]) as client:
        client.send(stream[:cut])
        if body == LARGE:  # the trailers come when the body is with the replica already
            until(lambda: server.received().count(b"y") >= len(LARGE), what="the body")
        client.send(stream[cut:])
        assert client.answer().text == "POST /first"
        assert client.answer().text == "GET /after"
    assert [(head.split(b" ")[1], got) for head, got in server.requests] == [(b"/first", body), (b"/after", b"")]
    received = server.received()
    for part in (b"of-trailer", b"6.6.6.6", b"X_Forwarded", b"Trailer", b"Authorization", b"Upgrade", b"Expect"):
        assert part not in received, part
    assert received.count(b"\r\nHost: x\r\n") == received.lower().count(b"\r\nhost:") == 2


BAD_TRAILERS = {
    "too long": b"A: " + b"x" * 9000 + b"\r\n",
    "too many": b"A: x\r\n" * 3000,
    "space before the colon": b"Host : x\r\n",
    "no name": b": x\r\n",
    "no colon": b"Content-Length\r\n",
    "bare LF": b"A: b\n",
    "bare CR": b"A: b\rContent-Length: 3\r\n",
    "folded": b"A: b\r\n c\r\n",
    "NUL": b"A\0: b\r\n",
}


@pytest.mark.parametrize("body", [b"hello", LARGE], ids=["buffered", "streamed"])
def test_a_bad_trailer_section_is_refused_and_what_follows_is_no_request(start, body):
    """Limits and grammar hold for trailers, too (RFC 9112 section 7.1.2): 400, and the connection ends."""
    ringmaster = start(recorder())
    for name, trailers in BAD_TRAILERS.items():
        with Client(ringmaster.traffic[0]) as client:
            send_late(client, chunked(b"/first", body, trailers) + EVIL)
            received = rest(client)
        assert statuses(received) == [400] and b"\r\nConnection: close\r\n" in received, (name, received)
        assert ringmaster.get("/after").text == "GET /after"
    # A body without its proper end is no request for the replica, either.
    assert recorded(ringmaster) == [("GET", "/after", "")] * len(BAD_TRAILERS)


def test_trailer_fields_of_a_response_reach_no_client(start, upstream):
    """A replica's trailers name fields of the head as well (RFC 9110 section 6.5.1): they are dropped."""
    def serve(_, peer):
        peer.take_request()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n"
        peer.send(head + b"2\r\nok\r\n0\r\n" + TRAILERS + b"Set-Cookie: of-trailer\r\n\r\n")

    ringmaster = begin_before(start, upstream(serve))
    with Client(ringmaster.traffic[0]) as client:
        client.send(AFTER + AFTER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = rest(client)
    assert statuses(received) == [200, 200] and received.count(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n") == 2
    assert b"of-trailer" not in received and b"6.6.6.6" not in received and b"Trailer" not in received


# --- CONNECT and TRACE (RFC 9110 sections 9.3.6 and 9.3.8) ---

def test_connect_and_trace_are_refused_and_nobody_is_contacted(start):
    """405 or 501 at each listener, and the connection ends; the request is not echoed, and none behind it is served."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        ringmaster = start(recorder())
        there = b"127.0.0.1:%d" % target.getsockname()[1]
        targets = [there, b"http://%s/" % there, b"/", b"*"]
        lines = [b"%s %s HTTP/1.1" % one for one in itertools.product((b"CONNECT", b"TRACE"), targets)]
        lines.append(b"CONNECT %s HTTP/1.0" % there)
        fields = [b"", b"Max-Forwards: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
        # The admin API answers a request before a bad one as well, so the same stream serves for both.
        before = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        after = EVIL + b"POST /v1/stop HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for address in (ringmaster.traffic[0], ringmaster.admin):
            for line, more in [(line, more) for line in lines for more in fields]:
                with Client(address) as client:
                    client.send(before + line + b"\r\nHost: 127.0.0.1\r\nCookie: mine\r\n" + more + b"\r\n" + after)
                    received = rest(client)
                found = statuses(received)
                assert len(found) == 2 and found[0] == 200 and found[1] in (405, 501), (line, more, received)
                last = received[received.rindex(b"HTTP/1.1 "):]
                assert b"\r\nConnection: close\r\n" in last and b"mine" not in received, (line, more, received)
        assert set(recorded(ringmaster)) == {("GET", "/healthz", "")} and ringmaster.process.poll() is None
        target.setblocking(False)
        with pytest.raises(BlockingIOError):
            target.accept()


# --- Expect (RFC 9110 section 10.1.1) ---

EXPECT = b"Expect: 100-continue\r\n"
POISON = EVIL * 2  # bodies that are requests to whoever misses their length
# Name: (fields, body); the last does not fit the buffer and is streamed.
BODIES = {
    "length": (b"Content-Length: %d" % len(POISON), POISON),
    "chunked": (b"Transfer-Encoding: chunked", chunks(POISON)),
    "large": (b"Content-Length: %d" % len(EVIL * 3000), EVIL * 3000),
}


def content_of(name):
    return (EVIL * 3000 if name == "large" else POISON).decode()


@pytest.mark.parametrize("name", BODIES)
def test_a_100_comes_before_a_body_that_waits_for_it(start, name):
    """A late body behind an expectation (RFC 9110 section 10.1.1): one 100, one answer, and the right next request."""
    ringmaster = start(recorder())
    fields, body = BODIES[name]
    with Client(ringmaster.traffic[0]) as client:
        client.send(post(b"/first", b"", EXPECT + fields))
        assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n" and client.file.readline() == b"\r\n"
        assert recorded(ringmaster) == []
        client.send(body)
        assert client.answer().text == "POST /first"  # a second 100 would have no such body
        assert client.ask("/after").text == "GET /after"
    assert recorded(ringmaster) == [("POST", "/first", content_of(name)), ("GET", "/after", "")]
    assert "expect" not in fields_seen(ringmaster, "/first"), "what it asks for is answered here"


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_does_not_wait_for_the_100_is_read_once(start, name):
    """An early body behind an expectation ("CL.0 by Expect", 2025) is neither dropped nor taken for a request."""
    ringmaster = start(recorder())
    fields, body = BODIES[name]
    with Client(ringmaster.traffic[0]) as client:
        client.send(post(b"/first", body, EXPECT + fields) + AFTER)
        answers = [client.answer() for _ in range(2)]
        if answers[0].status == 100:  # it may be sent, or left out
            answers = [answers[1], client.answer()]
        assert [answer.text for answer in answers] == ["POST /first", "GET /after"]
    assert recorded(ringmaster) == [("POST", "/first", content_of(name)), ("GET", "/after", "")]


def test_without_a_body_to_wait_for_there_is_no_100(start):
    """Neither for a length of 0, nor without one, nor for HTTP/1.0, whose clients know no 1xx (RFC 9110, 15.2)."""
    ringmaster = start(recorder())
    for method, length in ((b"POST", b"Content-Length: 0\r\n"), (b"GET", b""), (b"GET", b"Content-Length: 0\r\n")):
        with Client(ringmaster.traffic[0]) as client:
            client.send(method + b" /0 HTTP/1.1\r\nHost: x\r\n" + EXPECT + length + b"\r\n" + AFTER)
            assert (client.answer().status, client.answer().text) == (200, "GET /after"), (method, length)
    with Client(ringmaster.traffic[0]) as client:
        client.send(post(b"/old", b"", EXPECT + b"Content-Length: %d" % len(LARGE)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        until(lambda: ringmaster.replicas()[0]["in_flight"] == 1)  # a 100 would have come before
        client.send(LARGE)
        assert client.answer().text == "POST /old"
    assert [target for _, target, _ in recorded(ringmaster)] == ["/0", "/after"] * 3 + ["/old"]


OTHERS = [[b"200-ok"], [b""], [b"100-continue, 100-continue"], [b"y 100-continue"], [b"100-continued"],
          [b"100-continue;q=1"], [b"100-continue", b"x"]]


@pytest.mark.parametrize("values", OTHERS, ids=lambda values: b" and ".join(values).decode() or "empty")
def test_other_expectations_are_417_and_nothing_behind_them_is_served(start, values):
    """Expectations that nobody here can meet (RFC 9110 section 10.1.1), and what hides one from other readers."""
    ringmaster = start(recorder())
    expect = b"".join(b"Expect: %s\r\n" % value for value in values)
    with Client(ringmaster.traffic[0]) as client:
        client.send(post(b"/first", POISON, expect + b"Content-Length: %d" % len(POISON)) + EVIL)
        received = rest(client)
    assert statuses(received) == [417] and b"\r\nConnection: close\r\n" in received
    assert recorded(ringmaster) == []


def test_a_replicas_own_100_does_not_reach_the_client(start, upstream):
    """Nobody asked for one that comes late or twice: expectations are met here (RFC 9110, 10.1.1 and 15.2.1)."""
    def serve(_, peer):
        head, _ = peer.take_request()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 2)
        peer.answer(200, head.split(b" ")[1])

    ringmaster = begin_before(start, upstream(serve))
    with Client(ringmaster.traffic[0]) as client:
        client.send(post(b"/first", b"abc") + AFTER)
        assert [client.answer().text for _ in range(2)] == ["/first", "/after"]


# --- bodies that nobody asked for, and answers that did not wait for one (RFC 9112 sections 6.3 and 9.3) ---

def test_a_body_on_a_method_that_needs_none_is_never_the_next_request(start):
    """GET, HEAD, OPTIONS and DELETE with a body (Pingora's CVE-2025-4366, "CL.0"), whole or in two parts."""
    ringmaster = start(recorder())
    expected = []
    with Client(ringmaster.traffic[0]) as client:
        cases = itertools.product(("GET", "HEAD", "OPTIONS", "DELETE"), BODIES, (1, 2))
        for number, (method, name, parts) in enumerate(cases):
            fields, body = BODIES[name]
            stream = post(b"/%d" % number, body, fields).replace(b"POST", method.encode(), 1) + AFTER
            cut = len(stream) if parts == 1 else len(stream) - len(AFTER) - len(EVIL)
            client.send(stream[:cut])
            if name == "large" and parts == 2:
                until(lambda: ringmaster.replicas()[0]["in_flight"] == 1)  # it has begun to pass on the first part
            client.send(stream[cut:])
            if method == "HEAD":  # the recorder sends a body none the less: it must not come through
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.file.readline() or b"\r\n\r\n"
                assert statuses(head) == [200], (method, name, parts, head)
            else:
                assert client.answer().text == f"{method} /{number}", (method, name, parts)
            assert client.answer().text == "GET /after", (method, name, parts)
            expected += [(method, f"/{number}", content_of(name)), ("GET", "/after", "")]
    assert recorded(ringmaster) == expected


UNREAD_ROUTES = """
route = [
  {name = "closed", prefix = "/closed", status = 403},
  {name = "moved", prefix = "/moved", redirect = "http://x/"},
  {name = "nobody", prefix = "/nobody", pool = "none", request_buffering = "off"},
  {name = "small", path = "/small", pool = "web", body_bytes_max = 10},
]
"""
UNREAD = """
[[listener]]
address = "127.0.0.1:0"
pool = "none"
classic = true
[pool.none]
command = ["/bin/false"]
replicas = 0
"""
# Where, the request line, more fields, the status: all are answered before the body has come.
UNREAD_ROWS = [
    ("traffic", b"POST /closed", b"", 403),
    ("traffic", b"GET /closed", b"", 403),
    ("traffic", b"DELETE /moved/x", b"", 302),
    ("traffic", b"POST /small", b"", 413),
    ("traffic", b"GET /nobody", b"", 503),
    ("traffic", b"POST /nobody", EXPECT, 503),
    ("traffic", b"OPTIONS /closed", EXPECT, 403),
    ("traffic", b"POST /small", EXPECT, 413),
    ("classic", b"POST /rep", b"", 405),
    ("classic", b"POST /add", b"Origin: http://evil.example\r\n", 403),
    ("admin", b"POST /v1/stop", b"Origin: http://evil.example\r\n", 403),
    ("admin", b"POST /v1/pools/web/replicas", b"Content-Type: text/plain\r\n", 415),
    ("admin", b"DELETE /v1/nothing", b"", 404),
    ("admin", b"GET /v1/nothing", b"", 404),
]
EVILS = EVIL + (b"POST /v1/stop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
                b'POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\n{"n":1}')


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_answer_that_did_not_wait_for_the_body_leaves_none_of_it_behind(start, framing):
    """Whatever is left of a body is read and thrown away, or the connection ends: "0.CL" and "CL.0"."""
    ringmaster = start(UNREAD_ROUTES + recorder(rest=UNREAD))
    addresses = {"traffic": ringmaster.traffic[0], "classic": ringmaster.traffic[1], "admin": ringmaster.admin}
    body = b"x" * 10 + EVILS
    fields, stream = b"Content-Length: %d\r\n" % len(body), body
    if framing == "chunked":
        fields, stream = b"Transfer-Encoding: chunked\r\n", chunks(body)
    for where, line, more, status in UNREAD_ROWS:
        head = line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + more + fields + b"\r\n"
        # A part of the body is still to come: the connection ends.
        for sent in (0, 10):
            if line == b"POST /small" and framing == "chunked":
                continue  # how long it is shows only while it comes
            with Client(addresses[where]) as client:
                client.send(head + stream[:sent])
                answer = client.answer()
                assert (answer.status, field(answer, "Connection")) == (status, "close"), (where, line, sent)
                send_late(client, stream[sent:] + EVILS)
                assert rest(client) == b"", (where, line, sent)
        # All of it is here: what follows it is the next request, if there is one.
        with Client(addresses[where]) as client:
            client.send(head + stream + b"GET /closed HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            received = rest(client)
        found = statuses(received)
        after = {"traffic": 403, "classic": 403, "admin": 404}[where]
        assert found in ([status], [status, after]), (where, line, received)
    assert recorded(ringmaster) == []
    assert ringmaster.process.poll() is None and ringmaster.pool("none")["replicas"] == []


def test_a_connection_on_which_a_replica_answered_early_gets_no_other_request(start, upstream):
    """It may take the rest of the body for the next request, whosever that is (RFC 9112 section 9.3)."""
    def serve(its, peer):
        head = peer.take(b"\r\n\r\n")
        its.requests.append((head, b""))
        peer.answer(401 if head.startswith(b"POST") else 200, b" ".join(head.split(b" ")[:2]))

    server = upstream(serve)
    ringmaster = begin_before(start, server)
    body = EVIL * 3000
    with Client(ringmaster.traffic[0]) as client:
        client.send(post(b"/first", b"", b"Content-Length: %d" % len(body)) + body[:20])
        answer = client.answer()
        assert answer.status == 401 and field(answer, "Connection") == "close"
        send_late(client, body[20:] + EVIL)
        assert rest(client) == b""
    for _ in range(3):
        assert ringmaster.get("/after").text == "GET /after"
    assert b"/after" not in server.peers[0].received
    # Nor does it get the rest of the first.
    assert [head.split(b" ")[1] for head, _ in server.requests] == [b"/first"] + [b"/after"] * 3


# --- Upgrade (RFC 9110 section 7.8) ---

UPGRADE = (b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n\r\n")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("status", [200, 426])
def test_what_follows_an_upgrade_waits_for_the_answer_and_is_a_request_without_a_101(start, upstream, status):
    """Bytes passed on before the 101 would be a request that nobody has looked at (Pingora's CVE-2026-2833)."""
    asked, decided = threading.Event(), threading.Event()

    def serve(its, peer):
        head, body = peer.take_request()
        its.requests.append((head, body))
        if b"/upgrade" not in head:
            peer.answer(200, head.split(b" ")[1])
            return
        asked.set()
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        decided.wait(30)
        peer.answer(status, b"no", b"Connection: Upgrade\r\nUpgrade: websocket\r\n")

    server = upstream(serve)
    ringmaster = begin_before(start, server)
    with Client(ringmaster.traffic[0]) as client:
        client.send(UPGRADE + b"GET /next HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
        assert asked.wait(10)
        assert client.answer().status == 103  # so the request has been sent, and its answer has been looked at
        server.peers[0].read_what_is_here()
        assert server.peers[0].received == server.requests[0][0], "more than the head has come before the 101"
        decided.set()
        answer = client.answer()
        assert (answer.status, answer.text) == (status, "no") and (status == 426 or field(answer, "Upgrade") is None)
        assert client.answer().text == "/next"
        client.send(b"\x81\x85no HTTP\r\n\r\n")  # there is no tunnel
        assert statuses(rest(client)) == [400]
    assert [head.split(b" ")[1] for head, _ in server.requests] == [b"/upgrade", b"/next"]
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in server.requests[1][0] and b"6.6.6.6" not in server.requests[1][0]


def test_a_connection_on_which_an_upgrade_got_a_2xx_is_not_used_again(start, upstream):
    """Whoever means "switched" by it takes the next client's request for bytes of a tunnel (Envoy's CVE-2024-23326)."""
    server = upstream()
    ringmaster = begin_before(start, server)
    with Client(ringmaster.traffic[0]) as client:
        client.send(UPGRADE)
        assert client.answer().text == "GET /upgrade"
        assert client.ask("/after").text == "GET /after"
    assert server.requests[0][0].count(b"\r\nUpgrade: websocket\r\n") == 1
    assert b"/after" not in server.peers[0].received


SWITCHES = {"h2c": b"Upgrade: h2c\r\n", "a list": b"Upgrade: websocket, h2c\r\n",
            "two fields": b"Upgrade: h2c\r\nUpgrade: websocket\r\n", "none": b""}


@pytest.mark.parametrize("fields", SWITCHES.values(), ids=SWITCHES)
def test_a_101_for_what_was_not_asked_for_makes_no_tunnel(start, upstream, fields):
    """A server must not switch to a protocol that the client has not named (RFC 9110 section 7.8)."""
    def serve(_, peer):
        head, _ = peer.take_request()
        if b"/upgrade" in head:
            peer.send(SWITCH.replace(b"Upgrade: websocket\r\n", fields) + b"of-tunnel")
            peer.take(b"never")
        peer.answer(200, head.split(b" ")[1])

    server = upstream(serve)
    ringmaster = begin_before(start, server)
    with Client(ringmaster.traffic[0]) as client:
        client.send(UPGRADE + AFTER)
        assert client.answer().status == 502
        assert client.answer().text == "/after", "not what came behind the 101"
    assert b"/after" not in server.peers[0].received


def test_a_101_makes_a_tunnel_though_it_names_the_protocol_in_another_case(start, upstream):
    """Names of protocols are compared without regard to case (RFC 9110 section 7.8)."""
    def serve(_, peer):
        peer.take_request()
        peer.send(SWITCH.replace(b"websocket", b"WebSocket") + b"of-tunnel")
        peer.take(b"end")

    ringmaster = begin_before(start, upstream(serve))
    with Client(ringmaster.traffic[0]) as client:
        client.send(UPGRADE)
        assert client.answer().status == 101 and client.file.read(9) == b"of-tunnel"


def test_an_upgrade_that_is_not_to_websocket_alone_is_not_passed_on(start):
    """Nor one that is not nominated, not a GET, or of HTTP/1.0: each is a plain request, and so is what follows."""
    ringmaster = start(recorder())
    cases = [
        (b"GET", b"1.1", b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        (b"GET", b"1.1", b"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"),
        (b"GET", b"1.1", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABk\r\n"),
        (b"GET", b"1.1", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
        (b"GET", b"1.1", b"Upgrade: websocket\r\n"),
        (b"GET", b"1.1", b"Connection: keep-alive\r\nUpgrade: websocket\r\n"),
        (b"POST", b"1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"),
        (b"GET", b"1.0", b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"),
    ]
    with Client(ringmaster.traffic[0]) as client:
        for number, (method, version, fields) in enumerate(cases):
            client.send(b"%s /%d HTTP/%s\r\nHost: x\r\n%s\r\n" % (method, number, version, fields) + AFTER)
            answer = client.answer()
            assert answer.text == f"{method.decode()} /{number}" and field(answer, "Upgrade") is None, fields
            assert client.answer().text == "GET /after"
            seen = fields_seen(ringmaster, f"/{number}")
            assert not {"upgrade", "http2-settings"} & set(seen), (fields, seen)
            assert "upgrade" not in seen.get("connection", "").lower(), (fields, seen)


def test_an_upgrade_with_a_body_and_http2_from_the_start_are_refused(start):
    """The body would be bytes of a tunnel; an HTTP/2 preface is none of HTTP/1 (RFC 9113 section 3.4)."""
    ringmaster = start(recorder())
    upgrade = UPGRADE.replace(b"\r\n\r\n", b"\r\n")
    requests = [upgrade + b"Content-Length: %d\r\n\r\n" % len(EVIL) + EVIL,
                upgrade + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(EVIL),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"]
    for request in requests:
        with Client(ringmaster.traffic[0]) as client:
            client.send(request + EVIL)
            received = rest(client)
        assert len(statuses(received)) == 1 and statuses(received)[0] in (400, 505), (request, received)
        assert b"\r\nConnection: close\r\n" in received
    assert recorded(ringmaster) == []
