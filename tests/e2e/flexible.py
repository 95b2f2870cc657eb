"""Pools of flexible_server.py, and raw connections, for tests of the data path."""
import pathlib
import socket
import threading

from conftest import SLOW, call

SERVER = pathlib.Path(__file__).with_name("flexible_server.py")


def config(pool="", listener="", rest="", replicas=3, health='path = "/health"\ninterval = "100ms"\nfall = 2\nrise = 1\n', arguments=()):
    extra = "".join(f', "{argument}"' for argument in arguments)
    return f"""
[[listener]]
address = "127.0.0.1:0"
pool = "web"
{listener}
[admin]
address = "127.0.0.1:0"
[pool.web]
command = ["/usr/bin/python3", "{SERVER}", "{{port}}", "{{name}}"{extra}]
replicas = {replicas}
names = ["A", "B", "C", "D"]
slow_start = "0ms"
{pool}
[pool.web.health]
{health}
{rest}
"""


def headers_of(answer):
    """What the server saw, by lower-case name; values of repeated fields in a list."""
    seen = {}
    for name, value in answer.json["headers"]:
        seen.setdefault(name.lower(), []).append(value)
    return seen


def field(answer, name):
    return {k.lower(): v for k, v in answer.headers.items()}.get(name.lower())


class Background:
    """A request that runs while the test goes on."""

    def __init__(self, address, path, method="GET", **options):
        self.answer = None
        self.thread = threading.Thread(target=self.run, args=(address, method, path), kwargs=options)
        self.thread.start()

    def run(self, address, method, path, **options):
        try:
            self.answer = call(address, method, path, **options)
        except OSError as error:
            self.answer = error

    def wait(self):
        self.thread.join(30 * SLOW)
        assert not self.thread.is_alive()
        return self.answer


def raw(address, data, seconds=5):
    """Sends bytes and returns all that comes until the other side ends, or is silent for long."""
    with socket.create_connection(address, timeout=seconds * SLOW) as connection:
        connection.sendall(data)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return received
