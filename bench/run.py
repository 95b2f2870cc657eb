#!/usr/bin/env python3
"""Measures Ringmaster against nginx and HAProxy, and prints what it found, the losing rows too.

  bench/run.py [WHAT …] [--rounds 7] [--seconds 2] [--out bench-results]

  relay      small replies at 1, 64 and 512 connections: CPU time per request
  bodies     10 KiB, 1 MiB and 100 MiB down and up: bytes per CPU second
  fresh      a new connection for each request
  latency    open loop at 50 % and 70 % of the best peer's maximum
  memory     anonymous memory with 100 and 15,000 idle keep-alive connections
  slow       one of four replicas 20 times slower: p99 by policy
  overload   offered load up to 5 times the capacity: goodput, refusals, retry_after_ms
  containers one Ringmaster whose servers are processes or containers, by the ways in which they are reached; needs Docker
  micro      single steps (Google Benchmark)
  tasks      accepted durable tasks against beanstalkd and gearmand (bench/tasks.py); what comes after (bench/task_life.py)

Rounds are interleaved: in each, every contestant is measured once, so that the machine's moods hit all alike; figures are
medians, ratios are taken within a round. CPU time is utime + stime of the balancer's processes. Raw figures go to
OUT/*.csv, pictures to OUT/*.svg.
"""
import argparse
import csv
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import contestants as c
import plots
import task_life
import tasks as task_queues

median = statistics.median


