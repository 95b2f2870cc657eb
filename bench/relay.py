#!/usr/bin/env python3
"""Relays small keep-alive replies through Ringmaster, nginx and HAProxy, and compares what a request costs each.

Every balancer runs on core 0, alone while it is measured; its three servers (`ringmaster replica`) and wrk share core 1.
Rounds are interleaved: in each, every contestant is measured once, so that the machine's moods hit all alike. What counts
is CPU time per request (utime + stime of the balancer's processes ÷ requests); wall-clock figures are printed beside.

  bench/relay.py [--rounds 7] [--seconds 3] [--connections 64] [--out DIR]

Raw figures go to DIR/relay.csv.
"""
import argparse
import csv
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "build/release/ringmaster"
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(url, process):
    deadline = time.monotonic() + 10
    while True:
        try:
            if urllib.request.urlopen(url, timeout=1).status == 200:
                return
        except OSError:
            pass
        if time.monotonic() > deadline or process.poll() is not None:
            sys.exit(f"{url} does not answer")
        time.sleep(0.02)


def descendants(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children] + [g for c in children for g in descendants(int(c))]


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


class Contestant:
    """A running balancer: `pids` are the processes whose CPU time counts."""

    def __init__(self, name, command, port, is_balancer=lambda command: True, cwd=None):
        self.name, self.port = name, port
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
        wait_until_it_answers(f"http://127.0.0.1:{port}/home", self.process)
        everybody = [self.process.pid, *descendants(self.process.pid)]
        self.pids = [pid for pid in everybody if is_balancer(pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0"))]

    def measure(self, connections, seconds):
        before = cpu_seconds(self.pids)
        output = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{self.port}/home"],
                                capture_output=True, text=True, check=True).stdout
        cpu = cpu_seconds(self.pids) - before
        requests = int(re.search(r"(\d+) requests in", output)[1])
        milliseconds = lambda text: float(re.match(r"[\d.]+", text)[0]) * {"us": 0.001, "ms": 1, "s": 1000}[re.search(r"[a-z]+", text)[0]]
        bad = re.search(r"Non-2xx.*: (\d+)", output)
        if bad or "Socket errors" in output:
            sys.exit(f"{self.name}: errors in the run:\n{output}")
        return {"cpu_us": cpu / requests * 1e6, "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),
                "p50_ms": milliseconds(re.search(r"^ +50% +(\S+)", output, re.M)[1]), "p99_ms": milliseconds(re.search(r"^ +99% +(\S+)", output, re.M)[1])}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def ringmaster(directory, name, listen):
    port = free_port()
    home = pathlib.Path(directory) / name.split()[0] / listen
    home.mkdir(parents=True)
    command = {"tcp": '"taskset", "-c", "1", "{ringmaster}", "replica"', "unix": '"taskset", "-c", "1", "{ringmaster}", "replica", "--listen", "unix:{socket}"'}[listen]
    config = home / "c.toml"
    config.write_text(f"""state_dir = "{home}/s"
workers = 1
[[listener]]
address = "127.0.0.1:{port}"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
command = [{command}]
replicas = 3
policy = "round_robin"
[pool.web.health]
path = "/heartbeat"
""")
    return Contestant(name, [str(BINARY), "up", "--config", str(config)], port, lambda words: "replica" not in words)


def nginx(directory, servers):
    port = free_port()
    home = pathlib.Path(directory) / "nginx"
    home.mkdir()
    upstream = "\n".join(f"server {server};" for server in servers)
    (home / "nginx.conf").write_text(f"""daemon off; master_process on; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  keepalive_requests 1000000000;
  upstream web {{ {upstream} keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
    }}
  }}
}}
""")
    return Contestant("nginx, TCP", ["nginx", "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")], port)


def haproxy(directory, servers):
    port = free_port()
    home = pathlib.Path(directory) / "haproxy"
    home.mkdir()
    backend = "\n".join(f"  server s{k} {server}" for k, server in enumerate(servers))
    (home / "haproxy.cfg").write_text(f"""global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  option http-keep-alive
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  balance roundrobin
{backend}
""")
    return Contestant("HAProxy, TCP", ["haproxy", "-db", "-f", str(home / "haproxy.cfg")], port)


def version(command, pattern):
    output = subprocess.run(command, capture_output=True, text=True)
    return re.search(pattern, output.stdout + output.stderr)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="*", default=[64])
    parser.add_argument("--out", default=str(ROOT / "bench-results"))
    options = parser.parse_args()
    for tool in ("wrk", "nginx", "haproxy", "taskset"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            sys.exit(f"{tool} is missing: ./dev setup bench installs it")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    versions = [version([str(BINARY), "--version"], r"ringmaster (\S+)"), version(["nginx", "-v"], r"nginx/(\S+)"), version(["haproxy", "-v"], r"version (\S+)")]
    print("Ringmaster %s, nginx %s, HAProxy %s; %d rounds of %d s" % (*versions, options.rounds, options.seconds))
    rows = []
    with tempfile.TemporaryDirectory(prefix="rm-bench-") as directory:
        ports = [free_port() for _ in range(3)]
        servers = [subprocess.Popen(["taskset", "-c", "1", str(BINARY), "replica", "--listen", f"127.0.0.1:{port}", "--server-id", str(k + 1)]) for k, port in enumerate(ports)]
        for port, server in zip(ports, servers):
            wait_until_it_answers(f"http://127.0.0.1:{port}/home", server)
        addresses = [f"127.0.0.1:{port}" for port in ports]
        contestants = []
        try:
            contestants = [ringmaster(directory, "Ringmaster, TCP", "tcp"), ringmaster(directory, "Ringmaster, Unix", "unix"),
                           nginx(directory, addresses), haproxy(directory, addresses)]
            for connections in options.connections:
                for contestant in contestants:
                    contestant.measure(connections, 1)  # warm
                for round_number in range(options.rounds):
                    for contestant in contestants:
                        rows.append({"connections": connections, "round": round_number, "name": contestant.name, **contestant.measure(connections, options.seconds)})
                report([row for row in rows if row["connections"] == connections], connections)
        finally:
            for contestant in contestants:
                contestant.stop()
            for server in servers:
                server.terminate()
                server.wait()
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "relay.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"raw figures: {out / 'relay.csv'}")


def report(rows, connections):
    names = list(dict.fromkeys(row["name"] for row in rows))
    of = lambda name, key: [row[key] for row in rows if row["name"] == name]
    peers = [name for name in names if not name.startswith("Ringmaster")]
    # The ratio is taken within each round, against the better peer of that round's medians; then its median.
    better = min(peers, key=lambda name: statistics.median(of(name, "cpu_us")))
    print(f"\n{connections} connections, medians; ratio: CPU per request ÷ {better}'s in the same round (range)")
    print(f"{'':18}{'CPU/request':>12}{'ratio':>8}{'':16}{'requests/s':>12}{'p50':>9}{'p99':>9}")
    for name in names:
        ratios = [a / b for a, b in zip(of(name, "cpu_us"), of(better, "cpu_us"))]
        print(f"{name:18}{statistics.median(of(name, 'cpu_us')):9.2f} µs{statistics.median(ratios):8.2f}  ({min(ratios):.2f}–{max(ratios):.2f}) "
              f"{statistics.median(of(name, 'rps')):13.0f}{statistics.median(of(name, 'p50_ms')):6.2f} ms{statistics.median(of(name, 'p99_ms')):6.2f} ms")


if __name__ == "__main__":
    main()
