"""An HTTP server on loopback for the other examples; it is no example itself."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NEVER = object()
"""An answer that does not come while the server is there."""


class Server(ThreadingHTTPServer):
    """A server that does not mind clients who leave before their answer has come."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, unless the client has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(answers: Mapping[str, Any]) -> Iterator[str]:
    """The URL of a server that answers GET by path: with bytes, with JSON, an `HTTPStatus`, or `NEVER`; else not found.

    What is PUT is there from then on.
    """
    known = dict(answers)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = known.get(self.path, HTTPStatus.NOT_FOUND)
            if answer is NEVER:
                over.wait()
                return
            failure = isinstance(answer, HTTPStatus)
            body = b"" if failure else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self._answer(answer if failure else HTTPStatus.OK, body)

        def do_PUT(self) -> None:
            known[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(HTTPStatus.CREATED, b"")

        def _answer(self, status: HTTPStatus, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its name in the base class
            """Say nothing."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            thread.join()
