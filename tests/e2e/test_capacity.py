"""Capacity: how many requests a replica may have, who waits, who is refused, and what they are told."""
import http.client
import json
import pathlib
import socket
import time

import pytest

from conftest import SLOW, call, until
from flexible import Background, config, field

ONE = 'max_in_flight = 1\npolicy = "first_available"\nqueue_length = 2\nqueue_wait = "20s"\n'


def busy(ringmaster):
    return sum(replica["in_flight"] for replica in ringmaster.replicas())


def test_a_full_pool_queues_then_refuses_and_says_when_to_come_again(start):
    ringmaster = start(config(ONE, listener="error_detail = true\n", replicas=2))
    address = ringmaster.traffic[0]
    working = [Background(address, f"/slow/any/{1500 * SLOW:.0f}") for _ in range(2)]
    until(lambda: busy(ringmaster) == 2)
    waiting = [Background(address, "/slow/any/10") for _ in range(2)]
    until(lambda: ringmaster.pool()["waiting"] == 2)
    began = time.monotonic()
    refused = call(address, "GET", "/slow/any/10")
    assert time.monotonic() - began < 0.5 * SLOW
    assert refused.status == 503 and int(field(refused, "Retry-After")) >= 1
    told = refused.json
    assert (told["in_flight"], told["capacity"], told["queue"], told["queue_length"]) == (2, 2, 2, 2) and told["retry_after_ms"] >= 1
    assert all(request.wait().status == 200 for request in working + waiting)
    until(lambda: busy(ringmaster) == 0, what="nothing in flight")
    assert ringmaster.pool()["waiting"] == 0


def test_the_queue_is_first_in_first_out(start, directory):
    log = pathlib.Path(directory) / "access.log"
    ringmaster = start(f'[access_log]\nformat = "json"\npath = "{log}"\n'
                       + config('max_in_flight = 1\nqueue_length = 100\n', replicas=1))
    address = ringmaster.traffic[0]
    requests = [Background(address, f"/slow/any/{1000 * SLOW:.0f}", headers={"X-Request-Id": "number-0"})]
    until(lambda: busy(ringmaster) == 1)
    for number in range(1, 9):
        requests.append(Background(address, "/slow/any/20", headers={"X-Request-Id": f"number-{number}"}))
        until(lambda: ringmaster.pool()["waiting"] == number)
    assert all(request.wait().status == 200 for request in requests)
    # One at a time, 20 ms each: as they ended, so they were begun. The clients' threads do not tell that.
    lines = until(lambda: len(lines := log.read_text().splitlines()) == 9 and lines, what="the access log")
    ends = sorted((json.loads(line) for line in lines), key=lambda line: line["time"])
    assert [line["request_id"] for line in ends] == [f"number-{number}" for number in range(9)]


def test_a_client_that_hangs_up_leaves_the_queue(start):
    ringmaster = start(config(ONE, replicas=1))
    address = ringmaster.traffic[0]
    working = Background(address, "/slow/any/1500")
    until(lambda: busy(ringmaster) == 1)
    with socket.create_connection(address) as client:
        client.sendall(b"GET /slow/any/1 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: ringmaster.pool()["waiting"] == 1)
    until(lambda: ringmaster.pool()["waiting"] == 0)
    assert working.wait().status == 200


def test_who_waits_too_long_is_told_so(start):
    ringmaster = start(config(ONE.replace("20s", "200ms"), listener="error_detail = true\n", replicas=1))
    working = Background(ringmaster.traffic[0], f"/slow/any/{1500 * SLOW:.0f}")
    until(lambda: busy(ringmaster) == 1)
    began = time.monotonic()
    refused = ringmaster.get("/slow/any/1")
    assert refused.status == 503 and refused.json["capacity"] == 1
    assert 0.15 < time.monotonic() - began < 1.2 * SLOW
    assert working.wait().status == 200


@pytest.mark.measures
def test_retry_after_is_right_within_a_factor_of_two(start):
    ringmaster = start(config('max_in_flight = 2\nqueue_length = 30\nqueue_wait = "60s"\n', replicas=2))
    address = ringmaster.traffic[0]

    def answered():
        return sum(replica["requests"] for replica in ringmaster.replicas())
    # 4 at a time, 100 ms each: about 40 a second, and so 30 that wait are let in within 0.75 s. What the machine really
    # manages is counted.
    crowd = [Background(address, "/slow/any/100") for _ in range(34)]
    until(lambda: ringmaster.pool()["waiting"] >= 10)
    begun, before = time.monotonic(), answered()
    told = []
    while time.monotonic() < begun + 3 * SLOW:
        while ringmaster.pool()["waiting"] < 30:
            crowd.append(Background(address, "/slow/any/100"))
        answer = call(address, "GET", "/slow/any/100")
        if answer.status == 503:
            told.append((time.monotonic(), answer.json["retry_after_ms"] / 1000))
    rate = (answered() - before) / (time.monotonic() - begun)
    assert {request.wait().status for request in crowd} <= {200, 503}
    late = sorted(seconds for at, seconds in told if at > begun + 1.5 * SLOW)
    assert late
    right = 31 / rate
    assert right / 2 < late[len(late) // 2] < right * 2, (late, right)


def test_bounded_load_spreads_a_hot_key(start):
    ringmaster = start(config('key = "header:X-User"\nbounded_load = 1.25\n', replicas=3))
    address = ringmaster.traffic[0]
    crowd = [Background(address, f"/slow/any/{1000 * SLOW:.0f}", headers={"X-User": "star"}) for _ in range(12)]
    assert {request.wait().text for request in crowd} == {"A", "B", "C"}
    # One after the other they all reach the key's own replica.
    connection = http.client.HTTPConnection(*address)
    served = set()
    for _ in range(30):
        connection.request("GET", "/slow/x/0", headers={"X-User": "star"})
        served.add(connection.getresponse().read())
    assert len(served) == 1


def test_connections_of_one_address_are_capped(start):
    ringmaster = start("connections_per_address_max = 3\nworkers = 1\n" + config(replicas=1))
    address = ringmaster.traffic[0]
    held = [socket.create_connection(address) for _ in range(3)]
    for connection in held:
        connection.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    with socket.create_connection(address, timeout=5) as fourth:
        refused = b""
        while piece := fourth.recv(4096):
            refused += piece
    assert refused.startswith(b"HTTP/1.1 503") and b"Retry-After" in refused
    head, body = refused.split(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    held.pop().close()
    until(lambda: ringmaster.get("/echo").status == 200)
    for connection in held:
        connection.close()
