"""Tasks: CONTRACT S0 to the letter, and the task API past it, with real servers and a real file."""
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import BINARY, HEALTH, POOL, SLOW, Clients, call, until

HERE = pathlib.Path(__file__).parent
JSON = {"Content-Type": "application/json"}
QUEUE = """
[queue.default]
pool = "web"
types = ["expression", "prime", "sleep"]
timeout = "2m"
back_off = "20ms"
"""


@pytest.fixture
def tasks(start):
    """One master and two slaves, as S0 has it."""
    return Tasks(start(POOL.replace("replicas = 3", 'replicas = 2\nnames = ["Slave 1", "Slave 2"]') + HEALTH + QUEUE))


class Tasks:
    def __init__(self, ringmaster):
        self.ringmaster = ringmaster
        until(lambda: self.admin("GET", "/v1/tasks").status == 200, what="the store of tasks")

    def admin(self, method, path, body=None, headers=None, **options):
        text = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
        return call(self.ringmaster.admin, method, path, text, JSON | (headers or {}), **options)

    def submit(self, kind="expression", payload=None, headers=None, **members):
        return self.admin("POST", "/v1/tasks", {"type": kind, "payload": payload or {}} | members, headers)

    def expression(self, text, headers=None, **members):
        return self.submit("expression", {"expression": text}, headers, **members)

    def get(self, task, query=""):
        return self.admin("GET", f"/v1/tasks/{task}{query}").json

    def state(self, task):
        return self.get(task)["state"]

    def cancel(self, *ids):
        """What a test leaves running would be awaited by the stop."""
        for task in ids:
            assert self.admin("POST", f"/v1/tasks/{task}:cancel").status == 200


def classic(ringmaster, expression):
    return ringmaster.call("POST", "/tasks", json.dumps({"expression": expression}))


# --- S0 ---


def test_s0_a_task_is_assigned_and_its_result_comes_back(tasks):
    ringmaster = tasks.ringmaster
    answer = classic(ringmaster, "2*(3+4)")
    assert answer.status == 202
    assert answer.json["message"] == "Task successfully assigned to Slave 1."
    assert answer.json["status"] == "successful"
    assert answer.json["task"]["status"] == "in progress"
    task = answer.json["task"]["id"]
    done = until(lambda: [t for t in ringmaster.get("/get-tasks").json["message"]["tasks"] if t["status"] == "done"], what="the result")[0]
    assert (done["id"], done["result"], done["slave"], done["expression"]) == (task, 14, "Slave 1", "2*(3+4)")
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    one = ringmaster.get(f"/tasks/{task}").json
    assert one == {"task": done, "status": "successful"}


def test_s0_a_busy_first_slave_a_seven_second_task_and_all_busy(tasks):
    ringmaster = tasks.ringmaster
    began = time.monotonic()
    long = classic(ringmaster, "sleep(7)").json
    assert long["message"] == "Task successfully assigned to Slave 1."
    second = classic(ringmaster, "sleep(3)+1").json
    assert second["message"] == "Task successfully assigned to Slave 2."
    refused = classic(ringmaster, "1+1")
    assert refused.status == 503 and refused.json == {"message": "<Error> The system is at full capacity.", "status": "failure"}
    assert int(refused.headers["Retry-After"]) >= 1
    listed = ringmaster.get("/get-tasks").json["message"]["tasks"]
    assert [t["status"] for t in listed] == ["in progress", "in progress"]  # and nothing of the third is stored
    until(lambda: ringmaster.get(f"/tasks/{second['task']['id']}").json["task"]["status"] == "done", what="the second task")
    assert classic(ringmaster, "1+1").json["message"] == "Task successfully assigned to Slave 2."  # the first is still busy
    until(lambda: ringmaster.get(f"/tasks/{long['task']['id']}").json["task"]["result"] == 7, 15, "the long task")
    assert time.monotonic() - began >= 7
    assert "is done, by" not in ringmaster.log  # only if asked for


def test_s0_faults(tasks):
    ringmaster = tasks.ringmaster
    answer = classic(ringmaster, "2*(3+")
    assert answer.status == 400 and answer.json == {"message": "<Error> expression: Unexpected end of expression at position 6", "status": "failure"}
    for body in ("", "{", "[]", '{"expression":5}', '{"expression":"1","x":2}', '{"expression":""}'):
        assert ringmaster.call("POST", "/tasks", body).status == 400, body
    assert ringmaster.get("/tasks").status == 405
    assert ringmaster.get("/tasks/0123456789abcdef").status == 404
    assert ringmaster.get("/tasks/..%2fetc").status in (400, 404)
    zero = classic(ringmaster, "1/(2-2)").json["task"]["id"]
    failed = until(lambda: (t := ringmaster.get(f"/tasks/{zero}").json["task"])["status"] == "failed" and t, what="the failure")
    assert "division by zero" in failed["error"]
    assert ringmaster.call("POST", "/tasks", '{"expression":"1"}', {"Origin": "http://evil"}).status == 403


