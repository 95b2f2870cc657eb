"""A server on bare sockets that writes down each request that reaches it.
Usage: recorder_server.py PORT NAME [--origin]

  /recorded      what came so far, as JSON: [method, target, fields, body] each; asked for past the balancer
  /health        200
  /deny          401 as soon as the head is here; the body is read afterwards, for nothing
  /close         the connection ends without an answer
  /private       "alice", on a connection on which credentials have been shown once (as NTLM does it), after 300 ms; else 401
                 at once. With ?quick without the wait
  /status/N      answers N                /fields/N      has N fields in all
  anything else  200, with "METHOD TARGET" as its body

  /seen          all that came so far, byte for byte, also what is no whole request: [bytes, whether it came whole] each

With --origin it answers as the owner of the content would, and each answer says in X-Seen which of /seen's list it is
for (the first is 0). GET and HEAD of any path have an ETag and a Last-Modified, and conditions are heeded; POST gives
the body back; OPTIONS is a 204; DELETE, PUT and PATCH are not allowed, and other methods are unknown. How a 204 or 304
looks is the first part of the path's to say:
  /length        it has a Content-Length, as RFC 9110 section 8.6 allows a 304 and forbids a 204
  /chunked       it has a Transfer-Encoding, as RFC 9112 section 6.1 allows a 304 and forbids a 204
  /stray         five bytes come behind it, in the same packet, that belong to no message; so behind any answer to HEAD
  /none          GET is answered with a 204, and the path's next part says how that looks
"""
import datetime
import email.utils
import json
import socket
import sys
import threading
import time

NAME = sys.argv[2]
ORIGIN = "--origin" in sys.argv
recorded = []
seen, seen_lock = [], threading.Lock()

ETAG, MODIFIED = '"v1"', "Mon, 01 Jan 2024 00:00:00 GMT"
ALLOW = ("Allow", "GET, HEAD, POST, OPTIONS")


class Tape:
    """What is read of a connection, written down."""

    def __init__(self, file):
        self.file, self.message = file, {"raw": b"", "whole": False}

    def begin(self):
        self.message = {"raw": b"", "whole": False}

    def keep(self):
        with seen_lock:
            seen.append(self.message)
            return len(seen) - 1

    def read(self, length):
        data = self.file.read(length)
        self.message["raw"] += data
        return data

    def readline(self):
        data = self.file.readline()
        self.message["raw"] += data
        return data


def read_body(file, fields):
    if "chunked" not in fields.get("transfer-encoding", ""):
        length = int(fields.get("content-length", 0))
        body = file.read(length)
        assert len(body) == length
        return body
    body = b""
    while size := int(file.readline().split(b";")[0], 16):
        body += file.read(size)
        assert file.readline() == b"\r\n"
    while file.readline() != b"\r\n":
        pass
    return body


def answer(connection, status, body=b"", extra=""):
    head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nX-Replica: {NAME}\r\n{extra}\r\n"
    connection.sendall(head.encode() + body)


def not_modified(fields):
    """RFC 9110 section 13.2.2, for a representation that is there."""
    if "if-none-match" in fields:
        tags = [tag.strip().removeprefix("W/") for tag in fields["if-none-match"].split(",")]
        return "*" in tags or ETAG in tags
    try:
        since = email.utils.parsedate_to_datetime(fields["if-modified-since"])
    except (KeyError, ValueError):
        return False
    return email.utils.parsedate_to_datetime(MODIFIED) <= since <= datetime.datetime.now(datetime.timezone.utc)


def answer_as_origin(connection, number, method, target, fields, body):
    parts = target.split("?")[0].strip("/").split("/")
    status, extra, text = 200, [], b""
    if method in ("GET", "HEAD"):
        extra = [("ETag", ETAG), ("Last-Modified", MODIFIED)]
        text = f"GET {target}".encode("latin-1")
        if parts[0] == "none":
            status, extra, parts = 204, [], parts[1:]
        elif not_modified(fields):
            status = 304
    elif method == "POST":
        text = body
    elif method == "OPTIONS":
        status, extra, parts = 204, [ALLOW], ["length"]
    elif method in ("DELETE", "PUT", "PATCH"):
        status, extra = 405, [ALLOW]
    else:
        status = 501
    shape = parts[0] if parts else ""
    if status in (204, 304):
        extra += [("Content-Length", len(text))] if shape == "length" else []
        extra += [("Transfer-Encoding", "chunked")] if shape == "chunked" else []
    else:
        extra += [("Content-Type", "text/plain"), ("Content-Length", len(text))]
    if method == "HEAD" or status in (204, 304):
        text = b"stray" if shape == "stray" else b""
    head = "".join(f"{name}: {value}\r\n" for name, value in [("X-Seen", number), ("X-Replica", NAME), *extra])
    connection.sendall(f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + text)


def serve_one(connection, file, state):
    """False when the connection is to end."""
    file.begin()
    line = file.readline()
    if not line:
        return False
    parts = line.decode("latin-1").rstrip("\r\n").split(" ")
    lines = []
    while (field := file.readline()) not in (b"\r\n", b""):
        lines.append([part.strip() for part in field.decode("latin-1").split(":", 1)])
    if len(parts) != 3 or any(len(pair) != 2 for pair in lines):
        file.keep()
        recorded.append(["not HTTP", line.decode("latin-1"), lines, ""])
        return False
    method, target = parts[:2]
    fields = {name.lower(): value for name, value in lines}
    if target == "/health":
        answer(connection, 200)
        return True
    if target == "/recorded":
        answer(connection, 200, json.dumps(recorded).encode())
        return True
    if target == "/seen":
        messages = [[message["raw"].decode("latin-1"), message["whole"]] for message in seen]
        answer(connection, 200, json.dumps(messages).encode())
        return True
    number = file.keep()
    path = target.split("?")[0].strip("/").split("/")
    if path[0] == "deny" and not ORIGIN:
        answer(connection, 401, b"denied")
    body = read_body(file, fields)
    file.message["whole"] = True
    recorded.append([method, target, lines, body.decode("latin-1")])
    if ORIGIN:
        answer_as_origin(connection, number, method, target, fields, body)
        return True
    if path[0] == "close":
        return False
    if path[0] == "private":
        state["known"] |= "authorization" in fields
        if state["known"]:
            if not target.endswith("?quick"):
                time.sleep(0.3)
            answer(connection, 200, b"alice")
        else:
            answer(connection, 401, b"who?", "WWW-Authenticate: NTLM\r\n")
    elif path[0] == "status":
        answer(connection, path[1], b"ok")
    elif path[0] == "fields":
        answer(connection, 200, b"ok", "".join(f"X-{i}: {i}\r\n" for i in range(int(path[1]) - 2)))
    elif path[0] != "deny":
        answer(connection, 200, f"{method} {target}".encode("latin-1"))
    return True


def serve(connection):
    state = {"known": False}
    with connection, connection.makefile("rb") as file:
        try:
            tape = Tape(file)
            while serve_one(connection, tape, state):
                pass
        except (OSError, ValueError, OverflowError, AssertionError):
            pass  # a broken request is no request: it is not recorded


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1000) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
