#!/usr/bin/env python3
"""Do others read what Ringmaster forwards as it was meant?   differential.py [MUTATIONS] [--seed N] [--copy]

Mutated requests, with smuggling in mind, go through a real Ringmaster to a recorder. Each byte string that was
forwarded, for one request, is then given to nginx, HAProxy, Node's llhttp and Python's http.server, with a plain
request behind it: all must find these two requests and no others, with the same methods, targets and bodies. Who refuses
to read something cannot be led astray by it: that is counted, and is no difference.

--copy shows that differences are found: the mutations reach the others as they are, as a relay that copies bytes would
have it, and two of them must read something differently. It fails if they do not.

RINGMASTER_BIN is what is tested (build/release/ringmaster). All differences are in build/fuzz/differential.txt, and
examples of what is refused.
"""
import argparse
import asyncio
import collections
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import http_peers
import mutations

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RINGMASTER_BIN", str(ROOT / "build/release/ringmaster"))
LANES = 100
PATIENCE_S = 0.25  # for an answer; a mutation may well be the beginning of a request only
HEALTH = b"/health-of-the-recorder"
ADDRESS = re.compile(rb"(?i)(X-Forwarded-For: )(127\.\d+\.\d+\.\d+)\r\n")
SHOWN = 20


# --- through Ringmaster, to a recorder ---

class Recorder(asyncio.Protocol):
    """One connection is one request, byte for byte; also what comes behind it before its answer is read."""
    tapes = collections.Counter()
    first_of = {}
    broken_off = 0

    def connection_made(self, transport):
        self.transport, self.data, self.answered = transport, b"", False

    def data_received(self, data):
        self.data += data
        if self.answered:
            return
        try:
            self.answered = http_peers.split_request(self.data) is not None
        except http_peers.NotHttp:
            self.answered = True  # judged later
        if self.answered:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def connection_lost(self, error):
        if HEALTH in self.data.split(b"\r\n")[0]:
            return
        if not self.answered:
            Recorder.broken_off += 1  # the client left in the middle of its body
            return
        client = ADDRESS.search(self.data)
        tape = ADDRESS.sub(rb"\g<1>127.0.0.1\r\n", self.data)
        Recorder.tapes[tape] += 1
        Recorder.first_of.setdefault(tape, client[2].decode() if client else None)


def record(port, pipe):
    async def run():
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_reader(pipe.fileno(), stop.set)
        async with await loop.create_server(Recorder, "127.0.0.1", port, backlog=1000):
            await stop.wait()
            await asyncio.sleep(0.5)  # what is still on its way
    asyncio.run(run())
    pipe.send((dict(Recorder.tapes), Recorder.first_of, Recorder.broken_off))


def address_of(number):
    """A loopback address for each mutation: Ringmaster tells the recorder, in X-Forwarded-For, whose request it is."""
    return f"127.{64 + number // 62500}.{number // 250 % 250 + 1}.{number % 250 + 1}"


async def send(port, number, data, statuses):
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setblocking(False)
    answers = b""
    try:
        connection.bind((address_of(number), 0))
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, data)
        async with asyncio.timeout(PATIENCE_S):
            while piece := await loop.sock_recv(connection, 65536):
                answers += piece
    except (TimeoutError, OSError):
        pass
    finally:
        connection.close()
    statuses[answers[9:12].decode("latin-1") or "none"] += 1


async def send_all(port, requests):
    statuses, left = collections.Counter(), iter(enumerate(requests))

    async def lane():
        for number, data in left:
            await send(port, number, data, statuses)
    await asyncio.gather(*(lane() for _ in range(LANES)))
    return statuses


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def await_ready(port, process, log):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as one:
                one.sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                if one.makefile("rb").readline().startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("differential: Ringmaster does not serve:\n" + pathlib.Path(log).read_text()[-2000:])


def through_ringmaster(folder, requests):
    """What it forwarded: {bytes: how often}, {bytes: the mutation's number or None}."""
    port, behind = free_port(), free_port()
    (folder / "c.toml").write_text(f'state_dir = "{folder}/state"\nworkers = 1\n'
                                   '[trace]\ntraceparent = false\nrequest_id = ""\n'
                                   f'[[listener]]\naddress = "127.0.0.1:{port}"\npool = "web"\n'
                                   f'[pool.web]\nservers = ["127.0.0.1:{behind}"]\neject = {{errors = 0}}\n'
                                   f'health = {{path = "{HEALTH.decode()}", interval = "30s"}}\n')
    pipe, end = multiprocessing.Pipe()
    recorder = multiprocessing.Process(target=record, args=(behind, end), daemon=True)
    recorder.start()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([BINARY, "up", "--config", str(folder / "c.toml")], stdout=log, stderr=log)
    try:
        await_ready(port, process, folder / "log")
        statuses = asyncio.run(send_all(port, requests))
        pipe.send("stop")
        tapes, first_of, broken_off = pipe.recv()
        alive = process.poll() is None and b"killed by" not in (folder / "log").read_bytes()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        recorder.kill()
    if not alive:
        sys.exit("differential: Ringmaster's engine ended meanwhile:\n" + (folder / "log").read_text()[-3000:])
    print(f"  first answers: {dict(sorted(statuses.items()))}; {broken_off} bodies broken off", flush=True)
    numbers = {address_of(number): number for number in range(len(requests))}
    return tapes, {tape: numbers.get(client) for tape, client in first_of.items()}


