#!/usr/bin/python3
"""What comes after a task was accepted, and what many of them cost.

  bench/task_life.py [--tasks 1000000] [--out bench-results]

  start       from the instant at which a busy server is free to the instant at which its next task arrives, both seen by the
              server itself
  end to end  tasks a second from submission to a stored result, four demo servers
  memory      of the engine, for each task that waits, and for each that has ended
  a million   finished tasks: time of a list, by each filter and deep in the pages; opening the store; what retention leaves
"""
import argparse
import contextlib
import json
import os
import pathlib
import sqlite3
import statistics
import time

import contestants as c
import tasks as t

CONFIG = """state_dir = "{home}/s"
[[listener]]
address = "127.0.0.1:0"
pool = "web"
[admin]
address = "127.0.0.1:0"
[pool.web]
command = {command}
replicas = {replicas}
[pool.web.health]
path = "/heartbeat"
[queue.default]
pool = "web"
length_max = 100000000
[queue.far]
[tasks]
keep_max = {keep_max}
"""
DEMO = '["{ringmaster}", "replica", "--listen", "unix:{socket}"]'


@contextlib.contextmanager
def ringmaster(home, command=DEMO, replicas=4, keep_max=2_000_000):
    (home / "ringmaster.toml").write_text(CONFIG.format(home=home, command=command, replicas=replicas, keep_max=keep_max))
    (home / "s/addresses.json").unlink(missing_ok=True)
    with t.running([c.RINGMASTER, "up", "--config", home / "ringmaster.toml"], home, False) as process:
        addresses = home / "s/addresses.json"
        t.wait_until(addresses.exists, process, home)
        port = int(json.loads(addresses.read_text())["admin"].rsplit(":", 1)[1])
        began = time.monotonic()
        while t.ask(port, "/readyz")[1] != {"status": "ready", "tasks": "ready"}:
            if time.monotonic() > began + 120:
                raise RuntimeError((home / "log").read_text()[-2000:])
            time.sleep(0.02)
        yield port


def post(port, path, body):
    return t.ask(port, path, json.dumps(body).encode())[1]


def submit_many(port, count, queue="default", kind="prime", payload={"number": 7}):
    for first in range(0, count, 1000):
        batch = [{"type": kind, "queue": queue, "payload": payload}] * min(1000, count - first)
        answers = post(port, "/v1/tasks:batch", {"tasks": batch})["tasks"]
        assert all(answer["status"] == 202 for answer in answers), answers[0]


def queue(port, name="default"):
    return t.ask(port, f"/v1/queues/{name}")[1]


