"""What this program is for: servers, the engine and the master die, and no client notices.

LONG=1 in the environment runs the long versions (./dev test --long).
"""
import collections
import http.client
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

import pytest

from conftest import HEALTH, POOL, SLOW, Clients, alive, children_of, until

LONG = os.environ.get("LONG") == "1"
KILLS = 30 if LONG else 6
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: ./dev setup installs it")
HERE = pathlib.Path(__file__).parent


class Wrk:
    """wrk with 64 connections, each with one request at a time, beside the test."""
    CONNECTIONS = 64

    def __init__(self, address, seconds, path="/home"):
        self.process = subprocess.Popen(["wrk", "-t1", f"-c{self.CONNECTIONS}", f"-d{seconds}s",
                                         "http://%s:%d%s" % (*address, path)], stdout=subprocess.PIPE, text=True)

    def result(self):
        """How many requests were answered, and how many a client has noticed, by what was wrong with them."""
        return self.count(self.process.communicate(timeout=120)[0])

    @staticmethod
    def count(output):
        requests = int(re.search(r"^\s*(\d+) requests in ", output, re.M)[1])
        bad = collections.Counter()
        if found := re.search(r"Non-2xx or 3xx responses: (\d+)", output):
            bad["status"] = int(found[1])
        if found := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output):
            bad.update(dict(zip(("connect", "read", "write", "timeout"), map(int, found.groups()))))
        # Should another wrk say it in other words, nothing of it is overlooked.
        assert ("errors" in output) == (len(bad) >= 4) and ("Non-2xx" in output) == ("status" in bad), output
        return requests, +bad


def test_what_wrk_says_is_counted_by_requests():
    said = "  4242 requests in 3.00s, 1.00MB read\n"
    assert Wrk.count(said) == (4242, {})
    said += "  Socket errors: connect 1, read 62, write 0, timeout 3\n  Non-2xx or 3xx responses: 17\n"
    assert Wrk.count(said) == (4242, {"status": 17, "connect": 1, "read": 62, "timeout": 3})


class Checkers:
    """Beside the test, GETs on 16 connections that are kept, each request with a number that no other one has. Each
    answer must be to the byte the one to its own number. Connections break only if they `may_break`; they are counted.
    """
    CONNECTIONS = 16

    def __init__(self, clients, address, may_break=False):
        self.clients, self.address, self.may_break = clients, address, may_break
        self.answered, self.broken = [0] * self.CONNECTIONS, [0] * self.CONNECTIONS
        for k in range(self.CONNECTIONS):
            clients.begin(self.work, k)

    def work(self, k):
        connection = http.client.HTTPConnection(*self.address, timeout=30 * SLOW)
        while not self.clients.stopping.is_set():
            number = 2 * ((self.answered[k] + self.broken[k]) * self.CONNECTIONS + k + 2)  # even, and no prime
            try:
                connection.request("GET", f"/prime/{number}")
                response = connection.getresponse()
                answer = response.status, response.read()
            except (OSError, http.client.HTTPException):
                if not self.may_break:
                    raise
                self.broken[k] += 1
                connection.close()
                continue
            assert answer == (200, b'{"number":%d,"prime":false}' % number), (number, answer)
            self.answered[k] += 1
        connection.close()


def kill_one(ringmaster, rng):
    """SIGKILL to a random ready replica; milliseconds until its slot serves again under a new epoch."""
    victim = rng.choice([r for r in ringmaster.replicas() if r["state"] == "ready"])
    os.kill(victim["pid"], signal.SIGKILL)
    begun = time.monotonic()

    def replaced():
        now = next(r for r in ringmaster.replicas() if r["slot"] == victim["slot"])
        return now["epoch"] > victim["epoch"] and now["state"] == "ready" and now["name"] != victim["name"]

    until(replaced, what=f"slot {victim['slot']} serving again")
    return (time.monotonic() - begun) * 1000


