"""Routes, limits, and what replicas are told of the client."""
import json
import os
import struct

from conftest import call, until
from flexible import config, field, headers_of, raw

ROUTES = """
[[route]]
host = "*.example.org"
prefix = "/api"
pool = "web"
strip_prefix = true
[route.request_headers]
set = {X-Route = "api"}
add = {X-More = "1"}
remove = ["X-Unwanted"]
[route.response_headers]
set = {X-Secret = "of the route"}
[[route]]
name = "moved"
path = "/old"
redirect = "https://new.example$path$query"
status = 301
[[route]]
name = "closed"
prefix = "/private"
status = 403
body = "no"
[[route]]
name = "beta"
prefix = "/private"
headers = {X-Beta = "yes"}
pool = "web"
replace_prefix = "/public"
[[route]]
name = "small"
prefix = "/small"
pool = "web"
body_bytes_max = "1KiB"
[[route]]
name = "slowly"
prefix = "/slowly"
pool = "web"
[route.rate]
key = "header:X-User"
per_second = 2
burst = 3
"""


def test_routes_match_by_host_path_and_header(start):
    ringmaster = start(config(rest=ROUTES, replicas=1))
    answer = ringmaster.get("/api/a%2e/../b?q=1", headers={"Host": "www.EXAMPLE.org:80", "X-Unwanted": "1", "X-Route": "forged", "X-More": "0"})
    assert answer.json["path"] == "/b?q=1"
    seen = headers_of(answer)
    assert seen["x-route"] == ["api"] and seen["x-more"] == ["0", "1"] and "x-unwanted" not in seen
    assert field(answer, "X-Secret") == "of the route"
    assert ringmaster.get("/api", headers={"Host": "www.example.org"}).json["path"] == "/"
    assert ringmaster.get("/apis", headers={"Host": "www.example.org"}).json["path"] == "/apis"
    assert ringmaster.get("/api/x", headers={"Host": "example.org"}).json["path"] == "/api/x"
    moved = ringmaster.get("/old?a=b")
    assert moved.status == 301 and field(moved, "Location") == "https://new.example/old?a=b"
    assert (ringmaster.get("/private/x").status, ringmaster.get("/private/x").text) == (403, "no")
    assert ringmaster.get("/x/..//private/x").status == 403  # matched on the normal form
    assert ringmaster.get("/private/x", headers={"X-Beta": "yes"}).json["path"] == "/public/x"
    assert ringmaster.get("/elsewhere").json["path"] == "/elsewhere"


