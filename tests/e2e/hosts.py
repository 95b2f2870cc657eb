"""Hosts of their own on this machine: network namespaces on a switch (a bridge in one more), each with a cable (a veth pair).

The test itself is on the network, too, as 10.77.N.254, so that it can be a client.
"""
import os
import pathlib
import shutil
import subprocess

import pytest


def run(*arguments, check=True):
    return subprocess.run(arguments, check=check, capture_output=True, text=True)


def works():
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("iptables") is None:
        return False
    name = f"rmtry{os.getpid()}"
    if run("ip", "netns", "add", name, check=False).returncode != 0:
        return False
    good = run("ip", "-n", name, "link", "add", "name", "try0", "type", "veth", "peer", "name", "try1", check=False).returncode == 0
    good = good and run("ip", "netns", "exec", name, "iptables", "-L", "-n", check=False).returncode == 0
    run("ip", "netns", "del", name, check=False)
    return good


needs_hosts = pytest.mark.skipif(not works(), reason="SKIPPED: network namespaces need root, iproute2 and iptables")


class Host:
    def __init__(self, network, number, name):
        self.network, self.number, self.name = network, number, name
        self.space = f"{network.prefix}{name}"
        self.address = f"10.77.{network.number}.{number}"
        self.processes = []
        run("ip", "netns", "add", self.space)
        run("ip", "-n", self.space, "link", "set", "lo", "up")
        run("ip", "-n", network.switch, "link", "add", "name", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", self.space)
        run("ip", "-n", network.switch, "link", "set", f"p{number}", "master", "br0", "up")
        run("ip", "-n", self.space, "addr", "add", self.address + "/24", "dev", "eth0")
        run("ip", "-n", self.space, "link", "set", "eth0", "up")

    def start(self, *command, log=None):
        process = subprocess.Popen(["ip", "netns", "exec", self.space, *command], stderr=open(log, "ab") if log else subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def cut_cable(self):
        run("ip", "-n", self.network.switch, "link", "set", f"p{self.number}", "down")

    def mend_cable(self):
        run("ip", "-n", self.network.switch, "link", "set", f"p{self.number}", "up")

    def vanish(self):
        """The host is gone, without a word: first the cable, then what ran on it."""
        run("ip", "-n", self.network.switch, "link", "del", f"p{self.number}")
        self.end()
        run("ip", "netns", "del", self.space)

    def drop_outgoing(self):
        run("ip", "netns", "exec", self.space, "iptables", "-A", "OUTPUT", "-o", "eth0", "-j", "DROP")

    def stop_dropping(self):
        run("ip", "netns", "exec", self.space, "iptables", "-F", "OUTPUT")

    def move_to(self, number):
        run("ip", "-n", self.space, "addr", "del", self.address + "/24", "dev", "eth0")
        self.address = f"10.77.{self.network.number}.{number}"
        run("ip", "-n", self.space, "addr", "add", self.address + "/24", "dev", "eth0")

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


class Network:
    made = 0

    def __init__(self):
        Network.made += 1  # each has addresses of its own: the ports of connections that have ended stay taken for a minute
        self.number = (os.getpid() + Network.made) % 250 + 1
        self.prefix = f"rm{os.getpid()}"
        self.switch = self.prefix + "sw"
        self.here = f"rm{os.getpid() % 100000}c"
        self.hosts = []
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "name", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        run("ip", "link", "add", "name", self.here, "type", "veth", "peer", "name", "here", "netns", self.switch)
        run("ip", "-n", self.switch, "link", "set", "here", "master", "br0", "up")
        run("ip", "addr", "add", f"10.77.{self.number}.254/24", "dev", self.here)
        run("ip", "link", "set", self.here, "up")

    def host(self, name):
        self.hosts.append(Host(self, len(self.hosts) + 1, name))
        return self.hosts[-1]

    def end(self):
        for host in self.hosts:
            host.end()
            run("ip", "netns", "del", host.space, check=False)
        run("ip", "link", "del", self.here, check=False)
        run("ip", "netns", "del", self.switch, check=False)
