"""A server on bare sockets that writes down each request that reaches it. Usage: recorder_server.py PORT NAME

  /recorded      what came so far, as JSON: [method, target, fields, body] each; asked for past the balancer
  /health        200
  /deny          401 as soon as the head is here; the body is read afterwards, for nothing
  /close         the connection ends without an answer
  /private       "alice", on a connection on which credentials have been shown once (as NTLM does it), after 300 ms; else 401
                 at once. With ?quick without the wait
  /status/N      answers N                /fields/N      has N fields in all
  anything else  200, with "METHOD TARGET" as its body
"""
import json
import socket
import sys
import threading
import time

NAME = sys.argv[2]
recorded = []


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


def serve_one(connection, file, state):
    """False when the connection is to end."""
    line = file.readline()
    if not line:
        return False
    parts = line.decode("latin-1").rstrip("\r\n").split(" ")
    lines = []
    while (field := file.readline()) not in (b"\r\n", b""):
        lines.append([part.strip() for part in field.decode("latin-1").split(":", 1)])
    if len(parts) != 3 or any(len(pair) != 2 for pair in lines):
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
    path = target.split("?")[0].strip("/").split("/")
    if path[0] == "deny":
        answer(connection, 401, b"denied")
    body = read_body(file, fields)
    recorded.append([method, target, lines, body.decode("latin-1")])
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
            while serve_one(connection, file, state):
                pass
        except (OSError, ValueError, AssertionError):
            pass  # a broken request is no request: it is not recorded


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1000) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
