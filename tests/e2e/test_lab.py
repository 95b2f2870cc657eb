"""`ringmaster lab`: its counts against brute force, its generator against others, its reports, and what goes wrong."""
import csv
import http.server
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import time

import pytest

from brute_force import layout, shares
from conftest import BINARY, HEALTH, POOL, SLOW, Clients, call, free_port, until
from test_balance import assert_agrees


# What is about figures, and the same code as in the tests that sanitizers see.
measured = pytest.mark.skipif(SLOW > 1, reason="SKIPPED: under a sanitizer its figures say nothing, and it takes minutes")


def lab(*arguments, timeout=300, env=None):
    """A finished run of the lab."""
    return subprocess.run([BINARY, "lab", *map(str, arguments)], capture_output=True, text=True, timeout=timeout * SLOW, env=env)


def rows(report, name):
    with open(pathlib.Path(report) / "csv" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def run_json(report):
    return json.loads((pathlib.Path(report) / "run.json").read_text())


def numbers(report, experiment):
    return run_json(report)["experiments"][experiment]["numbers"]


def load(url, *options):
    done = lab("load", url, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def serve():
    """Starts `ringmaster replica` on a port of its own: serve(*options) → (process, "http://…")."""
    started = []

    def start_one(*options):
        port = free_port()
        process = subprocess.Popen([BINARY, "replica", "--listen", f"127.0.0.1:{port}", *options], stderr=subprocess.DEVNULL)
        started.append(process)
        until(lambda: answers(port), what="the server")
        return process, f"http://127.0.0.1:{port}"

    yield start_one
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def answers(port):
    try:
        return call(("127.0.0.1", port), "GET", "/heartbeat").status == 200
    except OSError:
        return False


@pytest.fixture(autouse=True)
def tidy(monkeypatch, tmp_path):  # pytest's own folder first: it is not to be in there
    """The labs' temporary folders go into one of the test's own, and none is left. Its name is short, for sockets."""
    folder = pathlib.Path("/tmp", secrets.token_hex(3))
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    left = sorted(path.name for path in folder.iterdir())
    shutil.rmtree(folder)
    assert left == [], "something temporary was left behind"


def check_pictures(report, how_many):
    """All drawn, each with a title, and the page whole in itself."""
    if shutil.which("gnuplot") is None:
        pytest.skip("gnuplot is not installed")
    drawn = list((report / "pictures").glob("*.svg"))
    assert len(drawn) >= how_many
    assert all(path.stat().st_size > 5000 for path in drawn)
    page = (report / "report.html").read_text()
    assert page.count("<svg") == len(drawn) and page.count('role="img" aria-label="') == len(drawn)
    assert not re.search(r'(src|href)="https?:', page)


# --- what it measures ---


def agree_with_brute_force(report, table, names):
    counts = {}
    for row in rows(report, table):
        counts.setdefault((row["policy" if "policy" in row else "functions"], int(row["N"])), {})[int(row["server"])] = int(row["requests"])
    for (shown, functions) in names.items():
        for probing in ("linear", "quadratic"):
            for n in range(2, 7):
                expected = shares(functions, layout(functions, probing, range(1, n + 1)))
                got = {server: count for server, count in counts[(f"{shown} {probing}", n)].items() if count > 0}
                assert_agrees(got, expected, sum(got.values()))


@measured
def test_the_counts_of_distribution_agree_with_brute_force(tmp_path):
    done = lab("distribution", "--quick", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    agree_with_brute_force(tmp_path / "report", "distribution", {"ring s1": "s1", "ring s2": "s2"})
    even = [row for row in rows(tmp_path / "report", "distribution") if row["policy"] == "round_robin"]
    assert even and all(abs(int(row["requests"]) - float(row["expected"])) <= 4 for row in even)
    check_pictures(tmp_path / "report", 1)


@measured
def test_the_counts_of_functions_agree_with_brute_force(tmp_path):
    own = ("--request-function", "3*i*i + i", "--virtual-function", "7*i + j*j")
    done = lab("functions", "--quick", "--out", tmp_path / "report", *own)
    assert done.returncode == 0, done.stderr
    known = {"S1": "s1", "S2": "s2", "variant 1": "variant 1", "variant 2": "variant 2", "variant 3": "variant 3"}
    agree_with_brute_force(tmp_path / "report", "functions", known)
    # The maps are exact: a few of their cells by brute force.
    cells = {(row["functions"], int(row["K"])): float(row["max ÷ mean"]) for row in rows(tmp_path / "report", "functions_map3") if row["max ÷ mean"]}
    assert ("yours linear", 170) in cells and ("S1 linear", 171) not in cells
    for k in (1, 9, 40):
        for name, probing in (("S1", "quadratic"), ("variant 2", "linear")):
            expected = shares(known[name], layout(known[name], probing, range(1, 4), k=k))
            assert cells[(f"{name} {probing}", k)] == pytest.approx(max(expected.values()) * 3, abs=0.001)
    check_pictures(tmp_path / "report", 5)


@measured
def test_scaling_goes_on_by_computation(tmp_path):
    done = lab("scaling", "--quick", "--requests", 500, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    computed = rows(tmp_path / "report", "scaling_computed")
    assert [computed[0]["N"], computed[-1]["N"]] == ["2", "1000"]
    assert computed[-1]["ring s1 linear"] == "" and computed[-1]["round_robin"] == "1.000"
    expected = shares("s1", layout("s1", "linear", range(1, 7)))
    assert float(next(row for row in computed if row["N"] == "6")["ring s1 linear"]) == pytest.approx(max(expected.values()) * 6, rel=0.01)
    check_pictures(tmp_path / "report", 3)


def test_recovery_sees_no_failed_request(tmp_path):
    done = lab("recovery", "--quick", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    found = numbers(tmp_path / "report", "recovery")
    assert found["failed requests"] == 0 and found["requests"] > 1000
    kills = rows(tmp_path / "report", "recovery")
    assert len(kills) == 5 and all(float(kill["ready"]) > 0 and float(kill["first answer"]) > 0 for kill in kills)
    assert float(kills[0]["noticed"]) <= float(kills[0]["ready"])
    check_pictures(tmp_path / "report", 2)


def test_churn_counts_the_keys_that_move(tmp_path):
    done = lab("churn", "--quick", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    found = {row["policy"]: row for row in rows(tmp_path / "report", "churn")}
    assert 12 < float(found["rendezvous"]["added"]) < 22  # 1 in 6, by 2,000 keys
    assert found["rendezvous"]["replaced"] == found["maglev"]["replaced"] == found["ring xxhash linear"]["replaced"] == "0.00"
    assert float(found["random"]["replaced"]) > 60
    check_pictures(tmp_path / "report", 2)


@pytest.mark.measures
@measured
def test_all_requests_of_all_phases_are_successful(tmp_path):
    done = lab("phases", "--quick", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    phases = rows(tmp_path / "report", "phases")
    assert [(row["successful"], row["of"]) for row in phases] == [("500", "500")] * 6
    check_pictures(tmp_path / "report", 2)


@pytest.mark.skipif(os.environ.get("LONG") != "1", reason="80 s: ./dev test --long runs it")
@pytest.mark.measures
@measured
def test_the_other_experiments_make_their_reports(tmp_path):
    for name, pictures in (("classic", 1), ("hotkey", 1), ("slow", 1), ("overload", 1)):
        report = tmp_path / name
        done = lab(name, "--quick", "--out", report)
        assert done.returncode == 0, done.stderr
        experiment = run_json(report)["experiments"][name]
        assert all(experiment[sentence] for sentence in ("done", "outcome", "why")) and experiment["numbers"]
        check_pictures(report, pictures)
    compared = lab("compare", tmp_path / "classic", tmp_path / "classic")
    assert compared.returncode == 0 and re.search(r"seconds .* × 1\.00", compared.stdout), compared.stdout


# --- the generator ---

UNITS = {"us": 0.001, "ms": 1, "s": 1000}


def wrk(url, *options):
    out = subprocess.run(["wrk", *options, "--latency", url], capture_output=True, text=True, check=True).stdout
    return {share: float(value) * UNITS[unit] for share, value, unit in re.findall(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s)$", out, re.M)}


def h2load_mean(url, *options):
    """In milliseconds; it tells no percentiles."""
    out = subprocess.run(["h2load", "--h1", *options, url], capture_output=True, text=True, check=True).stdout
    mean, unit = re.search(r"time for request:(?:\s+[\d.]+\w+){2}\s+([\d.]+)(us|ms|s)", out).groups()
    return float(mean) * UNITS[unit]


@pytest.mark.measures
def test_its_latencies_are_those_of_wrk_and_h2load(serve):
    _, url = serve()
    url += "/sleep/20"
    ours, theirs, others = [], [], []
    for _ in range(3):
        ours.append(load(url, "-c", 8, "-d", 1)["p50_ms"])
        theirs.append(wrk(url, "-t1", "-c8", "-d1")["50"])
        others.append(h2load_mean(url, "-c8", "-n300"))
    median = statistics.median
    assert median(ours) == pytest.approx(median(theirs), rel=0.1 * SLOW)
    assert median(ours) == pytest.approx(median(others), rel=0.1 * SLOW)


@pytest.mark.measures
def test_it_finds_the_stall_that_a_closed_loop_omits(serve):
    """The server stands still for three eighths of the time. h2load and our own closed loop see two slow requests; wrk 4 does not count here,
    since it adds to what it measured the requests that it guesses to be missing."""
    process, url = serve()
    url += "/home"

    def stall():  # these times are the experiment
        time.sleep(1)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)

    found = []
    for measure in (lambda: load(url, "-r", 200, "-d", 4), lambda: load(url, "-c", 2, "-d", 4), lambda: h2load_mean(url, "-c2", "-D4")):
        with Clients() as clients:
            clients.begin(stall)
            found.append(measure())
    opened, closed, others = found
    assert opened["p90_ms"] > 800 and opened["sent"] == pytest.approx(800, abs=10)
    assert opened["mean_ms"] == pytest.approx(0.375 * 750, rel=0.25)  # those that were due in the stall waited half of it on average
    assert closed["p99_ms"] < 100 and others < 20


def test_it_sends_what_it_was_asked_to_send(serve, start):
    _, url = serve()
    found = load(url + "/home", "-n", 1000, "-c", 7)
    assert (found["sent"], found["good"], found["connections"]) == (1000, 1000, 7)
    found = load(url + "/home", "--each", 10, "-c", 50)
    assert (found["sent"], found["good"]) == (500, 500)
    found = load(url + "/home", "-r", 500, "-d", 2, "--poisson", "--numbered")
    assert 850 < found["sent"] < 1150 and found["connections"] < 64
    ringmaster = start(POOL.replace('key = "request_id"', 'key = "query:i"') + HEALTH + '[access_log]\nformat = "json"\n')
    found = load("http://%s:%d/home?i={i}" % ringmaster.traffic[0], "-n", 20, "--numbered")
    assert found["good"] == 20
    entries = until(lambda: (lines := [json.loads(line) for line in ringmaster.log.splitlines() if line.startswith("{")]) and len(lines) >= 21 and lines)  # and the one by which the target was tried
    assert {entry["request_id"] for entry in entries} >= {f"lab-{i}" for i in range(20)}


# --- what goes wrong ---


def test_a_target_that_is_no_good_is_said_at_once(tmp_path, serve, start):
    out = ("--out", tmp_path / "report")
    process, url = serve()
    for arguments, code, why in (
        (("classic", "--url", f"http://127.0.0.1:{free_port()}/home"), 1, "Connection refused); is it running?"),
        (("classic", "--url", url + "/nothing"), 2, "answers 404: is the path right?"),
        (("classic", "--url", "https://127.0.0.1/"), 2, "must be of the form http://"),
        (("classic", "--url", "http://192.0.2.1/"), 2, "is not an address of this machine; load is sent elsewhere only with --i-own-this-target"),
        (("load", "http://192.0.2.1/"), 2, "--i-own-this-target"),
        (("recovery", "--url", url + "/home"), 1, "it needs the admin API: --admin"),
        (("recovery", "--admin", "127.0.0.1:5001"), 2, "--admin requires --url"),
        (("load", url + "/home", "--each", "3", "--rate", "5"), 2, "excludes"),
        (("classic", "--url", url + "/home", "--admin", url.removeprefix("http://")), 1, "admin API"),
        (("classic", "--url", url + "/home", "--admin", f"127.0.0.1:{free_port()}"), 1, "does not answer"),
        (("functions", "--request-function", "i +", "--virtual-function", "j"), 1, "the function 'i +'"),
    ):
        done = lab(*arguments, *(out if arguments[0] != "load" else ()))
        assert done.returncode == code and why in done.stderr, (arguments, done.returncode, done.stderr)
    assert lab("slow", "--url", url).returncode == 2  # only with one of its own
    nobody = start(POOL.replace("replicas = 3", "replicas = 0") + HEALTH)
    done = lab("distribution", "--url", "http://%s:%d/home" % nobody.traffic[0], *out)
    assert done.returncode == 2 and "it has no server that is ready" in done.stderr


def test_it_runs_against_a_ringmaster_that_runs(tmp_path, start):
    ringmaster = start(POOL + HEALTH)
    where = ("--url", "http://%s:%d/home" % ringmaster.traffic[0], "--admin", "%s:%d" % ringmaster.admin)
    done = lab("all", "--quick", *where, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert list(run_json(tmp_path / "report")["experiments"]) == ["classic", "distribution"]
    assert "left out: phases compares configurations" in done.stderr
    assert "left out: recovery kills servers" in done.stderr
    counted = rows(tmp_path / "report", "distribution")
    assert [row["server"] for row in counted] == ["1", "2", "3"] and sum(int(row["requests"]) for row in counted) == 2000
    before = {replica["pid"] for replica in ringmaster.replicas()}
    done = lab("recovery", "--quick", *where, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert not before & {replica["pid"] for replica in ringmaster.replicas()} and len(ringmaster.replicas()) == 3


def test_it_kills_only_what_is_surely_a_server_of_that_ringmaster(tmp_path, start):
    """An admin API that names other processes: another machine's numbers, or a container's."""
    ringmaster = start(POOL + HEALTH)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as bystander:
        try:
            lies_about(ringmaster, bystander, tmp_path)
        finally:
            bystander.kill()


def lies_about(ringmaster, bystander, tmp_path):
    status = ringmaster.get_admin("/v1/status")
    answers = {pid: json.dumps({"replicas": [{"name": "Server 1", "slot": 1, "pid": pid, "requests": 0, "state": "ready"}]}) for pid in (bystander.pid, 1, 0, -1, 2**32 + 1)}
    for pid, pool in answers.items():
        class Liar(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = (json.dumps(status) if self.path == "/v1/status" else pool).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as liar, Clients() as clients:
            clients.begin(liar.serve_forever)
            try:
                done = lab("recovery", "--quick", "--url", "http://%s:%d/home" % ringmaster.traffic[0],
                           "--admin", "127.0.0.1:%d" % liar.server_port, "--out", tmp_path / "report")
            finally:
                liar.shutdown()
        assert done.returncode == 1 and "it cannot be killed from here" in done.stderr, (pid, done.stderr)
    assert bystander.poll() is None


@pytest.mark.parametrize("lie, why", [("1", "a server does not tell the truth about its id"), ("9", "answers say that they are from '9', and there is no such server")])
def test_a_replica_that_lies_about_its_id_is_found_out(tmp_path, start, lie, why):
    liar = f"[[ $SERVER_ID = 2 ]] && SERVER_ID={lie}; exec '{{ringmaster}}' replica --listen 'unix:{{socket}}'"
    command = json.dumps(["bash", "-c", liar])
    ringmaster = start(re.sub("command = .*", lambda _: "command = " + command, POOL) + HEALTH)
    done = lab("distribution", "--url", "http://%s:%d/home" % ringmaster.traffic[0], "--admin", "%s:%d" % ringmaster.admin, "--out", tmp_path / "report")
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert why.split("'")[0] in (tmp_path / "report/report.html").read_text()


def test_without_gnuplot_there_are_figures_and_a_word_about_it(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = lab("classic", "--quick", "--requests", 500, "--out", tmp_path / "report", env={**os.environ, "PATH": str(empty)})
    assert done.returncode == 0 and "gnuplot could not be run" in done.stderr, done.stderr
    assert len(rows(tmp_path / "report", "classic")) == 3
    assert "apt-get install gnuplot-nox" in (tmp_path / "report/report.html").read_text()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/run.json").write_text("{}")
    done = lab("classic", "--out", tmp_path / "other")
    assert done.returncode == 1 and "is not of a report of the lab" in done.stderr and (tmp_path / "other/run.json").read_text() == "{}"
    done = lab("classic", "--out", tmp_path / "file/report")
    assert done.returncode == 1 and "the report cannot be written" in done.stderr and "answers in" not in done.stderr, done.stderr
    assert (tmp_path / "file").read_text() == "mine"
    done = lab("compare", tmp_path, tmp_path)
    assert done.returncode == 2 and "is no report of the lab" in done.stderr


def test_only_what_an_earlier_report_left_is_removed(tmp_path):
    for name in ("notes.txt", "csv/mine.csv"):
        (tmp_path / "report" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "report" / name).write_text("mine")
    assert lab("classic", "--requests", 100, "--out", tmp_path / "report").returncode == 0
    assert (tmp_path / "report/notes.txt").exists() and (tmp_path / "report/csv/mine.csv").exists()


def replicas_of_the_lab(folder):
    """Those of the Ringmaster that a lab has started in this temporary folder, if it is there yet."""
    for addresses in folder.glob("ringmaster-lab-*/state/addresses.json"):
        try:
            host, port = json.loads(addresses.read_text())["admin"].rsplit(":", 1)
            return call((host, int(port)), "GET", "/v1/pools/web").json["replicas"]
        except OSError:
            break
    return []


def load_is_on(replicas):
    return sum(replica["requests"] for replica in replicas) > 2000


def one_was_killed(replicas):
    return any(replica["epoch"] > 1 for replica in replicas)


@pytest.mark.parametrize("length", [14, 40, 80])
def test_the_name_of_the_temporary_folder_may_be_long(tmp_path, tidy, length):
    """Sockets' paths may not: then it takes another folder."""
    folder = tidy / ("t" * (length - len(f"{tidy}/")))
    folder.mkdir()
    done = lab("classic", "--requests", 100, "--out", tmp_path / "report", env={**os.environ, "TMPDIR": str(folder)})
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    assert left == []


@pytest.mark.parametrize("experiment, is_under_way",
                         [("classic", load_is_on), ("all", load_is_on), ("recovery", one_was_killed)])
def test_an_interrupt_keeps_what_was_measured(tmp_path, tidy, experiment, is_under_way):
    """With a thousand million requests to send, or in the middle of something else."""
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen([BINARY, "lab", experiment, "--requests", "1000000000",
                                    "--out", tmp_path / "report"], stderr=said)
    try:
        until(lambda: is_under_way(replicas_of_the_lab(tidy)), 30, "the middle of it")
        process.send_signal(signal.SIGINT)
        process.wait(60 * SLOW)
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "said").read_text()
    assert process.returncode == 1 and "will take hours" in said and "what was measured is kept" in said, said
    found = run_json(tmp_path / "report")["experiments"]
    assert found and list(found.values())[-1]["interrupted"]
    assert "ended before its time" in (tmp_path / "report/report.html").read_text()
    if experiment == "classic":
        assert int(rows(tmp_path / "report", "classic")[0]["requests"]) > 1000


def cpu_seconds(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    user, system = text[text.rindex(")") + 2:].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_a_target_that_goes_away_ends_the_load_and_is_said(serve):
    process, url = serve()
    with Clients() as clients:
        clients.begin(lab, "load", url + "/home", "-n", 1000000000, "--json")
        until(lambda: cpu_seconds(process.pid) > 0.3, what="load")
        process.kill()
        [done] = clients.join()
    assert done.returncode == 1 and "ended early: the target has given no good answer for" in done.stderr
    found = json.loads(done.stdout)
    assert found["good"] > 100 and any("refused" in fault for fault in found["faults"])
