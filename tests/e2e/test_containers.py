"""Replicas as containers, with a real Docker engine: CONTRACT S1 to S3, kills under load, adoption, and what may be in the way."""
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socketserver
import statistics
import subprocess
import threading
import time

import pytest
import test_classic_api
from conftest import BINARY, HEALTH, SLOW, Ringmaster, call, until
from docker_engine import TAG, OwnEngine, Playground, build_image, docker, needs_docker, pool
from test_availability import Wrk

pytestmark = needs_docker
LONG = os.environ.get("LONG") == "1"


@pytest.fixture(scope="session", autouse=True)
def image():
    build_image()


@pytest.fixture
def ground():
    made = Playground()
    yield made
    left = made.containers(running=False)
    made.clean()
    assert not left, f"containers were left: {list(left)}"


@pytest.fixture
def begin(ground, start):
    """begin(…) → a Ringmaster whose servers are containers; the arguments are pool()'s."""

    def begin(wait=True, **options):
        ringmaster = start(pool(ground.network, **options), wait=False)
        ringmaster.first = ("Server1", "Server2", "Server3")
        if wait:
            settle(ringmaster)
        return ringmaster

    yield begin


def settle(ringmaster):
    """Until its addresses are known and all are ready."""
    addresses = ringmaster.directory / "state/addresses.json"
    until(lambda: addresses.exists() or ringmaster.process.poll() is not None, what="addresses.json")
    assert ringmaster.process.poll() is None, ringmaster.log
    found = json.loads(addresses.read_text())
    split = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
    ringmaster.admin = split(found["admin"])
    ringmaster.traffic = [split(text) for text in found["listeners"]]
    until(ringmaster.serves, 60, "all containers ready")


@pytest.fixture
def ringmaster(begin):
    return begin()


# --- S1 to S3, line by line, against containers ---

if SLOW == 1:  # the lines are the same in a sanitizer build; what differs by containers is below
    test_home_and_heartbeat = test_classic_api.test_home_and_heartbeat
    test_rep_and_get_list_every_slot = test_classic_api.test_rep_and_get_list_every_slot
    test_add_and_rm_to_the_letter = test_classic_api.test_add_and_rm_to_the_letter
    test_s3_names = test_classic_api.test_s3_names
    test_freed_slots_are_refilled = test_classic_api.test_missing_names_are_random_and_freed_slots_are_refilled_lowest_first
    test_other_paths_and_methods = test_classic_api.test_other_paths_and_methods
    test_bad_input_changes_nothing = test_classic_api.test_bad_input_changes_nothing
    test_rm_of_all_and_starting_with_none = test_classic_api.test_rm_of_all_and_starting_with_none


# --- what a container is ---

