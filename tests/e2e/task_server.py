"""A server that does tasks: it writes "id attempt" into a ledger, then answers a*b and the attempt's number, or 422.

Usage: task_server.py PORT LEDGER
"""
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LEDGER = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.wfile.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def do_GET(self):
        self.answer(200, b"{}")

    def do_POST(self):
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        attempt = int(self.headers["Ringmaster-Task-Attempt"])
        os.write(LEDGER, b"%s %d\n" % (self.headers["Ringmaster-Task-Id"].encode(), attempt))
        time.sleep(payload.get("s", 0))
        if "a" in payload:
            self.answer(200, json.dumps({"product": payload["a"] * payload["b"], "attempt": attempt}).encode())
        else:
            self.answer(422, b'{"detail":"there is nothing to multiply"}')

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