@pytest.mark.measures
@needs_wrk
def test_no_request_fails_while_replicas_are_killed(ringmaster):
    rng = random.Random(1)
    times, seen = [], []
    with Clients() as clients:
        def watch():
            while not clients.stopping.is_set():
                seen.append(ringmaster.rep()["N"])
                time.sleep(0.005)  # the pace of one who watches: the load is the others'

        load = Wrk(ringmaster.traffic[0], KILLS + 1)
        checkers = Checkers(clients, ringmaster.traffic[0])
        clients.begin(watch)
        for _ in range(KILLS):
            begun = time.monotonic()
            times.append(kill_one(ringmaster, rng))
            time.sleep(max(0.0, 1 - (time.monotonic() - begun)))  # the pace of the experiment: one a second
        requests, bad = load.result()
    print(f"\n{KILLS} kills under load: {requests} requests of wrk, bad of them {dict(bad)}; {sum(checkers.answered)} "
          f"answers compared; slot serves again after {statistics.median(times):.1f} ms (median), "
          f"{max(times):.1f} ms (max)")
    assert set(seen) == {3} and len(seen) > 100 / SLOW, "/rep must always show three"
    assert not bad and requests > 1000
    assert min(checkers.answered) > 10, "each connection was under load"
    assert statistics.median(times) < 100 * SLOW


def test_posts_are_executed_at_most_once_and_answered_once(start, directory):
    ledger = f"{directory}/ledger"
    command = f'command = ["{sys.executable}", "{HERE}/ledger_server.py", "{{port}}", "{ledger}"]'
    ringmaster = start(POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]', command) + HEALTH)
    answers = collections.defaultdict(list)

    def client(k, stopping):
        connection = http.client.HTTPConnection(*ringmaster.traffic[0], timeout=30 * SLOW)
        n = 0
        while not stopping.is_set():
            n += 1
            body = f"{k}-{n}"
            try:
                connection.request("POST", "/work", body=body)
                response = connection.getresponse()
                answers[body].append((response.status, response.read()))
            except (OSError, http.client.HTTPException) as error:
                answers[body].append((0, repr(error)))
                connection.close()

    rng = random.Random(2)
    with Clients() as clients:
        for k in range(8):
            clients.begin(client, k, clients.stopping)
        for _ in range(KILLS):
            kill_one(ringmaster, rng)
            time.sleep(0.3)  # the pace of the experiment
    executed = collections.Counter(pathlib.Path(ledger).read_text().split())
    statuses = collections.Counter(status for given in answers.values() for status, _ in given)
    print(f"\n{len(answers)} POSTs, {KILLS} kills: answers {dict(statuses)}, executed {len(executed)}")
    assert max(executed.values()) == 1, "a POST was executed twice"
    assert all(len(given) == 1 for given in answers.values())
    assert set(statuses) <= {200, 502}, [a for a in answers.values() if a[0][0] not in (200, 502)][:3]
    for body, [(status, text)] in answers.items():
        if status == 200:
            assert text == body.encode() and executed[body] == 1
    assert statuses[502] <= 8 * KILLS


