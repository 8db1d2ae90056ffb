"""What no client library would send: seeded bad requests over plain sockets, and what the server made of them.

`BODIES` are bodies for any POST route, `HEADS` whole requests as bytes, `SCENES` clients that behave badly in time. Each is
a function of a random generator, so that a failure is found again by its seed.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

ROUTES = (
    "/v1/embeddings", "/embeddings", "/", "/embed", "/embed_all", "/similarity", "/tokenize", "/v1/classify",
    "/v1/rerank", "/v1/segment",
)  # fmt: skip
FIELDS = (
    "input", "inputs", "model", "task", "dimensions", "normalized", "truncate", "late_chunking", "late_chunking_windows",
    "embedding_type", "encoding_type", "encoding_format", "user", "truncation_direction", "prompt_name", "normalize",
    "add_special_tokens", "parameters", "source_sentence", "sentences", "labels", "query", "documents", "top_n",
    "return_documents", "content", "chunk_tokens", "return_chunks", "text",
)  # fmt: skip
MEGABYTE = 1 << 20
SECONDS = 180
"""After which a request without an answer is a stall, also on a busy machine: 8192 tokens can take half a minute."""
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r]*\r\n")

Rng = random.Random


def whole(text: object) -> dict[str, object]:
    """One text in every field that takes text: a body that each route understands."""
    return {name: text for name in ("input", "inputs", "content")} | {
        "labels": ["a", "b"],
        "query": "q",
        "documents": ["d"],
    }


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


# ---- values

NUMBERS = (
    "1" + "0" * 400, "-1" + "0" * 5000, "1e999", "-1e999", "1e308", "-0", "-1", "0.5", "1e-400", "NaN", "Infinity",
    "-Infinity", str(2**31), str(2**63), str(2**64), str(-(2**63) - 1), "01", "+1", "0x10", "1_000",
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "\udfff x", "x\ud83d", "\ufffe\uffff", "\u202e", "e" + "\u0301" * 500, "🏳️‍🌈" * 50,
    "﷽" * 50, "\r\n" * 100, "<s></s><pad><mask><unk>", "a" * 5000, "a b " * 5000, "\U0010ffff", "query: ", "\x7f\x1b[31m",
)  # fmt: skip


def wild(rng: Rng, depth: int = 3) -> Any:
    """Any JSON value, likelier a nasty one."""
    kind = rng.randrange(9 if depth else 6)
    if kind < 3:
        return rng.choice(TEXTS)
    if kind < 6:
        return rng.choice(
            (None, True, False, 0, -1, 1, 2**31, 2**63, 2**80, 0.5, 1e300, -1e-300, [], {}, "float", "left")
        )
    if kind < 8:
        return [wild(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice((*FIELDS, *TEXTS)): wild(rng, depth - 1) for _ in range(rng.randrange(4))}


# ---- bodies


def any_fields(rng: Rng) -> bytes:
    changed = {name: wild(rng) for name in rng.sample(FIELDS, rng.randrange(1, 5))}
    return encoded({**whole(rng.choice(TEXTS)), **changed})


def broken_json(rng: Rng) -> bytes:
    """A good body with bytes changed, lost or repeated."""
    body = bytearray(encoded({**whole("a fox"), "dimensions": 8, "task": "retrieval.query"}))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(body))
        body[at : at + rng.randrange(3)] = rng.choice(
            (b"", b"\0", b"\xff", b'"', b"{", b"]", b"\\u", b"\\ud800", rng.randbytes(3))
        )
    return bytes(body)


def no_json(rng: Rng) -> bytes:
    text = '{"input": "a", "inputs": "\\ud83d"}'
    return rng.choice((
        b"", b" ", b"null", b"1", b'"a"', b"[]", b"[1]", b"\xef\xbb\xbf{}", text.encode("utf-16"), text.encode("utf-32"),
        rng.randbytes(200), b'{"input": "\xff\xfe"}', b'{"input": "\\ud800\xff"}', b"\0" * 100, b'{"input":', b"a=b&c=d",
    ))  # fmt: skip


def deep(rng: Rng) -> bytes:
    levels = rng.choice((900, 1024, 20_000, 100_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"\\u0061":', b"}")))
    closed = rng.random() < 0.7
    value = opening * levels + b"1" + closing * levels * closed
    return rng.choice((value, b'{"input":%b,"inputs":%b}' % (value, value), b'{"user":%b,"input":"\\ud800"}' % value))


def numbers(rng: Rng) -> bytes:
    fields = ("dimensions", "top_n", "chunk_tokens", "input", "inputs", "user", "truncate")
    body = encoded(whole("a"))[:-1]
    return body + "".join(f',"{name}":{rng.choice(NUMBERS)}' for name in rng.sample(fields, 2)).encode() + b"}"


def odd_text(rng: Rng) -> bytes:
    text = rng.choice(TEXTS)
    return encoded(
        {**whole(text), "query": text, "documents": [text], "labels": [text, "b"], "model": rng.choice((None, text))}
    )


def token_ids(rng: Rng) -> bytes:
    ids = [rng.choice((-1, 0, 1, 5, 399, 400, 2**31, 2**62)) for _ in range(rng.randrange(1, 20))]
    return encoded(whole(rng.choice((ids, [ids, ids], [ids, "a"], [[]], [[], ids], [ids, [True]], [1, 2.5]))))


def repeated_keys(rng: Rng) -> bytes:
    return b"{" + b",".join(b'"input":"%d","inputs":"a"' % n for n in range(rng.choice((2, 5000)))) + b"}"


def one_long_token(rng: Rng) -> bytes:
    unit = rng.choice(("a", "ß", "字", "\u0301", "🦊", "\ud800"))
    text = unit * (MEGABYTE // len(unit.encode("utf-8", "surrogatepass")))
    options = {"truncate": rng.random() < 0.5, "late_chunking": rng.random() < 0.3}
    return encoded({**whole(text), **options})


def many_inputs(rng: Rng) -> bytes:
    many = [rng.choice(("a", "a fox", ""))] * 10_000
    sentences = {"source_sentence": "a", "sentences": many}
    texts = {"input": many, "inputs": rng.choice((many, sentences)), "labels": many, "query": "q", "documents": many}
    return encoded({**whole("a"), **texts, "task": rng.choice((None, ["text-matching"] * 10_000))})


def many_wrong_items(rng: Rng) -> bytes:
    """Lists whose every item is wrong: a list of the complaints would be much larger than the body."""
    wrong = [rng.choice((1, None, [], {}))] * 200_000
    groups = {str(n): 1 for n in range(50_000)}
    fields = dict.fromkeys(("task", "embedding_type", "documents"), wrong)
    sentences = {"source_sentence": "a", "sentences": wrong}
    texts = {"labels": rng.choice((wrong, groups)), "inputs": rng.choice(("a", sentences))}
    return encoded({**whole("a"), **fields, **texts})


LIGHT_BODIES: tuple[Callable[[Rng], bytes], ...] = (any_fields, broken_json, no_json, numbers, odd_text, token_ids)
HEAVY_BODIES: tuple[Callable[[Rng], bytes], ...] = (deep, repeated_keys, one_long_token, many_inputs, many_wrong_items)


def post(rng: Rng, body: bytes) -> bytes:
    head = f"POST {rng.choice(ROUTES)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    kind = rng.choice(("", "Content-Type: application/json\r\n", "Content-Type: text/html; charset=utf-16\r\n"))
    return f"{head}{kind}\r\n".encode() + body


# ---- whole requests

GOOD = b'{"input":"a","inputs":"a"}'


def wrong_length(rng: Rng) -> bytes:
    lengths = rng.choice((
        ["-1"], ["+5"], ["0x10"], ["1" * 30], ["1e3"], [""], [" "], ["5", "6"], ["26", "26"], ["26, 26"], ["26,27"],
        ["26\0"], ["99999999999999999999999"], [str(2**31)], ["0"], ["25"], ["27"], ["²"],
    ))  # fmt: skip
    lines = "".join(f"Content-Length: {length}\r\n" for length in lengths).encode("latin-1")
    return b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n" + GOOD


def wrong_chunks(rng: Rng) -> bytes:
    coding = rng.choice(
        ("chunked", "Chunked", "gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked\0")
    )
    length = rng.choice(("", "Content-Length: 26\r\n"))
    size = rng.choice(
        (b"1a", b"1A", b"01a", b"-1", b"0x1a", b"19", b"1b", b"f" * 16, b"f" * 40, b"", b"zz", b"1a;" + b"x" * 9000)
    )
    end = rng.choice((b"\r\n0\r\n\r\n", b"\r\n0\r\n", b"", b"\r\n0\r\nTrailer: a\r\n\r\n", b"0\r\n\r\n", b"\n0\n\n"))
    head = f"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n{length}\r\n"
    return head.encode() + size + b"\r\n" + GOOD + end


def wrong_line(rng: Rng) -> bytes:
    method = rng.choice((
        b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"TRACE", b"CONNECT", b"OPTIONS", b"get", b"G\0T", b"X" * 5000, b"",
    ))  # fmt: skip
    path = rng.choice((
        b"/", b"*", b"//", b"//[", b"/%ff%fe", b"/%00", b"/\xff\xfe", b"/v1/models/%ff", b"/v1/models/../../etc/passwd",
        b"/%", b"/%2e%2e/", b"http://x/ready", b"http://[/", b"/v1/embeddings/", b"/" + b"a" * 70_000,
        b"/ready?" + b"&" * 9000, b"", b"/ a", b"/#", b"x:443", b"/v1/models/" + b"%F0%9F%A6%8A" * 500, b"/openapi.json",
        b"/metrics", b"/info",
    ))  # fmt: skip
    version = rng.choice(
        (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"", b"HTTP/1.1 ")
    )
    host = rng.choice((
        b"Host: x\r\n", b"", b"Host: [\r\n", b"Host: x\r\nHost: y\r\n", b"Host: \xff\r\n", b"Host: a/b?c#d@e:99999\r\n",
    ))  # fmt: skip
    return method + b" " + path + b" " + version + b"\r\n" + host + b"Connection: close\r\n\r\n"


def wrong_headers(rng: Rng) -> bytes:
    lines = rng.choice((
        b"".join(b"X-%d: a\r\n" % n for n in range(1500)), b"".join(b"X-%d: a\r\n" % n for n in range(20_000)),
        b"X: " + b"a" * 60_000 + b"\r\n", b"X: " + b"a" * 200_000 + b"\r\n", b"X" * 9000 + b": a\r\n", b"no colon\r\n",
        b": a\r\n", b"X : a\r\n", b" X: a\r\n", b"X: a\r\n b\r\n\tc\r\n", b"X: \0\r\n", b"X: \xff\xfe\r\n",
        b"\xff: a\r\n", b"X: a\rb\r\n", b"X: a\n", b"Authorization: Bearer \xff\r\n", b"Authorization: \r\n",
        b"X-Request-Id: " + b"a" * 500 + b"\r\n", b"X-Request-Id: \xff\r\n", b"Expect: 100-continue\r\n",
        b"Expect: \xff\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        b"Content-Encoding: gzip\r\n", b"Connection: keep-alive, close\r\n", b"Cookie: " + b"a=b;" * 5000 + b"\r\n",
        b"Origin: null\r\n", b"Access-Control-Request-Method: X\r\nOrigin: \xff\r\n",
    ))  # fmt: skip
    method = rng.choice((b"POST /v1/embeddings", b"GET /v1/models", b"GET /ready", b"OPTIONS /embed"))
    length = b"Content-Length: %d\r\n" % len(GOOD) if method.startswith(b"POST") else b""
    body = GOOD if length else b""
    return method + b" HTTP/1.1\r\nHost: x\r\n" + length + lines + b"\r\n" + body


def no_http(rng: Rng) -> bytes:
    return rng.choice((
        rng.randbytes(rng.randrange(1, 3000)), b"\r\n" * 500, b"\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /ready\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(300), b"GET",
        b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n" + rng.randbytes(99), b"HTTP/1.1 200 OK\r\n\r\n", b"A" * 100_000,
    ))  # fmt: skip


HEADS: tuple[Callable[[Rng], bytes], ...] = (wrong_length, wrong_chunks, wrong_line, wrong_headers, no_http)


# ---- over the socket


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def answers(port: int, *parts: bytes, pause: float = 0.0, whole_request: bool = True) -> list[int]:
    """The statuses that come back for bytes sent in parts; a request that may not be whole is ended after a while."""
    with connect(port) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if not whole_request:
                select.select([connection], [], [], 0.2)
                connection.shutdown(socket.SHUT_WR)
            return statuses(connection)
        except TimeoutError:
            raise
        except OSError:
            return []  # it closed on us, which is an answer to nonsense


def statuses(connection: socket.socket) -> list[int]:
    """Every status until the connection is closed; a stall is a TimeoutError."""
    found = b""
    while part := connection.recv(1 << 16):
        found += part
    return [int(status) for status in STATUS.findall(found)]


def ask_again(connection: socket.socket) -> None:
    """One request on a connection that stays."""
    connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b'{"status":"alive"}'):
        assert (part := connection.recv(1000)), "the connection was closed"
        answer += part
    assert b" 200 " in answer


def vanish(connection: socket.socket) -> None:
    """Leave with a reset, as a process that was killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def drip(port: int, rng: Rng) -> list[int]:
    """A request in small pieces."""
    request = post(rng, GOOD)
    cuts = sorted(rng.sample(range(1, len(request)), 6))
    return answers(port, *(request[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)), pause=0.02)


