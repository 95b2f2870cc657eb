"""A real Docker engine for the tests that need one, and what they put there: an image of the binary, names that nobody else has."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid

import pytest
from conftest import BINARY, ROOT, until

TAG = "ringmaster-e2e"


def docker(*arguments, check=True, **options):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def answers():
    try:
        return shutil.which("docker") is not None and subprocess.run(["docker", "version"], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


needs_docker = pytest.mark.skipif(not answers(), reason="SKIPPED: no Docker engine answers here; `./dev engine COMMAND` starts one (as root)")


def build_image():
    """The program in an image: what deploy/Dockerfile's first stage has, and the binary that was built here.

    Servers in containers are of the release build, if there is one: a sanitizer's runtime is not in the image.
    """
    left = docker("ps", "-aq", "--filter", f"ancestor={TAG}").split()  # by tests that were broken off
    if left:
        docker("rm", "-f", *left)
    subprocess.run([str(ROOT / "dev"), "base-image"], check=True, stdout=subprocess.DEVNULL)
    docker("build", "-q", "--target", "runtime", "-f", str(ROOT / "deploy/Dockerfile"), "-t", TAG + "-runtime", str(ROOT))
    release = ROOT / "build/release/ringmaster"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(release if release.exists() else BINARY, folder + "/ringmaster")
        pathlib.Path(folder, "Dockerfile").write_text(f'FROM {TAG}-runtime\nCOPY ringmaster /usr/local/bin/\nENTRYPOINT ["ringmaster"]\n')
        docker("build", "-q", "-t", TAG, folder)


class OwnEngine:
    """A Docker engine of the test's own, to be stopped and started; its data are in memory, `size` of it.

    It lives in a network namespace, so that it leaves the bridges of the machine's own engine alone; its containers are reached by sockets.
    """

    def __init__(self, directory, size="700m"):
        self.home = pathlib.Path(directory) / "docker"
        self.home.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.home)], check=True)
        self.socket = f"unix://{self.home}/d.sock"
        self.process = None
        self.start()
        save = subprocess.Popen(["docker", "save", TAG], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", self.socket, "load", "-q"], stdin=save.stdout, check=True, capture_output=True)
        assert save.wait() == 0

    def start(self):
        self.process = subprocess.Popen(["unshare", "--net", "dockerd", "-H", self.socket, "--data-root", str(self.home / "data"), "--exec-root", str(self.home / "exec"), "-p",
                                         str(self.home / "pid"), "--bridge=none", "--iptables=false", "--ip-masq=false"], stdout=subprocess.DEVNULL, stderr=open(self.home / "log", "ab"))
        until(lambda: self.run("version", check=False).returncode == 0, 60, "the second Docker engine")

    def run(self, *arguments, check=True):
        done = subprocess.run(["docker", "-H", self.socket, *arguments], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        for pid in (self.home / "pid", self.home / "exec/containerd/containerd.pid"):
            pid.unlink(missing_ok=True)

    def end(self):
        if self.process.poll() is None:
            ids = self.run("ps", "-aq", check=False).stdout.split()
            if ids:
                self.run("rm", "-f", *ids, check=False)
            for network in self.run("network", "ls", "-q", "--filter", "type=custom", check=False).stdout.split():
                self.run("network", "rm", network, check=False)
            self.stop()
        until(lambda: subprocess.run(["umount", "-R", str(self.home)], capture_output=True).returncode == 0 or not os.path.ismount(self.home), 20)


class Playground:
    """A network of its own, and the end of everything in it."""

    def __init__(self):
        self.network = "rm-e2e-" + uuid.uuid4().hex[:8]

    def containers(self, running=True):
        """Of our networks' Ringmasters: name → description."""
        ids = docker("ps", "-q", "--no-trunc", *([] if running else ["-a"]), "--filter", "label=io.ringmaster.instance", "--filter", f"network={self.network}").split()
        # One may be removed between the two calls: then it's missing in the answer.
        return {one["Name"][1:]: one for one in json.loads(docker("inspect", *ids, check=False) or "[]")} if ids else {}

    def clean(self):
        for one in self.containers(running=False).values():
            docker("rm", "-f", one["Id"], check=False)
        docker("network", "rm", self.network, check=False)


def pool(network, extra="", container="", listener="classic = true", replicas=3, key='key = "request_id"'):
    return f"""
[[listener]]
address = "127.0.0.1:0"
pool = "web"
{listener}
[admin]
address = "127.0.0.1:0"
[pool.web]
image = "{TAG}"
replicas = {replicas}
{key}
ready_timeout = "30s"
{extra}
[pool.web.container]
network = "{network}"
command = ["replica", "--listen", "0.0.0.0:{{port}}", "--name", "{{name}}"]
{container}
[pool.web.health]
path = "/heartbeat"
"""