# --- compared ---

def meant(tape):
    """The one request that it is, as Ringmaster's own rules have it; a text if it is none."""
    try:
        found = http_peers.split_request(tape)
    except http_peers.NotHttp as why:
        return f"is no strict HTTP: {why}"
    if found is None:
        return "is no whole request"
    method, target, body, used = found
    if used != len(tape):
        return f"has {len(tape) - used} bytes behind its request"
    return [method.decode(), target.decode(), body.hex()]


def is_upgrade(tape):
    """Then what is behind it need not be HTTP, and Node leaves it alone."""
    return re.search(rb"(?i)\r\nConnection: [^\r]*upgrade", tape.partition(b"\r\n\r\n")[0]) is not None


def compare(peers, tapes, wanted):
    """Those who read something else, and an example of each refusal, as text."""
    differences, examples = [], []
    for peer in peers:
        began = time.monotonic()
        refusals, same, before = collections.Counter(), 0, len(differences)
        for tape, one, (reading, refusal) in zip(tapes, wanted, peer.read(tapes)):
            if reading == [one, ["GET", "/sentinel", ""]]:
                same += 1
            elif reading == [one] and refusal == "waits" and is_upgrade(tape):
                same += 1
            elif not reading and refusal and not refusal.startswith("waits"):
                refusals[refusal] += 1
                if refusals[refusal] <= 3:
                    examples.append(f"{peer.name} refuses, {refusal}: {tape!r}")
            else:
                differences.append((tape, f"{peer.name} read {reading} {refusal or ''}\n  meant {one}"))
        print(f"  {peer.name:8} {same} read the same, {len(differences) - before} READ OTHERWISE, "
              f"{sum(refusals.values())} refused {dict(refusals.most_common(5))}"
              f"   ({time.monotonic() - began:.0f} s)", flush=True)
    return differences, examples


def disagreements(peers, tapes):
    """What two of them read to its end, and differently. How an absolute target is passed on is a matter of taste."""
    readings = {peer.name: peer.read(tapes) for peer in peers}
    differences = []
    for number, tape in enumerate(tapes):
        told = {}
        for name, all_of_it in readings.items():
            reading, refusal = all_of_it[number]
            if refusal is None:
                requests = [[one[0], re.sub("^[a-z]+://[^/]*", "", one[1]), *one[2:]] for one in reading]
                told.setdefault(str(requests), []).append(name)
        if len(told) > 1:
            sayings = [f"{', '.join(names)} read {reading}" for reading, names in told.items()]
            differences.append((tape, "\n  ".join(sayings)))
    return differences


def run(options, folder):
    """True if all is as it should be."""
    began = time.monotonic()
    mutator = mutations.Mutator(options.seed)
    requests = [mutator.next() for _ in range(options.mutations)]
    peers, missing = http_peers.available(folder)
    if missing:
        line = "!" * 100
        print(f"\n{line}\nNOT COMPARED, as they are not installed: {', '.join(missing)}."
              f" ./dev setup fuzz installs them.\n{line}\n", flush=True)
    print(f"{len(requests)} mutated requests{'' if options.copy else ' through ' + BINARY}", flush=True)
    examples = []
    if options.copy:
        origin = {data.removesuffix(mutations.LAST): None for data in requests}
        differences = disagreements(peers, sorted(origin))
    else:
        tapes, origin = through_ringmaster(folder, requests)
        told = {tape: meant(tape) for tape in tapes}
        good = sorted(tape for tape, what in told.items() if not isinstance(what, str))
        print(f"  {sum(tapes.values())} requests forwarded, {len(tapes)} of them distinct"
              f" ({time.monotonic() - began:.0f} s)", flush=True)
        if len(good) < options.mutations // 100:
            sys.exit("differential: hardly anything was forwarded: nothing has been shown")
        differences, examples = compare(peers, good, [told[tape] for tape in good])
        differences += [(tape, what) for tape, what in told.items() if isinstance(what, str)]
    lines = []
    for tape, what in differences:
        of = "" if origin[tape] is None else f"\n  of {requests[origin[tape]]!r}"
        lines.append(f"{tape!r}\n  {what}{of}")
    report = ROOT / "build/fuzz/differential.txt"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n\n".join(lines + examples) + "\n")
    print("\n\n".join(lines[:SHOWN]))
    print(f"{len(lines)} differences, in {time.monotonic() - began:.0f} s; at most {SHOWN} are shown, all are in {report}")
    return bool(lines) == options.copy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutations", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--copy", action="store_true")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rm-differential-"))
    try:
        return 0 if run(parser.parse_args(), folder) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
