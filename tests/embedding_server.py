"""A real server on a loopback socket that speaks `/v1/embeddings`, and misbehaves when it is told to.

Vectors count the letters a, b and c of a text, so that a test can see which text a row belongs to.
"""

import json
import threading
from base64 import b64encode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR

import numpy as np

KEY = "sk-penstock-0123456789abcdef"


class Reply:
    """What is sent back: any status, headers and body."""

    def __init__(self, status=200, body=b"", headers=(), length=None):
        self.status, self.headers = status, dict(headers)
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.length = len(self.body) if length is None else length


def vector(text, width=3):
    return [float(text.count(letter)) for letter in "abcdefgh"[:width]]


def good(request, order=None, width=3, encoding=None):
    """The reply of a server that works; `order` is that in which the rows come."""
    encoding = encoding or request.get("encoding_format", "float")
    width = request.get("dimensions", width)

    def row(index):
        numbers = vector(request["input"][index], width)
        packed = b64encode(np.array(numbers, "<f4").tobytes()).decode() if encoding == "base64" else numbers
        return {"object": "embedding", "index": index, "embedding": packed}

    order = range(len(request["input"])) if order is None else order
    return Reply(body={"object": "list", "model": request["model"], "data": [row(index) for index in order]})


def error(status, message, *, headers=(), **more):
    return Reply(status, {"error": {"message": message, **more}}, headers)


def refused_without(key):
    """A server that wants this key, and repeats the one that it was given, as some do."""

    def answer(request):
        said = request["authorization"]
        return good(request) if said == f"Bearer {key}" else error(401, f"Incorrect API key provided: {said}")

    return answer


HANG = object()
"""Says nothing until the server is closed."""


class Server:
    """Answers each request as `script` says, one entry for each, and then as `otherwise` does.

    An entry is a `Reply`, HANG, or a function of the request: its JSON, with `authorization` as it was sent.
    """

    def __init__(self, *script, otherwise=good):
        self.requests, self._asked = [], threading.Semaphore(0)
        self._connections = []
        self._script, self._otherwise = list(script), otherwise
        self._guard, self._closing = threading.Lock(), threading.Event()

    def __enter__(self):
        serve = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                serve.answer(self)

            def setup(self):
                serve._connections.append(self.request)
                super().setup()

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._http.shutdown()
        for connection in self._connections:
            with suppress(OSError):  # it is closed already
                connection.shutdown(SHUT_RDWR)
        self._thread.join()
        self._http.server_close()

    @property
    def texts(self):
        """What was asked for, all but what is sent to see that the server works."""
        return [text for request in self.requests for text in request["input"] if text != "penstock"]

    def wait_for(self, requests=1):
        """Wait until so many more requests have come."""
        for _ in range(requests):
            assert self._asked.acquire(timeout=60), "no request came"

    def answer(self, handler):
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        request |= {"authorization": handler.headers["Authorization"], "path": handler.path}
        with self._guard:
            self.requests.append(request)
            reply = self._script.pop(0) if self._script else self._otherwise
        self._asked.release()
        reply = reply(request) if callable(reply) else reply
        if reply is HANG:
            self._closing.wait()
            handler.close_connection = True
            return
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(reply.length))
        handler.close_connection = reply.length != len(reply.body)
        with suppress(ConnectionError):  # who asked has left
            handler.end_headers()
            handler.wfile.write(reply.body)
