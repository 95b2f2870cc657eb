#!/usr/bin/python3
"""How many tasks a second are accepted for good: Ringmaster against beanstalkd and gearmand, and against the disk.

  bench/tasks.py [--rounds 5] [--seconds 3] [--clients 1 64 512] [--out bench-results]

Each client submits a task, waits for its acknowledgement, and submits the next (bench/task_load.cc). Whoever acknowledges a
task has it on the disk: Ringmaster in SQLite's log, beanstalkd in its log with an fsync at each write (-f0), gearmand in
SQLite. Nobody executes any. What the disk can do is measured in the same round: 4096 bytes appended and fdatasync, again and
again, as `fdatasync`; its figures do not depend on the number of clients with which they stand.

Rounds are interleaved: in each, every contestant is measured once with each number of clients, on a fresh and empty server,
so that the disk's moods hit all alike; figures are medians, ratios are taken within a round. Servers run on core 0, the
load on core 1, unless --free. CPU time is utime + stime of the server's process (of Ringmaster, the engine's) per accepted
task. Every measurement is a row of OUT/tasks.csv. `./dev bench` or the target `bench` builds what is needed.
"""
import argparse
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import contestants as c

TASK_LOAD = c.BUILD / "bench/task_load"
SCRATCH = c.ROOT / "build/bench"  # on a real disk, which /tmp need not be
COLUMNS = ("round", "contestant", "clients", "per_second", "p50_us", "p99_us", "cpu_us")
DISK = "fdatasync"
median = statistics.median


@dataclasses.dataclass
class Target:
    """A server that is ready: where it listens, and the process whose CPU time counts."""
    protocol: str
    port: int
    pid: int

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / c.TICK


# --- the contestants: each starts in an empty folder, gives a Target, and is stopped when its `with` ends ---

def pinned(core, pin):
    return ["taskset", "-c", str(core)] if pin else []


@contextlib.contextmanager
def running(command, home, pin):
    with open(home / "log", "w") as log:
        process = subprocess.Popen([*pinned(0, pin), *map(str, command)], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(ready, process, home):
    deadline = time.monotonic() + 15
    while not ready():
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"does not start: {' '.join(process.args)}\n{(home / 'log').read_text()[-2000:]}")
        time.sleep(0.02)


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port, path, body=None):
    """The status and the JSON of the answer to a GET, or to a POST of `body`; status 0 if there is none."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None
    except OSError:
        return 0, None


@contextlib.contextmanager
def ringmaster(home, pin):
    (home / "ringmaster.toml").write_text(f"""state_dir = "{home}/s"
