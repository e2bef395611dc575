"""Pieces written where they arrive, each once and in order; what is no piece is left to the request's thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from eventually import eventually

from gateway.chat.generation import Event, Piece, StartedAnswer
from gateway.observability.request_record import RequestRecord
from gateway.server.connection import plain_socket
from gateway.streaming.sse import StreamedResponse
from gateway.triton.backend import Cancellation, Chunk
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.contract import Finish
from glmserve.errors import Cancelled

WAIT_S = 10
PIECE = Chunk((1,), Finish.RUNNING)
LAST = Chunk((), Finish.STOP)


class _Shape:
    """Writes a piece as its text and nothing else."""

    def piece(self, piece: Piece) -> Iterator[str]:
        yield piece.content


class Answer:
    """An answer whose pieces come into its buffer from the test's own thread, and its client's end of a socket."""

    def __init__(self, length: int = 1) -> None:
        self.sender = object()
        ours, self.client = socket.socketpair()
        self.client.settimeout(WAIT_S)
        self.said = 0
        self.threads: set[str] = set()
        self.is_stopped = False  # by its next piece, as a stop string does it
        self._length = length
        record = RequestRecord("")
        self.response = StreamedResponse(self._begin, _Shape(), None, record, Cancellation(), ours)  # type: ignore[arg-type]
        assert self.response.wait(WAIT_S)
        self._ours = ours
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="request")
        self.end: Future[None] = self._pool.submit(self.response.write_directly)

    def brings(self, chunk: object) -> None:
        self.stream_buffer.put(self.sender, chunk)

    def is_asleep(self) -> bool:
        return self.stream_buffer._on_message is not None

    def close(self) -> None:
        self.brings(LAST)
        self._pool.shutdown()
        self.client.close()
        self._ours.close()

    def _begin(self, stream_buffer: StreamBuffer | None) -> StartedAnswer:
        assert stream_buffer is not None
        self.stream_buffer = stream_buffer
        stream_buffer.open(self.sender)
        return Piece(), self._events()

    def _events(self) -> Generator[Event]:
        while True:
            assert self.stream_buffer.get(WAIT_S) is PIECE
            self.threads.add(threading.current_thread().name.split("_")[0])
            if self.is_stopped:
                self.stream_buffer.close(self.sender)
            yield Piece(f"{self.said:04}" * self._length)
            self.said += 1


@pytest.fixture
def answer() -> Generator[Answer]:
    answer = Answer()
    assert eventually(answer.is_asleep)
    yield answer
    answer.close()


def test_a_piece_is_a_chunk_written_by_whoever_brings_it(answer: Answer) -> None:
    answer.brings(PIECE)
    assert answer.client.recv(100) == b"4\r\n0000\r\n"
    assert answer.threads == {threading.current_thread().name} and not answer.end.done()


def test_what_is_no_piece_is_left_for_the_requests_thread(answer: Answer) -> None:
    answer.brings(PIECE)
    answer.brings(LAST)
    answer.end.result(WAIT_S)
    assert answer.stream_buffer.get(0) is LAST


def test_an_answer_that_a_piece_ended_wakes_the_requests_thread(answer: Answer) -> None:
    answer.is_stopped = True
    answer.brings(PIECE)
    assert answer.client.recv(100) == b"4\r\n0000\r\n"
    answer.end.result(WAIT_S)


def test_a_client_that_left_is_told_to_the_requests_thread(answer: Answer) -> None:
    answer.client.close()
    answer.brings(PIECE)
    with pytest.raises(Cancelled):
        answer.end.result(WAIT_S)


def test_a_client_that_reads_slowly_gets_everything_in_order_and_holds_nobody_up() -> None:
    answer = Answer(length=20_000)
    for _ in range(20):
        answer.brings(PIECE)  # far more than a socket holds, and it returns
    answer.brings(LAST)
    received = bytearray()
    while len(received) < 20 * (20_000 * 4 + 9):
        received += answer.client.recv(1 << 20)
    answer.end.result(WAIT_S)
    assert [int(chunk[:4]) for chunk in received.decode().split("\r\n")[1::2]] == list(range(20))
    answer.close()


@pytest.mark.parametrize(("protocol", "is_plain"), [("HTTP/1.1", True), ("HTTP/1.0", False), ("HTTP/2.0", False)])
def test_only_chunks_of_http_1_1_are_written_past_the_web_server(protocol: str, is_plain: bool) -> None:
    with socket.socket() as client:
        found = plain_socket({"gunicorn.socket": client, "SERVER_PROTOCOL": protocol})
    assert (found is client) == is_plain
    assert plain_socket({"SERVER_PROTOCOL": protocol}) is None