def test_a_container_has_its_name_its_labels_and_no_rights(begin, ground):
    ringmaster = begin(container='memory = "64MiB"\ncpus = 0.5\nprocesses_max = 50\n', extra='environment = {GREETING = "hello"}')
    containers = ground.containers()
    assert set(containers) == {"Server1", "Server2", "Server3"}
    one = containers["Server2"]
    assert one["Config"]["Hostname"] == "Server2" and "SERVER_ID=2" in one["Config"]["Env"] and "GREETING=hello" in one["Config"]["Env"]
    labels = one["Config"]["Labels"]
    assert (labels["io.ringmaster.pool"], labels["io.ringmaster.slot"], labels["io.ringmaster.name"]) == ("web", "2", "Server2")
    host = one["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"] and "no-new-privileges=true" in host["SecurityOpt"] and not host["Privileged"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    assert "Server2" in one["NetworkSettings"]["Networks"][ground.network]["Aliases"]
    shown = {r["name"]: r for r in ringmaster.replicas()}["Server2"]
    assert shown["container"] == one["Id"] and shown["origin"] == "container" and shown["pid"] == 0
    # What it does with its rights: none.
    status = docker("exec", "Server2", "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert docker("exec", "Server2", "sh", "-c", "touch /x 2>&1 || echo refused").endswith("refused")


HOSTILE = [
    {"n": 1, "hostnames": ["x"], "image": "evil", "HostConfig": {"Privileged": True}},
    {"n": 1, "hostnames": ["x"], "Image": "evil", "Binds": ["/:/host"], "Cmd": ["sh"]},
    {"n": 1, "hostnames": ["x"], "container": {"user": "0:0", "mounts": ["/:/host"]}, "command": ["sh", "-c", "id"]},
    {"n": 1, "hostnames": ["x"], "environment": {"LD_PRELOAD": "/x.so"}, "network": "host"},
]
BAD_NAMES = ["a b", "x", "../../x", "a/b", "-x", "x?force=1", "x&name=y", "x%2e", "x\nHost: y", "x\x00", "", "y" * 64, "a\"},\"Privileged\":true", None, {"a": 1}]


def test_no_request_can_give_a_container_a_setting(ringmaster, ground):
    for body in HOSTILE:
        body["hostnames"] = ["hostile"]
        answer = ringmaster.call("POST", "/add", json.dumps(body))
        assert answer.status == 200, answer.text  # members that nobody asked for mean nothing
        one = ground.containers()["hostile"]
        plain = ground.containers()["Server1"]
        for part in ("Image", "User", "Entrypoint"):
            assert one["Config"][part] == plain["Config"][part]
        assert one["Config"]["Cmd"] == [word.replace("Server1", "hostile") for word in plain["Config"]["Cmd"]]
        assert {k: v for k, v in one["HostConfig"].items()} == {k: v for k, v in plain["HostConfig"].items()}
        env = lambda c: sorted(e for e in c["Config"]["Env"] if not e.startswith("SERVER_"))
        assert env(one) == env(plain) and one["Mounts"] == plain["Mounts"]
        assert ringmaster.call("DELETE", "/rm", '{"n":1,"hostnames":["hostile"]}').status == 200
    for name in BAD_NAMES:
        answer = ringmaster.call("POST", "/add", json.dumps({"n": 1, "hostnames": [name]}))
        assert answer.status == 400 and answer.json["message"].startswith("<Error> "), (name, answer.text)
    for path in ("/containers/json", "/v1.41/containers/create?name=evil", "/../var/run/docker.sock"):
        assert ringmaster.call("POST", path, json.dumps({"Image": TAG})).status in (400, 403)
    assert ringmaster.rep() == {"N": 3, "replicas": ["Server1", "Server2", "Server3"]}
    until(lambda: set(ground.containers()) == set(ringmaster.first))


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: only root can start an engine as another user")
def test_only_the_master_has_dockers_socket(ground, start):
    ringmaster = start('engine_user = "nobody"\n' + pool(ground.network, replicas=1), wait=False)
    settle(ringmaster)
    engine = ringmaster.engine_pid()
    status = pathlib.Path(f"/proc/{engine}/status").read_text()
    assert re.search(r"Uid:\t(\d+)\t\1\t\1\t\1\n", status).group(1) != "0" and "CapEff:\t0000000000000000" in status and "Groups:\t \n" in status
    uid, gid = (int(re.search(rf"{key}:\t(\d+)", status).group(1)) for key in ("Uid", "Gid"))
    tried = subprocess.run(["/usr/bin/python3", "-c", "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')"],
                           user=uid, group=gid, extra_groups=[], capture_output=True, text=True)
    assert "PermissionError" in tried.stderr
    sockets = [os.readlink(f"/proc/{engine}/fd/{fd}") for fd in os.listdir(f"/proc/{engine}/fd")]
    inodes = {line.split()[6] for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:] if line.endswith("docker.sock")}
    assert not {s for s in sockets if s.startswith("socket:[") and s[8:-1] in inodes}
    assert ringmaster.get("/home").status == 200


# --- death ---

def serving(ringmaster, slot):
    return next((r for r in ringmaster.replicas() if r["slot"] == slot and r["state"] == "ready"), None)


@pytest.mark.measures
@pytest.mark.skipif(SLOW > 1, reason="a matter of time: measured with the release build")
@pytest.mark.skipif(shutil.which("h2load") is None, reason="SKIPPED: h2load is not installed: ./dev setup test installs it")
def test_no_request_fails_while_containers_are_killed(ringmaster):
    """docker kill of a random container every three seconds, at seven tenths of what it can do."""
    kills = 20 if LONG else 4
    rng = random.Random(5)
    rate = most_per_second(ringmaster)
    load = subprocess.Popen(["h2load", "--h1", "-c64", "-t1", f"--rps={0.7 * rate / 64:.2f}", f"-D{3 * kills + 2}", "http://%s:%d/home" % ringmaster.traffic[0]],
                            stdout=subprocess.PIPE, text=True)
    times = []
    for _ in range(kills):
        victim = rng.choice([r for r in ringmaster.replicas() if r["state"] == "ready"])
        docker("kill", victim["name"])
        began = time.monotonic()
        until(lambda: (now := serving(ringmaster, victim["slot"])) and now["epoch"] > victim["epoch"] and now["name"] != victim["name"], 20)
        times.append(time.monotonic() - began)
        assert ringmaster.rep()["N"] == 3
        time.sleep(max(0.0, 3 - (time.monotonic() - began)))
    text = load.communicate(timeout=60 * SLOW)[0]
    counted = re.search(r"requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    statuses = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    requests, bad = int(counted.group(1)), [int(n) for n in (*counted.groups()[1:], *statuses.groups())]
    print(f"\n{kills} times docker kill at 70 % of {rate:.0f} requests/s: {requests} requests, {sum(bad)} failed; "
          f"slot serves again after {1000 * statistics.median(times):.0f} ms (median), {1000 * max(times):.0f} ms (max)")
    assert sum(bad) == 0 and requests > 0.8 * 0.7 * rate * 3 * kills, text
    assert statistics.median(times) < 1 * SLOW
    assert sorted(r["slot"] for r in ringmaster.replicas()) == [1, 2, 3]


def most_per_second(ringmaster):
    load = Wrk(ringmaster.traffic[0], 2)
    requests, bad = load.result()
    assert not bad, bad
    return requests / 2


def test_docker_stop_and_rm_are_deaths_like_others(ringmaster, ground):
    for act in (["stop", "-t", "2"], ["rm", "-f"]):
        victim = ringmaster.replicas()[1]
        docker(*act, victim["name"])
        until(lambda: (now := serving(ringmaster, 2)) and now["epoch"] > victim["epoch"], 20)
        assert victim["name"] not in ringmaster.rep()["replicas"]
    until(lambda: len(ground.containers(running=False)) == 3)  # what has ended is removed


def test_too_much_memory_is_named_in_the_log(begin):
    if docker("info", "-f", "{{.MemoryLimit}}") != "true":
        pytest.skip("SKIPPED: this machine has no limits of memory for containers")
    eater = 'command = ["-c", "sleep 1; head -c 256M /dev/zero | tail"]'
    # The image's entry point is the program: a shell has to be asked for by another image.
    docker("build", "-q", "-t", TAG + "-shell", "-", input=f'FROM {TAG}\nENTRYPOINT ["/bin/sh"]\n')
    ringmaster = begin(wait=False, replicas=1, container='memory = "16MiB"\n')
    ringmaster.stop()
    text = ringmaster.config.read_text().replace(f'image = "{TAG}"', f'image = "{TAG}-shell"')
    ringmaster.config.write_text(re.sub(r"command = .*", eater, text))
    ringmaster.start(wait=False)
    until(lambda: "it needed more memory than it may have" in ringmaster.log, 30)


# --- the master dies; the configuration changes ---

def test_a_killed_masters_containers_are_taken_over(begin, ground):
    ringmaster = begin()
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["Extra"]}').status == 200
    before = {name: one["Id"] for name, one in ground.containers().items()}
    foreign = docker("run", "-d", "--network", ground.network, "--label", "io.ringmaster.instance=somebody-else", "--label", "io.ringmaster.pool=web", "--label",
                     "io.ringmaster.slot=1", TAG, "replica")
    ringmaster.process.kill()
    ringmaster.process.wait()
    ringmaster.start(wait=False)
    settle(ringmaster)
    ours = lambda: {name: one["Id"] for name, one in ground.containers().items() if one["Id"] != foreign}
    assert ours() == before and ringmaster.log.count("is taken over") == 4
    assert ringmaster.get("/home").status == 200
    # A death while nobody looked is found; what an older configuration made is removed; others' are left alone.
    ringmaster.process.kill()
    ringmaster.process.wait()
    docker("kill", "Server2")
    ringmaster.config.write_text(ringmaster.config.read_text().replace("[pool.web.container]", '[pool.web.container]\nprocesses_max = 99'))
    ringmaster.start(wait=False)
    settle(ringmaster)
    assert not set(ours().values()) & set(before.values()) and set(ours()) == set(before)
    assert foreign in {one["Id"] for one in ground.containers().values()}
    docker("rm", "-f", foreign)


def test_of_two_that_shared_a_name_the_one_that_stays_is_taken_over(begin, ground):
    """/rm, /add of the same name while the old one drains, and the master dies: the old one goes, the new one stays."""
    ringmaster = begin(replicas=1, extra='drain = "60s"')
    address = ringmaster.traffic[0]
    slow = threading.Thread(target=lambda: subprocess.run(["curl", "-s", "-m", "30", "http://%s:%d/sleep/20000" % address], capture_output=True), daemon=True)
    slow.start()
    until(lambda: ringmaster.replicas()[0]["in_flight"] == 1)
    assert ringmaster.call("DELETE", "/rm", '{"n":1,"hostnames":["Server1"]}').json["message"]["N"] == 0
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["Server1"]}').status == 200
    names = set(ground.containers())
    assert "Server1" in names and any(name.startswith("Server1.old-") for name in names)
    new = ground.containers()["Server1"]["Id"]
    ringmaster.process.kill()
    ringmaster.process.wait()
    ringmaster.start(wait=False)
    settle(ringmaster)
    until(lambda: {name: one["Id"] for name, one in ground.containers(running=False).items()} == {"Server1": new}, 20)
    assert ringmaster.get("/home").status == 200


