"""A server that writes the id of each POST it executes into a ledger before it answers. Usage: ledger_server.py PORT LEDGER"""
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LEDGER = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        # One write for head and body: the test's clients care about what was executed, not about half answers.
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        os.write(LEDGER, body + b"\n")
        self.answer(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
