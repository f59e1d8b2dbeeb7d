"""An HTTP server on loopback for the other examples, and, run by itself, for the programs of the documents.

python examples/demo_server.py                # the shop of the README and a language model, until Ctrl-C
"""

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NEVER = object()
"""An answer that does not come while the server is there."""


SHOP = {f"/products/{number}": {"price": 10 * number + 9} for number in (1, 2, 4, 5, 6, 7)}
"""The products of the README; the third is sold out."""


def chat() -> Callable[[Any], Any]:
    """Stands for a language model: says whether a review is good. Busy the first time it is asked for "slow"."""
    asked: set[str] = set()

    def answer(request: Any) -> Any:
        text = request["messages"][-1]["content"]
        if "???" in text:
            return HTTPStatus.UNPROCESSABLE_ENTITY
        if "slow" in text and text not in asked:
            asked.add(text)
            return HTTPStatus.SERVICE_UNAVAILABLE
        said = "good" if "love" in text else "bad"
        usage = {"total_tokens": len(text.split()) + 1}
        return {"choices": [{"message": {"role": "assistant", "content": said}}], "usage": usage}

    return answer


class Server(ThreadingHTTPServer):
    """A server that does not mind clients who leave before their answer has come."""

    request_queue_size = 128  # the sixth client at once would wait a second to be let in

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, unless the client has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(answers: Mapping[str, Any], port: int = 0) -> Iterator[str]:
    """The URL of a server that answers GET by path: with bytes, with JSON, an `HTTPStatus`, or `NEVER`; else not found.

    What is PUT is there from then on. POST is answered by a function of the JSON that comes.
    Port 0 is one that is free.
    """
    known = dict(answers)
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = known.get(self.path, HTTPStatus.NOT_FOUND)
            if answer is NEVER:
                over.wait()
                return
            self._give(answer)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = known.get(self.path)
            self._give(answer(asked) if callable(answer) else HTTPStatus.NOT_FOUND)

        def _give(self, answer: Any) -> None:
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

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A shop and a language model on loopback, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000, which the documents have")
    services = {**SHOP, "/v1/chat/completions": chat()}
    with suppress(KeyboardInterrupt), serving(services, parser.parse_args().port) as url:
        print(
            f"{url}/products/1 to 7, of which 3 is sold out, and {url}/v1/chat/completions; Ctrl-C ends it", flush=True
        )
        threading.Event().wait()


if __name__ == "__main__":
    main()
