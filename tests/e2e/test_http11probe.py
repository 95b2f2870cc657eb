"""Whether what reaches a server is what a client has sent, request by request, and each answer is for its own request.

Requests that two parsers could read differently are sent on raw connections, with a recorder_server.py behind the
balancer. What they mean is read by a strict reader of our own (`requests_in`), which shares nothing with the one under
test. All is judged: every status, how many answers there are, whether the connection ends, and every byte that has
reached the server.

Most cases are an outside corpus (Http11Probe) that is no part of this repository: its test runs where HTTP11PROBE, or
../shared/corpora/http11probe.json, is there. Each case in which we differ from the statuses that the corpus expects is
listed in tests/corpus/http11probe_differences.json, with the outcome that it must have and the reason. A case that
differs and is not listed fails, and so does one that is listed and ends otherwise, or differs no more. What may never
happen (`faults`) cannot be listed.
"""
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import select
import socket
import subprocess
import sys
import threading

import pytest

import flexible
from conftest import ROOT, SLOW, call, free_port, until

CORPUS = pathlib.Path(os.environ.get("HTTP11PROBE", ROOT.parent / "shared/corpora/http11probe.json"))
DIFFERENCES = json.loads((ROOT / "tests/corpus/http11probe_differences.json").read_text())
RECORDER = pathlib.Path(__file__).with_name("recorder_server.py")