def test_the_available_question_is_answered_by_the_servers(tasks):
    task = classic(tasks.ringmaster, "sleep(30)").json["task"]["id"]

    def said():
        return sorted(unix_get(r["endpoint"], "/available")["available"] for r in tasks.ringmaster.replicas())

    until(lambda: said() == [False, True], what="one that is busy, and one that is not")
    tasks.cancel(task)
    until(lambda: said() == [True, True], what="both free again")


def unix_get(endpoint, path):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(endpoint.removeprefix("unix:"))
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


# --- the task API ---


def test_waiting_for_the_result(tasks):
    answer = tasks.expression("6*7", {"Prefer": "wait=10"})
    assert answer.status == 200 and answer.json["state"] == "done" and answer.json["result"]["result"] == 42
    assert answer.headers["Preference-Applied"] == "wait=10"
    slow = tasks.expression(f"sleep({SLOW:.0f})", {"Prefer": "wait=0"})
    assert slow.status == 202 and slow.json["state"] == "in_progress" and slow.json["replica"].startswith("Slave")
    location = slow.headers["Location"]
    assert tasks.admin("GET", location + "/result").status == 202
    assert tasks.admin("GET", location + "?wait=20").json["state"] == "done"
    assert tasks.admin("GET", location + "/result").json["result"] == SLOW
    failed = tasks.expression("1/0", {"Prefer": "wait=10"}).json
    assert failed["state"] == "failed"
    assert tasks.admin("GET", f"/v1/tasks/{failed['id']}/result").status == 409


def test_more_tasks_than_servers_wait_and_say_why(tasks):
    ids = [tasks.submit("sleep", {"seconds": 0.6 * SLOW}).json["id"] for _ in range(4)]
    states = [tasks.get(task) for task in ids]
    assert [s["state"] for s in states] == ["in_progress", "in_progress", "pending", "pending"]
    assert states[2]["waits_for"] == "a free replica: all 2 are busy"
    assert states[3]["waits_for"].startswith("its turn")
    for task in ids:
        assert tasks.get(task, "?wait=20")["state"] == "done"
    full = [tasks.submit("sleep", {"seconds": 30}, admission="now") for _ in range(3)]
    assert [answer.status for answer in full] == [202, 202, 503]
    assert full[2].json["in_progress"] == 2 and full[2].json["retry_after_ms"] > 0 and full[2].headers["Retry-After"]
    tasks.cancel(full[0].json["id"], full[1].json["id"])


def test_priorities_times_and_deadlines(tasks):
    blockers = [tasks.submit("sleep", {"seconds": SLOW}).json["id"] for _ in range(2)]
    low = tasks.expression("1", priority=-1).json["id"]
    high = tasks.expression("2", priority=5).json["id"]
    late = tasks.expression("3", deadline_ms=100).json["id"]
    soon = tasks.expression("4", delay_ms=int(600 * SLOW))
    assert soon.json["state"] == "scheduled" and tasks.get(soon.json["id"])["waits_for"] == "its time"
    expired = tasks.get(late, "?wait=10")
    assert expired["state"] == "expired" and expired["error"] == "its deadline has passed"
    done = {task: tasks.get(task, "?wait=20") for task in [*blockers, low, high, soon.json["id"]]}
    assert all(t["state"] == "done" for t in done.values())
    assert done[high]["started_at"] <= done[low]["started_at"]
    assert done[soon.json["id"]]["started_at"] >= done[soon.json["id"]]["run_at"]


def test_cancel_and_retry(tasks):
    running = tasks.submit("sleep", {"seconds": 30}).json["id"]
    cancelled = tasks.admin("POST", f"/v1/tasks/{running}:cancel")
    assert cancelled.status == 200 and cancelled.json["state"] == "cancelled"
    assert tasks.admin("POST", f"/v1/tasks/{running}:cancel").status == 409
    # Its server is free at once: it saw its client leave.
    assert tasks.expression("1", {"Prefer": "wait=5"}, admission="now").json["state"] == "done"
    assert tasks.admin("POST", f"/v1/tasks/{running}:retry").json["state"] in ("pending", "in_progress")
    tasks.admin("POST", f"/v1/tasks/{running}:cancel")
    failed = tasks.expression("1/0", {"Prefer": "wait=5"}).json["id"]
    assert tasks.admin("POST", f"/v1/tasks/{failed}:retry").status == 200
    again = tasks.get(failed, "?wait=5")
    assert again["state"] == "failed" and again["attempt"] >= 2
    done = tasks.expression("1", {"Prefer": "wait=5"}).json["id"]
    assert tasks.admin("POST", f"/v1/tasks/{done}:retry").status == 409


