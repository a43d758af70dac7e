"""A wasi:http 0.2 server in Python: the interpreter and a program in one component.

Routes: / (who it is), /env, /args, /echo (streams the body back), /file?path=, /status/N,
/stderr?text=, /trap (an exception that nobody catches).
"""

import json
import os
import sys
from typing import Iterator
from urllib.parse import parse_qsl, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import types
from wit_world.imports.streams import StreamError_Closed

# How much is read or written at a time, in bytes; blocking_write_and_flush takes no more than 4096.
PIECE = 4096


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: types.IncomingRequest, response_out: types.ResponseOutparam) -> None:
        target = urlsplit(request.path_with_query() or "/")
        query = dict(parse_qsl(target.query))
        status, pieces = answer(target.path, query, request)

        response = types.OutgoingResponse(types.Fields.from_list([("x-guest", b"http-py")]))
        response.set_status_code(status)
        body = response.body()
        types.ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            for piece in pieces:
                for start in range(0, len(piece), PIECE):
                    stream.blocking_write_and_flush(piece[start : start + PIECE])
        types.OutgoingBody.finish(body, None)


def answer(
    path: str, query: dict[str, str], request: types.IncomingRequest
) -> tuple[int, Iterator[bytes]]:
    match path.strip("/").split("/"):
        case [""]:
            return 200, text("hello from http-py\n")
        case ["env"]:
            return 200, text("".join(f"{name}={value}\n" for name, value in os.environ.items()))
        case ["args"]:
            return 200, text("".join(f"{argument}\n" for argument in sys.argv))
        case ["python"]:
            return 200, text(json.dumps({"version": sys.version, "platform": sys.platform}) + "\n")
        case ["echo"]:
            return 200, body_of(request)
        case ["file"]:
            try:
                with open(query.get("path", ""), "rb") as file:
                    return 200, iter([file.read()])
            except OSError as error:
                return 404, text(f"error: file: {error.strerror}\n")
        case ["status", number]:
            return int(number), text(f"status {number}\n")
        case ["stderr"]:
            print(query.get("text", ""), file=sys.stderr, flush=True)
            return 200, text("printed\n")
        case ["trap"]:
            raise RuntimeError("http-py fails as asked")
    return 404, text("no such route\n")


def text(words: str) -> Iterator[bytes]:
    return iter([words.encode()])


def body_of(request: types.IncomingRequest) -> Iterator[bytes]:
    # Both by name: a body that is dropped before its stream is an error.
    with request.consume() as body, body.stream() as stream:
        while True:
            try:
                yield stream.blocking_read(PIECE)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return
                raise
