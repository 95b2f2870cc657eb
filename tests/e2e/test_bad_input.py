"""Faults of configuration, machine, clients and servers: each says so in one line, and nothing hangs or is lost."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from conftest import BINARY, HEALTH, POOL, ROOT, SLOW, Clients, alive, call, children_of, free_port, until


def run(*arguments, **options):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=20 * SLOW, **options)


def test_configuration_faults_are_named_all_at_once(directory):
    path = pathlib.Path(directory) / "bad.toml"
    path.write_text('listner = 1\n[[listener]]\naddress = "127.0.0.1"\npool = "web"\n[pool.web]\ncommand = []\nreplicas = "three"\n')
    for command in (["check", str(path)], ["up", "--config", str(path)]):
        result = run(*command)
        assert result.returncode == 2
        lines = result.stderr.splitlines()
        assert [line.split(":")[1] for line in lines] == ["1", "3", "5", "7"], result.stderr
        assert all(line.startswith(f"{path}:") for line in lines)


def test_usage_errors_exit_with_2_and_help_with_0():
    assert run("nonsense").returncode == 2
    assert run().returncode == 2
    assert run("up", "--config", "/nonexistent.toml").returncode == 2
    for command in ([], ["up"], ["check"], ["replica"], ["status"], ["add"], ["rm"], ["stop"]):
        result = run(*command, "--help")
        assert result.returncode == 0 and "Example" in result.stdout, command
    assert run("--version").stdout.startswith("ringmaster ")


def test_the_shipped_configurations_have_no_faults():
    for name in ("demo", "classic", "reference"):
        result = run("check", str(ROOT / f"config/{name}.toml"))
        assert result.returncode == 0 and "no faults" in result.stdout


def test_a_port_in_use_is_said_in_one_line(directory, start):
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        ringmaster = start(POOL.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1) + HEALTH, wait=False)
        assert ringmaster.process.wait(10 * SLOW) == 1
        assert len(ringmaster.log.splitlines()) <= 2 and f"listen on 127.0.0.1:{port}: Address already in use" in ringmaster.log
    ringmaster.start()
    ringmaster.process.returncode = None


def test_a_second_ringmaster_does_not_share_the_port_silently(ringmaster, directory):
    port = ringmaster.traffic[0][1]
    other = pathlib.Path(directory) / "other.toml"
    other.write_text(f'state_dir = "{directory}/other"\n' + POOL.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1) + HEALTH)
    result = run("up", "--config", str(other))
    assert result.returncode == 1 and "Address already in use" in result.stderr


def test_a_second_master_on_the_same_state_directory_is_refused(ringmaster):
    result = run("up", "--config", str(ringmaster.config))
    assert result.returncode == 1 and "another Ringmaster runs with the state directory" in result.stderr
    assert ringmaster.get("/home").status == 200


def test_a_command_that_does_not_exist_is_said_and_backs_off(start):
    ringmaster = start(POOL.replace('"{ringmaster}", "replica"', '"no-such-program"') + HEALTH, wait=False)
    until(lambda: "command 'no-such-program' does not exist" in ringmaster.log, what="the line")
    addresses = pathlib.Path(ringmaster.directory) / "state/addresses.json"
    found = json.loads(until(lambda: addresses.exists() and addresses.read_text()))
    admin = found["admin"].split(":")
    traffic = found["listeners"][0].split(":")
    until(lambda: {r["state"] for r in call((admin[0], int(admin[1])), "GET", "/v1/pools/web").json["replicas"]} == {"backing_off"}, what="backing off")
    answer = call((traffic[0], int(traffic[1])), "GET", "/home")
    assert answer.status == 503 and answer.json["status"] == "failure"
    assert call((traffic[0], int(traffic[1])), "GET", "/rep").json["message"]["N"] == 3
    assert call((traffic[0], int(traffic[1])), "DELETE", "/rm", '{"n":3}').json["message"]["N"] == 0
    until(lambda: call((admin[0], int(admin[1])), "GET", "/v1/pools/web").json["replicas"] == [], what="no ghosts")
    cpu = sum(float(x) for x in pathlib.Path(f"/proc/{ringmaster.process.pid}/stat").read_text().split()[13:15])
    assert cpu < 100 * SLOW, "the master spins"


def test_a_replica_that_never_becomes_healthy_does_not_stop_the_others(start):
    command = 'command = ["/bin/sh", "-c", "test $SERVER_ID = 2 && exec sleep 1000; exec \\"$0\\" replica --listen unix:{socket}", "{ringmaster}", "{socket}"]'
    config = POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]', command)
    ringmaster = start(config.replace("replicas = 3", 'replicas = 3\nready_timeout = "300ms"') + HEALTH, wait=False)
    addresses = pathlib.Path(ringmaster.directory) / "state/addresses.json"
    found = json.loads(until(lambda: addresses.exists() and addresses.read_text()))
    host, port = found["listeners"][0].split(":")
    until(lambda: "Server 2 (slot 2) is still not ready" in ringmaster.log, what="the line")
    until(lambda: call((host, int(port)), "GET", "/home").status == 200, what="the first answer")
    for _ in range(20):
        assert call((host, int(port)), "GET", "/home").status == 200


def test_a_full_disk_for_the_state_is_said_and_nothing_is_changed_until_there_is_room(small_disk, start):
    ringmaster = start()
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S4"]}').json["message"]["N"] == 4

    def seats():
        return [(r["slot"], r["epoch"], r["name"], r["pid"], r["state"]) for r in ringmaster.replicas()]

    before, shown = seats(), ringmaster.rep()
    saved = (small_disk.path / "desired.json").read_bytes()
    small_disk.fill()
    for method, path, name in (("POST", "/add", "S5"), ("DELETE", "/rm", "S4")):
        for _ in range(2):
            answer = ringmaster.call(method, path, json.dumps({"n": 1, "hostnames": [name]}))
            assert answer.status == 507 and answer.json["status"] == "failure", answer.text
            assert answer.json["message"] == "<Error> the change could not be saved, and was not made: see the log"
        assert seats() == before and ringmaster.rep() == shown
    problem = call(ringmaster.admin, "POST", "/v1/pools/web/replicas", '{"n":1}', {"Content-Type": "application/json"})
    assert problem.status == problem.json["status"] == 507 and "was not made" in problem.json["detail"], problem.text
    assert seats() == before and ringmaster.get("/home").status == 200
    assert ringmaster.log.count("the set of replicas could not be saved") == 1, "said once, not at each attempt"
    assert (small_disk.path / "desired.json").read_bytes() == saved
    # One that dies is replaced all the same.
    os.kill(before[0][3], signal.SIGKILL)
    until(lambda: (now := seats()[0])[1] > before[0][1] and now[4] == "ready", what="its successor")
    # And the next master has what was confirmed, and no more, though nothing could be written since; nobody is left of
    # the old one's, of whom the last could not be written down.
    family = children_of(ringmaster.process.pid)
    ringmaster.process.kill()
    ringmaster.process.wait()
    small_disk.free()
    ringmaster.start()
    kept = ringmaster.rep()
    assert kept["N"] == 4 and "S4" in kept["replicas"] and "S5" not in kept["replicas"], kept
    until(lambda: not any(alive(pid) for pid in family), what="the end of the old ones")


def test_once_a_full_disk_has_room_again_changes_are_made_and_kept(small_disk, start):
    ringmaster = start()
    small_disk.fill()
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S4"]}').status == 507
    small_disk.free()
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S4"]}').json["message"]["N"] == 4
    assert ringmaster.call("DELETE", "/rm", '{"n":1,"hostnames":["Server 2"]}').json["message"]["N"] == 3
    assert ringmaster.log.count("is saved again") == 1
    ringmaster.process.kill()
    ringmaster.process.wait()
    ringmaster.start()
    assert ringmaster.rep() == {"N": 3, "replicas": ["Server 1", "Server 3", "S4"]}


def test_a_start_on_a_full_disk_is_no_failure(small_disk, start):
    # With ports that are known: its addresses cannot be written down.
    traffic, admin = free_port(), free_port()
    small_disk.fill()
    config = POOL.replace("127.0.0.1:0", f"127.0.0.1:{traffic}", 1).replace("127.0.0.1:0", f"127.0.0.1:{admin}", 1)
    ringmaster = start(config + HEALTH, wait=False)
    ringmaster.traffic, ringmaster.admin = [("127.0.0.1", traffic)], ("127.0.0.1", admin)
    until(ringmaster.serves, what="all replicas ready")
    until(lambda: "the set of replicas could not be saved" in ringmaster.log, what="a line in the log")
    assert ringmaster.get("/home").status == 200 and ringmaster.rep()["N"] == 3
    assert ringmaster.call("DELETE", "/rm", '{"n":1}').status == 507
    small_disk.free()
    assert ringmaster.call("DELETE", "/rm", '{"n":1}').json["message"]["N"] == 2


def test_a_state_file_that_cannot_be_written_at_the_start_is_said_and_serving_goes_on(start, directory):
    # A directory where the file should be: no write of it can succeed.
    state = pathlib.Path(directory) / "state"
    (state / "desired.json.new").mkdir(parents=True)
    ringmaster = start()
    until(lambda: "the set of replicas could not be saved" in ringmaster.log, what="a line in the log")
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S4"]}').status == 507
    assert ringmaster.rep()["N"] == 3 and ringmaster.get("/home").status == 200
    (state / "desired.json.new").rmdir()
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["S4"]}').json["message"]["N"] == 4
    until(lambda: "is saved again" in ringmaster.log, what="a line in the log")


def test_a_damaged_state_file_is_set_aside(ringmaster):
    ringmaster.stop()
    state = ringmaster.directory / "state"
    (state / "desired.json").write_text("{ not json")
    ringmaster.start()
    assert ringmaster.rep()["N"] == 3
    until(lambda: "is damaged" in ringmaster.log, what="a line in the log")
    assert (state / "desired.json.damaged").read_text() == "{ not json"


def serve_raw(answers):
    """A server script for a pool's command that answers each request with fixed bytes (and /heartbeat properly)."""
    return f"""
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
ANSWERS = {answers!r}
def serve(connection):
    with connection:
        data = b""
        while True:
            while b"\\r\\n\\r\\n" not in data:
                piece = connection.recv(65536)
                if not piece: return
                data += piece
            path = data.split(b" ")[1].decode()
            data = data.split(b"\\r\\n\\r\\n", 1)[1]
            if path == "/heartbeat":
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
                continue
            connection.sendall(ANSWERS[path].encode("latin-1"))
            if path.startswith("/close"): return
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


GARBAGE = {
    "/garbage": "SSH-2.0-OpenSSH\r\n\r\n",
    "/both": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "/badlength": "HTTP/1.1 200 OK\r\nContent-Length: 3x\r\n\r\nabc",
    "/fold": "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "/nul": "HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n",
    "/status": "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
    "/switch": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "/hugehead": "HTTP/1.1 200 OK\r\nA: " + "x" * 20000 + "\r\n\r\n",
    "/close-early": "HTTP/1.1 200 OK\r\nCont",
}


@pytest.fixture
def raw(start, directory):
    answers = dict(GARBAGE)
    answers["/extra"] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    answers["/close-short"] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    answers["/badchunk"] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"
    answers["/flood"] = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 40
    answers["/fine"] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
    answers["/hints"] = "HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
    answers["/close-until"] = "HTTP/1.0 200 OK\r\n\r\nuntil the end"
    script = pathlib.Path(directory) / "raw.py"
    script.write_text(serve_raw(answers))
    return start(POOL.replace('"{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"', f'"{sys.executable}", "{script}", "{{port}}"')
                 .replace("replicas = 3", "replicas = 2").replace("classic = true", "classic = true\nerror_detail = true") + HEALTH)


def test_garbage_from_a_replica_is_a_502_that_says_why(raw):
    for path in GARBAGE:
        answer = raw.get(path)
        assert answer.status == 502 and answer.json["status"] == "failure", (path, answer.status)
        assert "failed: " in answer.json["message"], answer.json


def test_a_flood_of_interim_responses_ends_in_a_502(raw):
    with socket.create_connection(raw.traffic[0], timeout=10) as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.count(b"HTTP/1.1 103 ") <= 34 and answer.count(b"HTTP/1.1 502 ") == 1 and b"too many interim" in answer


def test_bytes_after_a_response_never_reach_the_next_client(raw):
    for _ in range(20):
        assert raw.get("/extra").body == b"ok"
        assert raw.get("/fine").body == b"fine"


def test_a_body_that_is_cut_off_is_never_a_clean_end(raw):
    for path in ("/close-short", "/badchunk"):
        with socket.create_connection(raw.traffic[0], timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            answer = b""
            with pytest.raises(ConnectionResetError):
                while piece := connection.recv(65536):
                    answer += piece
                raise AssertionError(f"a clean end after {answer!r}")


def test_interim_responses_and_bodies_without_a_length_pass(raw):
    with socket.create_connection(raw.traffic[0], timeout=10) as connection:
        connection.sendall(b"GET /hints HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\nHTTP/1.1 200 OK\r\n") and answer.endswith(b"fine")
    assert raw.get("/close-until").text == "until the end"


def test_a_client_that_leaves_in_the_middle_of_a_body_holds_nothing(ringmaster):
    for _ in range(20):
        with socket.create_connection(ringmaster.traffic[0]) as connection:
            connection.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhalf")
    until(lambda: sum(r["in_flight"] for r in ringmaster.replicas()) == 0, what="nothing in flight")
    with socket.create_connection(ringmaster.traffic[0]) as connection:
        connection.sendall(b"GET /sleep/30000 HTTP/1.1\r\nHost: h\r\n\r\n")
        until(lambda: sum(r["in_flight"] for r in ringmaster.replicas()) == 1, what="the request in flight")
    until(lambda: sum(r["in_flight"] for r in ringmaster.replicas()) == 0, what="nothing in flight")
    assert ringmaster.get("/home").status == 200


def test_large_bodies_stream_both_ways(ringmaster):
    body = os.urandom(3_000_000).hex().encode()
    answer = ringmaster.call("POST", "/echo", body)
    assert answer.status == 200 and answer.json["body"].encode() == body

    def chunks():
        for start in range(0, len(body), 70000):
            yield body[start:start + 70000]

    answer = ringmaster.call("PUT", "/echo", chunks())
    assert answer.status == 200 and answer.json["body"].encode() == body


def test_slow_clients_get_408_and_others_do_not_notice(start):
    ringmaster = start('[timeouts]\nhead = "300ms"\n' + POOL + HEALTH)
    slow = [socket.create_connection(ringmaster.traffic[0], timeout=10) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
    assert ringmaster.get("/home").status == 200
    for connection in slow:
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_connections_over_the_cap_wait_while_none_is_idle_and_the_admin_api_answers(start):
    ringmaster = start("workers = 1\nconnections_max = 10\n" + POOL + HEALTH)
    busy = [socket.create_connection(ringmaster.traffic[0]) for _ in range(10)]
    for connection in busy:
        connection.sendall(b"GET /home HTTP/1.1\r\n")
    waiting = socket.create_connection(ringmaster.traffic[0], timeout=10)
    waiting.sendall(b"GET /home HTTP/1.1\r\nHost: h\r\n\r\n")
    until(lambda: "newcomers wait" in ringmaster.log, what="the line")
    assert ringmaster.get_admin("/healthz") == {"status": "ok"}
    for connection in busy:
        connection.close()
    assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")
    waiting.close()


def test_the_admin_api_refuses_web_pages_and_other_hosts(ringmaster):
    for headers, status in (({"Origin": "http://evil.example"}, 403), ({"Host": "evil.example"}, 403), ({"Host": "localhost:1"}, 200)):
        assert call(ringmaster.admin, "GET", "/v1/status", headers=headers).status == status
    answer = call(ringmaster.admin, "POST", "/v1/pools/web/replicas", '{"n":1}')
    assert answer.status == 415 and answer.headers["Content-Type"] == "application/problem+json"
    answer = call(ringmaster.admin, "POST", "/v1/pools/nope/replicas", '{"n":1}', {"Content-Type": "application/json"})
    assert answer.status == 404 and answer.json["detail"] == "there is no pool 'nope'"
    assert call(ringmaster.admin, "GET", "/nothing").status == 404


def test_the_admin_api_cannot_be_reached_through_the_traffic_port(ringmaster):
    host, port = ringmaster.admin
    for request in (f"GET http://{host}:{port}/v1/status HTTP/1.1\r\nHost: h\r\n\r\n", f"GET /v1/status HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"):
        with socket.create_connection(ringmaster.traffic[0], timeout=10) as connection:
            connection.sendall(request.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_the_command_line_drives_it(ringmaster):
    status = ringmaster.cli("status")
    assert status.returncode == 0 and "Server 1" in status.stdout and "3 of 3 ready" in status.stdout
    assert ringmaster.cli("add", "2", "S5", "S4").stdout == "pool web has 5 replicas: Server 1, Server 2, Server 3, S5, S4\n"
    assert ringmaster.cli("rm", "1", "S5").stdout == "pool web has 4 replicas: Server 1, Server 2, Server 3, S4\n"
    refused = ringmaster.cli("rm", "1", "nobody")
    assert refused.returncode == 1 and "there is no server 'nobody'" in refused.stderr
    assert ringmaster.cli("stop").returncode == 0
    assert ringmaster.process.wait(20 * SLOW) == 0
    gone = ringmaster.cli("status")
    assert gone.returncode == 1 and "is Ringmaster running?" in gone.stderr


@pytest.mark.parametrize("listen", ["listen_fds", "port"])
def test_replicas_can_inherit_a_socket_or_take_a_port(start, listen):
    command = '"{ringmaster}", "replica"'
    extra = "listen_fds = true" if listen == "listen_fds" else ""
    ringmaster = start(POOL.replace('"{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"', command).replace("replicas = 3", "replicas = 3\n" + extra) + HEALTH)
    assert ringmaster.get("/home").status == 200
    assert all(r["endpoint"].startswith("unix:" if listen == "listen_fds" else "127.0.0.1:") for r in ringmaster.replicas())


def test_the_demo_server_answers_as_the_contract_says(ringmaster):
    assert ringmaster.get("/prime/524287").text == '{"number":524287,"prime":true}'
    assert ringmaster.get("/prime/6700417").text == '{"number":6700417,"prime":true}'
    assert ringmaster.get("/prime/1").text == '{"number":1,"prime":false}'
    assert ringmaster.get("/available").text == '{"available":true,"message":"I am available."}'
    assert (ringmaster.get("/health_check").status, ringmaster.get("/health_check").body) == (200, b"")
    assert ringmaster.get("/prime/x").status == ringmaster.get("/prime/-1").status == ringmaster.get("/sleep/99999999").status == 400
    # A long calculation does not keep its server from answering checks.
    with Clients() as clients:
        clients.begin(ringmaster.get, "/prime/2305843009213693951")
        for _ in range(30):
            assert ringmaster.get("/heartbeat").status == 200
        [slow] = clients.join()
    assert slow.text == '{"number":2305843009213693951,"prime":true}'


def test_replicas_see_their_environment_directory_and_limits(start, directory):
    script = "echo id=$SERVER_ID name=$SERVER_NAME colour=$COLOUR secret=$SECRET dir=$(pwd) files=$(ulimit -n) fds=$(ls /proc/self/fd | wc -l); exec {ringmaster} replica --listen unix:{socket}"
    config = POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                          f'command = ["/bin/sh", "-c", "{script}", "{{socket}}"]\ndirectory = "{directory}"')
    os.environ["SECRET"] = "s"
    try:
        ringmaster = start(config + HEALTH + '[pool.web.environment]\nCOLOUR = "blue"\n[pool.web.limits]\nopen_files = 123\n')
    finally:
        del os.environ["SECRET"]
    assert f"[Server 2] id=2 name=Server 2 colour=blue secret= dir={directory} files=123 fds=4" in ringmaster.log
