"""A server on a loopback socket that sends bytes as it is told, and what the two services would send."""

import json
import socket
import struct
import threading
from contextlib import suppress
from socket import SHUT_RDWR

HANG, RESET, CLOSE = object(), object(), object()
"""Says nothing more until the server is closed; resets the connection; ends it."""


class ModelServer:
    """Answers each connection with the next entry of the script: bytes and the signs above, in order.

    An entry may be a function of the request that returns one; after the last entry, `then` answers.
    """

    def __init__(self, *script, then=None):
        self._then = then
        self.requests, self.heads, self.asked = [], [], threading.Semaphore(0)
        self._script = list(script)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._closing = threading.Event()
        self._open = []
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        with suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()

    def _serve(self):
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                thread = threading.Thread(target=self._answer, args=(connection, self._next()))
                self._threads.append(thread)
                thread.start()

    def _answer(self, connection, entry):
        with connection, suppress(OSError):
            request = self._read(connection)
            if callable(entry):
                entry = entry(request)
            for part in entry if isinstance(entry, tuple) else (entry,):
                if part is HANG:
                    self._closing.wait()
                elif part is RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif part is not CLOSE:
                    connection.sendall(part)

    def _read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += received(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
        while len(body) < int(headers["content-length"]):
            body += received(connection)
        self.heads.append({"path": head.split()[1].decode(), **headers})
        self.requests.append(json.loads(body))
        self.asked.release()
        return json.loads(body)

    def _next(self):
        return self._script.pop(0) if self._script else self._then


def received(connection):
    if not (data := connection.recv(65_536)):
        raise ConnectionError("who asked has left")
    return data


def chunked(*pieces, end=True):
    sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return sent + (b"0\r\n\r\n" if end else b"")


def head(status=200, kind="text/event-stream", *, length=None, more=()):
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", "Connection: close", *more]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(body, status=200, kind="application/json", more=()):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(status, kind, length=len(content), more=more) + content


def events(*documents, named=False, line_end="\n"):
    """Server-sent events."""
    lines = []
    for document in documents:
        lines += [f"event: {document['type']}"] if named else []
        lines += [f"data: {document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)}", ""]
    return "".join(line + line_end for line in lines).encode()


TEXT = "Hello, w\N{LATIN SMALL LETTER O WITH DIAERESIS}rld"


def openai_events(text=TEXT, stop="stop", usage=(5, 7), **options):
    """A completion in pieces, as OpenAI sends it."""

    def chunk(delta, stop=None):
        return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": stop}], "usage": None}

    end = [{"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}] if usage else []
    pieces = [chunk({"content": text[at : at + 5]}) for at in range(0, len(text), 5)]
    return events(chunk({"role": "assistant", "content": ""}), *pieces, chunk({}, stop), *end, "[DONE]", **options)


def openai_document(text="Hello", stop="stop", usage=(5, 7)):
    message = {"role": "assistant", "content": text}
    said = {} if usage is None else {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": stop}], **said}


def anthropic_events(
    text="Hello, w\N{LATIN SMALL LETTER O WITH DIAERESIS}rld", stop="end_turn", usage=(5, 7), **options
):
    """A message in pieces, as Anthropic sends it."""
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text[at : at + 5]}}
        for at in range(0, len(text), 5)
    ]
    begun = {} if usage is None else {"usage": {"input_tokens": usage[0], "output_tokens": 1}}
    ended = {} if usage is None else {"usage": {"output_tokens": usage[1]}}
    return events(
        {"type": "message_start", "message": {"id": "m", "content": [], "stop_reason": None, **begun}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop}, **ended},
        {"type": "message_stop"},
        **{"named": True} | options,
    )


def anthropic_document(text="Hello", stop="end_turn", usage=(5, 7)):
    said = {} if usage is None else {"usage": {"input_tokens": usage[0], "output_tokens": usage[1]}}
    return {"id": "m", "type": "message", "content": [{"type": "text", "text": text}], "stop_reason": stop, **said}