class Field:
    """All contestants, started together."""

    def __init__(self, directory, tcp_mode=True):
        self.servers = {kind: c.Servers(directory, kind) for kind in ("tcp", "unix")}
        time.sleep(0.2)
        addresses = {kind: servers.addresses for kind, servers in self.servers.items()}
        self.all = []
        for kind in ("tcp", "unix"):
            self.all += [c.ringmaster(directory, kind), c.nginx(directory, kind, addresses[kind]), c.haproxy(directory, kind, addresses[kind])]
        if tcp_mode:
            self.all.append(c.haproxy(directory, "tcp", addresses["tcp"], "tcp"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for contestant in self.all:
            contestant.stop()
        for servers in self.servers.values():
            servers.stop()


def is_peer(name):
    return not name.startswith("Ringmaster") and "TCP mode" not in name


def rounds(field, options, columns, **load):
    """rows of every contestant in every round, with `columns` of f(seen)."""
    for contestant in field.all:
        contestant.load(**{**load, "seconds": 0.5})
    rows = []
    for number in range(options.rounds):
        for contestant in field.all:
            seen = contestant.load(**{**load, "seconds": options.seconds})
            rows.append({"round": number, "name": contestant.name, **{name: f(seen) for name, f in columns.items()}})
    return rows


def write(rows, options, name):
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def of(rows, name, column):
    return [row[column] for row in rows if row["name"] == name]


def names_of(rows):
    return list(dict.fromkeys(row["name"] for row in rows))


def better_peer(rows, column, kind, lower=True):
    peers = [name for name in names_of(rows) if is_peer(name) and name.endswith(kind)]
    return (min if lower else max)(peers, key=lambda name: median(of(rows, name, column)))


def ratios(rows, column, name, other):
    return [a / b for a, b in zip(of(rows, name, column), of(rows, other, column))]


def table(rows, column, unit, extra=(), lower=True):
    tcp, unix = better_peer(rows, column, "TCP", lower), better_peer(rows, column, "Unix", lower)
    print(f"{'':30}{unit:>14}{'÷ best peer, TCP (range)':>28}{'÷ best, Unix':>14}" + "".join(f"{name:>12}" for name, _, _ in extra))
    for name in names_of(rows):
        against_tcp, against_unix = ratios(rows, column, name, tcp), ratios(rows, column, name, unix)
        print(f"{name:30}{median(of(rows, name, column)):14.2f}{median(against_tcp):12.2f} ({min(against_tcp):.2f}–{max(against_tcp):.2f})    {median(against_unix):11.2f}" +
              "".join(f"{median(of(rows, name, key)):12{form}}" for _, key, form in extra))


CPU = {"cpu_us": lambda s: s["cpu_s"] / s["requests"] * 1e6, "rps": lambda s: s["requests"] / s["seconds"], "p50_ms": lambda s: s["p50_ms"], "p99_ms": lambda s: s["p99_ms"]}
EXTRA = [("requests/s", "rps", ".0f"), ("p50 ms", "p50_ms", ".2f"), ("p99 ms", "p99_ms", ".2f")]


def relay(directory, options):
    everything = []
    with Field(directory) as field:
        for connections in (1, 64, 512):
            rows = rounds(field, options, CPU, connections=connections)
            print(f"\nrelay, {connections} connections")
            table(rows, "cpu_us", "µs CPU/request", EXTRA)
            everything += [{"connections": connections, **row} for row in rows]
    write(everything, options, "relay")
    plots.bars(options.out, "relay", everything, "connections", "cpu_us", "CPU time per relayed request", "µs per request")


def bodies(directory, options):
    everything = []
    columns = {"mb_per_cpu_s": lambda s: s["bytes"] / max(s["cpu_s"], 0.01) / 1e6, "mb_per_s": lambda s: s["bytes"] / s["seconds"] / 1e6}
    with Field(directory) as field:
        for size, label, connections in ((10 << 10, "10 KiB", 64), (1 << 20, "1 MiB", 16), (100 << 20, "100 MiB", 4)):
            for direction in ("down", "up"):
                load = {"path": f"/bytes/{size}"} if direction == "down" else {"path": "/upload", "body": size}
                rows = rounds(field, options, columns, connections=connections, **load)
                print(f"\nbodies of {label} {direction}, {connections} connections (more is better)")
                table(rows, "mb_per_cpu_s", "MB/CPU second", [("MB/s", "mb_per_s", ".0f")], lower=False)
                everything += [{"body": f"{label} {direction}", **row} for row in rows]
    write(everything, options, "bodies")
    plots.bars(options.out, "bodies", everything, "body", "mb_per_cpu_s", "Bytes relayed per second of CPU time (more is better)", "MB per CPU second")


def fresh(directory, options):
    with Field(directory) as field:
        rows = rounds(field, options, CPU, connections=64, fresh=True)
    print("\na new connection for each request, 64 at a time")
    table(rows, "cpu_us", "µs CPU/request", EXTRA)
    write(rows, options, "fresh")


def latency(directory, options):
    everything = []
    columns = {key: (lambda s, key=key: s[key]) for key in ("p50_ms", "p90_ms", "p99_ms", "p999_ms")}
    with Field(directory, tcp_mode=False) as field:
        most = {contestant.name: median([(lambda s: s["requests"] / s["seconds"])(contestant.load(connections=64, seconds=1)) for _ in range(3)]) for contestant in field.all}
        best = max(rate for name, rate in most.items() if is_peer(name))
        for share in (0.5, 0.7):
            rows = rounds(field, options, columns, connections=64, rate=round(best * share))
            print(f"\nopen loop at {share:.0%} of the best peer's maximum: {best * share:.0f} requests/s")
            table(rows, "p99_ms", "p99 ms", [("p50 ms", "p50_ms", ".3f"), ("p90 ms", "p90_ms", ".3f"), ("p99.9 ms", "p999_ms", ".2f")])
            everything += [{"share": share, **row} for row in rows]
    write(everything, options, "latency")
    plots.bars(options.out, "latency", everything, "share", "p99_ms", "99th percentile of latency, open loop", "ms")


def hold(port, number):
    held = []
    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"GET /home HTTP/1.1\r\nHost: bench\r\n\r\n")
        held.append(connection)
    for connection in held:
        connection.recv(4096)
    return held


def memory(directory, options):
    rows = []
    with Field(directory) as field:
        for contestant in field.all:
            if contestant.name.endswith("Unix"):
                continue
            for connection in hold(contestant.port, 300):  # so that what is made once is made
                connection.close()
            held, figures = [], []
            before = contestant.anonymous_bytes()
            for number in (100, 15000):
                while len(held) < number:
                    held += hold(contestant.port, min(500, number - len(held)))
                time.sleep(0.5)
                figures.append(contestant.anonymous_bytes())
            rows.append({"name": contestant.name, "at_0": before, "at_100": figures[0], "at_15000": figures[1], "bytes_per_connection": (figures[1] - figures[0]) / 14900})
            for connection in held:
                connection.close()
    print(f"\nmemory of idle keep-alive connections\n{'':30}{'at 100':>12}{'at 15,000':>12}{'bytes each':>12}")
    for row in rows:
        print(f"{row['name']:30}{row['at_100'] / 1e6:9.1f} MB{row['at_15000'] / 1e6:9.1f} MB{row['bytes_per_connection']:12.0f}")
    write(rows, options, "memory")


def own(directory, name, pool):
    """A Ringmaster alone, on demo servers: for what only it can do, so without peers."""
    port, admin, home = c.free_port(), c.free_port(), pathlib.Path(directory) / name
    home.mkdir()
    (home / "ringmaster.toml").write_text(f"""state_dir = "{home}/s"
workers = 1
[[listener]]
address = "127.0.0.1:{port}"
pool = "web"
[admin]
address = "127.0.0.1:{admin}"
[pool.web]
{pool}
""")
    contestant = c.Contestant(name, [str(c.RINGMASTER), "up", "--config", str(home / "ringmaster.toml")], port, lambda words: not any("origin" in word for word in words))
    contestant.admin = admin
    return contestant


SLOW_SERVER = 'command = ["/bin/sh", "-c", "exec taskset -c 1 {origin} unix:{{socket}} $([ {{slot}} = 4 ] && echo 40 || echo 2)"]\nreplicas = 4\nslow_start = "0ms"'


def slow(directory, options):
    policies = ("round_robin", "random", "least_requests", "peak_ewma")
    running = [own(directory, policy, SLOW_SERVER.format(origin=c.ORIGIN) + f'\npolicy = "{policy}"') for policy in policies]
    rows = []
    try:
        for number in range(options.rounds):
            for contestant in running:
                seen = contestant.load(connections=64, seconds=options.seconds, rate=800)
                rows.append({"round": number, "name": contestant.name, **{key: seen[key] for key in ("p50_ms", "p90_ms", "p99_ms", "p999_ms")}})
    finally:
        for contestant in running:
            contestant.stop()
    print("\none of four replicas takes 40 ms instead of 2 ms; 800 requests/s")
    print(f"{'':20}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'÷ round robin':>16}")
    for name in names_of(rows):
        print(f"{name:20}" + "".join(f"{median(of(rows, name, key)):10.1f}" for key in ("p50_ms", "p90_ms", "p99_ms")) + f"{median(ratios(rows, 'p99_ms', name, 'round_robin')):16.2f}")
    write(rows, options, "slow")
    plots.bars(options.out, "slow", [{"which": "one of four replicas 20 times slower", **row} for row in rows], "which", "p99_ms", "99th percentile by policy", "ms")


def overload(directory, options):
    """40 replicas' worth of places, 10 ms each: 4,000 requests a second. The crowd of clients is what offers more."""
    places, took = 40, 0.010
    pool = f'command = ["taskset", "-c", "1", "{c.ORIGIN}", "unix:{{socket}}", "{int(took * 1000)}"]\nreplicas = 4\nmax_in_flight = {places // 4}\nqueue_length = 200\nslow_start = "0ms"'
    contestant = own(directory, "overload", pool)
    rows = []
    try:
        for factor in (0.5, 0.8, 1, 1.5, 2, 3, 5):
            offered = factor * places / took
            told, admin = [], []
            stop = threading.Event()
            watcher = threading.Thread(target=watch_overload, args=(contestant, stop, told, admin))
            watcher.start()
            seen = contestant.load(connections=2000, seconds=max(3, options.seconds), rate=offered, refusals=True)
            stop.set()
            watcher.join()
            good = (seen["requests"] - seen["refused"]) / seen["seconds"]
            rows.append({"offered": offered, "goodput": good, "refused": seen["refused"] / seen["seconds"], "p99_ms": seen["p99_ms"], "refusal_p99_ms": seen["refusal_p99_ms"],
                         "retry_after_ms": median(told) if told else 0, "drain_ms": 200 / good * 1000 if good else 0, "admin_ms_max": max(admin, default=0) * 1000})
    finally:
        contestant.stop()
    print("\noverload: capacity 40 at once, 10 ms each, queue of 200")
    print("".join(f"{key:>16}" for key in rows[0]))
    for row in rows:
        print("".join(f"{value:16.1f}" for value in row.values()))
    peak = max(row["goodput"] for row in rows)
    print(f"goodput at 5 times the capacity: {rows[-1]['goodput'] / peak:.0%} of its peak")
    write(rows, options, "overload")
    plots.lines(options.out, "overload", rows, "offered", ["goodput", "refused"], "Offered load up to five times the capacity", "requests offered per second", "per second")


def watch_overload(contestant, stop, told, admin):
    while not stop.is_set():
        began = time.monotonic()
        urllib.request.urlopen(f"http://127.0.0.1:{contestant.admin}/v1/status", timeout=10).read()
        admin.append(time.monotonic() - began)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{contestant.port}/home", timeout=10).read()
        except urllib.error.HTTPError as refusal:
            told.append(json.loads(refusal.read())["retry_after_ms"])
        time.sleep(0.05)


def containers(directory, options):
    """CPU time per request by how a server is reached. Docker's NAT rules make every TCP packet dearer, also within this machine."""
    sys.path.insert(0, str(c.ROOT / "tests/e2e"))
    import docker_engine as engine
    if not engine.answers():
        print("\nSKIPPED: containers: no Docker engine answers here; `./dev engine ./dev bench containers` starts one (as root)")
        return
    engine.build_image()
    common = 'replicas = 3\npolicy = "round_robin"\nhealth = {path = "/heartbeat"}\n'
    networks = []

    def process(where):
        return f'{common}command = ["{{ringmaster}}", "replica", "--listen", "{where}"]\n'

    def container(where, reach="address"):
        networks.append(engine.Playground())  # each Ringmaster has a network, and names, of its own
        names = [f"bench{len(networks)}-{slot}" for slot in (1, 2, 3)]
        return (f'{common}image = "{engine.TAG}"\nnames = {json.dumps(names)}\n[pool.web.container]\nnetwork = "{networks[-1].network}"\nreach = "{reach}"\n'
                f'command = ["replica", "--listen", "{where}"]\n')

    ways = {"process, Unix socket": process("unix:{socket}"), "process, TCP": process("127.0.0.1:{port}"), "container, Unix socket": container("unix:{socket}"),
            "container, its address": container("0.0.0.0:{port}"), "container, published port": container("0.0.0.0:{port}", "published")}
    running = [own(directory, name.replace(" ", "").replace(",", "-"), pool) for name, pool in ways.items()]
    for contestant, name in zip(running, ways):
        contestant.name = name
        contestant.pids = [pid for pid in contestant.pids if b"replica" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
        while json.load(urllib.request.urlopen(f"http://127.0.0.1:{contestant.admin}/v1/pools/web"))["ready"] < 3:
            time.sleep(0.1)
    field = argparse.Namespace(all=running)
    rows = rounds(field, options, CPU, connections=64)
    print(f"\nservers as processes and as containers, 64 connections\n{'':30}{'µs CPU/request':>16}{'÷ process, Unix':>18}{'requests/s':>12}")
    for name in ways:
        print(f"{name:30}{median(of(rows, name, 'cpu_us')):16.2f}{median(ratios(rows, 'cpu_us', name, 'process, Unix socket')):18.2f}{median(of(rows, name, 'rps')):12.0f}")
    for contestant in running:
        contestant.stop()
    for network in networks:
        network.clean()
    write(rows, options, "containers")


def micro(_, options):
    options.out.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(c.BUILD / "bench/micro"), f"--benchmark_out={options.out}/micro.csv", "--benchmark_out_format=csv"], check=True, stderr=subprocess.DEVNULL)


def tasks(_, options):
    task_queues.run(options.out, min(options.rounds, 5), options.seconds)
    task_life.run(options.out, 1_000_000)


ALL = {f.__name__: f for f in (relay, bodies, fresh, latency, memory, slow, overload, containers, micro, tasks)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(ALL)}; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=c.ROOT / "bench-results")
    options = parser.parse_args()
    unknown = [what for what in options.what if what not in ALL]
    if unknown:
        parser.error(f"there is no benchmark '{unknown[0]}'; there are {', '.join(ALL)}")
    c.require_tools()
    print(c.versions() + f"; {options.rounds} rounds of {options.seconds:g} s")
    for what in options.what or ALL:
        with tempfile.TemporaryDirectory(prefix="rmb-") as directory:
            ALL[what](directory, options)
    print(f"\nraw figures and pictures: {options.out}")


if __name__ == "__main__":
    main()
