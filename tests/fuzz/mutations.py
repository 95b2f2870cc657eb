"""Requests with one or a few faults each, of those by which requests are smuggled."""
import pathlib
import random
import re

CORPUS = pathlib.Path(__file__).parent / "corpus/request"
# Behind each mutation, so that its connection ends.
LAST = b"GET /last HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"

OWN_SEEDS = [
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /c?x=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
    b"3;e=1\r\nabc\r\na\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET http://a.example/d HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\n\r\n",
    b"DELETE /e/../f%2Fg HTTP/1.1\r\nHost: a\r\nConnection: close, X-B\r\nX-B: 2\r\nCookie: a=1; b=2\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
]
FIELDS = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 05", b"Content-Length: +5", b"Content-Length: 5, 5",
    b"Content-Length: 5,6", b"Content-Length: 0x5", b"Content-Length: 5 ", b"Content-Length:\t5",
    b"Content-Length : 5", b"Content_Length: 5", b"Content-Length: -1", b"Content-Length: 18446744073709551621",
    b"content-length: 6", b"Content-Length:", b"Content-Length: 5\x00", b"Content-Length\x00: 5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked;q=1", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b" Transfer-Encoding: chunked", b"Transfer-Encoding:\xa0chunked", b"Transfer-Encoding:",
    b"Transfer-Encoding: ,chunked", b"Connection: close", b"Connection: Content-Length",
    b"Connection: Transfer-Encoding", b"Connection: keep-alive, Host", b"Connection: Upgrade", b"Upgrade: websocket",
    b"Upgrade: h2c", b"HTTP2-Settings: AA", b"Expect: 100-continue", b"Expect: 200-ok", b"TE: trailers, chunked",
    b"Trailer: Content-Length", b"Host: b", b"Host: a:80", b"Host:", b"X-Forwarded-For: 1.2.3.4", b"X-Obs: a\r\n b",
    b"X-Obs: a\r\n\tContent-Length: 7", b"X: \x80\xff", b"X:\x00", b"X: a\x7fb", b": x", b"Range: bytes=0-1",
    b"If-Match: \"x\"", b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=5", b"X-HTTP-Method-Override: DELETE",
    b"X: \x85Content-Length: 9",
]
LINES = [
    b"GET / HTTP/1.1", b"GET /x HTTP/1.0", b"GET /x", b"GET  /x HTTP/1.1", b"GET\t/x HTTP/1.1", b"GET /x HTTP/1.1 ",
    b" GET /x HTTP/1.1", b"get /x HTTP/1.1", b"GET /x HTTP/1.2", b"GET /x HTTP/2.0", b"GET /x HTTP/01.1",
    b"GET /x http/1.1", b"GET /x HTTP/1.1\x00", b"GET /x y HTTP/1.1", b"GET http://b/x HTTP/1.1",
    b"GET http://b:80@c/x HTTP/1.1", b"GET https://a HTTP/1.1", b"GET ?x HTTP/1.1", b"GET //a//b/./c/../d HTTP/1.1",
    b"GET /%2e%2e/x HTTP/1.1", b"GET /a%00b HTTP/1.1", b"GET /a%0d%0ab HTTP/1.1", b"GET /\x80 HTTP/1.1",
    b"OPTIONS * HTTP/1.1", b"HEAD /x HTTP/1.1", b"M-SEARCH /x HTTP/1.1", b"PROPFIND /x HTTP/1.1",
    b"PATCH /x#f HTTP/1.1", b"POST /x?a=b&c=%zz HTTP/1.1", b"G!T /x HTTP/1.1", b"PRI * HTTP/2.0",
    b"CONNECT a:1 HTTP/1.1", b"TRACE / HTTP/1.1", b"GET /x;a=1/..;/y HTTP/1.1", b"GET /x\\y HTTP/1.1",
    b"GET /x|y{z} HTTP/1.1", b"LONGMETHODNAMELONGMETHODNAME /x HTTP/1.1",
]
BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"05\r\nhello\r\n00\r\n\r\n", b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5;a=\"\r\nhello\r\n0\r\n\r\n",
    b"5;\x00\r\nhello\r\n0\r\n\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n", b"A\r\n0123456789\r\n0\r\nContent-Length: 9\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n", b"ffffffffffffffff\r\nhello", b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"hello",
    b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n", b"0\r\n\r\nGET /inner HTTP/1.1\r\nHost: a\r\n\r\n", b"",
]
PIECES = [
    b"/", b"//", b"a", b"B", b".", b"..", b"/../", b"/./", b"%2e", b"%2F", b"%5c", b"%41", b"%c3%a4", b"%7E", b"%20",
    b"%25", b"%3f", b"%23", b"?", b"?x=/../", b"&", b"=", b";", b"@", b":", b"://", b"*", b"'", b"(", b"|", b"\\",
    b"\"", b"<", b"{", b"`", b"^", b"~", b"!", b"$", b"[", b"+", b",",
]
SPECIAL = [
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n ", b"\t", b" ", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x80", b"\xa0",
    b"\x85", b"\xff", b":", b";", b",", b"\"", b"=", b"%", b"/", b"_", b"-",
]