def test_nothing_is_left_at_the_end(begin, ground):
    ringmaster = begin()
    assert docker("network", "ls", "-q", "--filter", f"name={ground.network}")
    assert ringmaster.stop() == 0
    assert not ground.containers(running=False)
    assert not docker("network", "ls", "-q", "--filter", f"name={ground.network}")


def test_a_network_that_is_removed_is_made_again(begin, ground):
    ringmaster = begin(replicas=2, extra='drain = "100ms"')
    for name in ("Server1", "Server2"):
        docker("network", "disconnect", "-f", ground.network, name)
    docker("network", "rm", ground.network)
    before = max(r["epoch"] for r in ringmaster.replicas())
    docker("kill", "Server1", "Server2")
    until(lambda: all(r["epoch"] > before and r["state"] == "ready" for r in ringmaster.replicas()), 30)
    assert ringmaster.get("/home").status == 200


# --- other ways to reach them ---

@pytest.mark.parametrize("reach", ["published", "socket"])
def test_reached_by_a_published_port_or_a_socket(begin, reach):
    if reach == "published":
        ringmaster = begin(container='reach = "published"')
    else:
        ringmaster = begin(wait=False)
        ringmaster.stop()
        ringmaster.config.write_text(ringmaster.config.read_text().replace("0.0.0.0:{port}", "unix:{socket}"))
        ringmaster.start(wait=False)
        settle(ringmaster)
    endpoints = [r["endpoint"] for r in ringmaster.replicas()]
    assert all(e.startswith("127.0.0.1:" if reach == "published" else "unix:") for e in endpoints), endpoints
    assert {ringmaster.get("/home").status for _ in range(30)} == {200}
    docker("kill", ringmaster.replicas()[0]["name"])
    until(lambda: (now := serving(ringmaster, 1)) and now["name"] != "Server1", 20)
    ringmaster.stop()
    assert not list((ringmaster.directory / "state/run").iterdir())


