#!/usr/bin/env python3
"""Would the tests notice if the program broke its promises? Breaks it on purpose, a line at a time, and looks.

mutants.toml lists the mutations: which text of which file becomes which other text, what promise that breaks, and which
tests should fail then. Each is made in a copy of the sources (build/mutants-tree), built without optimisation
(build/mutants), and its tests are run, in their order, until one fails or hangs: the mutant is caught. One that nothing
catches has survived: either a test is missing, or `survives` in the list says why there can be none.

Before all that the same tests must pass on the unchanged program: else that they fail says nothing.

  ./dev mutants                        all of them
  ./dev mutants retry-of-a-post …      these alone
  ./dev mutants --list                 what there is, and whether the list fits the sources; builds nothing

What went on is in build/mutants/logs. The exit code is 0 when all is well, 1 when a mutant has survived that should not
have, or the list is wrong, 2 when the run is worthless. SIM_SEEDS=1000 looks harder than the 50 seeds of every day, and
RINGMASTER_SLOW=2 gives end-to-end tests twice the time.
"""
import argparse
import ast
import ctypes
import dataclasses
import fcntl
import fnmatch
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIST = "tests/mutants.toml"
TREE = ROOT / "build/mutants-tree"
BUILD = ROOT / "build/mutants"
LOGS = BUILD / "logs"
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]  # Debian's, which has pytest
SEEDS = os.environ.get("SIM_SEEDS", "50")  # a run that finds nothing takes the time of all of them
KEYS = {"name", "file", "old", "new", "breaks", "tests", "survives"}


class Worthless(Exception):
    """Nothing can be said about the tests."""


class DoesNotCompile(Exception):
    pass


# --- the list ---

@dataclasses.dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: list
    survives: str = ""


def read_list(root):
    """(mutants, faults)"""
    with open(root / LIST, "rb") as file:
        entries = tomllib.load(file).get("mutant", [])
    mutants, faults, names = [], [], set()
    for number, entry in enumerate(entries, 1):
        name = entry.get("name", f"number {number}")
        strange = set(entry) - KEYS
        missing = KEYS - {"survives"} - set(entry)
        if strange or missing:
            wrong = [f"'{key}' is missing" for key in sorted(missing)]
            wrong += [f"'{key}' is not known" for key in sorted(strange)]
            faults.append(f"{name}: {', '.join(wrong)}")
            continue
        mutant = Mutant(**entry)
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name in names:
            faults.append(f"{name}: the name is taken already, or has other characters than a-z, 0-9 and -")
        names.add(name)
        faults += [f"{name}: {fault}" for fault in faults_of(mutant, root)]
        mutants.append(mutant)
    return mutants, faults


def faults_of(mutant, root):
    path = root / mutant.file
    if not path.is_file():
        yield f"there is no {mutant.file}"
    elif (count := path.read_text().count(mutant.old)) != 1:
        yield f"its old text is in {mutant.file} {count} times, not once"
    if mutant.old == mutant.new:
        yield "old and new text are the same"
    if not mutant.tests:
        yield "it names no test"
    for test in mutant.tests:
        yield from test_faults(test, root)


# --- tests: "unit:http_test:Body.*", "sim", "sim:Fleet.*", "e2e:test_routes.py::test_rates_are_limited_by_key" ---

def split(test):
    """(kind, program or file, filter or test)"""
    kind, _, rest = test.partition(":")
    if kind == "sim":
        return kind, "sim_test", rest or "Simulation.HoldsItsInvariantsOverManySeeds"
    first, _, second = rest.partition("::" if kind == "e2e" else ":")
    return kind, first, second


def gtest_names(files):
    """As --gtest_list_tests would name them; of those with parameters the first."""
    names = set()
    for file in files:
        text = file.read_text()
        instances = re.findall(r"^INSTANTIATE_TEST_SUITE_P\((\w+), (\w+)", text, re.M)
        prefixes = {suite: prefix for prefix, suite in instances}
        for macro, suite, name in re.findall(r"^(TEST|TEST_F|TEST_P)\((\w+), (\w+)\)", text, re.M):
            names.add(f"{prefixes.get(suite, '?')}/{suite}.{name}/0" if macro == "TEST_P" else f"{suite}.{name}")
    return names