def engine_memory(port):
    pid = t.ask(port, "/v1/status")[1]["engine"]["pid"]
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# One connection at a time, and nothing but the clock between a request and its answer.
STOPWATCH = """
import os, socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
out = open(sys.argv[2], "a", buffering=1)
free = [0]
def serve(s):
    data = b""
    while True:
        while b"\\r\\n\\r\\n" not in data:
            more = s.recv(65536)
            if not more: return
            data += more
        arrived = time.perf_counter()
        head, _, body = data.partition(b"\\r\\n\\r\\n")
        length = next((int(l.split(b":")[1]) for l in head.lower().split(b"\\r\\n") if l.startswith(b"content-length")), 0)
        while len(body) < length: body += s.recv(65536)
        if head.startswith(b"POST") and free[0]: out.write("%.1f\\n" % ((arrived - free[0]) * 1e6))
        s.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
        if head.startswith(b"POST"): free[0] = time.perf_counter()
        data = body[length:]
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def start_latency(tasks=5000):
    with t.empty_folder() as home:
        (home / "stopwatch.py").write_text(STOPWATCH)
        command = json.dumps(["/usr/bin/python3", str(home / "stopwatch.py"), "{port}", str(home / "gaps")])
        with ringmaster(home, command, replicas=1) as port:
            post(port, "/v1/queues/default:pause", {})
            submit_many(port, tasks)
            post(port, "/v1/queues/default:resume", {})
            while queue(port)["ended"]["done"] < tasks:
                time.sleep(0.05)
        gaps = sorted(float(line) for line in (home / "gaps").read_text().split())
        p50, p99 = gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100]
        print(f"from a free server to its next task: p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms, longest {gaps[-1] / 1000:.2f} ms ({len(gaps)} tasks)")
        return [("start_p50_ms", p50 / 1000), ("start_p99_ms", p99 / 1000)]


def end_to_end(tasks=20000):
    with t.empty_folder() as home, ringmaster(home) as port:
        began = time.monotonic()
        submit_many(port, tasks)
        accepted = time.monotonic() - began
        while queue(port)["ended"]["done"] < tasks:
            time.sleep(0.02)
        rate = tasks / (time.monotonic() - began)
        print(f"end to end: {tasks} tasks accepted in {accepted:.1f} s, done at {rate:.0f} a second, by four servers with one place each")
        return [("end_to_end_per_second", rate)]


def million(tasks):
    rows = []
    with t.empty_folder() as home:
        with ringmaster(home) as port:
            before = engine_memory(port)
            began = time.monotonic()
            submit_many(port, tasks, "far", "report", {"n": 12345})
            took = time.monotonic() - began
            each = (engine_memory(port) - before) / tasks
            print(f"{tasks} waiting tasks: accepted in batches of 1,000 at {tasks / took:.0f} a second; {each:.0f} bytes of memory each")
            rows += [("memory_waiting_bytes", each), ("batch_accepted_per_second", tasks / took)]
        # They end by being written so: to work them all off takes longer than the measurement is worth.
        with contextlib.closing(sqlite3.connect(home / "s/tasks/tasks.db")) as database:
            database.execute("UPDATE task SET state = CASE WHEN id % 1000 = 0 THEN 4 ELSE 3 END, attempt = 1, replica = 'Server ' || (id % 7), "
                             "started = created, finished = created + 5, result = CAST('{\"result\":14}' AS BLOB), result_type = 'application/json', "
                             "type = CASE WHEN id % 5000 = 0 THEN 'rare' ELSE type END")
            database.commit()
        began = time.monotonic()
        with ringmaster(home) as port:
            opened = time.monotonic() - began
            memory = engine_memory(port) / 1e6
            print(f"{tasks} finished tasks: file {(home / 's/tasks/tasks.db').stat().st_size / 1e6:.0f} MB, checked and opened in {opened:.1f} s, engine {memory:.0f} MB in all")
            rows += [("opening_s", opened), ("memory_finished_mb", memory), *list_times(port)]
        with ringmaster(home, keep_max=tasks // 10) as port:
            began = time.monotonic()
            while remaining(home) > tasks // 10:
                time.sleep(0.5)
            print(f"retention took {time.monotonic() - began:.0f} s to leave {remaining(home)}")
            rows.append(("retention_s", time.monotonic() - began))
    return rows


def remaining(home):
    with contextlib.closing(sqlite3.connect(f"file:{home}/s/tasks/tasks.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM task").fetchone()[0]


def list_times(port):
    """Each list of 50 as often as makes a median; from connecting to the last byte."""
    deep = t.ask(port, "/v1/tasks?limit=1000")[1]
    for _ in range(20):
        deep = t.ask(port, f"/v1/tasks?limit=1000&cursor={deep['next']}")[1]
    cases = {"all": "?limit=50", "20,000 deep": f"?limit=50&cursor={deep['next']}", "failed": "?limit=50&state=failed", "done": "?limit=50&state=done",
             "a type": "?limit=50&type=report", "a rare type": "?limit=50&type=rare", "a replica": "?limit=50&replica=Server%203",
             "failed, by a replica": "?limit=50&state=failed&replica=Server%203", "rare and failed": "?limit=50&type=rare&state=failed",
             "nothing there": "?limit=50&state=expired&type=report"}
    rows = []
    for name, query in cases.items():
        times = []
        for _ in range(51):
            began = time.perf_counter()
            assert t.ask(port, "/v1/tasks" + query)[0] == 200
            times.append((time.perf_counter() - began) * 1000)
        rows.append((f"list_ms {name}", statistics.median(times)))
        print(f"  list of 50, {name}: median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms")
    return rows


def run(directory, tasks):
    t.require_tools()
    rows = start_latency() + end_to_end() + million(tasks)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "task_life.csv").write_text("what,value\n" + "".join(f"\"{name}\",{value:.3f}\n" for name, value in rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--out", type=pathlib.Path, default=c.ROOT / "bench-results")
    options = parser.parse_args()
    run(options.out, options.tasks)


if __name__ == "__main__":
    main()