# --- the reader: RFC 9110 and 9112, and wherever they leave a choice, the message is broken ---

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|\"(?:[^\"\\]|\\.)*\"))?)*")
AUTHORITY = re.compile(rb"(?:[0-9A-Za-z.\-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
DATE = re.compile(rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
# Said to the next one on the way only (RFC 9110 section 7.6.1), or written anew by a gateway.
NOT_PASSED_ON = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
                 b"http2-settings", b"host", b"content-length", b"expect"}


class Incomplete(Exception):
    """More must come before it can be read."""


class Broken(Exception):
    """However it goes on, it is no message of which all readers know the end."""


@dataclasses.dataclass
class Message:
    """A request, or a response; `start` is what its first line says."""
    start: tuple
    fields: list
    body: bytes = b""
    interim: list = dataclasses.field(default_factory=list)  # statuses of the 1xx before a response

    def values(self, name):
        return [value for its, value in self.fields if its.lower() == name]

    @property
    def host(self):
        found = re.match(rb"https?://([^/?]*)", self.start[1])
        return found[1] if found else b"".join(self.values(b"host"))

    @property
    def target(self):
        """As a gateway writes it: without scheme and host, and with the digits of escapes in upper case."""
        target = re.sub(rb"^https?://[^/?]*", b"", self.start[1]) or b"/"
        return re.sub(rb"%[0-9A-Fa-f]{2}", lambda escape: escape[0].upper(), target)

    @property
    def ends_connection(self):
        options = [option.strip().lower() for value in self.values(b"connection") for option in value.split(b",")]
        return b"close" in options or (self.start[2] == 0 and b"keep-alive" not in options)

    @property
    def passed_on(self):
        """Its fields that are for the server. Names with '_' are dropped: some servers read '_' as '-'."""
        lower = [(name.lower(), value) for name, value in self.fields]
        return [(name, value) for name, value in lower if name not in NOT_PASSED_ON and b"_" not in name]


def line_in(data, at):
    end = data.find(b"\n", at)
    if end < 0:
        raise Incomplete
    if end == at or data[end - 1:end] != b"\r":
        raise Broken("a line ends in a bare LF")
    return data[at:end - 1], end + 1


def fields_in(data, at):
    fields = []
    while True:
        line, at = line_in(data, at)
        if not line:
            return fields, at
        if not (field := FIELD.fullmatch(line)):
            raise Broken(f"the field {line[:60]}")
        fields.append(field.groups())


def bytes_in(data, at, length):
    if len(data) - at < length:
        raise Incomplete
    return data[at:at + length], at + length


def chunked_in(data, at):
    body = b""
    while True:
        line, at = line_in(data, at)
        if not (size := CHUNK.fullmatch(line)):
            raise Broken(f"the chunk size {line[:60]}")
        if int(size[1], 16) == 0:
            return body, fields_in(data, at)[1]
        piece, at = bytes_in(data, at, int(size[1], 16))
        body += piece
        end, at = bytes_in(data, at, 2)
        if end != b"\r\n":
            raise Broken("a chunk has not the length that it says")


def body_in(message, data, at):
    """The body of a message that can have one; None when nothing says how long it is."""
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Broken("its length is given twice")
    if codings:
        if codings[0].lower() != b"chunked" or message.start[-1] == 0:
            raise Broken(f"the coding {codings[0]}")
        return chunked_in(data, at)
    if lengths:
        if not re.fullmatch(rb"\d{1,19}", lengths[0]):
            raise Broken(f"the length {lengths[0][:60]}")
        return bytes_in(data, at, int(lengths[0]))
    return None, at


def request_in(data, at, hostless=False):
    """(the request that begins there, where it ends). A `hostless` one has an empty Host, as it is for nobody in
    particular (RFC 9112 section 3.2)."""
    while data.startswith(b"\r\n", at):
        at += 2
    line, at = line_in(data, at)
    if not (parts := re.fullmatch(rb"(" + TOKEN + rb") ([!\"$-~]+) HTTP/1\.(\d)", line)):
        raise Broken(f"the request line {line[:60]}")
    method, target, minor = parts.groups()
    fields, at = fields_in(data, at)
    request = Message((method, target, int(minor)), fields)
    hosts = request.values(b"host")
    named = hosts == [b""] if hostless else all(AUTHORITY.fullmatch(host) for host in hosts)
    if not named or len(hosts) > 1 or (not hosts and minor != b"0"):
        raise Broken(f"the hosts {hosts}")
    if not (target.startswith((b"/", b"http://", b"https://")) or (target, method) == (b"*", b"OPTIONS")):
        raise Broken(f"the target {target[:60]}")
    body, at = body_in(request, data, at)
    request.body = body or b""
    return request, at


def requests_in(data):
    """(all requests in what a client has sent, what comes then): "more" requests can come, it "ends" with the last one,
    the next is "incomplete" or "broken"."""
    requests, at = [], 0
    try:
        while data[at:].strip(b"\r\n"):
            request, at = request_in(data, at)
            requests.append(request)
            if request.ends_connection:
                return requests, "ends"
    except Incomplete:
        return requests, "incomplete"
    except Broken:
        return requests, "broken"
    return requests, "more"


def response_in(data, at, method):
    """(the response to such a request that begins there, where it ends)"""
    line, at = line_in(data, at)
    if not (status := re.fullmatch(rb"HTTP/1\.1 ([1-5]\d\d) [\t -~\x80-\xff]*", line)):
        raise Broken(f"the status line {line[:60]}")
    fields, at = fields_in(data, at)
    response = Message((int(status[1]), 1), fields)
    code = response.start[0]
    if code < 200 or code == 204:
        if response.values(b"content-length") or response.values(b"transfer-encoding"):
            raise Broken(f"a {code} that says how long its body is")  # RFC 9110 section 8.6, RFC 9112 section 6.1
    elif code != 304 and method != b"HEAD":
        response.body, at = body_in(response, data, at)
        if response.body is None:
            raise Broken("a response of no known length")
    return response, at


# --- a client ---


class Peer:
    """A raw connection. Its patience is for what must come."""

    def __init__(self, address, patience=10):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(patience * SLOW)
        self.received, self.over = b"", False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        # Who has been refused may be cut off in the middle of what he says; the answer tells.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def receive(self):
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        self.received += piece
        self.over = not piece

    def response(self, method=b"GET"):
        """The next one; None when the connection ends instead. Raises Broken, and TimeoutError."""
        interim = []
        while True:
            try:
                response, end = response_in(self.received, 0, method)
            except Incomplete:
                if self.over and self.received:
                    raise Broken(f"the connection ends within {self.received[:60]}") from None
                if self.over:
                    return None
                self.receive()
                continue
            self.received = self.received[end:]
            if response.start[0] >= 200:
                response.interim = interim
                return response
            interim.append(response.start[0])

    def has_news(self):
        return bool(self.received or self.over or select.select([self.socket], [], [], 0)[0])

    def ask(self, *lines):
        """A request of these lines, and its answer."""
        self.send("\r\n".join([*lines, "", ""]).encode())
        return self.response(lines[0].split()[0].encode())


# --- cases ---

# Steps of the corpus that are made from the first answer, as the cases' descriptions say.
CONDITIONS = {
    "CAP-ETAG-304": "If-None-Match: {etag}",
    "CAP-ETAG-IN-304": "If-None-Match: {etag}",
    "CAP-LAST-MODIFIED-304": "If-Modified-Since: {modified}",
    "CAP-INM-PRECEDENCE": "If-None-Match: {etag}\r\nIf-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
    "CAP-INM-UNQUOTED": "If-None-Match: {bare_etag}",
    "CAP-ETAG-WEAK": "If-None-Match: W/{etag}",
}


def post(fields, body):
    return {"raw": f"POST / HTTP/1.1\r\nHost: HOSTHDR\r\n{fields}\r\n\r\n{body}"}


def cl_te(field, length="Content-Length: BODYLEN"):
    """A POST that ends before the smuggled request for those who take `field` for a Transfer-Encoding."""
    return [post(f"{length}\r\n{field}", "0\r\n\r\n" + SMUGGLED)]


SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: HOSTHDR\r\n\r\n"
FOLLOW_UP = {"raw": "GET / HTTP/1.1\r\nHost: HOSTHDR\r\n\r\n"}
# By its Content-Length the body is the first chunk's size line, and the chunk is a request of its own. The last chunk's
# seven bytes are then that request's body.
TECL = {"raw": "POST / HTTP/1.1\r\nHost: HOSTHDR\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
               "CHUNKLEN\r\nGET / HTTP/1.1\r\nHost: HOSTHDR\r\nContent-Length: 7\r\n\r\n\r\n0\r\n\r\n"}

# Those which matter most, so that a machine without the corpus tries them too: ways in which two readers can disagree.
OWN_CASES = [{"id": name, "expected": "400", "steps": steps} for name, steps in {
    "CL.TE": cl_te("Transfer-Encoding: chunked"),
    "CL.TE, and the rest later": [post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nX"), FOLLOW_UP],
    "TE.CL": [TECL],
    "CL.CL": [post("Content-Length: BODYLEN\r\nContent-Length: 0", SMUGGLED)],
    "TE.TE": cl_te("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "a TE that is folded": cl_te("Transfer-Encoding:\r\n chunked"),
    "a TE with a space before its colon": cl_te("Transfer-Encoding : chunked"),
    "a TE with a tab in front": cl_te("\tTransfer-Encoding: chunked"),
    "a TE behind a bare LF": cl_te("X: y\nTransfer-Encoding: chunked"),
    "a TE behind a bare CR": cl_te("X: y\rTransfer-Encoding: chunked"),
    "a TE that is not quite chunked": cl_te("Transfer-Encoding: chunked, identity", "X: y"),
    "a signed chunk size": [post("Transfer-Encoding: chunked", "+0\r\n\r\n" + SMUGGLED)],
    "a chunk size that ends in LF": [post("Transfer-Encoding: chunked", "2;\nxx\r\n2c\r\n0\r\n\r\n" + SMUGGLED)],
}.items()] + [{"id": name, "expected": "200", "steps": steps} for name, steps in {
    # As many requests as there are, each with its own bytes.
    "a GET as a GET's body": [
        {"raw": "GET / HTTP/1.1\r\nHost: HOSTHDR\r\nContent-Length: BODYLEN\r\n\r\n" + SMUGGLED}, FOLLOW_UP],
    "a GET as a chunk": [
        post("Transfer-Encoding: chunked", "CHUNKLEN\r\n" + SMUGGLED + "\r\n0\r\n\r\n"), FOLLOW_UP],
    "a TE with an underscore": [post("Content-Length: 7\r\nTransfer_Encoding: chunked", "0\r\n\r\nxx"), FOLLOW_UP],
    "three in one packet": [{"raw": FOLLOW_UP["raw"] + post("Content-Length: 5", "hello")["raw"] + FOLLOW_UP["raw"]}],
}.items()]


def generated(words, host):
    """The payloads that the corpus describes in words."""
    def get(path="/", extra=b""):
        return b"GET " + path.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + extra + b"\r\n"

    pairs = b"; ".join(b"k%d=v%d" % (i, i) for i in range(1000))
    lines = b"".join(b"X-H-%d: value\r\n" % i for i in range(10000))
    return {
        "GET /<7900 x a> HTTP/1.1, Host, end": lambda: get("/" + "a" * 7900),
        "GET /echo with Cookie: big=<65536 x A>": lambda: get("/echo", b"Cookie: big=" + b"A" * 65536 + b"\r\n"),
        "GET /echo with Cookie: k0=v0; ... k999=v999": lambda: get("/echo", b"Cookie: " + pairs + b"\r\n"),
        "256 pseudo-random bytes": lambda: random.Random(42).randbytes(256),
        "GET /<100000 x A> HTTP/1.1": lambda: get("/" + "A" * 100000),
        "GET / with X-Big: <100000 x B>": lambda: get(extra=b"X-Big: " + b"B" * 100000 + b"\r\n"),
        "GET / with 10000 lines X-H-i: value": lambda: get(extra=lines),
        "GET / with header named <100000 x A>": lambda: get(extra=b"A" * 100000 + b": x\r\n"),
        "method of 100000 x A": lambda: b"A" * 100000 + get()[3:],
        "POST chunked, chunk line 5;ext=<65536 x a>, hello, 0": lambda: (
            b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=" + b"a" * 65536
            + b"\r\nhello\r\n0\r\n\r\n"),
    }[words]()


def payload_of(step, host, answers):
    if "gen" in step:
        return generated(step["gen"], host)
    if "condition" in step:
        first = answers[0] if answers else Message((0, 1), [])
        etag, modified = (b"".join(first.values(name)).decode() for name in (b"etag", b"last-modified"))
        condition = step["condition"].format(etag=etag, bare_etag=etag.strip('"'), modified=modified)
        return b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n" + condition.encode() + b"\r\n\r\n"
    payload = step["raw"].encode("latin-1").replace(b"HOSTHDR", host)
    if b"BODYLEN" in payload:
        payload = payload.replace(b"BODYLEN", str(len(payload.split(b"\r\n\r\n", 1)[1])).encode())
    if b"CHUNKLEN" in payload:
        chunk = payload.split(b"CHUNKLEN\r\n", 1)[1].removesuffix(b"\r\n0\r\n\r\n")
        payload = payload.replace(b"CHUNKLEN", b"%02x" % len(chunk))
    return payload


@dataclasses.dataclass
class Outcome:
    host: bytes
    sent: bytes = b""
    answers: list = dataclasses.field(default_factory=list)
    # "open": a further request was answered on it; "closed"; "waits": for what the client has not sent; "silent":
    # nothing came that should have come; else what is wrong with what came.
    ended: str = "open"

    @property
    def statuses(self):
        return [answer.start[0] for answer in self.answers]


def run_case(case, address, host, patience=10, bystander=None):
    """Sends the steps, hears what comes for them, and finds out how the connection stands then."""
    outcome = Outcome(host)
    with Peer(address, patience) as peer:
        try:
            for step in case["steps"]:
                payload = payload_of(step, host, outcome.answers)
                outcome.sent += payload
                peer.send(payload)
                requests, then = requests_in(outcome.sent)
                while len(outcome.answers) < len(requests) or then == "broken":
                    method = requests[len(outcome.answers)].start[0] if len(outcome.answers) < len(requests) else b""
                    if (answer := peer.response(method)) is None:
                        outcome.ended = "closed"
                        return outcome
                    outcome.answers.append(answer)
            if then == "incomplete":
                # Once another connection has an answer, all of this has been read: was it taken for a whole request?
                if bystander:
                    bystander()
                outcome.ended = "closed" if peer.has_news() else "waits"
                peer.socket.shutdown(socket.SHUT_WR)
                while answer := peer.response():
                    outcome.answers.append(answer)
            elif outcome.answers and b"close" in outcome.answers[-1].values(b"connection"):
                while answer := peer.response():
                    outcome.answers.append(answer)
                outcome.ended = "closed"
            elif last := peer.ask("GET /last HTTP/1.1", "Host: " + host.decode()):
                outcome.answers.append(last)
                if peer.received:
                    raise Broken(f"behind the last answer comes {peer.received[:60]}")
            else:
                outcome.ended = "closed"
        except TimeoutError:
            outcome.ended = "silent"
        except Broken as error:
            outcome.ended = str(error)
    return outcome


# --- the judgement ---


def forwarded_wrong(sent, raw, whole):
    """What is wrong with the bytes that a server got for a request; `sent` is None when it should have got none."""
    try:
        got, end = request_in(raw, 0, sent is not None and not sent.host)
    except (Incomplete, Broken) as error:
        return f"its server got what no strict reader takes ({error or 'incomplete'}): {raw[:300]}"
    if sent is None:
        return f"its server got a request that nobody sent: {raw[:300]}"
    if not whole or end != len(raw):
        return f"its server read another request than we: {raw[:300]}"
    pairs = {name: (getattr(sent, name), getattr(got, name)) for name in ("target", "host", "body")}
    pairs["method"] = (sent.start[0], got.start[0])
    known = {name for name, _ in sent.passed_on}
    pairs["fields"] = (sent.passed_on, [field for field in got.passed_on if field[0] in known])
    if wrong := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
        return f"its server got another request than was sent: {wrong}"
    ours = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"traceparent"}
    if added := {name for name, _ in got.passed_on} - known - ours:
        return f"its server got fields that nobody sent: {added}"
    return None


def is_refusal(answer):
    """An answer of the balancer's own."""
    return not answer.values(b"x-seen")


def faults(outcome, requests, then, seen):
    """What may never happen, whatever the case. `seen` is the whole list of what the server got, and those of this case
    are taken out of it."""
    found = []
    if outcome.ended == "open":
        # The question whether it is still open is a request as well.
        requests = [*requests, request_in(b"GET /last HTTP/1.1\r\nHost: " + outcome.host + b"\r\n\r\n", 0)[0]]
    for number, answer in enumerate(outcome.answers):
        sent = requests[number] if number < len(requests) else None
        status = answer.start[0]
        if status == 405 and not answer.values(b"allow"):
            found.append("a 405 without Allow")  # RFC 9110 section 15.5.6
        if answer.interim and not (answer.interim == [100] and sent and sent.values(b"expect") and sent.start[2] > 0):
            found.append(f"a {answer.interim} that nobody asked for")
        if is_refusal(answer):
            if not sent and then in ("more", "ends"):
                found.append(f"a {status} where there is no request")
            if number + 1 < len(outcome.answers) or outcome.ended == "open":
                found.append("the connection goes on after a refusal")
            if status in (500, 502, 503, 504) or status < 400:
                found.append(f"a {status} of the balancer's own")
            continue
        index = int(answer.values(b"x-seen")[0])
        if index not in seen:
            found.append(f"answer {number} is for another request, or a second one for the same")
        elif wrong := forwarded_wrong(sent, *seen.pop(index)):
            found.append(wrong)
        elif status == 200 and answer.body != (sent.body if sent.start[0] == b"POST" else
                                               b"GET " + sent.target if sent.start[0] == b"GET" else b""):
            found.append(f"answer {number} is not what its server said")
    refused = any(is_refusal(answer) for answer in outcome.answers)
    if outcome.ended not in ("open", "closed", "waits"):
        found.append(f"the connection: {outcome.ended}")
    elif not refused and len(outcome.answers) < len(requests):
        found.append(f"{len(requests)} requests, {len(outcome.answers)} answers")
    elif not refused and then == "more" and outcome.ended == "closed" or then == "ends" and outcome.ended == "open":
        found.append(f"the connection is {outcome.ended}")
    for index in [index for index, (raw, _) in seen.items() if outcome.host in raw]:
        raw, whole = seen.pop(index)
        # A long body is passed on as it comes: the head can be there before the client leaves.
        if then != "incomplete" or whole or not raw.partition(b"\r\n\r\n")[1]:
            found.append(f"its server got, and nobody heard the answer: {raw[:300]}")
    return found


def agrees(case, outcome):
    """Whether the statuses, and a close, are what the case expects. What is read from the corpus's prose is which
    statuses its last request may get, and whether an end or silence will do too; requests before it must succeed."""
    expected = ((case.get("expected") or "") + " " + (case.get("expected_status") or "")).strip()
    statuses = outcome.statuses[:-1] if outcome.ended == "open" else outcome.statuses
    if not statuses:
        may_wait = "timeout" in expected
        may_close = may_wait or case.get("allow_close") or re.search(r"(or |/)(close|drop)", expected)
        return bool(may_close if outcome.ended == "closed" else may_wait and outcome.ended in ("waits", "open"))
    *before, last = statuses
    if not all(200 <= status < 300 for status in before):
        return False
    if field := re.search(r"(?:with|\+) (Date|Allow|Content-Type|ETag)\b", expected):
        if not outcome.answers[len(before)].values(field[1].lower().encode()):
            return False
    if "IMF-fixdate" in expected:
        return last == 200 and all(DATE.fullmatch(date) for date in outcome.answers[len(before)].values(b"date"))
    if last < 300 and re.search(r"2xx ?\+ ?close", expected) and outcome.ended != "closed":
        return False
    if forbidden := re.match(r"!(\d{3})|not (\d{3})|non-(101)|non-(1)xx", expected):
        return 200 <= last < 500 and not str(last).startswith(next(filter(None, forbidden.groups())))
    wanted = re.findall(r"\b[1-5]\d\d\b", expected)
    classes = re.findall(r"\b([1-5])xx\b", expected) + re.findall(r"Range(\d)xx", expected)
    if "pass-through" in expected:
        classes.append("2")
    # That doubtful fields are dropped, and cookies passed on, is seen by faults() where they arrive.
    if "Reject/drop" in expected:
        wanted, classes = ["400"], ["2"]
    assert wanted or classes, f"{case['id']}: what does {expected!r} expect?"
    return str(last) in wanted or str(last // 100) in classes


def judge(cases, outcomes, seen):
    """(what is wrong, by the case's name; how those ended that differ from what they expect)"""
    wrong, differing = {}, {}
    for case, outcome in zip(cases, outcomes):
        requests, then = requests_in(outcome.sent)
        total = len(seen)
        if found := faults(outcome, requests, then, seen):
            wrong[case["id"]] = [f"{outcome.statuses} {outcome.ended}", *found]
        if not agrees(case, outcome):
            own = 1 if outcome.ended == "open" else 0
            differing[case["id"]] = {"statuses": outcome.statuses[:len(outcome.statuses) - own],
                                     "closed": outcome.ended == "closed", "requests": total - len(seen) - own}
    if seen:
        wrong["no case's"] = [f"its server got {raw[:300]}" for raw, _ in seen.values()]
    return wrong, differing


def seen_by(server):
    """What a recorder has got, by number: (the bytes, whether it was a whole request to it)."""
    entries = enumerate(call(server, "GET", "/seen").json)
    return {index: (raw.encode("latin-1"), whole) for index, (raw, whole) in entries}


@pytest.fixture
def origin(start):
    """A Ringmaster with one recorder behind it, and one worker, which reads what comes in the order of its coming."""
    text = "workers = 1\n" + flexible.config(replicas=1, arguments=["--origin"])
    ringmaster = start(text.replace(str(flexible.SERVER), str(RECORDER)))
    host, port = ringmaster.replicas()[0]["endpoint"].rsplit(":", 1)
    ringmaster.server = (host, int(port))
    return ringmaster


def run_all(cases, ringmaster):
    """Each with a host name of its own, by which a request that was smuggled is known wherever it turns up."""
    asked = 0
    outcomes = []
    with Peer(ringmaster.traffic[0]) as other:
        def bystander():
            nonlocal asked
            asked += 1
            answer = other.ask(f"GET /bystander/{asked} HTTP/1.1", "Host: bystander")
            assert answer.body == f"GET /bystander/{asked}".encode()

        for number, case in enumerate(cases):
            outcomes.append(run_case(case, ringmaster.traffic[0], b"c%d.test:80" % number, bystander=bystander))
            bystander()  # what is left over on the way to the server would come before this
    seen = seen_by(ringmaster.server)
    theirs = {index: entry for index, entry in seen.items() if not re.match(rb"GET /bystander/\d+ ", entry[0])}
    assert len(seen) == len(theirs) + asked
    return judge(cases, outcomes, theirs)


# --- the tests ---


@pytest.mark.skipif(not CORPUS.exists(), reason=f"the Http11Probe corpus is not here ({CORPUS})")
def test_each_case_of_the_corpus_agrees_or_is_explained(origin):
    cases = json.loads(CORPUS.read_text())["cases"]
    for case in cases:
        if case["id"] == "SMUG-TECL-SMUGGLED-GET":  # the corpus has no bytes for it
            case["steps"] = [TECL]
        if condition := CONDITIONS.get(case["id"]):
            assert len(case["steps"]) == 1
            case["steps"].append({"condition": condition})
    unread = [case["id"] for case in cases if any("note" in step for step in case["steps"])]
    assert not unread, "the corpus does not say what these send"
    wrong, differing = run_all(cases, origin)
    print(f"\n{len(cases)} cases, {len(differing)} differ from what the corpus expects")
    assert not wrong, json.dumps(wrong, indent=1, default=repr)
    listed = {name: {key: entry[key] for key in entry if key != "reason"} for name, entry in DIFFERENCES.items()}
    amiss = {name: {"listed": listed.get(name), "seen": differing.get(name, "it agrees")}
             for name in listed | differing if listed.get(name) != differing.get(name)}
    assert not amiss, json.dumps(amiss, indent=1)


def test_ambiguous_requests_are_refused_and_plain_ones_are_passed_on_as_they_are(origin):
    wrong, differing = run_all(OWN_CASES, origin)
    assert not wrong, json.dumps(wrong, indent=1, default=repr)
    assert not differing, json.dumps(differing, indent=1)


class NaiveRelay:
    """A proxy as it must not be. What comes is passed on as it stands, without the field that it `drops`. Of two
    lengths it believes `believes`, and that a GET has no body if `bodiless`. Each request is given the next answer that
    its server has, and after the first one the connection `closes`."""

    def __init__(self, server, believes=b"", drops=b"-", bodiless=False, closes=False):
        self.server, self.believes, self.drops, self.bodiless, self.closes = server, believes, drops, bodiless, closes
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() does not
        self.listener.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as client, \
                socket.create_connection(self.server) as onward, onward.makefile("rb") as back:
            answer = []
            while not (self.closes and answer) and (head := self.head_in(client)):
                fields = {name.lower(): value for name, _, value in (line.partition(b":") for line in head[1:-1])}
                onward.sendall(b"".join(line for line in head if not line.lower().startswith(self.drops)))
                if self.believes == b"transfer-encoding" or b"content-length" not in fields:
                    line = client.readline() if b"transfer-encoding" in fields else b""
                    while line:
                        onward.sendall(line + (client.readline() if line == b"0\r\n" else b""))
                        line = b"" if line == b"0\r\n" else client.readline()
                elif not (self.bodiless and head[0].startswith(b"GET")):
                    onward.sendall(client.read(int(fields[b"content-length"])))
                answer = self.head_in(back)
                [length] = [int(line.split(b":")[1]) for line in answer if line.lower().startswith(b"content-length:")]
                connection.sendall(b"".join(answer) + back.read(length))

    @staticmethod
    def head_in(file):
        lines = []
        while line := file.readline():
            lines.append(line)
            if line == b"\r\n":
                return lines
        return []


@pytest.fixture
def recorder():
    """A recorder without a Ringmaster: its address."""
    server = "127.0.0.1", free_port()
    process = subprocess.Popen([sys.executable, str(RECORDER), str(server[1]), "A", "--origin"])

    def answers():
        with contextlib.suppress(OSError):
            return call(server, "GET", "/health").status == 200

    try:
        until(answers, what="the recorder")
        yield server
    finally:
        process.kill()
        process.wait()


# The case, the relay, and what must be said of it.
NAIVE = {
    "nothing is wrong": ("three in one packet", {}, []),
    "both lengths are passed on": ("CL.TE", {"believes": b"content-length", "closes": True}, [
        "its server got what no strict reader takes", "nobody heard the answer: b'GET /smuggled "]),
    "the length that it believes is passed on": ("CL.TE", {
        "believes": b"content-length", "drops": b"transfer-encoding", "closes": True}, [
        "its server got a request that nobody sent"]),
    "the other length is passed on": ("TE.CL", {
        "believes": b"transfer-encoding", "drops": b"transfer-encoding", "closes": True}, [
        "its server got a request that nobody sent", "nobody heard the answer: b'GET / "]),
    "the connection goes on": ("a signed chunk size", {}, ["the connection: silent"]),
    "a body is left lying": ("a GET as a GET's body", {"bodiless": True, "drops": b"content-length"}, [
        "its server got another request than was sent: {'body'",
        "its server got another request than was sent: {'target'"]),
}


@pytest.mark.parametrize("name", NAIVE)
def test_the_judgement_sees_what_a_naive_relay_does(name, recorder):
    which, relay, expected = NAIVE[name]
    [case] = [case for case in OWN_CASES if case["id"] == which]
    patience = 0.2 if "the connection: silent" in expected else 10
    with NaiveRelay(recorder, **relay) as relay:
        outcome = run_case(case, relay.address, b"relayed.test", patience)
    requests, then = requests_in(outcome.sent)

    def found():
        return faults(outcome, requests, then, seen_by(recorder))

    def missing():
        return [text for text in expected if not any(text in fault for fault in found())]

    with contextlib.suppress(AssertionError):
        until(lambda: not missing())  # the client has its answer; the server may still be reading what is left over
    assert not missing(), found()
    assert bool(found()) == bool(expected), found()


# --- conditional requests ---

ETAG, MODIFIED = '"v1"', "Mon, 01 Jan 2024 00:00:00 GMT"  # recorder_server.py's
MATCH, SINCE = f"If-None-Match: {ETAG}", f"If-Modified-Since: {MODIFIED}"
LONG_AGO = "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"


def is_unharmed(peer, name):
    """Whether the next request on it gets its own answer."""
    answer = peer.ask(f"GET /next/{name} HTTP/1.1", "Host: x")
    return answer is not None and answer.start[0] == 200 and answer.body == f"GET /next/{name}".encode()


# Answers that have no body whatever their fields say (RFC 9112 section 6.3, rule 1): path, condition, status.
BODILESS = [
    ("/page", MATCH, 304), ("/page", SINCE, 304), ("/page", f"{MATCH}\r\n{LONG_AGO}", 304),
    ("/length", MATCH, 304), ("/chunked", MATCH, 304), ("/none", "X: y", 204), ("/none/length", "X: y", 204),
    ("/none/chunked", "X: y", 204),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_without_a_body_leaves_the_connection_to_the_next_request(origin, method):
    with Peer(origin.traffic[0]) as peer:
        for number, (path, condition, status) in enumerate(BODILESS):
            answer = peer.ask(f"{method} {path} HTTP/1.1", "Host: x", condition)
            assert (answer.start[0], answer.body) == (status, b""), path
            # A 304's Content-Length is that of the 200 (RFC 9110 section 8.6).
            length = [str(len("GET /length")).encode()] if path == "/length" else []
            assert answer.values(b"content-length") == length, path
            assert answer.values(b"transfer-encoding") == [], path  # it is for the next one on the way only
            assert answer.values(b"etag") == ([ETAG.encode()] if status == 304 else []), path
            assert is_unharmed(peer, number), path
    asked = [raw for raw, _ in seen_by(origin.server).values() if b" /next/" not in raw]
    assert [raw.split()[:2] for raw in asked] == [[method.encode(), path.encode()] for path, _, _ in BODILESS]
    for raw, (_, condition, _) in zip(asked, BODILESS):
        assert f"\r\n{condition}\r\n".encode() in raw


def test_a_condition_that_does_not_hold_gets_the_whole_answer(origin):
    with Peer(origin.traffic[0]) as peer:
        for condition in ['If-None-Match: "v0"', LONG_AGO]:
            answer = peer.ask("GET /page HTTP/1.1", "Host: x", condition)
            assert (answer.start[0], answer.body) == (200, b"GET /page"), condition
            head = peer.ask("HEAD /page HTTP/1.1", "Host: x", condition)
            assert (head.start[0], head.values(b"content-length"), head.body) == (200, [b"9"], b""), condition
            assert is_unharmed(peer, "whole")


def test_pipelined_requests_of_which_some_get_no_body_get_their_own_answers(origin):
    asked = [("GET", "/length", MATCH, 304), ("GET", "/a", "X: y", 200), ("HEAD", "/b", "X: y", 200),
             ("GET", "/c", "X: y", 200), ("GET", "/none/length", "X: y", 204), ("HEAD", "/chunked", MATCH, 304),
             ("GET", "/d", "X: y", 200)]
    with Peer(origin.traffic[0]) as peer:
        peer.send("".join(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{condition}\r\n\r\n"
                          for method, path, condition, _ in asked).encode())
        for method, path, _, status in asked:
            answer = peer.response(method.encode())
            body = f"GET {path}".encode() if (method, status) == ("GET", 200) else b""
            assert (answer.start[0], answer.body) == (status, body), path


@pytest.mark.parametrize("line, condition, status", [("GET /stray", MATCH, 304), ("GET /none/stray", "X: y", 204),
                                                     ("HEAD /stray", "X: y", 200)])
def test_bytes_behind_an_answer_without_a_body_belong_to_nobody(origin, line, condition, status):
    """Neither this client nor the next one may get them: the connection to the server is given up."""
    with Peer(origin.traffic[0]) as peer, Peer(origin.traffic[0]) as other:
        answer = peer.ask(f"{line} HTTP/1.1", "Host: x", condition)
        assert (answer.start[0], answer.body) == (status, b"")
        assert is_unharmed(other, "other")
        assert is_unharmed(peer, "same")
        assert not peer.has_news() and not other.has_news()