def test_a_container_cannot_lead_the_engine_to_another_socket(begin):
    """What it puts in the place of its socket is not followed: it could be Docker's."""
    ringmaster = begin(wait=False, replicas=1, container="")
    ringmaster.stop()
    ringmaster.config.write_text(ringmaster.config.read_text().replace("0.0.0.0:{port}", "unix:{socket}") + 'interval = "100ms"\nkill_after = "60s"\n')
    ringmaster.start(wait=False)
    settle(ringmaster)
    [path] = [pathlib.Path(r["endpoint"].removeprefix("unix:")) for r in ringmaster.replicas()]
    path.unlink()
    path.symlink_to("/var/run/docker.sock")
    answer = ringmaster.get("/_ping", timeout=20)
    assert answer.status in (502, 503) and "Api-Version" not in answer.headers, answer.text


def test_processes_and_containers_in_one_pool(begin, ground):
    ringmaster = begin(replicas=3, extra='command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]\ncontainers = 1\nweights = [1, 1, 2]',
                       key='policy = "weighted"')
    assert [r["origin"] for r in ringmaster.replicas()] == ["process", "process", "container"] and len(ground.containers()) == 1
    seen = [ringmaster.get("/home").json["message"][-1] for _ in range(400)]
    assert 150 < seen.count("3") < 250 and seen.count("1") > 50


