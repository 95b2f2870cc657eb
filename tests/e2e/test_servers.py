"""Servers that run without us: those that register themselves (CONTRACT S4 and S0), listed ones, and pools of all kinds at once."""
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest
from conftest import BINARY, HEALTH, POOL, SLOW, Clients, call, free_port, until

LISTENER = """
[[listener]]
address = "127.0.0.1:0"
pool = "web"
classic = true
[admin]
address = "127.0.0.1:0"
[pool.web]
slow_start = "0ms"
"""
IDLE = '[pool.web.health]\npath = "/health_check"\nwhen = "idle"\ninterval = "100ms"\n'
S4 = LISTENER + '[pool.web.register]\n' + IDLE


class Server:
    """`ringmaster replica`, started by the test."""

    def __init__(self, *arguments, port=0, server_id="1"):
        self.port = port or free_port()
        self.arguments = [BINARY, "replica", "--listen", f"127.0.0.1:{self.port}", "--server-id", server_id, *arguments]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.arguments, stderr=subprocess.DEVNULL)
        until(lambda: connects(self.port) or self.process.poll() is not None, what="the server listens")
        assert self.process.poll() is None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(20 * SLOW)


def connects(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server():
    running = []

    def begin(*arguments, **options):
        running.append(Server(*arguments, **options))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def up(ringmaster, url, headers=None, **members):
    return ringmaster.call("POST", "/server_up", json.dumps({"url": url} | members), headers)


def down(ringmaster, url):
    return ringmaster.call("POST", "/server_down", json.dumps({"url": url}))


def servers(ringmaster):
    return ringmaster.get("/servers").json["message"]["servers"]


def active(ringmaster):
    return sorted(one["name"] for one in servers(ringmaster) if one["active"])


def active_soon(ringmaster):
    """The same while it starts, or while what is left of the last one goes."""
    try:
        return active(ringmaster)
    except (OSError, http.client.HTTPException):
        return None


def refused(answer, status, part):
    assert answer.status == status, answer.text
    assert answer.json["status"] == "failure" and answer.json["message"].startswith("<Error> ") and part in answer.json["message"], answer.text


# --- registering ---

def test_a_server_that_registers_gets_traffic_until_it_goes(start, server):
    ringmaster = start(S4)
    refused(ringmaster.get("/home"), 503, "")
    one = server()
    answer = up(ringmaster, one.url, name="Slave 2")
    assert answer.status == 200 and answer.json["status"] == "successful"
    assert up(ringmaster, one.url, name="Slave 2").status == 200  # again is harmless
    assert up(ringmaster, one.url + "/").status == 200
    until(lambda: active(ringmaster) == ["Slave 2"])
    assert ringmaster.get("/home").json["message"] == "Hello from Server: 1"
    assert ringmaster.rep() == {"N": 1, "replicas": ["Slave 2"]}
    [shown] = servers(ringmaster)
    assert shown["url"] == one.url and shown["active"] and shown["last_request"].startswith("20")
    assert ringmaster.replicas()[0]["origin"] == "registered"
    assert down(ringmaster, one.url).status == 200
    until(lambda: ringmaster.rep()["N"] == 0)
    refused(down(ringmaster, one.url), 404, "no server has registered")
    assert connects(one.port)  # it isn't ours: it goes on


def test_one_that_never_answers_gets_no_traffic_and_harms_nobody(start, server):
    ringmaster = start(S4)
    good = server()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1000)
        assert up(ringmaster, f"http://127.0.0.1:{silent.getsockname()[1]}", name="silent").status == 200
        assert up(ringmaster, f"http://127.0.0.1:{free_port()}", name="absent").status == 200
        assert up(ringmaster, good.url, name="good").status == 200
        until(lambda: active(ringmaster) == ["good"])
        assert all(ringmaster.get("/home").status == 200 for _ in range(30))
        assert active(ringmaster) == ["good"]