EXTENSIONS = [
    b"", b"", b"", b";a", b";a=b", b" ;a = \"b\\\"c\"", b";a=\"\";b", b"\t", b";", b";\xff", b"; a=\"0\t\"",
]
TRAILERS = [b"", b"", b"X: y\r\n", b"Content-Length: 3\r\nTransfer-Encoding: x\r\n", b"Host: b\r\n", b"X:\r\n"]


class Mutator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.seeds = OWN_SEEDS * 3 + [path.read_bytes() for path in sorted(CORPUS.iterdir())]

    def next(self):
        chance = self.random
        data = chance.choice(self.seeds)
        for _ in range(chance.choice((1, 1, 1, 1, 2, 2, 3))):
            change = chance.choice((self.field, self.field, self.line, self.body, self.bytes, self.bytes, self.value,
                                    self.repeat, self.path, self.chunks))
            data = change(data)
        if chance.random() < 0.3:
            data += chance.choice(self.seeds)
        return data[:15000] + LAST

    def field(self, data):
        lines = data.split(b"\r\n")
        fields = data.split(b"\r\n\r\n")[0].count(b"\r\n") + 1
        lines.insert(self.random.randint(1, fields), self.random.choice(FIELDS))
        return b"\r\n".join(lines)

    def line(self, data):
        return self.random.choice(LINES) + data[max(data.find(b"\r\n"), 0):]

    def path(self, data):
        made = b"/" + b"".join(self.random.choices(PIECES, k=self.random.randint(1, 8)))
        return re.sub(rb"^(\S+) \S+", lambda match: match[1] + b" " + made, data)

    def chunks(self, data):
        """A body that is right, or nearly, in chunks of its own."""
        head = data.partition(b"\r\n\r\n")[0]
        head = re.sub(rb"(?i)\r\n(Content-Length|Transfer-Encoding):[^\r]*", b"", head)
        body = b""
        for size in (*self.random.choices((1, 2, 9, 10, 17, 300), k=self.random.randint(0, 4)), 0):
            text = (b"%x", b"%X", b"0%x", b"%x", b"%x", b"000000%x")[self.random.randrange(6)] % size
            content = bytes(self.random.choices(b"0\r\nGET /\0\xff;:", k=size)) + (b"\r\n" if size else b"")
            body += text + self.random.choice(EXTENSIONS) + b"\r\n" + content
        trailer = self.random.choice(TRAILERS)
        return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body + trailer + b"\r\n"

    def body(self, data):
        return data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + self.random.choice(BODIES)

    def bytes(self, data):
        at = self.random.randint(0, len(data))
        cut = self.random.choice((0, 0, 1, 1, 2, 5))
        return data[:at] + self.random.choice(SPECIAL + [b""]) + data[at + cut:]

    def value(self, data):
        """Something odd around a colon, a comma or a line's end."""
        places = [match.start() for match in re.finditer(rb"[:,;\r]", data)]
        at = self.random.choice(places or [0])
        odd = self.random.choice(SPECIAL) * self.random.choice((1, 1, 2, 30))
        return data[:at + self.random.randint(0, 1)] + odd + data[at + self.random.randint(0, 1):]

    def repeat(self, data):
        lines = data.split(b"\r\n")
        at = self.random.randrange(len(lines))
        return b"\r\n".join(lines[:at] + [lines[at]] * self.random.choice((2, 2, 3, 90)) + lines[at + 1:])
