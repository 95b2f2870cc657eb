"""Shares of real requests against shares computed by brute force outside the C++ code."""
import re
import socket

import pytest

from brute_force import layout, shares
from conftest import HEALTH, POOL, SLOW

REQUESTS = 10000
# The 0.999999 quantiles of chi-square for 1 to 5 degrees of freedom: 44 comparisons, and a false alarm in 20,000 runs.
CHI_SQUARE_MAX = {1: 23.93, 2: 27.63, 3: 30.66, 4: 33.38, 5: 35.89}
RING = """policy = "ring"
[pool.web.ring]
functions = "%s"
probing = "%s"
server_base = %d
virtual_base = %d
"""


def count_answers(address, requests=REQUESTS, batch=200):
    """Pipelined GETs on one connection; how often each server answered."""
    counts = {}
    request = b"GET /home HTTP/1.1\r\nHost: h\r\n\r\n" * batch
    with socket.create_connection(address) as connection:
        for _ in range(requests // batch):
            connection.sendall(request)
            answer, found = b"", []
            while len(found) < batch:
                piece = connection.recv(1 << 20)
                assert piece, "the connection ended early"
                answer += piece
                found = re.findall(rb'Hello from Server: (\d+)",', answer)
            for server in found:
                counts[int(server)] = counts.get(int(server), 0) + 1
    return counts


def assert_agrees(counts, expected, requests=REQUESTS):
    assert sum(counts.values()) == requests
    assert all(expected[server] > 0 for server in counts), (counts, expected)
    possible = {server: share for server, share in expected.items() if share > 0}
    if len(possible) < 2:
        return
    chi = sum((counts.get(server, 0) - share * requests) ** 2 / (share * requests) for server, share in possible.items())
    assert chi < CHI_SQUARE_MAX[len(possible) - 1], (chi, counts, expected)


@pytest.mark.parametrize("base", [1, 0])
@pytest.mark.parametrize("probing", ["linear", "quadratic"])
@pytest.mark.parametrize("functions", ["s1", "s2"])
def test_the_ring_is_the_contracts(start, functions, probing, base):
    if SLOW > 1 and (functions, probing) not in (("s1", "linear"), ("s2", "quadratic")):
        pytest.skip("SKIPPED: under a sanitizer two of four rings will do: the code is the same")
    ringmaster = start(POOL.replace("replicas = 3", "replicas = 2") + RING % (functions, probing, base, base) + HEALTH)
    for n in range(2, 7):
        if n > 2:
            assert ringmaster.call("POST", "/add", '{"n":1}').status == 200
        expected = layout(functions, probing, range(1, n + 1), server_base=base, virtual_base=base)
        names = {r["slot"]: r["name"] for r in ringmaster.replicas()}
        shown = {e["slot"]: (e["server"], e["virtual"]) for e in ringmaster.pool()["ring"]["layout"]}
        assert shown == {slot: (server, f"{names[server]}_VN{j}") for slot, (server, j) in expected.items()}
        assert_agrees(count_answers(ringmaster.traffic[0]), shares(functions, expected))


def test_rendezvous_on_request_id_spreads_evenly(ringmaster):
    assert_agrees(count_answers(ringmaster.traffic[0]), {1: 1 / 3, 2: 1 / 3, 3: 1 / 3})


@pytest.mark.parametrize("key,request_of", [
    ("path", lambda k: (f"/echo/../echo?x={k}", {})),
    ("header:X-User", lambda k: ("/echo", {"x-user": k})),
    ("cookie:session", lambda k: ("/echo", {"Cookie": f"a=b; session={k}; c=d"})),
    ("query:user", lambda k: (f"/echo?a=b&user={k}", {})),
])
def test_a_key_always_reaches_the_same_slot(start, key, request_of):
    ringmaster = start(POOL.replace('key = "request_id"', f'key = "{key}"') + HEALTH)
    seen = {}
    for k in [f"user{i}" for i in range(12)] * 3:
        path, headers = request_of(k)
        server = ringmaster.get(path, headers=headers).json["server"]
        assert seen.setdefault(k, server) == server
    assert len(set(seen.values())) == (1 if key == "path" else 3)


def test_round_robin_and_least_requests_reach_everybody(start):
    for policy in ("round_robin", "least_requests"):
        ringmaster = start(POOL.replace('key = "request_id"', f'policy = "{policy}"').replace("127.0.0.1:0", "127.0.0.1:0") + HEALTH)
        counts = count_answers(ringmaster.traffic[0])
        assert all(abs(count - REQUESTS / 3) < 20 for count in counts.values()) and len(counts) == 3
        ringmaster.stop()