def test_output_and_logs(begin):
    ringmaster = begin(replicas=1, container="")
    ringmaster.stop()
    text = ringmaster.config.read_text().replace('"replica", "--listen", "0.0.0.0:{port}"', '"replica", "--listen", "0.0.0.0:{port}", "--register", "http://127.0.0.1:1"')
    ringmaster.config.write_text(text)  # it will complain, on its standard error
    ringmaster.start(wait=False)
    settle(ringmaster)
    until(lambda: "cannot register with http://127.0.0.1:1" in ringmaster.cli("logs", "Server1").stdout)
    until(lambda: "[Server1]" in ringmaster.log, what="a line in the log")


# --- what may be in the way: one clear line each, and the rest goes on ---

def says(ringmaster, line):
    until(lambda: line in ringmaster.log, 30, line)
    assert ringmaster.process.poll() is None


def test_an_image_that_is_not_there(begin):
    ringmaster = begin()
    ringmaster.stop()
    ringmaster.config.write_text(ringmaster.config.read_text().replace(f'image = "{TAG}"', 'image = "127.0.0.1:1/no-such-image:1"'))
    ringmaster.start(wait=False)
    says(ringmaster, "the image '127.0.0.1:1/no-such-image:1' is not here, and cannot be pulled: ")
    assert ringmaster.log.count("is not here, and cannot be pulled") <= 6  # of three servers: not at every try


def test_a_name_that_a_foreign_container_has(begin, ground):
    foreign = docker("run", "-d", "--network", "none", "--name", "Server2", TAG, "replica")
    try:
        ringmaster = begin()
        says(ringmaster, "the name 'Server2' is taken by a container that is not ours")
        assert ringmaster.rep()["N"] == 3 and "Server2" not in ringmaster.rep()["replicas"]  # the slot is served under another name
        answer = ringmaster.call("POST", "/add", '{"n":1,"hostnames":["Server2"]}')
        assert answer.status == 500 and "did not become ready: Server2 (the name 'Server2' is taken by a container that is not ours)" in answer.text
        assert ringmaster.rep()["N"] == 3 and docker("inspect", "-f", "{{.State.Running}}", foreign) == "true"
    finally:
        docker("rm", "-f", foreign)


def test_a_container_that_ends_at_once_and_one_that_does_not_listen(begin):
    ringmaster = begin(replicas=2, extra="", container="")
    for argument, line in (('"no-such-command"', "with exit code"), ('"replica", "--listen", "127.0.0.1:9"', "is still not ready")):
        ringmaster.stop()
        ringmaster.config.write_text(re.sub(r"command = \[.*\]", f"command = [{argument}]", re.sub('ready_timeout = ".*"', 'ready_timeout = "1s"', ringmaster.config.read_text())))
        ringmaster.start(wait=False)
        says(ringmaster, line)


