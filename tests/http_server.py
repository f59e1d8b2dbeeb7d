"""Real servers on loopback sockets, which misbehave when they are told to."""

import json
import socket
import threading
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR


class Reply:
    """What is sent back: any status, headers and body."""

    def __init__(self, status=200, body=b"", headers=(), length=None):
        self.status, self.headers = status, dict(headers)
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.length = len(self.body) if length is None else length


def page(request):
    """A page with a tag, which is not sent again to who has it."""
    tag = f'"{request["path"]}"'
    if request.get("if-none-match") == tag:
        return Reply(304, headers={"ETag": tag})
    return Reply(body={"path": request["path"]}, headers={"ETag": tag, "Content-Type": "application/json"})


HANG = object()
"""Says nothing until the server is closed."""


class Server:
    """Answers each request as `script` says, one entry for each, and then as `otherwise` does.

    An entry is a `Reply`, HANG, or a function of the request: its path and its headers, with small letters.
    """

    root = ""

    def __init__(self, *script, otherwise):
        self.requests, self._asked = [], threading.Semaphore(0)
        self._connections = []
        self._script, self._otherwise = list(script), otherwise
        self._guard, self._closing = threading.Lock(), threading.Event()

    def __enter__(self):
        serve = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                serve.answer(self)

            def do_POST(self):
                serve.answer(self)

            def setup(self):
                serve._connections.append(self.request)
                super().setup()

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._http.server_port}{self.root}"
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

    def wait_for(self, requests=1):
        """Wait until so many more requests have come."""
        for _ in range(requests):
            assert self._asked.acquire(timeout=60), "no request came"

    def read(self, handler):
        """What is kept of a request."""
        return {"path": handler.path, **{name.lower(): value for name, value in handler.headers.items()}}

    def answer(self, handler):
        request = self.read(handler)
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


def bomb(size, coding="gzip"):
    """So many zero bytes, compressed."""
    press = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "raw": -15}[coding])
    return b"".join(press.compress(bytes(1 << 20)) for _ in range(size >> 20)) + press.flush()


class Raw:
    """A server that sends these bytes and then goes on with `more` for ever, or closes."""

    def __init__(self, first, more=b"", *, tls=False):
        self._first, self._more, self.sent = first, more, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' * tls}://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve)
        self._closing = threading.Event()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self):
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(self._first)
                    while self._more:
                        connection.sendall(self._more)
                        self.sent += len(self._more)
