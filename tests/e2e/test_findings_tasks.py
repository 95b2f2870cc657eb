"""Finding 24: tasks while the store opens, after crashes, and with callbacks that nobody took."""
import fcntl
import http.server
import json
import os
import pathlib
import signal
import threading

import pytest
from conftest import HEALTH, POOL, call, until
from flexible import Background

JSON = {"Content-Type": "application/json"}
QUEUE = '[queue.default]\npool = "web"\ntimeout = "2m"\nback_off = "20ms"\n'
ONE = POOL.replace("replicas = 3", "replicas = 1") + HEALTH


def admin(ringmaster, method, path, body=None):
    return call(ringmaster.admin, method, path, None if body is None else json.dumps(body), JSON)


def submit(ringmaster, **members):
    return admin(ringmaster, "POST", "/v1/tasks", {"type": "sleep", "payload": {}} | members)


def opened(ringmaster):
    until(lambda: admin(ringmaster, "GET", "/v1/tasks").status == 200, what="the store of tasks")


def task(ringmaster, submitted):
    return admin(ringmaster, "GET", "/v1/tasks/" + submitted.json["id"]).json


@pytest.fixture
def listener():
    """Somebody who takes callbacks; `told` has what came."""
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if server.good else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.good, server.told = True, told
    server.url = f"http://127.0.0.1:{server.server_port}/done"
    server.settings = f'[tasks]\ncallbacks = ["{server.url}"]\ncallback_secret = "0123456789abcdef"\n'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_24_a_task_that_comes_while_the_store_opens_waits_for_it(start, directory):
    folder = pathlib.Path(directory) / "state/tasks"
    folder.mkdir(parents=True)
    with open(folder / "tasks.db.lock", "w") as lock:  # as an engine that has not ended yet would hold it
        fcntl.flock(lock, fcntl.LOCK_EX)
        ringmaster = start(ONE + QUEUE)
        request = Background(ringmaster.admin, "/v1/tasks", "POST", body='{"type":"sleep","payload":{"seconds":0}}', headers=JSON)
        late = submit(ringmaster, deadline_ms=300)  # comes back when its deadline is over, and meanwhile the first one waits
        assert late.status == 503 and request.answer is None
    assert request.wait().status == 202


def crash(ringmaster):
    """Kills the engine, and waits for the next one."""
    os.kill(ringmaster.engine_pid(), signal.SIGKILL)

    def is_back():
        try:
            return admin(ringmaster, "GET", "/v1/tasks").status == 200
        except OSError:
            return False
    until(is_back, what="the next engine")


def test_24_a_task_whose_every_attempt_ends_the_engine_is_failed(start):
    ringmaster = start(POOL + HEALTH + QUEUE)  # a replica for each attempt: the earlier ones may still be at work
    opened(ringmaster)
    submitted = submit(ringmaster, payload={"seconds": 60})
    for _ in range(3):
        until(lambda: task(ringmaster, submitted).get("state") == "in_progress", what="its attempt")
        crash(ringmaster)
    until(lambda: task(ringmaster, submitted)["state"] == "failed")
    assert "3 times in a row" in task(ringmaster, submitted)["error"]


SERVER = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(ledger, b"+")
        time.sleep(1.5)
        os.write(ledger, b"-")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_24_a_replica_works_on_no_more_tasks_than_per_replica_though_the_engine_was_killed(start, directory):
    script, ledger = pathlib.Path(directory) / "server.py", pathlib.Path(directory) / "ledger"
    script.write_text(SERVER)
    pool = POOL.replace("replicas = 3", "replicas = 1").replace(
        '["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]', f'["/usr/bin/python3", "{script}", "{{port}}", "{ledger}"]')
    ringmaster = start(pool + HEALTH + QUEUE.replace('"2m"', '"4s"'))
    opened(ringmaster)
    submitted = [submit(ringmaster) for _ in range(2)]
    read = lambda: ledger.read_text() if ledger.exists() else ""
    until(lambda: read() == "+", what="the first attempt")
    crash(ringmaster)
    until(lambda: all(task(ringmaster, one)["state"] == "done" for one in submitted), 20, "the end of both")
    assert read() == "+-" * 3  # the first was begun twice, and never two at a time


def test_24_a_callback_that_was_given_up_can_be_sent_again(start, listener):
    listener.good = False
    settings = listener.settings + 'callback_tries = 2\ncallback_back_off = "10ms"\n'
    ringmaster = start(settings + ONE + QUEUE)
    opened(ringmaster)
    submitted = submit(ringmaster, payload={"seconds": 0}, callback=listener.url)
    until(lambda: task(ringmaster, submitted).get("callback", {}).get("state") == "given up")
    assert len(listener.told) == 2
    listener.good = True
    again = admin(ringmaster, "POST", f"/v1/tasks/{submitted.json['id']}:resend")
    assert again.status == 200, again.text
    until(lambda: task(ringmaster, submitted)["callback"]["state"] == "told")
    assert len(listener.told) == 3
    none = submit(ringmaster, payload={"seconds": 0})
    until(lambda: task(ringmaster, none)["state"] == "done")
    assert 400 <= admin(ringmaster, "POST", f"/v1/tasks/{none.json['id']}:resend").status < 500


def test_24_a_callback_is_told_though_its_queue_is_not_configured_any_more(start, listener):
    listener.good = False
    ringmaster = start(listener.settings + ONE + QUEUE)
    opened(ringmaster)
    submitted = submit(ringmaster, payload={"seconds": 0}, callback=listener.url)
    until(lambda: len(listener.told) >= 1)
    ringmaster.stop()
    listener.good = True
    before = len(listener.told)
    ringmaster.config.write_text(ringmaster.config.read_text().replace("[queue.default]", "[queue.other]"))
    ringmaster.start()
    opened(ringmaster)
    until(lambda: len(listener.told) > before)
    until(lambda: task(ringmaster, submitted)["callback"]["state"] == "told")
    assert ringmaster.get_admin("/v1/status")["engine"]["number"] == 1, "the engine has not died of it"


def test_24_memory_of_tasks_that_wait_counts_more_than_their_payloads(start):
    ringmaster = start('[tasks]\nwaiting_bytes_max = "20KiB"\n' + ONE + QUEUE)
    opened(ringmaster)
    assert admin(ringmaster, "POST", "/v1/queues/default:pause").status == 200
    statuses = [submit(ringmaster).status for _ in range(60)]
    assert statuses[:8] == [202] * 8 and statuses[-1] == 503, statuses
