"""A real server on a loopback socket that speaks `/v1/embeddings`, and misbehaves when it is told to.

Vectors count the letters a, b and c of a text, so that a test can see which text a row belongs to.
"""

import json
from base64 import b64encode

import numpy as np

from . import http_server
from .http_server import Reply

KEY = "sk-penstock-0123456789abcdef"


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


class Server(http_server.Server):
    """Answers requests for vectors; what is kept of one is its JSON, with `authorization` as it was sent."""

    root = "/v1"

    def __init__(self, *script, otherwise=good):
        super().__init__(*script, otherwise=otherwise)

    @property
    def texts(self):
        """What was asked for, all but what is sent to see that the server works."""
        return [text for request in self.requests for text in request["input"] if text != "penstock"]

    def read(self, handler):
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        return request | {"authorization": handler.headers["Authorization"], "path": handler.path}