@pytest.mark.measures
def test_a_killed_engine_costs_no_replica_and_no_new_connection(ringmaster):
    pids = {r["name"]: r["pid"] for r in ringmaster.replicas()}
    for _ in range(5 if LONG else 3):
        engine = ringmaster.engine_pid()
        waiting = []
        os.kill(engine, signal.SIGKILL)
        begun = time.monotonic()
        # Connections opened from now on find a listener whatever the engine does, and are answered by the next one.
        for _ in range(50):
            connection = socket.create_connection(ringmaster.traffic[0], timeout=10)
            connection.sendall(b"GET /home HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            waiting.append(connection)
        first = None
        for connection in waiting:
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            first = first or (time.monotonic() - begun) * 1000
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            connection.close()
        print(f"\nthe next engine answered {first:.0f} ms after the kill")
        assert first < 300 * SLOW
        assert ringmaster.engine_pid() != engine
        assert {r["name"]: r["pid"] for r in ringmaster.replicas()} == pids


@pytest.mark.measures
@needs_wrk
def test_a_killed_engine_under_load_loses_only_what_it_held(ringmaster):
    load = Wrk(ringmaster.traffic[0], 3)
    with Clients() as clients:
        checkers = Checkers(clients, ringmaster.traffic[0], may_break=True)
        until(lambda: sum(r["requests"] for r in ringmaster.replicas()) > 500, what="load")
        until(lambda: min(checkers.answered) > 0, what="answers on each connection")
        pids = {r["name"]: r["pid"] for r in ringmaster.replicas()}
        engine = ringmaster.engine_pid()
        before = list(checkers.answered)
        os.kill(engine, signal.SIGKILL)
        begun = time.monotonic()
        assert ringmaster.get("/home").status == 200  # a connection opened meanwhile is answered
        answered = (time.monotonic() - begun) * 1000
        print(f"\nunder load, the next engine answered {answered:.0f} ms after the kill")
        assert answered < 300 * SLOW
        assert ringmaster.engine_pid() != engine and {r["name"]: r["pid"] for r in ringmaster.replicas()} == pids
        requests, bad = load.result()
        until(lambda: all(now > then + 1 for now, then in zip(checkers.answered, before)), what="its answers")
    print(f"of wrk's {requests} requests {dict(bad)} broke, of {sum(checkers.answered)} others {sum(checkers.broken)}")
    # Each connection to the dead engine breaks once, with the one request that it may have under way; their successors
    # are all served.
    assert requests > 500 and set(bad) <= {"read", "write"} and sum(bad.values()) <= Wrk.CONNECTIONS, bad
    assert max(checkers.broken) <= 1


def test_a_killed_master_leaves_nobody_and_the_next_restores_the_set(ringmaster):
    ringmaster.call("POST", "/add", '{"n":2,"hostnames":["S5","S4"]}')
    ringmaster.call("DELETE", "/rm", '{"n":1,"hostnames":["Server 2"]}')
    before = ringmaster.rep()
    until(lambda: len(ringmaster.replicas()) == 4, what="the end of the removed one")
    family = children_of(ringmaster.process.pid)
    assert len(family) == 5
    ringmaster.process.kill()
    ringmaster.process.wait()
    until(lambda: not any(alive(pid) for pid in family), seconds=1, what="the end of all children")
    ringmaster.start()
    assert ringmaster.rep() == before == {"N": 4, "replicas": ["Server 1", "Server 3", "S5", "S4"]}
    assert ringmaster.get("/home").status == 200


def test_a_set_changed_in_the_configuration_counts_more_than_the_saved_one(ringmaster):
    ringmaster.call("POST", "/add", '{"n":2,"hostnames":["S5","S4"]}')
    assert ringmaster.stop() == 0
    ringmaster.config.write_text(ringmaster.config.read_text().replace("replicas = 3", "replicas = 2"))
    ringmaster.start()
    assert ringmaster.rep() == {"N": 2, "replicas": ["Server 1", "Server 2"]}


def test_an_orderly_stop_answers_what_is_under_way(ringmaster):
    with Clients() as clients:
        clients.begin(ringmaster.get, f"/sleep/{700 * SLOW:.0f}")
        until(lambda: sum(r["in_flight"] for r in ringmaster.replicas()) == 1, what="the request under way")
        family = children_of(ringmaster.process.pid)
        assert ringmaster.stop() == 0
        [slow] = clients.join()
    assert slow.status == 200 and slow.json["slept_ms"] == 700 * SLOW
    assert not any(alive(pid) for pid in family)


def test_removing_a_replica_waits_for_its_requests(ringmaster):
    with Clients() as clients:
        for _ in range(9):
            clients.begin(ringmaster.get, f"/sleep/{1000 * SLOW:.0f}")
        until(lambda: sum(r["in_flight"] for r in ringmaster.replicas()) == 9, what="the requests under way")
        answer = ringmaster.call("DELETE", "/rm", '{"n":3}')
        assert answer.json["message"]["N"] == 0
        assert {r["state"] for r in ringmaster.replicas()} <= {"draining"}
        assert [slow.status for slow in clients.join()] == [200] * 9
    until(lambda: ringmaster.replicas() == [], what="the end of the drained")


def test_a_hung_replica_is_found_and_replaced(start):
    config = POOL + HEALTH + 'interval = "50ms"\ntimeout = "100ms"\nfall = 2\nkill_after = "400ms"\n'
    ringmaster = start(config)
    victim = ringmaster.replicas()[1]
    os.kill(victim["pid"], signal.SIGSTOP)
    until(lambda: ringmaster.replicas()[1]["state"] == "unhealthy", what="unhealthy")
    for _ in range(30):
        assert ringmaster.get("/home").status == 200
    until(lambda: ringmaster.replicas()[1]["epoch"] > victim["epoch"] and ringmaster.replicas()[1]["state"] == "ready", what="its successor")
    assert not alive(victim["pid"])


def test_a_replica_that_comes_back_keeps_its_slot(start):
    config = POOL + HEALTH + 'interval = "50ms"\ntimeout = "100ms"\nfall = 2\n'
    ringmaster = start(config)
    victim = ringmaster.replicas()[0]
    os.kill(victim["pid"], signal.SIGSTOP)
    until(lambda: ringmaster.replicas()[0]["state"] == "unhealthy", what="unhealthy")
    os.kill(victim["pid"], signal.SIGCONT)
    until(lambda: ringmaster.replicas()[0]["state"] == "ready", what="ready again")
    assert ringmaster.replicas()[0]["pid"] == victim["pid"]


def test_the_only_replica_dies_and_requests_wait_for_its_successor(start):
    ringmaster = start(POOL.replace("replicas = 3", "replicas = 1") + HEALTH)
    load = Wrk(ringmaster.traffic[0], 2) if shutil.which("wrk") else None
    for seed in range(4):
        kill_one(ringmaster, random.Random(seed))
        time.sleep(0.55)  # past the 500 ms before which a death counts as early
    if load:
        requests, bad = load.result()
        assert not bad and requests > 100, bad


def test_a_stop_while_an_add_waits_is_answered_and_orderly(start):
    config = POOL.replace('["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                          '["/bin/sh", "-c", "case \\"$SERVER_NAME\\" in Dead*) exec sleep 1000;; esac; exec \\"$0\\" replica --listen unix:{socket}", "{ringmaster}", "{socket}"]\nready_timeout = "1500ms"')
    ringmaster = start(config + HEALTH)
    with Clients() as clients:
        clients.begin(ringmaster.call, "POST", "/add", '{"n":1,"hostnames":["Dead"]}')
        until(lambda: len(ringmaster.replicas()) == 4, what="the new seat")
        assert ringmaster.stop() == 0
        [answer] = clients.join()
    assert answer.status == 500 and answer.json["message"].endswith("did not become ready: Dead")
    ringmaster.start()
    assert ringmaster.rep()["N"] == 3, "what was not confirmed must not come back"


def test_an_add_whose_servers_die_names_them_and_leaves_nothing(start):
    config = POOL.replace('["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                          '["/bin/sh", "-c", "case \\"$SERVER_ID\\" in 1|2|3) ;; *) exit 7;; esac; exec \\"$0\\" replica --listen unix:{socket}", "{ringmaster}", "{socket}"]\nready_timeout = "900ms"')
    ringmaster = start(config + HEALTH)
    answer = ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S5"]}')
    assert answer.status == 500 and answer.json["message"].endswith("did not become ready: S5"), answer.text
    until(lambda: len(ringmaster.replicas()) == 3, what="nothing left of it")


def test_what_a_replica_started_does_not_outlive_a_killed_master(start, directory):
    marker = f"{directory}/grandchild"
    config = POOL.replace('["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                          f'["/bin/sh", "-c", "sleep 1000 & echo $! >> {marker}; exec \\"$0\\" replica --listen unix:{{socket}}", "{{ringmaster}}", "{{socket}}"]')
    ringmaster = start(config + HEALTH)
    grandchildren = [int(pid) for pid in open(marker).read().split()]
    assert len(grandchildren) == 3 and all(alive(pid) for pid in grandchildren)
    ringmaster.process.kill()
    ringmaster.process.wait()
    ringmaster.start()
    until(lambda: not any(alive(pid) for pid in grandchildren), what="the end of the old grandchildren")
