"""Tunnels, event streams, large bodies, slow clients."""
import http.client
import pathlib
import re
import socket
import time

import pytest

from conftest import SLOW, Clients, call, until
from flexible import config, raw

UPGRADE = b"GET /websocket HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n"


def read_head(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    return head


def test_a_websocket_is_a_tunnel_both_ways(start):
    ringmaster = start(config(replicas=1))
    with socket.create_connection(ringmaster.traffic[0], timeout=10 * SLOW) as client:
        client.sendall(UPGRADE + b"early")
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 101") and b"Upgrade: websocket\r\n" in head and b"Sec-WebSocket-Accept" in head
        assert client.recv(5) == b"EARLY"
        for word in (b"hello", b"x" * 100000, b"end"):
            client.sendall(word)
            got = b""
            while len(got) < len(word):
                got += client.recv(65536)
            assert got == word.upper()
        assert "ringmaster_pool_tunnels{pool=\"web\"} 1" in call(ringmaster.admin, "GET", "/metrics").text
        assert ringmaster.replicas()[0]["in_flight"] == 1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    until(lambda: ringmaster.replicas()[0]["in_flight"] == 0)


def test_a_silent_tunnel_ends(start):
    ringmaster = start('[timeouts]\ntunnel = "300ms"\n' + config(replicas=1))
    with socket.create_connection(ringmaster.traffic[0], timeout=10 * SLOW) as client:
        client.sendall(UPGRADE)
        read_head(client)
        began = time.monotonic()
        assert client.recv(1) == b""
        assert 0.2 < time.monotonic() - began < 3 * SLOW


def test_only_websocket_upgrades_and_only_when_asked(start):
    ringmaster = start(config(replicas=1))
    address = ringmaster.traffic[0]
    assert raw(address, UPGRADE.replace(b"websocket\r\n", b"h2c\r\n").replace(b"GET /websocket", b"GET /echo").replace(b"keep-alive, Upgrade", b"close, Upgrade")).startswith(b"HTTP/1.1 200")
    # It switches though nobody asked: an answer that must not reach anybody.
    assert raw(address, b"GET /websocket HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 502")
    assert raw(address, b"POST /websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx").startswith(b"HTTP/1.1 400")


def test_events_arrive_one_by_one(start):
    ringmaster = start(config(replicas=1))
    connection = http.client.HTTPConnection(*ringmaster.traffic[0], timeout=10 * SLOW)
    connection.request("GET", "/events")
    response = connection.getresponse()
    times = []
    for _ in range(3):
        assert response.readline().startswith(b"data: ")
        times.append(time.monotonic())
        response.readline()
    assert times[2] - times[0] > 0.2


def engine_memory(ringmaster):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{ringmaster.engine_pid()}/status").read_text())[1])


@pytest.mark.skipif(SLOW > 1, reason="sanitizers keep freed memory")
def test_large_bodies_are_never_held_whole(start):
    ringmaster = start(config(replicas=1))
    before = engine_memory(ringmaster)
    size = 60_000_000
    seen = []

    def watch(stopping):
        while not stopping.wait(0.01):  # a sample each 10 ms
            seen.append(engine_memory(ringmaster))

    with Clients() as clients:
        clients.begin(watch, clients.stopping)
        assert ringmaster.call("POST", "/upload", b"x" * size).text == str(size)
        uploaded = len(seen)
        # A client that reads slowly: the server is slowed down, nothing piles up.
        with socket.create_connection(ringmaster.traffic[0], timeout=20) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
            got = 0
            while piece := client.recv(1 << 20):
                got += len(piece)
    assert got > size
    assert min(uploaded, len(seen) - uploaded) >= 2, "both were watched"
    assert max(seen) - before < 10_000, f"{before} kB grew to {max(seen)} kB"


def test_a_body_that_trickles_is_given_up(start):
    ringmaster = start('body_rate_min = 1000\n[timeouts]\nbody = "2s"\n' + config(replicas=1))
    with socket.create_connection(ringmaster.traffic[0], timeout=40 * SLOW) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        began = time.monotonic()
        client.settimeout(0.2)
        answer = b""
        while time.monotonic() - began < 30 * SLOW and not answer:
            try:
                client.sendall(b"x" * 10)
                answer = client.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
        took = time.monotonic() - began
    assert (answer == b"" or answer.startswith(b"HTTP/1.1 408")) and 9 < took < 20 * SLOW, (answer, took)
    assert ringmaster.get("/echo").status == 200