def test_a_network_of_another_ringmaster_is_not_used(begin, ground):
    docker("network", "create", "--label", "io.ringmaster.instance=somebody-else", ground.network)
    ringmaster = begin(wait=False)
    says(ringmaster, f"the network '{ground.network}' belongs to another Ringmaster")


def test_no_socket_no_permission_too_old_and_back(ground, start, directory):
    socket_path = pathlib.Path(directory) / "d.sock"
    ringmaster = start(f'docker = "unix:{socket_path}"\n' + pool(ground.network), wait=False)
    says(ringmaster, f"nobody listens at Docker's socket unix:{socket_path}: is Docker running?")

    class Old(http.server.BaseHTTPRequestHandler):
        version = "1.39"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Api-Version", self.version)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

        def address_string(self):
            return "unix"

        def log_message(self, *arguments):
            pass

    with socketserver.ThreadingUnixStreamServer(str(socket_path), Old) as old:
        threading.Thread(target=old.serve_forever, daemon=True).start()
        says(ringmaster, "Docker's API is too old: version 1.39; 1.40 is needed")
        old.shutdown()
    socket_path.unlink()
    socket_path.symlink_to("/var/run/docker.sock")
    until(lambda: (ringmaster.directory / "state/addresses.json").exists())
    settle(ringmaster)  # it is there again: no restart was needed
    assert ringmaster.log.count("nobody listens at Docker's socket") == 1


# --- an engine of our own: it is stopped, and its disk is full ---

OWN = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("dockerd") is None, reason="SKIPPED: a second Docker engine needs root and dockerd")
PROCESSES = """
[[listener]]
address = "127.0.0.1:0"
pool = "steady"
[pool.steady]
command = ["{ringmaster}", "replica", "--listen", "unix:{socket}"]
health = {path = "/heartbeat"}
"""


@pytest.fixture
def engine(directory):
    made = OwnEngine(directory)
    yield made
    made.end()


@OWN
def test_docker_itself_is_stopped_and_started_again(engine, ground, start):
    config = pool(ground.network).replace("0.0.0.0:{port}", "unix:{socket}")
    ringmaster = start(f'docker = "unix:{engine.home}/d.sock"\n' + config + PROCESSES, wait=False)
    settle(ringmaster)
    before = {r["slot"]: r["epoch"] for r in ringmaster.replicas()}
    foreign = engine.run("run", "-d", "--network", "none", "--restart", "always", TAG, "replica").stdout.strip()
    engine.stop()  # its containers end with it
    until(lambda: "nobody listens at Docker's socket" in ringmaster.log, 20)
    assert ringmaster.get("/home", listener=1).status == 200
    engine.start()
    until(lambda: all(r["state"] == "ready" and r["epoch"] > before[r["slot"]] for r in ringmaster.replicas()), 60)
    assert ringmaster.get("/home").status == 200
    until(lambda: "connected to Docker again" in ringmaster.log, what="a line in the log")
    left = engine.run("ps", "-aq", "--no-trunc").stdout.split()
    assert len(left) == 4 and foreign in left
    engine.run("rm", "-f", foreign)
    ringmaster.stop()
    assert not engine.run("ps", "-aq").stdout


@OWN
def test_a_disk_that_is_full_of_images(engine, ground, start):
    filler = engine.home / "data/filler"
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    config = pool(ground.network).replace("0.0.0.0:{port}", "unix:{socket}")
    ringmaster = start(f'docker = "unix:{engine.home}/d.sock"\n' + config + PROCESSES, wait=False)
    says(ringmaster, "no space left on device")
    until(lambda: (ringmaster.directory / "state/addresses.json").exists())
    found = json.loads((ringmaster.directory / "state/addresses.json").read_text())
    steady = found["listeners"][1].rsplit(":", 1)
    until(lambda: call((steady[0], int(steady[1])), "GET", "/home").status == 200)
    filler.unlink()
    settle(ringmaster)  # there is room again: no restart was needed
    assert ringmaster.rep() == {"N": 3, "replicas": ["Server1", "Server2", "Server3"]}
    ringmaster.stop()