def pipeline(port: int, rng: Rng) -> list[int]:
    """Many requests without waiting; the last one says close."""
    some = b"".join(
        rng.choice((post(rng, GOOD).replace(b"Connection: close\r\n", b""), b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"))
        for _ in range(30)
    )
    with connect(port) as connection:
        connection.sendall(some + post(rng, GOOD))
        found = statuses(connection)
    assert len(found) == 31, found
    return found


def leave_half_way(port: int, rng: Rng) -> list[int]:
    """Part of a request, then gone."""
    request = post(rng, encoded(whole("a fox " * 2000)))
    with connect(port) as connection:
        connection.sendall(request[: rng.randrange(1, len(request))])
        (vanish if rng.random() < 0.5 else socket.socket.close)(connection)
    return []


def leave_while_waiting(port: int, rng: Rng) -> list[int]:
    """Many clients that send all of a request and are gone before the answer."""
    request = post(rng, encoded({**whole(["a fox"] * 200), "labels": ["a"] * 100}))
    for _ in range(20):
        with connect(port) as connection:
            connection.sendall(request)
            vanish(connection)
    return []


def leave_unread(port: int, rng: Rng) -> list[int]:
    """A large answer of which only the beginning is read."""
    with connect(port) as connection:
        connection.sendall(post(rng, encoded(whole(["a fox"] * 500))))
        connection.recv(100)
        vanish(connection)
    return []


SCENES: tuple[Callable[[int, Rng], list[int]], ...] = (
    drip,
    pipeline,
    leave_half_way,
    leave_while_waiting,
    leave_unread,
)
