"""CONTRACT S1 to S3 byte for byte, and the answers decided for bad input."""
import json
import socket
import threading

import pytest

from conftest import HEALTH, POOL, call, until


def listing(*names):
    return json.dumps({"message": {"N": len(names), "replicas": list(names)}, "status": "successful"}, separators=(",", ":"))


def failure(why):
    return json.dumps({"message": f"<Error> {why}", "status": "failure"}, separators=(",", ":"))


# `ringmaster.first` are the names at the beginning: "Server 1" and so on, or, of containers, "Server1".


def test_home_and_heartbeat(ringmaster):
    seen = set()
    for _ in range(60):
        answer = ringmaster.get("/home")
        assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
        slot = int(answer.json["message"].rsplit(" ", 1)[1])
        assert answer.text == '{"message":"Hello from Server: %d","status":"successful"}' % slot
        seen.add(slot)
    assert seen == {1, 2, 3}
    beat = ringmaster.get("/heartbeat")
    assert (beat.status, beat.body) == (200, b"")


def test_rep_and_get_list_every_slot(ringmaster):
    for path in ("/rep", "/get", "/rep?x=1"):
        answer = ringmaster.get(path)
        wanted = '{"message":{"N":3,"replicas":["%s","%s","%s"]},"status":"successful"}' % ringmaster.first
        assert (answer.status, answer.text) == (200, wanted)
        assert answer.headers["Content-Type"] == "application/json"


def test_add_and_rm_to_the_letter(ringmaster):
    added = ringmaster.call("POST", "/add", '{"n":4,"hostnames":["S5","S4","S10","S11"]}')
    wanted = '{"message":{"N":7,"replicas":["%s","%s","%s","S5","S4","S10","S11"]},"status":"successful"}' % ringmaster.first
    assert (added.status, added.text) == (200, wanted)
    assert ringmaster.get("/rep").text == added.text
    removed = ringmaster.call("DELETE", "/rm", '{"n":3,"hostnames":["S5","S4"]}')
    names = removed.json["message"]["replicas"]
    assert removed.status == 200 and removed.text == listing(*names) and len(names) == 4
    assert not {"S5", "S4"} & set(names) and set(names) < {*ringmaster.first, "S10", "S11"}
    assert ringmaster.get("/rep").text == removed.text


def test_s3_names(ringmaster):
    ringmaster.call("DELETE", "/rm", '{"n":3}')  # one of the names may be taken
    answer = ringmaster.call("POST", "/add", '{"n":3,"hostnames":["Server0","Server1","Server2"]}')
    assert answer.text == listing("Server0", "Server1", "Server2")


def test_missing_names_are_random_and_freed_slots_are_refilled_lowest_first(ringmaster):
    ringmaster.call("DELETE", "/rm", json.dumps({"n": 1, "hostnames": [ringmaster.first[1]]}))
    names = ringmaster.call("POST", "/add", '{"n":2,"hostnames":["S9"]}').json["message"]["replicas"]
    assert names[:3] == [ringmaster.first[0], "S9", ringmaster.first[2]] and len(names) == 4 and names[3] not in ringmaster.first
    assert ringmaster.get("/home").status == 200


def test_other_paths_and_methods(ringmaster):
    answer = ringmaster.get("/other?x=1")
    assert (answer.status, answer.text) == (400, failure("'/other' endpoint does not exist in server replicas"))
    assert answer.headers["Content-Type"] == "application/json"
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        echoed = ringmaster.call(method, "/echo?a=b", body="hello")
        assert echoed.status == 200 and echoed.json["method"] == method and echoed.json["body"] == "hello"


ADD_FAULTS = [
    ("{", "the body is not JSON"),
    ("[1]", 'the body must be a JSON object such as {"n":1}'),
    ("{}", "n is missing"),
    ('{"n":0}', "n must be a whole number, 1 or more"),
    ('{"n":-1}', "n must be a whole number, 1 or more"),
    ('{"n":1.5}', "n must be a whole number, 1 or more"),
    ('{"n":"2"}', "n must be a whole number, 1 or more"),
    ('{"n":1000}', "there can be at most 56 servers; there are 3"),
    ('{"n":99999999999999999999}', "n must be a whole number, 1 or more"),
    ('{"n":54,"hostnames":["aa"]}', "there can be at most 56 servers; there are 3"),
    ('{"n":1,"hostnames":["aa","bb"]}', "Length of hostname list is more than newly added instances"),
    ('{"n":1,"hostnames":["Server 1"]}', "the hostname 'Server 1' is taken"),
    ('{"n":2,"hostnames":["aa","aa"]}', "the hostname 'aa' is given twice"),
    ('{"n":1,"hostnames":["../x"]}', "'../x' is not a valid hostname: letters, digits, ' _.-', at most 63, a letter or digit first"),
    ('{"n":1,"hostnames":[5]}', "'' is not a valid hostname: letters, digits, ' _.-', at most 63, a letter or digit first"),
    ('{"n":1,"hostnames":[5,6]}', "Length of hostname list is more than newly added instances"),
    ('{"n":1000,"hostnames":[5]}', "there can be at most 56 servers; there are 3"),
]
RM_FAULTS = [
    ('{"n":4}', "there are only 3 servers to remove"),
    ('{"n":1,"hostnames":["Server 1","Server 2"]}', "Length of hostname list is more than removable instances"),
    ('{"n":1,"hostnames":["nobody"]}', "there is no server 'nobody'"),
    ('{"n":2,"hostnames":["Server 1","Server 1"]}', "the hostname 'Server 1' is given twice"),
]