[[listener]]
address = "127.0.0.1:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
command = ["{{ringmaster}}", "replica", "--listen", "unix:{{socket}}"]
replicas = 1
[pool.web.health]
path = "/heartbeat"
[queue.default]
length_max = 100000000
""")
    with running([c.RINGMASTER, "up", "--config", home / "ringmaster.toml"], home, pin) as process:
        addresses = home / "s/addresses.json"
        wait_until(addresses.exists, process, home)
        port = int(json.loads(addresses.read_text())["admin"].rsplit(":", 1)[1])
        wait_until(lambda: ask(port, "/v1/tasks?limit=1")[0] == 200, process, home)
        yield Target("http", port, ask(port, "/v1/status")[1]["engine"]["pid"])


@contextlib.contextmanager
def beanstalkd(home, pin):
    port = c.free_port()
    with running(["beanstalkd", "-l", "127.0.0.1", "-p", port, "-b", home, "-f0"], home, pin) as process:
        wait_until(lambda: connects(port), process, home)
        yield Target("beanstalk", port, process.pid)


@contextlib.contextmanager
def gearmand(home, pin):
    port = c.free_port()
    command = ["gearmand", "-L", "127.0.0.1", "-p", port, "-b", 1024, "-l", "stderr", "-P", home / "pid"]
    command += ["-q", "libsqlite3", "--libsqlite3-db", home / "jobs.db"] if gearmand_persists() else []
    with running(command, home, pin) as process:
        wait_until(lambda: connects(port), process, home)
        yield Target("gearman", port, process.pid)


def gearmand_persists():
    return "--libsqlite3-db" in subprocess.run(["gearmand", "--help"], capture_output=True, text=True).stdout


def jobs_stored(home):
    """By gearmand, in its table, once it has ended."""
    with contextlib.closing(sqlite3.connect(home / "jobs.db")) as database:
        return database.execute("SELECT count(*) FROM gearman_queue").fetchone()[0]


CONTESTANTS = {"Ringmaster": ringmaster, "beanstalkd": beanstalkd, "gearmand": gearmand}


# --- measuring ---

def task_load(core, pin, *words):
    output = subprocess.run([*pinned(core, pin), str(TASK_LOAD), *map(str, words)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output)


@contextlib.contextmanager
def empty_folder():
    """On the disk, with nothing of the last measurement still on its way there."""
    with tempfile.TemporaryDirectory(prefix="tasks-", dir=SCRATCH) as folder:
        os.sync()
        yield pathlib.Path(folder)


def measure_disk(seconds, pin):
    with empty_folder() as home:
        return {**task_load(0, pin, "--fdatasync", home / "blocks", "--seconds", seconds), "cpu_us": ""}


def measure(name, clients, seconds, pin):
    with empty_folder() as home:
        with CONTESTANTS[name](home, pin) as target:
            before = target.cpu_seconds()
            seen = task_load(1, pin, "--protocol", target.protocol, "--port", target.port, "--clients", clients, "--seconds", seconds)
            seen["cpu_us"] = round((target.cpu_seconds() - before) / max(seen["accepted_in_all"], 1) * 1e6, 2)
        if seen["failed"]:
            print(f"{name}, {clients} clients: {seen['failed']} submissions failed", flush=True)
        if name == "gearmand" and gearmand_persists() and jobs_stored(home) < seen["accepted_in_all"]:
            print(f"gearmand, {clients} clients: only {jobs_stored(home)} of {seen['accepted_in_all']} jobs are in its database", flush=True)
        return seen


def require_tools():
    """Gives the names of the contestants that are there."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    for tool in (c.RINGMASTER, TASK_LOAD):
        if not tool.exists():
            sys.exit(f"{tool} is missing: ./dev bench builds it")
    names = [name for name in CONTESTANTS if name == "Ringmaster" or shutil.which(name)]
    for name in CONTESTANTS:
        if name not in names:
            print(f"{name} is not installed, and left out: ./dev setup bench installs it")
    if "gearmand" in names and not gearmand_persists():
        print("gearmand has no SQLite here: its figures are of jobs in memory only, and no comparison")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(SCRATCH)], capture_output=True, text=True, check=True).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        sys.exit(f"{SCRATCH} is in memory ({kind}): the build folder must be on a disk")
    return names


# --- showing ---

def of(rows, name, column):
    return [row[column] for row in rows if row["contestant"] == name]


def ratio(rows, name, other):
    """Of the rates, within a round."""
    return median(a / max(b, 1e-9) for a, b in zip(of(rows, name, "per_second"), of(rows, other, "per_second")))


def table(rows, names):
    against = [DISK, *(name for name in names if name != "Ringmaster")]
    print(f"{'':14}{'per second':>12}{'p50 µs':>10}{'p99 µs':>10}{'CPU µs':>10}" + "".join(f"{'÷ ' + other:>15}" for other in against))
    for name in [*names, DISK]:
        cpu = "" if name == DISK else f"{median(of(rows, name, 'cpu_us')):.1f}"
        print(f"{name:14}{median(of(rows, name, 'per_second')):12.0f}{median(of(rows, name, 'p50_us')):10.0f}{median(of(rows, name, 'p99_us')):10.0f}{cpu:>10}" +
              "".join(f"{ratio(rows, name, other):15.2f}" for other in against))
    rates = of(rows, DISK, "per_second")
    print(f"the disk did {min(rates):.0f} to {max(rates):.0f} fdatasync a second")


def run(directory, rounds=5, seconds=3.0, clients=(1, 64, 512), pin=True):
    names = require_tools()
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(directory / "tasks.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for number in range(rounds):
            for count in clients:
                for name in [DISK, *names]:
                    seen = measure_disk(seconds, pin) if name == DISK else measure(name, count, seconds, pin)
                    rows.append({"round": number, "contestant": name, "clients": count, **seen})
                    writer.writerow(rows[-1])
                    file.flush()
    for count in clients:
        print(f"\ntasks, {count} client{'s' if count != 1 else ''}")
        table([row for row in rows if row["clients"] == count], names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--out", type=pathlib.Path, default=c.ROOT / "bench-results")
    parser.add_argument("--free", action="store_true", help="leave it to the system which cores are used")
    options = parser.parse_args()
    run(options.out, options.rounds, options.seconds, options.clients, not options.free)
    print(f"\nraw figures: {options.out}/tasks.csv")


if __name__ == "__main__":
    main()