def test_a_failed_request_takes_a_server_out_until_a_check_succeeds(start, server):
    ringmaster = start(S4)
    one, two = server(server_id="1"), server(server_id="2")
    up(ringmaster, one.url, name="one")
    up(ringmaster, two.url, name="two")
    until(lambda: active(ringmaster) == ["one", "two"])
    one.stop(signal.SIGKILL)
    assert all(ringmaster.get("/home").json["message"] == "Hello from Server: 2" for _ in range(20))
    assert active(ringmaster) == ["two"]
    assert ringmaster.rep()["replicas"] == ["one", "two"]  # it's still listed, in its slot
    one.start()
    until(lambda: active(ringmaster) == ["one", "two"])
    until(lambda: ringmaster.get("/home").json["message"] == "Hello from Server: 1")  # its failure counts as slow for a second


def test_the_demo_server_registers_itself_until_it_works_and_leaves_in_order(start, server):
    port = free_port()
    ringmaster = start(S4.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
    ringmaster.stop()
    one = server("--register", f"http://127.0.0.1:{port}", "--name", "Slave 2")  # nobody is there yet
    ringmaster.start(wait=False)
    until(lambda: active_soon(ringmaster) == ["Slave 2"], 20)
    # Forgotten by a balancer that has lost its memory, it comes again.
    ringmaster.process.kill()
    ringmaster.process.wait()
    (ringmaster.directory / "state/desired.json").unlink()
    ringmaster.start(wait=False)
    until(lambda: active_soon(ringmaster) == ["Slave 2"], 20)
    one.stop()
    assert ringmaster.rep()["N"] == 0


def test_registrations_are_kept_over_restarts_with_their_slots(start, server):
    ringmaster = start(S4)
    one, two = server(server_id="1"), server(server_id="2")
    up(ringmaster, one.url, name="one")
    up(ringmaster, two.url, name="two")
    down(ringmaster, one.url)
    until(lambda: active(ringmaster) == ["two"])
    ringmaster.process.kill()
    ringmaster.process.wait()
    ringmaster.start()
    until(lambda: active(ringmaster) == ["two"])
    assert [(r["slot"], r["name"], r["origin"]) for r in ringmaster.replicas()] == [(2, "two", "registered")]


def test_with_a_time_to_live_it_must_register_again(start, server):
    ringmaster = start(S4)
    one = server()
    ttl = 1 if SLOW == 1 else 2  # whole seconds
    assert up(ringmaster, one.url, name="one", ttl=ttl).status == 200
    until(lambda: active(ringmaster) == ["one"])
    began = time.monotonic()
    while time.monotonic() - began < 2 * ttl:  # longer than it may be silent
        assert up(ringmaster, one.url, name="one", ttl=ttl).status == 200
        time.sleep(0.2)  # the pace at which it says so
    assert ringmaster.rep()["N"] == 1
    until(lambda: ringmaster.rep()["N"] == 0)
    until(lambda: "has not registered again in time" in ringmaster.log, what="a line in the log")


def test_a_time_to_live_counts_for_one_that_never_was_ready_and_not_for_a_listed_one(start, server):
    listed = server()
    ringmaster = start(S4.replace("[pool.web.register]", f'servers = ["127.0.0.1:{listed.port}"]\n[pool.web.register]'))
    assert up(ringmaster, f"http://127.0.0.1:{free_port()}", name="absent", ttl=1).status == 200
    assert up(ringmaster, listed.url, name="listed", ttl=1).status == 200
    assert ringmaster.rep()["N"] == 2
    until(lambda: ringmaster.rep()["N"] == 1)
    time.sleep(1.2)  # longer than the listed one's would have been: nothing is to happen
    assert ringmaster.replicas()[0]["origin"] == "server" and ringmaster.get("/home").status == 200


def test_a_server_that_moves_keeps_its_name_and_slot(start, server):
    ringmaster = start(S4)
    one, two = server(server_id="1"), server(server_id="2")
    up(ringmaster, one.url, name="one")
    until(lambda: active(ringmaster) == ["one"])
    refused(up(ringmaster, two.url, name="one"), 409, "belongs to another server, which is well")
    one.stop(signal.SIGKILL)
    until(lambda: active(ringmaster) == [])
    assert up(ringmaster, two.url, name="one").status == 200
    until(lambda: [s["url"] for s in servers(ringmaster) if s["active"]] == [two.url])
    assert [(r["slot"], r["name"]) for r in ringmaster.replicas() if r["state"] != "draining"] == [(1, "one")]
    assert ringmaster.get("/home").json["message"] == "Hello from Server: 2"


# --- bad input: one clear line each, and nothing is changed ---

def test_bad_announcements_are_refused_and_change_nothing(start):
    ringmaster = start(S4)
    here = ringmaster.traffic[0][1]
    for body, status, part in [
        ("{", 400, "JSON"),
        ("[]", 400, "JSON"),
        ("{}", 400, "url is missing"),
        ('{"url": 5}', 400, "url is missing"),
        ('{"url": "https://127.0.0.1:1"}', 400, "must begin with http://"),
        ('{"url": "file:///etc/passwd"}', 400, "must begin with http://"),
        ('{"url": "http://"}', 400, "of the form"),
        ('{"url": "http://127.0.0.1:1/path"}', 400, "of the form"),
        ('{"url": "http://user@127.0.0.1:1"}', 400, "of the form"),
        ('{"url": "http://127.0.0.1:99999"}', 400, "no address"),
        ('{"url": "http://unix:/var/run/docker.sock"}', 400, "of the form"),
        ('{"url": "http://169.254.169.254:80"}', 403, "not in a network"),
        ('{"url": "http://10.0.0.7"}', 403, "not in a network"),
        ('{"url": "http://[fe80::1]:80"}', 403, "not in a network"),
        ('{"url": "http://no-such-name.invalid:80"}', 400, ""),
        (json.dumps({"url": f"http://127.0.0.1:{here}"}), 400, "Ringmaster itself"),
        (json.dumps({"url": f"http://127.3.2.1:{here}"}), 400, "Ringmaster itself"),
        (json.dumps({"url": f"http://0.0.0.0:{here}"}), 403, "not in a network"),
        (json.dumps({"url": f"http://[::ffff:127.0.0.1]:{here}"}), 403, "not in a network"),
        (json.dumps({"url": f"http://127.0.0.1:1", "name": "../x"}), 400, "name"),
        (json.dumps({"url": f"http://127.0.0.1:1", "name": 7}), 400, "name"),
        (json.dumps({"url": f"http://127.0.0.1:1", "ttl": -1}), 400, "ttl"),
        (json.dumps({"url": f"http://127.0.0.1:1", "ttl": "5"}), 400, "ttl"),
        ('{"url": "' + "x" * 20000 + '"}', 413, ""),
    ]:
        answer = ringmaster.call("POST", "/server_up", body)
        assert answer.status == status, (body[:80], answer.text)
        refused(answer, status, part)
    refused(ringmaster.call("POST", "/server_up", '{"url":"http://127.0.0.1:1"}', {"Origin": "http://evil"}), 403, "web pages")
    assert ringmaster.get("/server_up").headers["Allow"] == "POST"
    assert ringmaster.rep()["N"] == 0


def test_only_allowed_networks_and_those_who_know_the_token_register(start):
    ringmaster = start(LISTENER + '[pool.web.register]\nfrom = ["10.0.0.0/8"]\n' + IDLE)
    refused(up(ringmaster, "http://10.0.0.7:80"), 403, "may not register from 127.0.0.1")
    assert ringmaster.rep()["N"] == 0


def test_the_token_is_asked_for(start, server):
    ringmaster = start(LISTENER + '[pool.web.register]\ntoken = "0123456789abcdef"\n' + IDLE)
    one = server()
    refused(up(ringmaster, one.url), 403, "token")
    refused(up(ringmaster, one.url, {"Authorization": "Bearer 0123456789abcdeX"}), 403, "token")
    assert up(ringmaster, one.url, {"Authorization": "Bearer 0123456789abcdef"}).status == 200
    two = server("--register", "http://127.0.0.1:%d" % ringmaster.traffic[0][1], "--token", "0123456789abcdef", "--name", "two")
    until(lambda: "two" in active(ringmaster))
    assert two.process.poll() is None


def test_ten_thousand_registrations_fill_the_pool_and_no_more(start, server):
    ringmaster = start(S4.replace("[pool.web]\n", "[pool.web]\nreplicas_max = 20\n", 1).replace("register]\n", 'register]\ntoken = "0123456789abcdef"\n'))
    known = {"Authorization": "Bearer 0123456789abcdef"}
    good = server()
    up(ringmaster, good.url, known, name="good")
    statuses = [up(ringmaster, f"http://127.1.{i // 250}.{i % 250 + 1}:9", known).status for i in range(int(10000 if SLOW == 1 else 500))]
    assert statuses.count(200) == 19 and set(statuses) == {200, 409}
    refused(up(ringmaster, "http://127.9.9.9:9", known), 409, "at most 20 servers")
    assert up(ringmaster, good.url, known, name="good").status == 200  # who is in may say so again
    until(lambda: active(ringmaster) == ["good"])
    assert all(ringmaster.get("/home").status == 200 for _ in range(20))
    assert len(ringmaster.replicas()) == 20


# --- S0: slaves that register ---

def test_the_master_asks_registered_slaves_and_hands_tasks_over(start, server):
    ringmaster = start(S4 + '[queue.default]\npool = "web"\ntypes = ["expression"]\ntimeout = "2m"\n')
    address = "http://127.0.0.1:%d" % ringmaster.traffic[0][1]
    slaves = [server("--register", address, "--name", f"Slave {i}") for i in (1, 2)]
    until(lambda: active(ringmaster) == ["Slave 1", "Slave 2"])
    first = ringmaster.replicas()[0]["name"]
    second = ringmaster.replicas()[1]["name"]

    def submit(expression):
        return ringmaster.call("POST", "/tasks", json.dumps({"expression": expression}))

    # The first slave is busy with somebody else's work: it says so, and the second one is asked.
    port = next(s["url"] for s in servers(ringmaster) if s["name"] == first).rsplit(":", 1)[1]
    with Clients() as clients:
        clients.begin(call, ("127.0.0.1", int(port)), "POST", "/task", '{"expression":"sleep(7)"}')
        until(lambda: call(("127.0.0.1", int(port)), "GET", "/available").json["available"] is False)
        answer = submit("sleep(3)+1")
        assert answer.status == 202 and answer.json["message"] == f"Task successfully assigned to {second}."
        full = submit("2*(3+4)")
        refused(full, 503, "The system is at full capacity.")
        assert int(full.headers["Retry-After"]) >= 1
        [busy] = clients.join()
        assert busy.status == 200 and busy.json["result"] == 7
    done = until(lambda: submit("2*(3+4)") if call(("127.0.0.1", int(port)), "GET", "/available").json["available"] else None, 20)
    assert done.status == 202
    until(lambda: all(task["status"] == "done" for task in ringmaster.get("/get-tasks").json["message"]["tasks"]), 20)
    results = {task["expression"]: task["result"] for task in ringmaster.get("/get-tasks").json["message"]["tasks"]}
    assert results == {"sleep(3)+1": 4, "2*(3+4)": 14}
    assert all(slave.process.poll() is None for slave in slaves)


# --- servers of the configuration ---

def test_listed_servers_are_found_by_name_and_cannot_be_removed(start, server):
    one, two = server(server_id="1"), server(server_id="2")
    ringmaster = start(LISTENER + f'servers = ["127.0.0.1:{one.port}", "localhost:{two.port}"]\nresolve_interval = "100ms"\n' + HEALTH, wait=True)
    until(lambda: any(r["endpoint"] == f"127.0.0.1:{two.port}" and r["state"] == "ready" for r in ringmaster.replicas()))
    assert {ringmaster.get("/home").json["message"] for _ in range(40)} == {"Hello from Server: 1", "Hello from Server: 2"}
    assert ringmaster.replicas()[0]["name"] == f"127.0.0.1-{one.port}" and ringmaster.replicas()[0]["origin"] == "server"
    refused(ringmaster.call("DELETE", "/rm", '{"n":1}'), 400, "there are only 0 servers to remove")
    refused(ringmaster.call("POST", "/add", '{"n":1}'), 400, "not started by Ringmaster")


def test_a_name_that_is_not_known_is_said_once_and_serving_goes_on(start, server):
    one = server()
    ringmaster = start(LISTENER + f'servers = ["127.0.0.1:{one.port}", "no-such-name.invalid:80"]\nresolve_interval = "100ms"\n' + HEALTH)
    until(lambda: "no-such-name.invalid:80 cannot be looked up" in ringmaster.log, 60)
    assert all(ringmaster.get("/home").status == 200 for _ in range(20))
    time.sleep(0.5)  # several lookups: nothing is to be said
    assert ringmaster.log.count("cannot be looked up") == 1


def test_a_pool_has_processes_and_servers_at_once_with_weights(start, server):
    listed, registered = server(server_id="listed"), server(server_id="registered")
    pool = POOL.replace("replicas = 3\nkey = \"request_id\"", f'replicas = 1\nservers = ["127.0.0.1:{listed.port}"]\npolicy = "weighted"\nweights = [1, 2, 3]')
    ringmaster = start(pool + '[pool.web.register]\n' + HEALTH)
    assert up(ringmaster, registered.url, name="third").status == 200
    until(lambda: ringmaster.pool()["ready"] == 3)
    counts = {}
    for _ in range(600):
        who = ringmaster.get("/home").json["message"].rsplit(" ", 1)[1]
        counts[who] = counts.get(who, 0) + 1
    assert 70 < counts["1"] < 130 and 170 < counts["listed"] < 230 and 270 < counts["registered"] < 330, counts
    # The process is ours: it comes back. /rm takes what may be taken.
    process = next(r for r in ringmaster.replicas() if r["origin"] == "process")
    os.kill(process["pid"], signal.SIGKILL)
    until(lambda: ringmaster.pool()["ready"] == 3 and any(r["origin"] == "process" and r["pid"] != process["pid"] for r in ringmaster.replicas()))
    answer = ringmaster.call("DELETE", "/rm", json.dumps({"n": 2, "hostnames": ["third"]}))
    assert answer.status == 200 and answer.json["message"]["N"] == 1


# --- what replicas write ---

def test_logs_show_what_a_replica_has_written(start, directory):
    script = pathlib.Path(directory) / "talker.sh"
    script.write_text('echo "hello from $SERVER_NAME"; exec "$@"\n')
    ringmaster = start(POOL.replace('command = ["{ringmaster}"', f'command = ["/bin/sh", "{script}", "{{ringmaster}}"') + HEALTH)
    shown = ringmaster.cli("logs", "Server 2")
    assert shown.returncode == 0 and shown.stdout == "hello from Server 2\n"
    missing = ringmaster.cli("logs", "Server 9")
    assert missing.returncode == 1 and "there is no replica 'Server 9'" in missing.stderr
    # And of one that has died.
    pid = next(r["pid"] for r in ringmaster.replicas() if r["name"] == "Server 2")
    os.kill(pid, signal.SIGKILL)
    until(lambda: "Server 2" not in ringmaster.rep()["replicas"])
    assert ringmaster.cli("logs", "Server 2").stdout == "hello from Server 2\n"
