"""What `docker-compose up` brings up: S1 with containers that Ringmaster makes, S4 and S0 with servers that register themselves.

The image is made of the binary that was built here; with LONG=1 it is built by deploy/Dockerfile, as users have it (minutes).
"""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

import pytest
from conftest import ROOT, SLOW, call, until
from docker_engine import TAG, build_image, docker, needs_docker

LONG = os.environ.get("LONG") == "1"
pytestmark = [needs_docker,
              pytest.mark.skipif(shutil.which("docker-compose") is None, reason="SKIPPED: docker-compose is not installed: ./dev setup docker installs it"),
              pytest.mark.skipif(SLOW > 1, reason="the images hold the release build: nothing is learnt from running them again")]


def dockerfile_end():
    """The last stage of deploy/Dockerfile, with the binary from TAG."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    end = text[text.rindex("FROM runtime"):].replace("FROM runtime", f"FROM {TAG}").replace("COPY deploy/", "COPY ")
    return re.sub("COPY --from=build.*\n", "", end)


@pytest.fixture(scope="module", autouse=True)
def image():
    if docker("network", "ls", "-q", "--filter", "name=^ringmaster$"):
        pytest.skip("SKIPPED: there is a network called ringmaster already: is the demo running?")
    build_image()
    if LONG:
        subprocess.run(["docker-compose", "build"], cwd=ROOT, check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        for config in (ROOT / "deploy").glob("*.toml"):
            shutil.copy(config, folder)
        open(folder + "/Dockerfile", "w").write(dockerfile_end())
        docker("build", "-q", "-t", "ringmaster", folder)


class Project:
    def __init__(self, file):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.at = s.getsockname()
        self.file = file

    def up(self):
        self.compose("up", "-d", "--no-build")

    def compose(self, *arguments, check=True):
        done = subprocess.run(["docker-compose", "-p", "ringmaster-e2e", "-f", str(ROOT / self.file), *arguments], capture_output=True, text=True,
                              env={**os.environ, "RINGMASTER_PORT": str(self.at[1])})
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def call(self, method, path, body=None):
        try:
            return call(self.at, method, path, body)
        except (OSError, subprocess.SubprocessError):
            return None
        except Exception:  # a connection that docker-proxy takes and ends before the server listens
            return None

    def serves(self, path="/home"):
        answer = self.call("GET", path)
        return answer is not None and answer.status == 200


@pytest.fixture
def project():
    running = []

    def begin(file):
        running.append(Project(file))
        running[-1].up()
        return running[-1]

    yield begin
    for one in running:
        one.compose("down", "-v", "-t", "30")


def test_s1_on_port_5000_and_nothing_left_after_down(project):
    demo = project("compose.yaml")
    until(demo.serves, 60)
    assert demo.call("GET", "/rep").text == '{"message":{"N":3,"replicas":["Server1","Server2","Server3"]},"status":"successful"}'
    answer = demo.call("POST", "/add", '{"n":4,"hostnames":["S5","S4","S10","S11"]}')
    assert answer.text == '{"message":{"N":7,"replicas":["Server1","Server2","Server3","S5","S4","S10","S11"]},"status":"successful"}'
    answer = demo.call("DELETE", "/rm", '{"n":3,"hostnames":["S5","S4"]}')
    assert answer.status == 200 and answer.json["message"]["N"] == 4
    assert demo.call("GET", "/heartbeat").status == 200
    other = demo.call("GET", "/other")
    assert (other.status, other.text) == (400, '{"message":"<Error> \'/other\' endpoint does not exist in server replicas","status":"failure"}')
    # A server dies, then Ringmaster itself, by SIGKILL: it takes its containers over.
    victim = answer.json["message"]["replicas"][0]
    docker("kill", victim)

    def replicas():
        """Once all are ready."""
        status = demo.compose("exec", "-T", "ringmaster", "ringmaster", "status", "--json", check=False)
        found = json.loads(status)["pools"][0]["replicas"] if status.startswith("{") else []
        return {r["name"]: r["container"] for r in found} if found and all(r["state"] == "ready" for r in found) else {}

    before = until(lambda: (now := replicas()) and victim not in now and len(now) == 4 and now, 30)
    demo.compose("kill", "-s", "SIGKILL", "ringmaster")
    demo.compose("up", "-d", "--no-build")
    assert until(replicas, 60) == before
    status = demo.compose("exec", "-T", "ringmaster", "ringmaster", "status", "--json")
    # The engine has no rights, and no Docker.
    pid = str(json.loads(status)["engine"]["pid"])
    assert "CapEff:\t0000000000000000" in demo.compose("exec", "-T", "ringmaster", "cat", f"/proc/{pid}/status")
    # Killed, taken down, and started again: its state tells it what is its own, and so the network can go in the end.
    demo.compose("kill", "-s", "SIGKILL", "ringmaster")
    demo.compose("down", check=False)
    demo.up()
    assert until(replicas, 60) == before
    demo.compose("down", "-t", "30")
    assert not docker("ps", "-aq", "--filter", "label=io.ringmaster.pool=web", "--filter", "ancestor=ringmaster")
    assert not docker("network", "ls", "-q", "--filter", "name=^ringmaster$")


def test_s4_servers_register_and_one_is_stopped_and_comes_back(project):
    demo = project("deploy/compose-s4.yaml")
    active = lambda: demo.serves("/servers") and sorted(s["name"] for s in demo.call("GET", "/servers").json["message"]["servers"] if s["active"])
    until(lambda: active() == ["Server 1", "Server 2"], 60)
    assert demo.call("GET", "/prime/524287").text == '{"number":524287,"prime":true}'
    for act, left in ((("stop",), ["Server 1"]), (("start",), ["Server 1", "Server 2"]), (("kill", "-s", "SIGKILL"), ["Server 1"]), (("start",), ["Server 1", "Server 2"])):
        demo.compose(*act, "server2")
        for _ in range(10):
            assert demo.call("GET", "/home").status == 200
        until(lambda: demo.call("GET", "/home") and active() == left, 30)


def test_s0_a_master_and_two_slaves(project):
    demo = project("deploy/compose-s0.yaml")
    until(lambda: demo.serves("/servers") and sum(s["active"] for s in demo.call("GET", "/servers").json["message"]["servers"]) == 2, 60)
    submit = lambda expression: demo.call("POST", "/tasks", json.dumps({"expression": expression}))
    answers = [submit("sleep(3)+1") for _ in range(3)]
    assert [a.status for a in answers] == [202, 202, 503]
    assert {a.json["task"]["slave"] for a in answers[:2]} == {"Slave 1", "Slave 2"}
    done = lambda: [t["result"] for t in demo.call("GET", "/get-tasks").json["message"]["tasks"] if t["status"] == "done"]
    until(lambda: done() == [4, 4], 20)