def test_faults(test, root):
    kind, what, which = split(test)
    if kind == "e2e":
        file = root / "tests/e2e" / what
        if not file.is_file():
            yield f"there is no tests/e2e/{what}"
            return
        functions = {node.name: node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        name, bracket, _ = which.partition("[")
        if not name.startswith("test_") or name not in functions:
            yield f"there is no test '{name}' in tests/e2e/{what}"
        elif bracket and not any("parametrize" in ast.unparse(one) for one in functions[name].decorator_list):
            yield f"test '{name}' has no parameters"
        return
    if kind == "sim":
        files = sorted((root / "tests/sim").glob("*_test.cc"))
    elif kind == "unit" and what.endswith("_test"):
        files = sorted((root / "src" / what.removesuffix("_test")).glob("*_test.cc"))
    else:
        yield f"'{test}' is no test: write unit:ROOM_test:FILTER, sim, sim:FILTER or e2e:FILE.py::NAME"
        return
    names = gtest_names(files)
    for pattern in which.split(":"):
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            yield f"no test of {what} is called '{pattern}'"


def target_of(test):
    kind, what, _ = split(test)
    return "ringmaster" if kind == "e2e" else what


def command_of(test):
    kind, what, which = split(test)
    if kind == "e2e":
        return [*PYTEST, f"tests/e2e/{what}::{which}"]
    program = BUILD / ("tests" if kind == "sim" else "src") / what
    return [str(program), f"--gtest_filter={which}", "--gtest_fail_fast"]


# --- running ---

def end_orphans():
    """What a test has left running has become ours, as we are its "subreaper"; nothing else of ours runs meanwhile."""
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children")
    while pids := children.read_text().split():
        for pid in map(int, pids):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def end(process):
    """When they are interrupted, pytest ends what its fixtures have begun, and ninja removes half an object file: both
    are given a while for that."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(command, log, limit=None, environment=None):
    """(exit code, or None if it took longer than `limit` seconds; what it wrote)"""
    with open(log, "ab+") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        begin = file.tell()
        # Its own session: Ctrl-C is for us, and what it starts can be ended with it.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=TREE,
                                   env=environment, start_new_session=True)
        code = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            end(process)
            end_orphans()
        file.seek(begin)
        return code, file.read().decode(errors="replace")


def run_test(test, log, limit=None):
    """("passed", "failed", "skipped" or "hung"; seconds)"""
    # Short: paths of Unix sockets begin with it.
    folder = tempfile.mkdtemp(prefix="m-", dir="/tmp")
    os.chmod(folder, 0o711)  # some tests have servers of other users
    environment = os.environ | {"SIM_SEEDS": SEEDS, "RINGMASTER_BIN": str(BUILD / "ringmaster"), "TMPDIR": folder,
                                "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    try:
        code, said = run(command_of(test), log, limit, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    if code is None:
        return "hung", seconds
    if split(test)[0] == "e2e":
        if code not in (0, 1):
            raise Worthless(f"pytest cannot run {test}: see {log}")
        if code == 0 and not re.search(r"\b\d+ passed\b", said):
            return "skipped", seconds
    elif code == 0 and re.search(r"\b0 tests from 0 test suites ran\b", said):
        raise Worthless(f"there is no {test}: see {log}")
    return "passed" if code == 0 else "failed", seconds


def build(targets, log, jobs):
    code, said = run(["ninja", "-C", str(BUILD), "-j", str(jobs), *targets], log)
    if code != 0:
        lines = [line.replace(f"{TREE}/", "") for line in said.splitlines() if "error:" in line]
        lines = lines or said.splitlines()[-3:]
        raise DoesNotCompile("\n".join(f"    {line}" for line in lines[:3]))


def copy_sources():
    """Files of the same content are left alone, so that nothing is built for nothing."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    names = {name for name in listed if name and (ROOT / name).is_file()}
    for name in names:
        source, copy = ROOT / name, TREE / name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        shutil.copymode(source, copy)
    for path in [path for path in TREE.rglob("*") if not path.is_dir()]:
        if str(path.relative_to(TREE)) not in names:
            path.unlink()


def prepare(mutants, jobs):
    """Configures and builds the unchanged program, and runs all tests on it: the seconds that each took, or None for
    those that are skipped here."""
    log = LOGS / "unmutated.log"
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    listing = "-DCMAKE_GTEST_DISCOVER_TESTS_DISCOVERY_MODE=PRE_TEST"  # else each build would run what it has built
    code, said = run(["cmake", "--preset", "mutants", "-B", str(BUILD), listing], log)
    if code != 0:
        raise Worthless(f"cmake cannot configure it: see {log}\n{said[-2000:]}")
    print("building the unchanged program", flush=True)
    try:
        build(list(dict.fromkeys(map(target_of, tests))), log, jobs)
    except DoesNotCompile as fault:
        raise Worthless(f"the unchanged program does not compile: see {log}\n{fault}") from None
    print(f"running {len(tests)} tests on it", flush=True)
    took, bad = {}, []
    for test in tests:
        outcome, seconds = run_test(test, log, limit=900)
        took[test] = None if outcome == "skipped" else seconds
        if outcome == "skipped":
            print(f"  skipped here: {test}", flush=True)
        if outcome in ("failed", "hung"):
            bad.append(test)
            print(f"  FAILS on the unchanged program: {test}", flush=True)
    if bad:
        raise Worthless(f"{len(bad)} tests fail on the unchanged program: what they say means nothing: see {log}")
    return took


@dataclasses.dataclass
class Verdict:
    kind: str  # caught, survived, not tried, wrong
    text: str


def judge(mutant, took, jobs):
    log = LOGS / f"{mutant.name}.log"
    log.unlink(missing_ok=True)
    file = TREE / mutant.file
    original = file.read_text()
    tests = [test for test in mutant.tests if took[test] is not None]
    file.write_text(original.replace(mutant.old, mutant.new))
    try:
        for test in tests:
            build([target_of(test)], log, jobs)
            # Ample: a failing test may first wait for what does not come, and a busy machine is no mutant.
            outcome, _ = run_test(test, log, limit=30 + 5 * took[test])
            if outcome in ("failed", "hung"):
                return Verdict("caught", test + (" (timeout)" if outcome == "hung" else ""))
    except DoesNotCompile as fault:
        return Verdict("wrong", f"does not compile\n{fault}")
    finally:
        file.write_text(original)
    if len(tests) < len(mutant.tests):
        return Verdict("not tried", "by all of its tests, as some are skipped here")
    return Verdict("survived", "")


# --- what is said ---

def show_list(mutants, faults):
    for mutant in mutants:
        path = ROOT / mutant.file
        found = path.read_text().partition(mutant.old) if path.is_file() else ("", "", "")
        line = found[0].count("\n") + 1 if found[1] else "?"
        print(f"{mutant.name}\n    {mutant.file}:{line}: {mutant.breaks}")
        for test in mutant.tests:
            print(f"    {test}")
        if mutant.survives:
            print(f"    survives: {mutant.survives}")
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(mutants)} mutants, {len(faults)} faults of the list")


