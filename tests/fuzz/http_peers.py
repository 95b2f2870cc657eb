"""How others read bytes: nginx, HAProxy, Node's llhttp and Python's http.server. Each is given a connection's bytes,
and SENTINEL behind them; its reading is the requests that it found ([method, target, body] each) and, if it refused to
go on, why.

nginx and HAProxy are run with an echo behind them, whose answers say what they made of it.
"""
import asyncio
import base64
import http.server
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import time

SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
CONNECTIONS = 32
WAIT_S = 1.0
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


class NotHttp(Exception):
    pass


def split_request(data):
    """(method, target, body, bytes used), None if more is to come. Strict: what breaks a rule is NotHttp."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, *fields = data[:end].split(b"\r\n")
    if not (match := re.fullmatch(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.[01]", line)):
        raise NotHttp(f"request line {line!r}")
    lengths, encodings = [], []
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not re.fullmatch(TOKEN, name) or re.search(rb"[\0-\x08\x0a-\x1f\x7f]", value):
            raise NotHttp(f"field {field!r}")
        if name.lower() == b"content-length":
            lengths.append(value.strip(b" \t"))
        if name.lower() == b"transfer-encoding":
            encodings.append(value.strip(b" \t").lower())
    at = end + 4
    known = all(re.fullmatch(rb"[0-9]+", one) for one in lengths) and all(one == b"chunked" for one in encodings)
    if len(lengths) + len(encodings) > 1 or not known:
        raise NotHttp(f"framing {lengths!r} {encodings!r}")
    if lengths:
        body = data[at:at + int(lengths[0])]
        return (match[1], match[2], body, at + len(body)) if len(body) == int(lengths[0]) else None
    if not encodings:
        return match[1], match[2], b"", at
    body = b""
    while (stop := data.find(b"\r\n", at)) >= 0:
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}(;.*)?", data[at:stop]):
            raise NotHttp(f"chunk {data[at:stop]!r}")
        size = int(data[at:stop].split(b";")[0], 16)
        at = stop + 2
        if size == 0:
            stop = data.find(b"\r\n", at) if data[at:at + 2] == b"\r\n" else data.find(b"\r\n\r\n", at) + 2
            return (match[1], match[2], body, stop + 2) if stop >= at else None
        if len(data) < at + size + 2:
            return None
        body += data[at:at + size]
        if data[at + size:at + size + 2] != b"\r\n":
            raise NotHttp("a chunk's end")
        at += size + 2
    return None


class Echo(asyncio.Protocol):
    """Answers each request with what it was."""

    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        self.data += data
        try:
            while (found := split_request(self.data)) is not None:
                method, target, body, used = found
                self.data = self.data[used:]
                self.say([method.decode(), target.decode(), body.hex()])
        except NotHttp as why:
            self.say(["not HTTP", str(why), self.data.hex()], b"Connection: close\r\n")
            self.transport.close()

    def say(self, what, extra=b""):
        said = base64.b64encode(json.dumps(what).encode())
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + extra + b"X-Echo: " + said + b"\r\n\r\n")


def run_echo(path):
    async def run():
        server = await asyncio.get_running_loop().create_unix_server(Echo, path, backlog=1000)
        await server.serve_forever()
    asyncio.run(run())


def reading_of(answers):
    """What a proxy's answers say that it read."""
    reading = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        status = head[9:12].decode("latin-1")
        if status.startswith("1"):
            answers = rest
            continue
        if not (said := re.search(rb"\r\nX-Echo: (\S+)", head, re.I)):
            return reading, status or "an answer that is none"
        reading.append(json.loads(base64.b64decode(said[1])))
        answers = rest  # the echo's answers have no body
    return reading, None if reading and reading[-1][1] == "/sentinel" else "waits or closes"


async def ask(path, data):
    reader, writer = await asyncio.open_unix_connection(path)
    answers = b""
    try:
        writer.write(data + SENTINEL)
        async with asyncio.timeout(WAIT_S):
            while piece := await reader.read(65536):
                answers += piece
    except (TimeoutError, OSError):
        pass
    finally:
        writer.close()
    return reading_of(answers)


class Proxy:
    """A real one, before an echo, in the folder."""

    def __init__(self, folder):
        self.folder = folder

    def read(self, tapes):
        async def run():
            readings, left = [None] * len(tapes), iter(range(len(tapes)))

            async def lane():
                for number in left:
                    readings[number] = await ask(f"{self.folder}/{self.name}.sock", tapes[number])
            await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))
            return readings
        echo = multiprocessing.Process(target=run_echo, args=(f"{self.folder}/echo-{self.name}.sock",), daemon=True)
        echo.start()
        with open(f"{self.folder}/{self.name}.log", "wb") as log:
            process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        try:
            self.await_ready(process)
            return asyncio.run(run())
        finally:
            process.terminate()
            process.wait(20)
            echo.terminate()
            echo.join()

    def await_ready(self, process):
        deadline = time.monotonic() + 20
        while not all(os.path.exists(f"{self.folder}/{kind}{self.name}.sock") for kind in ("", "echo-")):
            if process.poll() is not None or time.monotonic() > deadline:
                with open(f"{self.folder}/{self.name}.log") as log:
                    raise RuntimeError(f"{self.name} does not start: {log.read()[-500:]}")
            time.sleep(0.05)