def test_keys(tasks):
    key = {"Idempotency-Key": "order-7"}
    first = tasks.expression("1+1", key)
    again = tasks.expression("1+1", key | {"Prefer": "wait=5"})
    assert again.status == 200 and again.json["id"] == first.json["id"] and again.json["attempt"] == 1
    other = tasks.expression("1+2", key)
    assert other.status == 422 and first.json["id"] in other.json["detail"]
    assert tasks.expression("1", {"Idempotency-Key": "x" * 201}).status == 400
    one = tasks.submit("sleep", {"seconds": SLOW}, unique_key="report")
    two = tasks.submit("sleep", {"seconds": SLOW}, unique_key="report")
    assert (one.status, two.status) == (202, 409) and one.json["id"] in two.json["detail"]
    tasks.get(one.json["id"], "?wait=10")
    assert tasks.submit("sleep", {"seconds": 0}, unique_key="report").status == 202
    # One key from many at once: one task.
    with Clients() as clients:
        for _ in range(8):
            clients.begin(tasks.expression, "7", {"Idempotency-Key": "many"})
        given = clients.join()
    assert {a.status for a in given} <= {200, 202, 409} and len({a.json["id"] for a in given if a.status != 409}) == 1


def test_lists_and_cursors(tasks):
    ids = [tasks.expression(str(i), {"Prefer": "wait=5"}).json["id"] for i in range(7)]
    cancelled = tasks.expression("1", delay_ms=60_000).json["id"]
    tasks.admin("POST", f"/v1/tasks/{cancelled}:cancel")
    page = tasks.admin("GET", "/v1/tasks?state=done&limit=3").json
    assert [t["id"] for t in page["tasks"]] == ids[:-4:-1]
    rest = tasks.admin("GET", f"/v1/tasks?state=done&limit=10&cursor={page['next']}").json
    assert [t["id"] for t in rest["tasks"]] == ids[3::-1] and rest["next"] is None
    assert [t["id"] for t in tasks.admin("GET", "/v1/tasks?state=cancelled").json["tasks"]] == [cancelled]
    replica = tasks.get(ids[0])["replica"].replace(" ", "%20")
    assert len(tasks.admin("GET", f"/v1/tasks?replica={replica}&type=expression").json["tasks"]) >= 1
    assert tasks.admin("GET", "/v1/tasks?type=prime").json["tasks"] == []
    for query in (f"state=failed&cursor={page['next']}", "cursor=abc", "state=nonsense", "limit=0", "limit=1001", "limit=x"):
        answer = tasks.admin("GET", f"/v1/tasks?{query}")
        assert answer.status == 400 and answer.headers["Content-Type"] == "application/problem+json", query


def test_batches(tasks):
    bodies = [{"type": "expression", "payload": {"expression": f"{i}*2"}} for i in range(50)]
    bodies[10]["payload"]["expression"] = "(("
    bodies[20]["type"] = "unknown"
    answer = tasks.admin("POST", "/v1/tasks:batch", {"tasks": bodies})
    assert answer.status == 200
    statuses = [one["status"] for one in answer.json["tasks"]]
    assert statuses == [422 if i in (10, 20) else 202 for i in range(50)]
    for i, one in enumerate(answer.json["tasks"]):
        if one["status"] == 202:
            assert tasks.get(one["id"], "?wait=20")["result"]["result"] == i * 2
    for bad in ({"tasks": []}, {"tasks": [{}] * 1001}, {"tasks": 5}, {"x": 1}):
        assert tasks.admin("POST", "/v1/tasks:batch", bad).status == 422


