"""A real Docker engine for the tests that need one, and what they put there: an image of the binary, names that nobody else has."""
import json
import pathlib
import shutil
import subprocess
import tempfile
import uuid

import pytest
from conftest import BINARY, ROOT

TAG = "ringmaster-e2e"


def docker(*arguments, check=True, **options):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def answers():
    return shutil.which("docker") is not None and subprocess.run(["docker", "version"], capture_output=True).returncode == 0


needs_docker = pytest.mark.skipif(not answers(), reason="SKIPPED: no Docker engine answers here; `./dev engine COMMAND` starts one (as root)")


def build_image():
    """The program in an image: what deploy/Dockerfile's first stage has, and the binary that was built here.

    Servers in containers are of the release build, if there is one: a sanitizer's runtime is not in the image.
    """
    subprocess.run([str(ROOT / "dev"), "base-image"], check=True, stdout=subprocess.DEVNULL)
    docker("build", "-q", "--target", "runtime", "-f", str(ROOT / "deploy/Dockerfile"), "-t", TAG + "-runtime", str(ROOT))
    release = ROOT / "build/release/ringmaster"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(release if release.exists() else BINARY, folder + "/ringmaster")
        pathlib.Path(folder, "Dockerfile").write_text(f'FROM {TAG}-runtime\nCOPY ringmaster /usr/local/bin/\nENTRYPOINT ["ringmaster"]\n')
        docker("build", "-q", "-t", TAG, folder)


class Playground:
    """A network of its own, and the end of everything in it."""

    def __init__(self):
        self.network = "rm-e2e-" + uuid.uuid4().hex[:8]

    def containers(self, running=True):
        """Of our networks' Ringmasters: name → description."""
        ids = docker("ps", "-q", "--no-trunc", *([] if running else ["-a"]), "--filter", "label=io.ringmaster.instance", "--filter", f"network={self.network}").split()
        return {one["Name"][1:]: one for one in json.loads(docker("inspect", *ids))} if ids else {}

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