class Nginx(Proxy):
    name, program = "nginx", "nginx"

    def command(self):
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.folder}/nginx-{kind};\n" for kind in kinds)
        with open(f"{self.folder}/nginx.conf", "w") as file:
            file.write(f"""
                daemon off; master_process off; worker_processes 1;
                pid {self.folder}/nginx.pid; error_log {self.folder}/nginx-errors.log;
                events {{ worker_connections 1000; }}
                http {{
                  access_log off; {paths}
                  large_client_header_buffers 8 64k; client_max_body_size 0;
                  upstream echo {{
                    server unix:{self.folder}/echo-nginx.sock; keepalive 64; keepalive_requests 1000000;
                  }}
                  server {{
                    listen unix:{self.folder}/nginx.sock backlog=1000;
                    location / {{ proxy_pass http://echo; proxy_http_version 1.1; proxy_set_header Connection ""; }}
                  }}
                }}""")
        return ["nginx", "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf"]


class Haproxy(Proxy):
    name, program = "haproxy", "haproxy"

    def command(self):
        with open(f"{self.folder}/haproxy.cfg", "w") as file:
            file.write(f"""
global
  tune.bufsize 65536
  tune.http.maxhdr 500
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  http-reuse always
frontend in
  bind unix@{self.folder}/haproxy.sock
  default_backend echo
backend echo
  server echo unix@{self.folder}/echo-haproxy.sock
""")
        return ["haproxy", "-db", "-f", f"{self.folder}/haproxy.cfg"]


class Node:
    name, program = "node", "node"

    def __init__(self, folder):
        pass

    def read(self, tapes):
        lines = b"\n".join(base64.b64encode(tape + SENTINEL) for tape in tapes)
        script = os.path.join(os.path.dirname(__file__), "read_node.js")
        done = subprocess.run(["node", script], input=lines, capture_output=True, timeout=900)
        readings = [json.loads(line) for line in done.stdout.splitlines()]
        if len(readings) != len(tapes):
            raise RuntimeError("node ended early: " + done.stderr.decode(errors="replace")[-500:])
        return readings


class Handler(http.server.BaseHTTPRequestHandler):
    """http.server's own reading of heads. Bodies are its users' to read: here as wsgiref and the like do it."""
    protocol_version = "HTTP/1.1"

    def __init__(self, data):  # not as a socketserver has it: there is no socket
        self.rfile, self.wfile = io.BytesIO(data), io.BytesIO()
        self.reading, self.why = [], None
        self.client_address, self.close_connection = ("127.0.0.1", 1), False
        while not self.close_connection:
            self.handle_one_request()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.take
        raise AttributeError(name)

    def read_chunks(self):
        body = b""
        while size := int(self.rfile.readline(65536).split(b";")[0], 16):
            body += self.rfile.read(size)
            if self.rfile.readline(10) not in (b"\r\n", b"\n"):
                raise ValueError
        while self.rfile.readline(65536) not in (b"\r\n", b"\n", b""):
            pass
        return body

    def take(self):
        try:
            if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
                body = self.read_chunks()
            else:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                if len(body) != length:
                    raise ValueError
        except (ValueError, OverflowError):  # a length beyond all measure
            self.why, self.close_connection = "a body that ends early, or is broken", True
            return
        self.reading.append([self.command, self.path, body.hex()])

    def send_error(self, code, message=None, explain=None):
        self.why, self.close_connection = str(code), True

    def handle_expect_100(self):
        return True

    def log_message(self, *arguments):
        pass


def read_by_python(tape):
    handler = Handler(tape + SENTINEL)
    return handler.reading, handler.why


class Python:
    name, program = "python", "python3"

    def __init__(self, folder):
        pass

    def read(self, tapes):
        with multiprocessing.Pool(2) as pool:
            return pool.map(read_by_python, tapes, chunksize=500)


def available(folder):
    """The peers that are installed, and the names of those that are not."""
    path = os.environ["PATH"] + ":/usr/sbin:/usr/bin"
    there = [peer for peer in (Nginx, Haproxy, Node, Python) if shutil.which(peer.program, path=path)]
    missing = [peer.name for peer in (Nginx, Haproxy, Node, Python) if peer not in there]
    return [peer(folder) for peer in there], missing