def test_bad_input_changes_nothing(ringmaster):
    for method, path, faults in (("POST", "/add", ADD_FAULTS), ("DELETE", "/rm", RM_FAULTS)):
        for body, why in faults:
            body, why = (text.replace("Server 1", ringmaster.first[0]).replace("Server 2", ringmaster.first[1]) for text in (body, why))
            answer = ringmaster.call(method, path, body)
            assert (answer.status, answer.text) == (400, failure(why)), body
            assert answer.headers["Content-Type"] == "application/json"
    assert ringmaster.call("POST", "/add", "x" * 70000).status == 413
    assert ringmaster.get("/rep").text == listing(*ringmaster.first)


def test_wrong_methods_and_web_pages_are_refused(ringmaster):
    for method, path, allowed in (("POST", "/rep", "GET, HEAD"), ("GET", "/add", "POST"), ("POST", "/rm", "DELETE"), ("DELETE", "/get", "GET, HEAD")):
        answer = ringmaster.call(method, path, "{}")
        assert answer.status == 405 and answer.headers["Allow"] == allowed and answer.json["status"] == "failure"
    answer = ringmaster.call("POST", "/add", '{"n":1}', {"Origin": "http://evil.example"})
    assert answer.status == 403 and answer.json["status"] == "failure"
    assert ringmaster.get("/rep").text == listing(*ringmaster.first)


def test_rm_of_all_and_starting_with_none(ringmaster):
    answer = ringmaster.call("DELETE", "/rm", '{"n":3}')
    assert answer.text == listing() == '{"message":{"N":0,"replicas":[]},"status":"successful"}'
    none = ringmaster.get("/home")
    assert none.status == 503 and none.json["status"] == "failure" and "Retry-After" in none.headers
    assert ringmaster.call("POST", "/add", '{"n":1,"hostnames":["Again"]}').text == listing("Again")
    assert ringmaster.get("/home").text == '{"message":"Hello from Server: 1","status":"successful"}'


def test_an_empty_pool_is_served(start):
    ringmaster = start(POOL.replace("replicas = 3", "replicas = 0") + HEALTH)
    assert ringmaster.get("/rep").text == listing()
    assert ringmaster.call("POST", "/add", '{"n":3,"hostnames":["Server0","Server1","Server2"]}').text == listing("Server0", "Server1", "Server2")


def test_two_adds_at_once_take_turns(ringmaster):
    answers = []
    threads = [threading.Thread(target=lambda k=k: answers.append(ringmaster.call("POST", "/add", '{"n":5}'))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.json["message"]["N"] for answer in answers) == [8, 13, 18, 23]
    assert len(set(ringmaster.rep()["replicas"])) == 23


def test_an_add_that_never_becomes_ready_is_taken_back(start):
    # The name decides: servers called Dead… do not listen.
    command = 'command = ["/bin/sh", "-c", "case \\"$SERVER_NAME\\" in Dead*) exec sleep 1000;; esac; exec \\"$0\\" replica --listen unix:{socket}", "{ringmaster}", "{socket}"]'
    config = POOL.replace('command = ["{ringmaster}", "replica", "--listen", "unix:{socket}", "--name", "{name}"]', command + '\nready_timeout = "700ms"')
    ringmaster = start(config + HEALTH)
    answer = ringmaster.call("POST", "/add", '{"n":2,"hostnames":["Fine","Dead"]}')
    assert (answer.status, answer.text) == (500, failure("2 servers were to be added, but did not become ready: Dead"))
    assert ringmaster.get("/rep").text == listing(*ringmaster.first)
    until(lambda: len(ringmaster.replicas()) == 3, what="the two gone")


def test_names_with_bytes_that_are_not_text_are_refused(ringmaster):
    answer = ringmaster.call("POST", "/add", b'{"n":1,"hostnames":["\xff\xfe"]}')
    assert answer.status == 400
    answer = ringmaster.call("POST", "/add", '{"n":1,"hostnames":["a\\nb\\u0000"]}')
    assert answer.status == 400 and "\\u0000" not in answer.text
