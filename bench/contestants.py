"""The balancers that are compared, each with its configuration, and how they are started, watched and stopped.

Every balancer runs on core 0 with one worker; its three servers (bench/origin.cc) and the load (bench/load.cc) share core 1.
All keep connections to the servers, add X-Forwarded-For and write no access log.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/release"
RINGMASTER = BUILD / "ringmaster"
ORIGIN = BUILD / "bench/origin"
LOAD = BUILD / "bench/load"
TICK = os.sysconf("SC_CLK_TCK")
SERVERS = 3


def require_tools():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for tool in ("nginx", "haproxy", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: ./dev setup bench installs it")


def versions():
    def version(command, pattern):
        output = subprocess.run(command, capture_output=True, text=True)
        return re.search(pattern, output.stdout + output.stderr)[1]
    return (f"Ringmaster {version([str(RINGMASTER), '--version'], r'ringmaster (.+)')}, nginx {version(['nginx', '-v'], r'nginx/(.+)')}, "
            f"HAProxy {version(['haproxy', '-v'], r'version (.+?) ')}, Linux {os.uname().release}, {os.cpu_count()} cores")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /home HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(4096)
    except OSError:
        return False


def wait_until_it_answers(port, process):
    deadline = time.monotonic() + 15
    while not answers(port):
        if time.monotonic() > deadline or process.poll() is not None:
            sys.exit(f"nobody answers on port {port}: {' '.join(process.args)}")
        time.sleep(0.02)


def descendants(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children] + [g for c in children for g in descendants(int(c))]


class Servers:
    """Three origins on core 1, for the balancers that do not start their own."""

    def __init__(self, directory, kind):
        self.addresses = []
        self.processes = []
        for number in range(SERVERS):
            port = free_port()
            address = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{directory}/origin{number}.sock"
            self.addresses.append(address)
            self.processes.append(subprocess.Popen(["taskset", "-c", "1", str(ORIGIN), address]))

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Contestant:
    """A running balancer: `pids` are the processes whose CPU time and memory count."""

    def __init__(self, name, command, port, is_balancer=lambda words: True):
        self.name, self.port = name, port
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_it_answers(port, self.process)
        everybody = [self.process.pid, *descendants(self.process.pid)]
        self.pids = [pid for pid in everybody if is_balancer(pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0"))]

    def cpu_seconds(self):
        total = 0
        for pid in self.pids:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def anonymous_bytes(self):
        return sum(int(re.search(r"^Anonymous:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) for pid in self.pids) * 1024

    def load(self, connections=64, seconds=3.0, path="/home", body=0, rate=0.0, fresh=False, refusals=False):
        """One run: what the load saw, and the CPU time that it cost the balancer."""
        command = ["taskset", "-c", "1", str(LOAD), "--to", f"127.0.0.1:{self.port}", "--connections", str(connections), "--seconds", str(seconds), "--path", path]
        command += ["--body", str(body)] if body else []
        command += ["--rate", str(rate)] if rate else []
        command += ["--fresh"] if fresh else []
        before = self.cpu_seconds()
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seen = json.loads(output)
        seen["cpu_s"] = self.cpu_seconds() - before
        if seen["errors"] or (seen["refused"] and not refusals):
            sys.exit(f"{self.name}: errors in the run: {output}")
        return seen

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ringmaster(directory, kind):
    """Owns its servers: on Unix sockets (our default) or on TCP ports."""
    port = free_port()
    home = pathlib.Path(directory) / f"rm-{kind}"
    home.mkdir()
    address = "unix:{socket}" if kind == "unix" else "127.0.0.1:{port}"
    (home / "ringmaster.toml").write_text(f"""state_dir = "{home}/s"
workers = 1
connections_max = 16000
[[listener]]
address = "127.0.0.1:{port}"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
command = ["taskset", "-c", "1", "{ORIGIN}", "{address}"]
replicas = {SERVERS}
policy = "round_robin"
""")
    return Contestant(f"Ringmaster, {label(kind)}", [str(RINGMASTER), "up", "--config", str(home / "ringmaster.toml")], port,
                      lambda words: not any("origin" in word for word in words))


def label(kind):
    return {"tcp": "TCP", "unix": "Unix"}[kind]


def nginx(directory, kind, addresses):
    port = free_port()
    home = pathlib.Path(directory) / f"nginx-{kind}"
    home.mkdir()
    upstream = "\n".join(f"server {address};" for address in addresses)
    (home / "nginx.conf").write_text(f"""user root; daemon off; master_process on; worker_processes 1; pid {home}/pid; error_log {home}/error.log; worker_rlimit_nofile 40000;
events {{ worker_connections 18000; }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  keepalive_requests 1000000000; keepalive_timeout 600s; client_header_timeout 600s; reset_timedout_connection on;
  upstream web {{ {upstream} keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_max_temp_file_size 0;
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
    }}
  }}
}}
""")
    return Contestant(f"nginx, {label(kind)}", ["nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")], port)


def haproxy(directory, kind, addresses, mode="http"):
    port = free_port()
    home = pathlib.Path(directory) / f"haproxy-{kind}-{mode}"
    home.mkdir()
    backend = "\n".join(f"  server s{k} {address.replace('unix:', 'unix@')}" for k, address in enumerate(addresses))
    http = "  option forwardfor\n  option http-keep-alive\n  http-reuse always\n" if mode == "http" else ""
    (home / "haproxy.cfg").write_text(f"""global
  nbthread 1
  no strict-limits
  maxconn 18000
defaults
  mode {mode}
  timeout connect 5s
  timeout client 600s
  timeout server 600s
{http}frontend f
  bind 127.0.0.1:{port} backlog 4096
  default_backend b
backend b
  balance roundrobin
{backend}
""")
    name = f"HAProxy, {label(kind)}" if mode == "http" else "HAProxy, TCP mode (no HTTP)"
    return Contestant(name, ["haproxy", "-db", "-f", str(home / "haproxy.cfg")], port)