def test_events_tell_each_change_until_the_end(tasks):
    task = tasks.submit("sleep", {"seconds": 0.1}, delay_ms=int(600 * SLOW)).json["id"]
    text = tasks.admin("GET", f"/v1/tasks/{task}/events").text
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names[0] == "scheduled" and names[-1] == "done" and "in_progress" in names
    last = json.loads([line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: "))
    assert last["state"] == "done" and last["id"] == task


def test_a_queue_can_be_paused_and_that_survives_the_engine(tasks):
    assert tasks.admin("POST", "/v1/queues/default:pause").json["paused"] is True
    task = tasks.expression("1").json["id"]
    assert tasks.get(task)["waits_for"] == "the queue to be resumed: it is paused"
    assert tasks.expression("1", admission="now").status == 503
    os.kill(tasks.ringmaster.engine_pid(), signal.SIGKILL)
    until(lambda: ready(tasks), what="the next engine")
    assert tasks.admin("GET", "/v1/queues/default").json["paused"] is True
    assert tasks.state(task) == "pending"
    assert tasks.admin("PUT", "/v1/queues/default", {"in_progress_max": 1}).json["in_progress_max"] == 1
    assert tasks.admin("POST", "/v1/queues/default:resume").json["paused"] is False
    assert tasks.get(task, "?wait=10")["state"] == "done"
    ids = [tasks.submit("sleep", {"seconds": 0.5 * SLOW}).json["id"] for _ in range(2)]
    assert tasks.get(ids[1])["waits_for"] == "others to end: the queue may have 1 in progress"
    for bad in ({"paused": 1}, {"x": True}, {"in_progress_max": -1}):
        assert tasks.admin("PUT", "/v1/queues/default", bad).status == 422
    assert tasks.admin("PUT", "/v1/queues/nobody", {}).status == 404


def answers(tasks):
    try:
        return tasks.admin("GET", "/v1/tasks?limit=1").status
    except (OSError, http.client.HTTPException):
        return None


def ready(tasks):
    return answers(tasks) == 200


@pytest.mark.parametrize("policy, wanted", [("first_available", ["A", "A", "B"]), ("least_requests", ["A", "B", "C"]), ("round_robin", ["A", "B", "C"])])
def test_policies(start, policy, wanted):
    pool = POOL.replace("replicas = 3", 'replicas = 3\nnames = ["A", "B", "C"]') + "[pool.web.tasks]\nper_replica = 2\n" + HEALTH
    # The servers' /sleep takes tasks beside each other, unlike their /task.
    tasks = Tasks(start(pool + f'[queue.default]\npool = "web"\npath = "/sleep/30000"\npolicy = "{policy}"\n'))
    submitted = [tasks.submit("x").json for _ in wanted]
    assert [task["replica"] for task in submitted] == wanted
    text = tasks.admin("GET", "/metrics").text
    assert 'ringmaster_tasks_accepted_total{queue="default"} 3' in text and 'ringmaster_tasks_in_progress{queue="default"} 3' in text
    tasks.cancel(*(task["id"] for task in submitted))


# --- pull workers ---


def test_pull_workers(start):
    tasks = Tasks(start(POOL + HEALTH + '[queue.far]\nback_off = "20ms"\nfailures_max = 3\n'))
    post = lambda verb, body: tasks.admin("POST", f"/v1/work:{verb}", body)
    assert post("lease", {"worker": "w1"}).json == {"tasks": []}
    ids = [tasks.submit("report", {"n": i}).json["id"] for i in range(3)]
    assert tasks.get(ids[0])["waits_for"] == "a pull worker"
    leased = post("lease", {"worker": "w1", "n": 2, "lease_ms": 60_000}).json["tasks"]
    assert [t["id"] for t in leased] == ids[:2] and leased[0]["replica"] == "w1" and leased[0]["payload"] == {"n": 0}
    assert post("heartbeat", {"id": ids[0], "attempt": 1, "lease_ms": 90_000}).status == 200
    # An engine's crash does not end a lease, and a result is taken once.
    os.kill(tasks.ringmaster.engine_pid(), signal.SIGKILL)
    until(lambda: ready(tasks), what="the next engine")
    done = post("complete", {"id": ids[0], "attempt": 1, "result": {"pages": 3}})
    assert done.status == 200 and done.json["state"] == "done" and done.json["result"] == {"pages": 3}
    twice = post("complete", {"id": ids[0], "attempt": 1, "result": 4})
    assert twice.status == 409 and "attempt 1 is over" in twice.json["detail"]
    assert tasks.get(ids[0])["result"] == {"pages": 3}
    failed = post("fail", {"id": ids[1], "attempt": 1, "error": "no paper"}).json
    assert failed["state"] == "scheduled" and failed["error"] == "no paper"
    # A worker that is not heard of loses its task to the next one, and its own late result is refused.
    third = post("lease", {"worker": "w2", "lease_ms": 200}).json["tasks"][0]
    leased_again = until(lambda: [t for t in post("lease", {"worker": "w3", "n": 10, "wait_s": 1}).json["tasks"] if t["id"] == third["id"]], what="the lease to run out")[0]
    assert leased_again["attempt"] == 2
    assert post("complete", {"id": third["id"], "attempt": 1, "result": 1}).status == 409
    assert post("fail", {"id": third["id"], "attempt": 2, "error": "never", "final": True}).json["state"] == "failed"
    for bad in ({}, {"worker": "w", "n": 0}, {"worker": "w", "lease_ms": 1}, {"worker": "w", "wait_s": -1}):
        assert post("lease", bad).status == 422, bad
    assert post("lease", {"worker": "w", "queue": "nobody"}).status == 404
    assert post("complete", {"id": "x", "attempt": 1}).status == 422


def test_a_worker_that_waits_gets_a_new_task_at_once(start):
    tasks = Tasks(start(POOL + HEALTH + "[queue.far]\n"))
    with Clients() as clients:
        clients.begin(tasks.admin, "POST", "/v1/work:lease", {"worker": "w", "wait_s": 30})
        time.sleep(0.2)  # for it to wait; nothing tells that it does, and if it does not yet, the test proves less
        task = tasks.submit("x").json["id"]
        began = time.monotonic()
        [leased] = clients.join(20)
        assert time.monotonic() - began < 5 * SLOW, "at once, not at the end of its wait"
    assert [t["id"] for t in leased.json["tasks"]] == [task]


# --- one's own servers, and bad input ---

OWN_SERVER = """
import http.server, json, os, sys, time
state = {"n": 0}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def reply(self, status, body, kind="application/json"):
        self.send_response(status); self.send_header("Content-Type", kind); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        if self.path == "/ask": self.reply(200, json.dumps({"available": not os.path.exists("busy")}).encode())
        else: self.reply(200, b"ok")
    def do_POST(self):
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        do = payload.get("do")
        attempt = int(self.headers["Ringmaster-Task-Attempt"])
        if do == "fail-twice" and attempt <= 2: self.reply(500, b'{"detail":"not yet"}')
        elif do == "reject": self.reply(422, b'{"detail":"I do not like it"}')
        elif do == "huge": self.reply(200, b"x" * (3 << 20))
        elif do == "busy-once" and not os.path.exists("was-busy"): open("was-busy", "w").close(); self.reply(503, b"")
        elif do == "hang": time.sleep(30)
        elif do == "break": self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf"); self.close_connection = True
        else: self.reply(200, json.dumps({k: self.headers[k] for k in self.headers if k.startswith("Ringmaster")}).encode())
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def own(start, directory):
    (pathlib.Path(directory) / "own.py").write_text(OWN_SERVER)
    pool = POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                        f'command = ["/usr/bin/python3", "own.py", "{{port}}"]\ndirectory = "{directory}"').replace("replicas = 3", "replicas = 1")
    return Tasks(start(pool + '[queue.default]\npool = "web"\npath = "/work"\nback_off = "10ms"\nfailures_max = 4\n[queue.asked]\npool = "web"\nask = "/ask"\n'))


def test_ones_own_server_takes_tasks(own):
    wait = {"Prefer": "wait=20"}
    done = own.submit("anything", {"do": "well"}, wait).json
    assert done["state"] == "done" and done["result"]["Ringmaster-Task-Id"] == done["id"] and done["result"]["Ringmaster-Task-Type"] == "anything"
    assert done["result"]["Ringmaster-Task-Attempt"] == "1" and int(done["result"]["Ringmaster-Task-Deadline-Ms"]) <= 60_000
    twice = own.submit("x", {"do": "fail-twice"}, wait).json
    assert (twice["state"], twice["attempt"], twice["failures"], twice["error"]) == ("done", 3, 2, None)
    rejected = own.submit("x", {"do": "reject"}, wait).json
    assert (rejected["state"], rejected["attempt"], rejected["error"]) == ("failed", 1, "I do not like it")
    huge = own.submit("x", {"do": "huge"}, wait).json
    assert huge["state"] == "failed" and "the result is too large" in huge["error"]
    busy = own.submit("x", {"do": "busy-once"}, wait).json
    assert (busy["state"], busy["attempt"], busy["failures"]) == ("done", 2, 0)
    broken = own.submit("x", {"do": "break"}, wait).json
    assert (broken["state"], broken["failures"]) == ("failed", 4) and "broke" in broken["error"]
    slow = own.submit("x", {"do": "hang"}, wait, timeout_ms=100, failures_max=1).json
    assert slow["state"] == "failed" and slow["error"] == "no answer within 100 ms"


def test_a_server_that_has_to_be_asked_first(own, directory):
    assert own.submit("x", {}, {"Prefer": "wait=20"}, queue="asked").json["state"] == "done"
    (pathlib.Path(directory) / "busy").touch()
    assert own.submit("x", {}, queue="asked", admission="now").status == 503
    task = own.submit("x", {}, queue="asked").json["id"]
    until(lambda: "said that they are busy" in own.get(task).get("waits_for", ""), what="the reason")
    (pathlib.Path(directory) / "busy").unlink()
    assert own.get(task, "?wait=20")["state"] == "done"


def test_a_dead_replica_ends_its_attempt_at_once(tasks):
    task = tasks.submit("sleep", {"seconds": 2}).json
    victim = next(r for r in tasks.ringmaster.replicas() if r["name"] == task["replica"])
    os.kill(victim["pid"], signal.SIGKILL)
    again = until(lambda: (t := tasks.get(task["id"]))["attempt"] == 2 and t, 1.5, "the second attempt")
    assert again["failures"] == 1
    assert tasks.get(task["id"], "?wait=20")["state"] == "done"


def test_bad_input_is_a_clear_problem(tasks):
    def problem(status, body=None, headers=None, path="/v1/tasks", method="POST"):
        answer = tasks.admin(method, path, body, headers)
        assert answer.status == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json" and answer.json["status"] == status
        return answer.json["detail"]

    assert problem(415, {}, {"Content-Type": "text/plain"})
    assert "not JSON" in problem(400, "{")
    assert "object" in problem(400, "[]")
    assert "'type'" in problem(422, {})
    assert "does not take tasks of type 'magic'" in problem(422, {"type": "magic"})
    assert "no queue" in problem(404, {"type": "prime", "queue": "nobody"})
    assert "'delay_ms'" in problem(422, {"type": "prime", "delay_ms": -1})
    assert "'delay_ms'" in problem(422, {"type": "prime", "delay_ms": 1 << 70})
    assert "'colour'" in problem(422, {"type": "prime", "colour": "blue"})
    assert "two words" in problem(422, {"type": "prime", "delay_ms": 5, "run_at": "2030-01-01T00:00:00Z"})
    assert "'run_at'" in problem(422, {"type": "prime", "run_at": "2030-02-31T00:00:00Z"})
    assert "'deadline'" in problem(422, {"type": "prime", "deadline": "2001-01-01T00:00:00Z"})
    assert "'admission'" in problem(422, {"type": "prime", "admission": "later"})
    assert "payload has" in problem(413, {"type": "prime", "payload": "x" * 66_000})
    assert problem(413, b"[" * 1_000_000)
    assert "callback" in problem(422, {"type": "prime", "callback": "http://169.254.169.254/latest"})
    assert "position 6" in problem(422, {"type": "expression", "payload": {"expression": "2*(3+"}})
    assert "nested" in problem(422, {"type": "expression", "payload": {"expression": "(" * 60 + "1" + ")" * 60}})
    assert "at most 1000" in problem(422, {"type": "expression", "payload": {"expression": "1" * 60_000}})
    assert "needs an 'expression'" in problem(422, {"type": "expression", "payload": {}})
    assert problem(404, path="/v1/tasks/0123456789abcdef", method="GET")
    assert problem(404, path="/v1/tasks/7:cancel")
    assert problem(404, path="/v1/tasks/0123456789abcdef:explode")
    assert problem(405, path="/v1/tasks", method="DELETE")
    # An endless one is ended by its time, and its server is free again.
    endless = tasks.expression("isprime(9007199254740881) + sleep(60)", timeout_ms=300, failures_max=1)
    assert tasks.get(endless.json["id"], "?wait=10")["error"] == "no answer within 300 ms"
    until(lambda: tasks.expression("1", {"Prefer": "wait=5"}, admission="now").status == 200, what="a free server")


def test_without_a_queue_there_is_nothing(ringmaster):
    answer = call(ringmaster.admin, "GET", "/v1/tasks")
    assert answer.status == 404 and "no queue is configured" in answer.json["detail"]
    assert ringmaster.get("/tasks").status == 400  # the servers' own path, which they do not have


# --- callbacks ---


def test_callbacks_are_signed_retried_and_survive_a_crash(start):
    told = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append((self.path, self.headers["Ringmaster-Signature"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if len(told) == 1 else 204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    with Clients() as clients:
        clients.begin(receiver.serve_forever)
        try:
            url = f"http://127.0.0.1:{receiver.server_port}/done"
            secret = "a secret of some length"
            settings = f'[tasks]\ncallbacks = ["{url}"]\ncallback_secret = "{secret}"\n'
            tasks = Tasks(start(POOL + HEALTH + QUEUE + settings))
            for bad in (url + "x", "http://127.0.0.1:1/done", "ftp://x/", "http://user@127.0.0.1/done"):
                assert tasks.expression("1", callback=bad).status == 422
            task = tasks.expression("1+2", callback=url + "/7").json["id"]
            until(lambda: told, what="the first call")
            os.kill(tasks.ringmaster.engine_pid(), signal.SIGKILL)  # while it is due
            until(lambda: ready(tasks) and tasks.get(task)["callback"]["state"] == "told", 20, "the callback")
            path, signature, body = told[-1]
            assert path == "/done/7" and json.loads(body)["result"]["result"] == 3
            time_part, code = (part.split("=", 1)[1] for part in signature.split(","))
            assert hmac.new(secret.encode(), f"{time_part}.".encode() + body, hashlib.sha256).hexdigest() == code
        finally:
            receiver.shutdown()
    receiver.server_close()


# --- sharing, the disk, the document ---


def test_tasks_and_requests_share_tickets_and_neither_starves_the_other(start):
    pool = POOL.replace("replicas = 3", "replicas = 1\nmax_in_flight = 3\nqueue_length = 0\nbounded_load = 0")
    queue = '[queue.default]\npool = "web"\npath = "/sleep/30000"\n'
    tasks = Tasks(start(pool + "[pool.web.tasks]\nper_replica = 2\nreserved = 1\n" + HEALTH + queue))
    ringmaster = tasks.ringmaster
    with Clients() as clients:
        given = []
        for _ in range(3):
            clients.begin(lambda: given.append(ringmaster.get(f"/sleep/{1500 * SLOW:.0f}").status))
        # A place is a task's.
        until(lambda: ringmaster.replicas()[0]["in_flight"] == 2 and 503 in given, what="two requests in, one refused")
        first, second = tasks.submit("x", failures_max=1).json, tasks.submit("x", failures_max=1).json
        assert first["state"] == "in_progress" and second["state"] == "pending"
        assert ringmaster.replicas()[0]["in_flight"] == 3
    assert sorted(given) == [200, 200, 503]
    until(lambda: tasks.state(second["id"]) != "pending", what="a ticket that a request gave back")
    tasks.cancel(first["id"], second["id"])


def test_a_full_disk_refuses_new_tasks_and_loses_none(small_disk, start):
    tasks = Tasks(start(POOL + HEALTH + QUEUE))
    tasks.admin("POST", "/v1/queues/default:pause")
    accepted = {}

    def submit_until_full():
        small_disk.fill()
        # The file's log may have room yet, where it has been written before.
        for _ in range(2000):
            a = len(accepted)
            answer = tasks.submit("expression", {"expression": f"{a}+1", "ballast": "x" * 20_000})
            if answer.status != 202:
                break
            accepted[answer.json["id"]] = a + 1
        assert answer.status == 507 and answer.headers["Content-Type"] == "application/problem+json", answer.text
        assert answer.json["status"] == 507 and "database or disk is full" in answer.json["detail"], answer.text
        return answer

    def all_are_known(state):
        found = {task: tasks.get(task) for task in accepted}
        assert all(one.get("state") == state for one in found.values()), found

    for number in range(5):
        accepted[tasks.expression(f"{number}+1").json["id"]] = number + 1
    submit_until_full()
    known = tasks.admin("GET", "/v1/tasks?limit=1000").json["tasks"]
    assert {task["id"] for task in known} == set(accepted), "what was refused is not there"
    two = [{"type": "expression", "payload": {"expression": "1"}}] * 2
    batch = tasks.admin("POST", "/v1/tasks:batch", {"tasks": two})
    assert [one["status"] for one in batch.json["tasks"]] == [507, 507], batch.text
    keyed = tasks.expression("5+5", {"Idempotency-Key": "while it is full"})
    assert keyed.status == 507
    all_are_known("pending")
    assert tasks.ringmaster.get("/home").status == 200
    # Room again: at once, and for the same key.
    small_disk.free()
    keyed = tasks.expression("5+5", {"Idempotency-Key": "while it is full"})
    assert keyed.status == 202, keyed.text
    accepted[keyed.json["id"]] = 10
    # Full once more, and the engine dies: the next one has all that was acknowledged, as soon as it can open the file.
    submit_until_full()
    os.kill(tasks.ringmaster.engine_pid(), signal.SIGKILL)
    until(lambda: answers(tasks), what="the next engine")
    small_disk.free()
    until(lambda: ready(tasks), 20, "the store")
    all_are_known("pending")
    tasks.admin("POST", "/v1/queues/default:resume")
    for task, result in accepted.items():
        ended = tasks.get(task, "?wait=30")
        assert (ended["state"], ended["attempt"], ended["result"]["result"]) == ("done", 1, result), ended


def test_what_ends_while_the_disk_is_full_is_written_once_it_can_be(small_disk, start, directory):
    ledger = pathlib.Path(directory) / "ledger"
    pool = POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]',
                        f'command = ["{sys.executable}", "{HERE}/task_server.py", "{{port}}", "{ledger}"]')
    tasks = Tasks(start(pool.replace("replicas = 3", "replicas = 1") + HEALTH + '[queue.default]\npool = "web"\n'))
    running = tasks.submit("product", {"a": 6, "b": 7, "s": SLOW}).json
    waiting = tasks.submit("product", {"a": 2, "b": 3}).json
    cancelled = tasks.submit("product", {"a": 1, "b": 1}).json
    assert [task["state"] for task in (running, waiting, cancelled)] == ["in_progress", "pending", "pending"]
    small_disk.fill()
    refused = tasks.submit("product", {"a": 0, "b": 0, "ballast": "x" * 20_000}, delay_ms=3_600_000)
    assert refused.status == 507, refused.text
    until(lambda: f"task {running['id']} cannot be written" in tasks.ringmaster.log, what="the line")
    with Clients() as clients:  # both are patient for some seconds
        clients.begin(tasks.admin, "POST", f"/v1/tasks/{cancelled['id']}:cancel")
        clients.begin(tasks.admin, "GET", f"/v1/tasks/{running['id']}")
        cancel, ended = clients.join()
    said = cancel.json["detail"], ended.json["detail"]
    assert cancel.status == ended.status == 507, said
    assert "it is done, but cannot be written to the disk yet" in said[0], said
    assert "what has become of it cannot be written to the disk yet" in said[1], said
    # The next one has not been begun: its attempt is written down before it is offered to anybody.
    assert ledger.read_text().split() == [running["id"], "1"]
    small_disk.free()
    until(lambda: tasks.get(cancelled["id"]).get("state") == "cancelled", what="the cancelled one")
    for task, product in ((running, 42), (waiting, 6)):
        ended = until(lambda: (one := tasks.get(task["id"], "?wait=10")).get("state") == "done" and one, what="its end")
        assert ended["attempt"] == 1 and ended["result"] == {"product": product, "attempt": 1}
    assert sorted(ledger.read_text().splitlines()) == sorted(f"{task['id']} 1" for task in (running, waiting))


def test_a_damaged_file_is_set_aside_and_said_so(start):
    tasks = Tasks(start(POOL + HEALTH + QUEUE))
    tasks.expression("1", {"Prefer": "wait=5"})
    ringmaster = tasks.ringmaster
    assert ringmaster.stop() == 0
    file = ringmaster.directory / "state/tasks/tasks.db"
    file.write_bytes(b"this is no database" * 1000)
    ringmaster.start()
    until(lambda: ready(tasks), what="the store")
    until(lambda: "tasks.db.damaged-" in ringmaster.log, what="a line in the log")
    assert list((ringmaster.directory / "state/tasks").glob("tasks.db.damaged-*"))
    assert tasks.expression("1+1", {"Prefer": "wait=5"}).json["result"]["result"] == 2


def test_the_api_describes_itself_and_every_path_it_names_is_there(tasks):
    document = tasks.admin("GET", "/v1/openapi.json").json
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        concrete = path.replace("{pool}", "web").replace("{id}", "0123456789abcdef").replace("{queue}", "default")
        for method in operations:
            if method not in ("get", "post", "put", "delete") or path == "/v1/stop":
                continue
            answer = tasks.admin(method.upper(), concrete, "{" if method != "get" else None)
            known = answer.status != 404 or "there is no task" in answer.text or "there is no such" in answer.text
            assert known and str(answer.status) in operations[method]["responses"], (method, path, answer.status, answer.text)


# --- the command line ---


def test_the_command_line(tasks, tmp_path):
    cli = tasks.ringmaster.cli
    done = cli("task", "submit", "expression", '{"expression":"6*7"}', "--wait", "10")
    assert done.returncode == 0 and '"result":42' in done.stdout.replace(" ", ""), done
    task = cli("task", "submit", "sleep", '{"seconds":20}').stdout.split()[0]
    assert task in cli("task", "list", "--state", "in_progress").stdout
    assert cli("task", "cancel", task).returncode == 0
    assert "cancelled" in cli("task", "get", task).stdout
    assert cli("task", "cancel", task).returncode == 1
    waited = cli("task", "wait", task)
    assert waited.returncode == 1 and "cancelled" in waited.stdout
    assert cli("task", "retry", task).returncode == 0
    assert cli("task", "cancel", task).returncode == 0
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"type": "expression", "payload": {"expression": f"{i}+1"}}) + "\n" for i in range(2500)))
    many = cli("task", "submit", "--file", str(file))
    assert many.returncode == 0 and "2500 tasks accepted" in many.stdout, many
    until(lambda: tasks.admin("GET", "/v1/queues/default").json["ended"]["done"] >= 2501, 60, "all of them")
    file.write_text('{"type":"expression","payload":{"expression":"1"}}\nnonsense\n')
    bad = cli("task", "submit", "--file", str(file))
    assert bad.returncode == 1 and "many.jsonl:2" in bad.stderr, bad
    assert cli("task", "submit", "expression", "{").returncode == 2
    assert subprocess.run([BINARY, "task", "get", "x", "--admin", "127.0.0.1:1"], capture_output=True).returncode == 1
