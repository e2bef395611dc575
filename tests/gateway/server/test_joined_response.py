"""The head of a response leaves with the beginning of its body, so that no proxy ever holds one without the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.server.response import JoinedResponse

EVENTS = "text/event-stream"


class Client:
    """A socket that keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.writes.append(bytes(data))


def respond(client: Client, body: list[bytes], *headers: tuple[str, str], method: str = "POST") -> None:
    """What gunicorn does with an application's answer."""
    request = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: False)
    response = JoinedResponse(request, client, SimpleNamespace(protocol="http", is_ssl=False))
    response.start_response("200 OK", list(headers))
    for piece in body:
        response.write(piece)
    response.close()


def test_a_whole_answer_is_one_write() -> None:
    client = Client()
    respond(client, [b'{"success": true}'], ("Content-Length", "17"))
    (answer,) = client.writes
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b'\r\n\r\n{"success": true}')


def test_a_stream_begins_with_its_first_event() -> None:
    client = Client()
    respond(client, [b"data: a\n\n", b"data: b\n\n"], ("Content-Type", EVENTS))
    first, second, end = client.writes
    assert first.startswith(b"HTTP/1.1 200 OK\r\n") and first.endswith(b"\r\n\r\n9\r\ndata: a\n\n\r\n")
    assert (second, end) == (b"9\r\ndata: b\n\n\r\n", b"0\r\n\r\n")


def test_an_answer_without_a_body_has_its_head() -> None:
    client = Client()
    respond(client, [], ("Content-Length", "0"))
    respond(client, [b"not for HEAD"], ("Content-Length", "12"), method="HEAD")
    assert [write.endswith(b"\r\n\r\n") for write in client.writes] == [True, True]


def test_what_cannot_be_sent_is_not_begun() -> None:
    client = Client()
    with pytest.raises(TypeError):
        respond(client, ["text"], ("Content-Length", "4"))  # type: ignore[list-item]
    assert client.writes == []
