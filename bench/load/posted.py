"""A POST, and the JSON that comes back: one document, or that of each server-sent event of a stream."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

ANSWER_S = 600.0
_HEADERS = {"Content-Type": "application/json", "Connection": "close"}
_EVENT, _END = b"data: ", b"[DONE]"


class Answered:
    """A response, read as it comes; `is_whole` once its document has come, or the mark that ends a stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self.is_stream = response.headers.get_content_type() != "application/json"
        self.is_whole = False
        self._response = response

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.is_stream:
            document = json.load(self._response)
            self.is_whole = True
            yield document
            return
        for line in self._response:
            if line.startswith(_EVENT):
                data = line[len(_EVENT) :].strip()
                if data == _END:
                    self.is_whole = True
                    return
                yield json.loads(data)

    def beginning(self) -> str:
        """The first two thousand bytes, of an answer that is no JSON."""
        return self._response.read(2000).decode(errors="replace")


@contextmanager
def posted(url: str, body: bytes, timeout_s: float = ANSWER_S) -> Iterator[Answered]:
    """The response to one POST on a connection of its own."""
    place = urlsplit(url)
    with closing(http.client.HTTPConnection(place.netloc, timeout=timeout_s)) as connection:
        connection.request("POST", place.path, body, _HEADERS)
        yield Answered(connection.getresponse())
