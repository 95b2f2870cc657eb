"""A server that does as the test's request says. Usage: flexible_server.py PORT NAME [--proxy]

  GET  /echo                 what it received, as JSON          GET  /only/NAME/STATUS   STATUS if it is NAME, else 200
  GET  /slow/NAME/MS         late if it is NAME                 GET  /events             three server-sent events, 150 ms apart
  GET  /websocket            echoes raw bytes after the 101     PUT  /health/STATUS      what /health answers from now on
  GET  /health               its health                         GET  /once               answers, and closes without saying so
  POST /upload               the number of bytes                GET  /bytes/N            N bytes

With --proxy each connection must begin with a PROXY header, version 1 or 2; /echo shows it.
"""
import json
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, NAME = int(sys.argv[1]), sys.argv[2]
PROXY = "--proxy" in sys.argv
state = {"health": 200, "checks": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.proxy = ""
        if PROXY:
            first = self.rfile.read(6)
            if first == b"PROXY ":
                self.proxy = (first + self.rfile.readline()).decode().strip()
            else:
                header = first + self.rfile.read(10)
                rest = self.rfile.read(int.from_bytes(header[14:16], "big"))
                self.proxy = "v2 " + ".".join(map(str, rest[:4])) if rest else "v2 unknown"

    def reply(self, status, body=b"", content_type="text/plain", extra=()):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Replica", NAME)
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self):
        path = self.path.split("?")[0]
        parts = path.strip("/").split("/")
        body = self.read_body() if parts[0] != "late" else b""
        if parts[0] == "only":
            self.reply(int(parts[2]) if parts[1] == NAME else 200)
        elif parts[0] == "slow":
            if parts[1] in (NAME, "any"):
                time.sleep(int(parts[2]) / 1000)
            self.reply(200, NAME.encode())
        elif parts[0] == "events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for k in range(3):
                event = b"data: %d\n\n" % k
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.flush()
                time.sleep(0.15)
            self.wfile.write(b"0\r\n\r\n")
        elif parts[0] == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", "x")
            self.end_headers()
            self.close_connection = True
            while data := self.connection.recv(65536):
                self.connection.sendall(data.upper())
        elif parts[0] == "health" and self.command == "PUT":
            state["health"] = int(parts[1])
            self.reply(200)
        elif parts[0] == "health":
            state["checks"] += 1
            self.reply(state["health"], b"all is well" if self.headers.get("Host") == "checks.example" else b"hello")
        elif parts[0] == "checks":
            self.reply(200, json.dumps(state).encode())
        elif parts[0] == "once":
            self.reply(200)
            self.close_connection = True
        elif parts[0] == "bytes":
            self.reply(200, b"x" * int(parts[1]))
        elif parts[0] == "upload":
            self.reply(200, str(len(body)).encode())
        else:
            seen = {"name": NAME, "method": self.command, "path": self.path, "proxy": self.proxy, "headers": [[k, v] for k, v in self.headers.items()]}
            self.reply(200, json.dumps(seen).encode(), "application/json", [("X-Secret", "of the server")])

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1000

    def handle_error(self, request, client_address):
        pass


if __name__ == "__main__":
    Server(("127.0.0.1", PORT), Handler).serve_forever()
