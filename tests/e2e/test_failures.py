"""Retries, hedging, deadlines, health: what happens when replicas are slow, fail, or lie about it."""
import time

from conftest import SLOW, call, until
from flexible import Background, config, field, headers_of

SPREAD = 'policy = "round_robin"\n'


def metric(ringmaster, name):
    text = call(ringmaster.admin, "GET", "/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"ringmaster_{name}"))


def test_a_kept_connection_that_the_only_server_closed_fails_no_request(start):
    ringmaster = start(config(replicas=1))
    for _ in range(50):
        assert ringmaster.get("/once").status == 200  # its connection is closed just now, or about to be


def test_the_total_deadline_ends_with_504_and_the_replica_is_told_of_it(start):
    ringmaster = start(config(SPREAD + '[pool.web.retry]\ntimeout = "400ms"\ndeadline_header = "X-Deadline-Ms"\n'))
    told = int(headers_of(ringmaster.get("/echo", headers={"X-Deadline-Ms": "999999"}))["x-deadline-ms"][0])
    assert 0 < told <= 400
    began = time.monotonic()
    assert ringmaster.get("/slow/any/3000").status == 504
    assert 0.35 < time.monotonic() - began < 1.5 * SLOW


def test_a_try_that_takes_too_long_is_tried_elsewhere(start):
    ringmaster = start(config('policy = "first_available"\n[pool.web.retry]\ntry_timeout = "300ms"\n'))
    answer = ringmaster.get("/slow/A/3000")
    assert answer.status == 200 and answer.text == "B"
    assert metric(ringmaster, "pool_retries_total") == 1
    assert ringmaster.call("POST", "/slow/A/1000").status == 504  # never twice


def test_without_a_budget_there_are_no_retries(start):
    ringmaster = start(config('policy = "first_available"\n[pool.web.retry]\ntry_timeout = "200ms"\nbudget_percent = 0\nbudget_per_second = 0\n'))
    assert ringmaster.get("/slow/A/2000").status == 504
    assert metric(ringmaster, "pool_retries_denied_total") == 1


def test_hedging_asks_a_second_replica_when_the_first_is_slow(start):
    ringmaster = start(config(SPREAD + '[pool.web.retry]\nhedge_percentile = 90\n'))
    for _ in range(400):
        assert ringmaster.get("/slow/none/0").status == 200

    def hedged():
        began = time.monotonic()
        answer = ringmaster.get("/slow/A/2000")
        assert answer.status == 200 and answer.text in "BC"
        assert time.monotonic() - began < 1.5 * SLOW
        return metric(ringmaster, "pool_hedges_total") >= 1

    until(hedged)  # each worker goes round on its own, so which request comes to A first isn't known
    until(lambda: all(replica["in_flight"] == 0 for replica in ringmaster.replicas()))


def test_errors_in_a_row_eject_a_replica_for_a_while(start):
    ringmaster = start(config(SPREAD + '[pool.web.eject]\nerrors = 3\nduration = "%dms"\n' % (1000 * SLOW)))
    for _ in range(12):
        ringmaster.get("/only/B/500")
    ejected = until(lambda: [replica["name"] for replica in ringmaster.replicas() if replica["ejected"]])
    assert ejected == ["B"]
    assert all(field(ringmaster.get("/only/B/500"), "X-Replica") != "B" for _ in range(12))
    # The others fail as well, but more than half of the pool is never taken out.
    for _ in range(24):
        ringmaster.get("/only/A/500")
    assert [replica["name"] for replica in ringmaster.replicas() if replica["ejected"]] in (["B"], [])
    until(lambda: not any(replica["ejected"] for replica in ringmaster.replicas()))
    assert "B" in {field(ringmaster.get("/echo"), "X-Replica") for _ in range(12)}


def make_unhealthy(ringmaster, name):
    """Tells a replica, past the balancer, to fail its checks."""
    endpoint = next(replica["endpoint"] for replica in ringmaster.replicas() if replica["name"] == name)
    host, port = endpoint.rsplit(":", 1)
    return lambda status: call((host, int(port)), "PUT", f"/health/{status}")


def test_below_half_healthy_all_that_live_are_used(start):
    ringmaster = start(config(SPREAD, replicas=3))
    set_a, set_b = make_unhealthy(ringmaster, "A"), make_unhealthy(ringmaster, "B")
    set_a(500)
    until(lambda: ringmaster.pool()["ready"] == 2)
    assert {field(ringmaster.get("/echo"), "X-Replica") for _ in range(12)} == {"B", "C"}
    set_b(500)
    until(lambda: ringmaster.pool()["ready"] == 1)
    until(lambda: {field(ringmaster.get("/echo"), "X-Replica") for _ in range(12)} == {"A", "B", "C"})
    set_a(200), set_b(200)
    until(lambda: ringmaster.pool()["ready"] == 3)


def test_checks_ask_what_they_are_told_to(start):
    health = 'path = "/health"\nhost = "checks.example"\nmethod = "GET"\nstatus = ["200", "204-299"]\nbody = "all is well"\ninterval = "100ms"\nfall = 1\nrise = 1\n'
    ringmaster = start(config(SPREAD, health=health, replicas=1))  # ready: so host and body were as they should be
    make_unhealthy(ringmaster, "A")(201)
    until(lambda: ringmaster.pool()["ready"] == 0)
    make_unhealthy(ringmaster, "A")(299)
    until(lambda: ringmaster.pool()["ready"] == 1)


def test_idle_checks_come_only_while_no_request_passes_and_one_failure_is_enough(start):
    health = 'path = "/health"\nwhen = "idle"\ninterval = "100ms"\n'
    ringmaster = start("[timeouts]\nresponse = \"400ms\"\n" + config('policy = "first_available"\n', health=health, replicas=2))

    def checks():
        return ringmaster.get("/checks").json["checks"]
    before = checks()
    stop = time.monotonic() + 1
    while time.monotonic() < stop:
        assert ringmaster.get("/slow/none/0").status == 200
    assert checks() <= before + 2, "requests were passing all the time"
    make_unhealthy(ringmaster, "A")(500)
    # It fails a request: from now on it is inactive, and its check keeps it so.
    assert ringmaster.get("/slow/A/1500").status == 504
    until(lambda: {r["name"]: r["state"] for r in ringmaster.replicas()}["A"] == "unhealthy")
    assert field(ringmaster.get("/echo"), "X-Replica") == "B"
    make_unhealthy(ringmaster, "A")(200)
    until(lambda: field(ringmaster.get("/echo"), "X-Replica") == "A")


def test_a_slow_replica_does_not_hold_up_the_others(start):
    """Under least_requests only one request at a time is lost to it."""
    ringmaster = start(config('policy = "least_requests"\n', replicas=4))
    address = ringmaster.traffic[0]

    def busy():
        return [replica["name"] for replica in ringmaster.replicas() if replica["in_flight"]]

    held = []
    for count, ms in enumerate((700, 700, 700, 4000), 1):  # one for each
        held.append(Background(address, f"/slow/any/{ms * SLOW:.0f}"))
        until(lambda: len(busy()) == count, what=f"{count} of them busy")
    [slow] = until(lambda: len(names := busy()) == 1 and names, what="the slow one alone")
    began = time.monotonic()
    answers = [call(address, "GET", "/slow/none/0") for _ in range(100)]
    assert time.monotonic() - began < 2 * SLOW
    assert all(answer.status == 200 and field(answer, "X-Replica") != slow for answer in answers)
    assert busy() == [slow], "it was as slow all the time"
    assert all(request.wait().status == 200 for request in held)
