"""Accepted means on disk: under load the engine, the master and replicas are killed with SIGKILL at random points. A
client outside keeps its own ledger of what was acknowledged; at the end all of it is done, with the right result, or
failed with its reason. The servers keep a ledger, too: an execution is an attempt of a task, and no attempt is executed
twice.

LONG=1 in the environment: 1,000 kills instead of 40. SEED=n chooses what is killed when.
"""
import collections
import http.client
import json
import os
import pathlib
import random
import signal
import sys
import time

from conftest import HEALTH, POOL, Clients, call, until
from test_tasks import JSON, ready, Tasks

HERE = pathlib.Path(__file__).parent
LONG = os.environ.get("LONG") == "1"
KILLS = 1000 if LONG else 40
SEED = int(os.environ.get("SEED", "1"))
PLACES = 3
# A task is given up once so many engines in a row have ended during an attempt of it: it could be the cause.
CRASHES_MAX = 3
GIVEN_UP = f"the engine ended during the attempt, {CRASHES_MAX} times in a row"


class Client:
    """Submits tasks until it is told to stop, and notes each that was acknowledged."""

    def __init__(self, tasks, number, stopping):
        self.tasks, self.random, self.stopping = tasks, random.Random(SEED * 1000 + number), stopping
        self.acknowledged = {}  # id → product, or None for one that must fail
        self.unknown = 0

    def run(self):
        while not self.stopping.is_set():
            a, b = self.random.randrange(10_000), self.random.randrange(10_000)
            good = self.random.random() < 0.9
            payload = {"s": self.random.choice([0, 0, 0.005, 0.03])} | ({"a": a, "b": b} if good else {})
            body = json.dumps({"type": "product", "payload": payload})
            try:
                answer = call(self.tasks.ringmaster.admin, "POST", "/v1/tasks", body, JSON)
            except (OSError, http.client.HTTPException):  # none, or half an answer
                self.unknown += 1
                self.stopping.wait(0.005)  # these are the pace of the load: nothing is waited for
                continue
            if answer.status == 202:
                self.acknowledged[answer.json["id"]] = a * b if good else None
                self.stopping.wait(0.01)
            else:
                assert answer.status == 503, answer.text
                self.stopping.wait(0.005)


def kill_one(tasks, chance):
    ringmaster = tasks.ringmaster
    what = chance.choices(["replica", "engine", "master"], [50, 35, 15])[0]
    if what == "master":
        ringmaster.process.kill()
        ringmaster.process.wait()
        ringmaster.start(wait=False)
        addresses = ringmaster.directory / "state/addresses.json"
        until(addresses.exists, what="the next master")
        found = json.loads(addresses.read_text())
        ringmaster.admin = (found["admin"].rsplit(":", 1)[0], int(found["admin"].rsplit(":", 1)[1]))
    else:
        try:
            pid = ringmaster.engine_pid() if what == "engine" else chance.choice([r for r in ringmaster.replicas() if r["pid"]] or [{"pid": 0}])["pid"]
            if pid:
                os.kill(pid, signal.SIGKILL)
        except (OSError, KeyError):
            pass  # it is dead already
    return what


def test_no_acknowledged_task_is_lost_whatever_is_killed(start, directory):
    ledger = pathlib.Path(directory) / "ledger"
    ledger.touch()
    pool = POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                        f'command = ["{sys.executable}", "{HERE}/task_server.py", "{{port}}", "{ledger}"]')
    tasks = Tasks(start(pool + HEALTH + '[queue.default]\npool = "web"\nfailures_max = 100000\nback_off = "5ms"\nback_off_max = "50ms"\n'))
    chance = random.Random(SEED)
    killed = collections.Counter()
    with Clients() as threads:
        clients = [Client(tasks, number, threads.stopping) for number in range(4)]
        for client in clients:
            threads.begin(client.run)
        for _ in range(KILLS):
            killed[kill_one(tasks, chance)] += 1
            time.sleep(chance.random() * 0.2)  # killed at any moment: of the start, or of the work
            # Unless it serves again now and then, nothing is under load.
            if chance.random() < 0.3:
                until(lambda: ready(tasks), 30, "the store of tasks")
            threads.check()
    until(lambda: ready(tasks), 30, "the store of tasks")
    until(lambda: (q := tasks.admin("GET", "/v1/queues/default").json)["pending"] + q["scheduled"] + q["in_progress"] == 0, 120, "the end of all tasks")

    acknowledged = {task: product for client in clients for task, product in client.acknowledged.items()}
    lost, wrong, given_up, ended = [], [], [], {}
    for task, product in acknowledged.items():
        answer = tasks.admin("GET", f"/v1/tasks/{task}")
        if answer.status != 200:
            lost.append(task)
            continue
        end = answer.json
        if end["state"] == "failed" and end["error"] == GIVEN_UP and end["attempt"] >= CRASHES_MAX:
            given_up.append(task)
            continue
        ended[task] = end["attempt"]
        if product is None:
            right = end["state"] == "failed" and end["error"] == "there is nothing to multiply"
        else:  # the result that counts is that of the attempt that counts, not of one that was given up
            right = end["state"] == "done" and end["result"] == {"product": product, "attempt": end["attempt"]}
        if not right:
            wrong.append(end)
    executed = collections.Counter(tuple(line.split()) for line in ledger.read_text().splitlines())
    repeated = {execution: times for execution, times in executed.items() if times > 1}
    more = len(executed) - len({task for task, _ in executed})
    print(f"\n{sum(killed.values())} kills {dict(killed)}: {len(acknowledged)} tasks acknowledged, "
          f"{sum(c.unknown for c in clients)} submissions without an answer, {len(lost)} lost, {len(wrong)} wrong, "
          f"{len(given_up)} given up, {len(repeated)} attempts executed twice, {more} executions more than tasks "
          f"(at most {PLACES} were in flight at each kill)")
    assert not lost and not wrong, (lost[:5], wrong[:5])
    assert len(given_up) <= PLACES * (killed["engine"] + killed["master"]) / CRASHES_MAX, given_up
    assert not repeated, repeated
    assert len(acknowledged) > KILLS and more <= PLACES * KILLS
    assert {(task, str(attempt)) for task, attempt in ended.items()} <= set(executed)