def test_bodies_past_their_limit_are_refused_before_a_replica_hears_of_them(start):
    ringmaster = start(config(rest=ROUTES, replicas=1))
    address = ringmaster.traffic[0]
    assert ringmaster.call("POST", "/small/upload", b"x" * 1024).status == 200
    before = ringmaster.replicas()[0]["requests"]
    refused = ringmaster.call("POST", "/small/upload", b"x" * 1025)
    assert refused.status == 413 and "1024" in refused.text
    assert ringmaster.replicas()[0]["requests"] == before
    chunks = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(40))
    answer = raw(address, b"POST /small/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


def test_rates_are_limited_by_key(start):
    ringmaster = start(config(rest=ROUTES, replicas=1))
    first = [ringmaster.get("/slowly/echo", headers={"X-User": "one"}) for _ in range(5)]
    assert [answer.status for answer in first].count(200) in (3, 4)
    refused = [answer for answer in first if answer.status == 429]
    assert refused and int(field(refused[0], "Retry-After")) == 1
    assert ringmaster.get("/slowly/echo", headers={"X-User": "two"}).status == 200
    assert ringmaster.get("/elsewhere", headers={"X-User": "one"}).status == 200
    until(lambda: ringmaster.get("/slowly/echo", headers={"X-User": "one"}).status == 200, 3)


def test_what_a_client_says_of_itself_is_believed_only_if_it_is_trusted(start):
    claims = {"X-Forwarded-For": "1.2.3.4, 5.6.7.8", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "real.example", "X-Real-IP": "1.2.3.4",
              "Forwarded": "for=1.2.3.4"}
    plain = start(config(replicas=1))
    seen = headers_of(plain.get("/echo", headers=claims))
    assert seen["x-forwarded-for"] == ["127.0.0.1"] and seen["x-forwarded-proto"] == ["http"]
    assert "forwarded" not in seen and "x-real-ip" not in seen and seen["x-forwarded-host"][0].startswith("127.0.0.1")


def test_a_trusted_peers_word_is_passed_on_and_its_client_is_the_source(start, directory):
    claims = {"X-Forwarded-For": "1.2.3.4, 127.0.0.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "real.example", "Forwarded": "for=9.9.9.9"}
    log = f"{directory}/access.log"
    ringmaster = start(f'[access_log]\nformat = "json"\npath = "{log}"\n' + config('key = "source"\n', 'trusted = ["127.0.0.0/8"]\nforwarded = "both"\n', replicas=1))
    seen = headers_of(ringmaster.get("/echo", headers={key: value for key, value in claims.items() if key != "Forwarded"}))
    assert seen["x-forwarded-for"] == ["1.2.3.4, 127.0.0.9, 127.0.0.1"] and seen["x-forwarded-proto"] == ["https"] and seen["x-forwarded-host"] == ["real.example"]
    assert "for=127.0.0.1;host=" in seen["forwarded"][0]
    until(lambda: '"client":"1.2.3.4"' in open(log).read() if os.path.exists(log) else False)


def test_proxy_protocol_comes_in(start):
    ringmaster = start(config(listener='proxy_protocol = true\ntrusted = ["127.0.0.1/32"]', replicas=1))
    address = ringmaster.traffic[0]
    request = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    v1 = raw(address, b"PROXY TCP4 10.1.2.3 10.0.0.1 4000 80\r\n" + request)
    v2 = raw(address, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([10, 1, 2, 4, 10, 0, 0, 1]) + struct.pack(">HH", 1, 2) + request)
    local = raw(address, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0" + request)
    for answer, client in ((v1, "10.1.2.3"), (v2, "10.1.2.4"), (local, "127.0.0.1")):
        seen = dict((k.lower(), v) for k, v in json.loads(answer.split(b"\r\n\r\n", 1)[1])["headers"])
        assert seen["x-forwarded-for"] == client
    for bad in (request, b"PROXY TCP4 1.2.3 x 1 2\r\n" + request, b"PROXY TCP4 " + b"1" * 200, b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c" + b"\0" * 12 + request):
        assert raw(address, bad) == b""


def test_proxy_protocol_from_strangers_is_refused(start):
    ringmaster = start(config(listener='proxy_protocol = true\ntrusted = ["10.0.0.0/8"]', replicas=1))
    assert raw(ringmaster.traffic[0], b"PROXY TCP4 10.1.2.3 10.0.0.1 4000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    until(lambda: "not trusted" in ringmaster.log, what="a line in the log")


def test_proxy_protocol_goes_out(start):
    health = 'path = "/health"\ninterval = "60s"\n'
    for version, expected in (("v1", "PROXY TCP4 127.0.0.1 127.0.0.1 "), ("v2", "v2 127.0.0.1")):
        ringmaster = start(config(f'proxy_protocol = "{version}"\n', health=health, replicas=1, arguments=["--proxy"]))
        for _ in range(3):
            assert ringmaster.get("/echo").json["proxy"].startswith(expected)
        ringmaster.stop()


def test_sticky_cookies_lead_back_and_cannot_be_forged(start):
    sticky = '[pool.web.sticky]\ncookie = "seat"\nsecret = "0123456789abcdef"\nmax_age = "60s"\n'
    ringmaster = start(config('policy = "round_robin"\n' + sticky))
    first = ringmaster.get("/echo")
    cookie = field(first, "Set-Cookie").split(";")[0]
    assert "HttpOnly" in field(first, "Set-Cookie") and "Max-Age=60" in field(first, "Set-Cookie")
    own = first.json["name"]
    for _ in range(6):
        answer = ringmaster.get("/echo", headers={"Cookie": f"a=b; {cookie}"})
        assert answer.json["name"] == own and field(answer, "Set-Cookie") is None
    slot = int(cookie.split("=")[1].split("-")[0])
    forged = cookie.replace(f"={slot}-", f"={slot % 3 + 1}-")
    names = {ringmaster.get("/echo", headers={"Cookie": forged}).json["name"] for _ in range(6)}
    assert len(names) == 3
    # Its replica dies: the next one of the same slot takes over.
    victim = next(replica for replica in ringmaster.replicas() if replica["name"] == own)
    os.kill(victim["pid"], 9)
    until(lambda: ringmaster.pool()["ready"] == 3 and all(replica["name"] != own for replica in ringmaster.replicas()))
    heir = next(replica["name"] for replica in ringmaster.replicas() if replica["slot"] == victim["slot"])
    # (the server's name is the replica's)
    assert ringmaster.get("/echo", headers={"Cookie": cookie}).json["name"] == heir


def test_traces_and_request_ids_are_passed_on_or_begun(start):
    ringmaster = start(config(replicas=1))
    begun = headers_of(ringmaster.get("/echo"))
    version, trace, span, flags = begun["traceparent"][0].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00") and len(begun["x-request-id"][0]) == 16
    given = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "X-Request-Id": "mine-1"}
    passed = headers_of(ringmaster.get("/echo", headers=given))
    assert passed["traceparent"] == [given["traceparent"]] and passed["x-request-id"] == ["mine-1"]
    assert headers_of(ringmaster.get("/echo", headers={"X-Request-Id": "two words"}))["x-request-id"] != ["two words"]


def test_the_access_log_has_a_line_for_each_request(start, directory):
    log = f"{directory}/access.log"
    ringmaster = start(f'[access_log]\nformat = "common"\npath = "{log}"\n' + config(replicas=1))
    assert ringmaster.get("/echo?a=%22b").status == 200
    raw(ringmaster.traffic[0], b'GET /"quoted" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    lines = until(lambda: len(lines := open(log).read().splitlines()) == 2 and lines)
    plain, quoted = sorted(lines, key=lambda line: "quoted" in line)  # two workers: in any order
    assert '"GET /echo?a=%22b HTTP/1.1" 200 ' in plain and plain.startswith("127.0.0.1 - - [")
    assert '"GET /\\"quoted\\" HTTP/1.1" 200' in quoted


def test_metrics_tell_what_happened(start):
    ringmaster = start(config(rest=ROUTES, replicas=2))
    for _ in range(10):
        ringmaster.get("/private/x")
        ringmaster.get("/echo")
    text = call(ringmaster.admin, "GET", "/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['ringmaster_route_responses_total{route="closed",class="4xx"}'] == "10"
    assert samples['ringmaster_route_responses_total{route="default",class="2xx"}'] == "10"
    assert samples['ringmaster_route_response_seconds_bucket{route="default",le="+Inf"}'] == "10"
    given = [float(v) for k, v in samples.items() if k.startswith("ringmaster_replica_responses_total") and 'class="2xx"' in k]
    assert sum(given) == 10
    assert float(samples["process_resident_memory_bytes"]) > 1e6
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