def summarise(verdicts, chosen):
    """The exit code."""
    count = lambda kind: sum(verdict.kind == kind for _, verdict in verdicts)
    print(f"\n{len(verdicts)} of {chosen} mutants: {count('caught')} caught, {count('survived')} survived, "
          f"{count('not tried')} not tried, {count('wrong')} wrong")
    bad = count("wrong")
    for mutant, verdict in verdicts:
        if verdict.kind == "survived" and mutant.survives:
            print(f"  {mutant.name} survives: {mutant.survives}")
        elif verdict.kind == "survived":
            bad += 1
            print(f"  {mutant.name} SURVIVED ({mutant.file}): {mutant.breaks}")
        elif verdict.kind == "caught" and mutant.survives:
            bad += 1
            print(f"  {mutant.name} is caught: take its `survives` out of the list")
        elif verdict.kind == "wrong":
            print(f"  {mutant.name} is wrong: {verdict.text}")
    return 1 if bad else 0


def run_all(mutants, jobs):
    took = prepare(mutants, jobs)
    verdicts = []
    try:
        for mutant in mutants:
            began = time.monotonic()
            verdict = judge(mutant, took, jobs)
            verdicts.append((mutant, verdict))
            seconds = time.monotonic() - began
            print(f"{verdict.kind:9}  {mutant.name:48} {seconds:6.1f} s  {verdict.text}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
        summarise(verdicts, len(mutants))
        return 130
    return summarise(verdicts, len(mutants))


def begin():
    """What this process needs: its children's orphans, no core dumps of what crashes, the folders for itself alone."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise Worthless("prctl: what tests leave running could not be ended")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    TREE.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    lock = open(ROOT / "build/mutants.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Worthless("another ./dev mutants is running") from None
    for log in LOGS.glob("*.log"):
        log.unlink()
    return lock  # held for as long as it is referred to


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the mutants that are wanted; without one: all")
    parser.add_argument("--list", action="store_true", help="show and check the list; builds nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="compilers at a time")
    options = parser.parse_args()
    lock = None
    try:
        if not options.list:
            lock = begin()
            copy_sources()
        mutants, faults = read_list(ROOT if options.list else TREE)
        if unknown := set(options.names) - {mutant.name for mutant in mutants}:
            raise Worthless(f"there is no mutant '{sorted(unknown)[0]}': see --list")
        chosen = [mutant for mutant in mutants if not options.names or mutant.name in options.names]
        if options.list:
            show_list(chosen, faults)
            return 1 if faults else 0
        if faults:
            raise Worthless("the list is wrong:\n" + "\n".join(f"  {fault}" for fault in faults))
        return run_all(chosen, options.jobs)
    except Worthless as why:
        print(f"mutants: {why}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        del lock


if __name__ == "__main__":
    sys.exit(main())
