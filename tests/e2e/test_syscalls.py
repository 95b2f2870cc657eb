"""How many system calls a keep-alive request costs the engine, counted by strace."""
import http.client
import shutil
import subprocess
import time

import pytest

from conftest import HEALTH, POOL, SLOW, until

REQUESTS = 500


@pytest.mark.skipif(SLOW > 1, reason="sanitizers make system calls of their own")
@pytest.mark.parametrize("listen", ["unix:{socket}", "127.0.0.1:{port}"])
def test_a_request_costs_at_most_five_system_calls_beside_epoll_wait(start, directory, listen):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: ./dev setup test")
    ringmaster = start(POOL.replace("unix:{socket}", listen) + HEALTH + 'interval = "60s"\n')
    connection = http.client.HTTPConnection(*ringmaster.traffic[0])

    def request(times):
        for _ in range(times):
            connection.request("GET", "/home")
            response = connection.getresponse()
            assert response.status == 200 and response.read()
    request(50)  # so that connections to all replicas are there
    counts = f"{directory}/counts"
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", counts, "-p", str(ringmaster.engine_pid())], stderr=subprocess.PIPE, text=True)
    line = strace.stderr.readline()
    if "attached" not in line:
        strace.kill()
        pytest.skip(f"strace may not look at other processes here: {line}")
    request(REQUESTS)
    strace.terminate()
    strace.wait()
    connection.close()
    calls = {}
    for row in open(counts).read().splitlines():
        words = row.split()
        if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    print(calls)
    beside = sum(count for name, count in calls.items() if name not in ("epoll_wait", "epoll_pwait2", "restart_syscall"))
    assert calls["sendto"] + calls.get("sendmsg", 0) + calls.get("writev", 0) >= 2 * REQUESTS, "strace has not seen the requests"
    assert beside <= 5 * REQUESTS, calls
