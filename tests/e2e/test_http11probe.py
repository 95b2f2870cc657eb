"""An outside corpus of HTTP/1.1 cases (Http11Probe), run against the balancer with a server behind it that answers everything.

The corpus is no part of this repository: the test runs where HTTP11PROBE, or ../shared/corpora/http11probe.json, is there. Each
case in which we differ from what the corpus expects stands in tests/corpus/http11probe_differences.json with the reason; a
case that differs and is not listed fails, and so does one that is listed and does not differ.
"""
import json
import os
import pathlib
import random
import re
import socket
import sys

import pytest

from conftest import POOL, ROOT

CORPUS = pathlib.Path(os.environ.get("HTTP11PROBE", ROOT.parent / "shared/corpora/http11probe.json"))
DIFFERENCES = json.loads((ROOT / "tests/corpus/http11probe_differences.json").read_text())


def generated(words, host):
    """The payloads that the corpus describes in words."""
    get = lambda path="/", extra=b"": b"GET " + path.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + extra + b"\r\n"
    return {
        "GET /<7900 x a> HTTP/1.1, Host, end": lambda: get("/" + "a" * 7900),
        "GET /echo with Cookie: big=<65536 x A>": lambda: get("/echo", b"Cookie: big=" + b"A" * 65536 + b"\r\n"),
        "GET /echo with Cookie: k0=v0; ... k999=v999": lambda: get("/echo", b"Cookie: " + b"; ".join(b"k%d=v%d" % (i, i) for i in range(1000)) + b"\r\n"),
        "256 pseudo-random bytes": lambda: random.Random(42).randbytes(256),
        "GET /<100000 x A> HTTP/1.1": lambda: get("/" + "A" * 100000),
        "GET / with X-Big: <100000 x B>": lambda: get(extra=b"X-Big: " + b"B" * 100000 + b"\r\n"),
        "GET / with 10000 lines X-H-i: value": lambda: get(extra=b"".join(b"X-H-%d: value\r\n" % i for i in range(10000))),
        "GET / with header named <100000 x A>": lambda: get(extra=b"A" * 100000 + b": x\r\n"),
        "method of 100000 x A": lambda: b"A" * 100000 + get()[3:],
        "POST chunked, chunk line 5;ext=<65536 x a>, hello, 0": lambda: b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nTransfer-Encoding: chunked\r\n\r\n5;ext="
        + b"a" * 65536 + b"\r\nhello\r\n0\r\n\r\n",
    }[words]()


def read_responses(connection, wait=0.4):
    """All that comes until it closes or nothing comes for a while: (bytes, how it ended)."""
    connection.settimeout(wait)
    data = b""
    while True:
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            return data, "timeout"
        except ConnectionResetError:
            return data, "close"
        if not piece:
            return data, "close"
        data += piece
        if b"\r\n\r\n" in data:
            connection.settimeout(0.05)


def run_case(case, address):
    """(statuses of all responses, how it ended, the bytes)"""
    host = ("%s:%d" % address).encode()
    everything, ended = b"", "close"
    with socket.create_connection(address) as connection:
        for step in case["steps"]:
            if "note" in step:  # described in the corpus's own source only
                return None
            if "gen" in step:
                payload = generated(step["gen"], host)
            else:
                payload = step["raw"].encode("latin-1").replace(b"HOSTHDR", host)
                if b"BODYLEN" in payload:
                    payload = payload.replace(b"BODYLEN", str(len(payload.split(b"\r\n\r\n", 1)[1])).encode())
            try:
                connection.sendall(payload)
            except OSError:
                break
            data, ended = read_responses(connection)
            everything += data
            if ended == "close":
                break
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", everything)], ended, everything


def agrees(case, statuses, ended, answer):
    """Whether the outcome is one that the corpus names. Its expectations are prose; what is read from them is the statuses,
    and whether a close or silence counts."""
    expected = (case["expected"] or "") + " " + (case["expected_status"] or "")
    last = statuses[-1] if statuses else None
    if expected.startswith("!") or "not " in expected[:4]:
        return str(last) not in expected
    if expected.startswith("non-1"):
        return last is None or last >= 200
    if last is None:
        return case["allow_close"] or "close" in expected or "timeout" in expected or "drop" in expected
    wanted = re.findall(r"\b[1-5]\d\d\b", expected)
    classes = re.findall(r"\b([1-5])xx\b", expected) + re.findall(r"Range(\d)xx", expected)
    if "2xx" in expected and "close" in expected and last < 300:
        return ended == "close" or "2xx +" not in expected
    if "Reject/drop" in expected and last < 400:
        # The echo shows what reached the server: the doubtful field must not have, in any spelling.
        names = [line.split(":")[0].strip().lower() for line in answer.split(b"\r\n\r\n", 1)[1].decode("latin-1").splitlines()]
        return names.count("content-length") == 1 and "transfer-encoding" not in names and not any(set(name) & set("_ \t") for name in names)
    if "Reject/drop" in expected:
        return True
    if "IMF-fixdate" in expected:
        return re.search(rb"\r\nDate: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n", answer) is not None
    return str(last) in wanted or str(last // 100) in classes


@pytest.mark.skipif(not CORPUS.exists(), reason="the Http11Probe corpus is not here")
def test_every_case_agrees_or_is_explained(start):
    script = pathlib.Path(__file__).parent / "any_server.py"
    config = POOL.replace("classic = true", "").replace('"{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"',
                                                        f'"{sys.executable}", "{script}", "{{port}}"').replace("replicas = 3", "replicas = 1")
    ringmaster = start(config + '[pool.web.health]\npath = "/"\n')
    cases = json.loads(CORPUS.read_text())["cases"]
    differing, unread = {}, []
    for case in cases:
        outcome = run_case(case, ringmaster.traffic[0])
        if outcome is None:
            unread.append(case["id"])
            continue
        statuses, ended, answer = outcome
        if not agrees(case, statuses, ended, answer):
            differing[case["id"]] = f"expected {case['expected'] or case['expected_status']}, got {statuses} {ended}"
    print(f"\n{len(cases)} cases, {len(differing)} differ, {len(unread)} are described in words that we cannot read: {unread}")
    unexplained = {k: v for k, v in differing.items() if k not in DIFFERENCES}
    stale = [k for k in DIFFERENCES if k not in differing]
    assert not unexplained, json.dumps(unexplained, indent=1)
    assert not stale, f"listed, but no longer different: {stale}"
    assert len(unread) <= 1
