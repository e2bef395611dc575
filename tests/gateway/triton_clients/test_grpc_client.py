"""The gRPC client against a small Triton of our own, in this process."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from eventually import eventually
from small_triton import a_request, failure, final_empty, message
from structlog.testing import capture_logs

from gateway.triton.backend import GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve import contract
from glmserve.contract import Finish
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, InvalidInput, Overloaded, to_wire

WAIT_S = 10
Connect = Callable[..., TritonBackend]


def test_tokens_come_in_order_and_end_with_the_finish(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter(
        [message([1]), message([2, 3]), message([]), message([4], Finish.LENGTH), final_empty()]
    )
    chunks = list(backend.generate(a_request()))
    assert [t for chunk in chunks for t in chunk.tokens] == [1, 2, 3, 4]
    assert [chunk.finish for chunk in chunks] == [0, 0, 0, Finish.LENGTH]
    assert chunks[-1].timings_ms == (1, 2, 3, 4) and chunks[-1].cached_tokens == 5


@pytest.mark.usefixtures("impatient")
def test_a_cancellation_ends_the_call_while_nothing_comes(triton: Any, backend: TritonBackend) -> None:
    release, asked = threading.Event(), threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        asked.set()
        release.wait(WAIT_S)
        return iter([])

    triton[0].script = script
    request = a_request()
    threading.Thread(target=lambda: asked.wait(WAIT_S) and request.cancellation.cancel()).start()
    with pytest.raises(Cancelled):
        list(backend.generate(request))
    assert triton[0].ended.wait(WAIT_S)
    release.set()


@pytest.mark.parametrize("reader_leaves", [False, True])
def test_an_answer_is_given_up_by_a_request_of_its_own_and_its_call_read_to_the_end(
    triton: Any, backend: TritonBackend, reader_leaves: bool
) -> None:
    """A call that is cancelled while its answer ends can bring Triton down."""
    was_active = threading.Event()

    def script(request: Any, context: Any) -> Iterator[Any]:
        yield message([1])
        triton[0].wait_for_cancel(request)
        if context.is_active():
            was_active.set()
        yield failure(to_wire(Cancelled()))

    triton[0].script = script
    request = a_request()
    chunks = backend.generate(request)
    assert next(chunks).tokens == (1,)
    if reader_leaves:
        chunks.close()
    else:
        request.cancellation.cancel()
        with pytest.raises(Cancelled):
            next(chunks)
    assert was_active.wait(WAIT_S) and triton[0].ended.wait(WAIT_S)
    assert len(triton[0].cancelled) == 1


def test_the_trace_goes_on(triton: Any, backend: TritonBackend) -> None:
    seen: list[dict[str, str]] = []

    def script(_request: Any, context: Any) -> Iterator[Any]:
        seen.append(dict(context.invocation_metadata()))
        return iter([message([], Finish.STOP)])

    triton[0].script = script
    list(backend.generate(replace(a_request(), traceparent="00-1-2-01")))
    assert seen[0]["traceparent"] == "00-1-2-01"


@pytest.mark.parametrize(
    "error", [Overloaded("Full."), DeadlineExceeded("Late."), InvalidInput("Odd."), BackendDown("No")]
)
def test_our_own_errors_arrive_as_themselves(triton: Any, backend: TritonBackend, error: GlmServeError) -> None:
    triton[0].script = lambda *_: iter([failure(to_wire(error))])
    with pytest.raises(type(error), match=error.message):
        list(backend.generate(a_request()))


@pytest.mark.parametrize(
    "text",
    [
        "Request for unknown model: 'glm4v' is not found",
        "Request for unknown model: 'glm4v' has no available versions",
        "in ensemble: model 'glm4v' is not ready",
        "Stub process 'glm4v_0_0' is not healthy.",
    ],
)
def test_a_triton_without_its_model_is_a_backend_that_is_down(triton: Any, backend: TritonBackend, text: str) -> None:
    triton[0].script = lambda *_: iter([failure(text)])
    with capture_logs(), pytest.raises(BackendDown):
        list(backend.generate(a_request()))


@pytest.mark.parametrize(
    "text",
    [
        "Failed to process the request(s) for model 'glm4v_0_0', message: Failed to obtain the health mutex.",
        "Failed to increase the shared memory pool size for key 'triton_python_backend_shm_region_1' to 67 bytes.",
    ],
)
def test_a_triton_that_cannot_hand_a_request_on_is_busy(triton: Any, backend: TritonBackend, text: str) -> None:
    """Of one request only: others are answered meanwhile."""
    triton[0].script = lambda *_: iter([failure(text)])
    with capture_logs(), pytest.raises(Overloaded):
        list(backend.generate(a_request()))


def test_any_other_word_of_triton_is_our_failure_without_the_word(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([failure("Traceback: /secret.py at 0x7f")])
    with capture_logs(), pytest.raises(GlmServeError) as caught:
        list(backend.generate(a_request()))
    assert type(caught.value) is GlmServeError
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, BackendDown),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.UNKNOWN, BackendDown),
        (grpc.StatusCode.CANCELLED, BackendDown),  # a Triton that ends cancels its calls; the client has not left
        (grpc.StatusCode.INVALID_ARGUMENT, GlmServeError),
    ],
)
def test_grpc_statuses_become_our_errors(
    triton: Any, backend: TritonBackend, status: grpc.StatusCode, kind: type[GlmServeError]
) -> None:
    def script(_request: Any, context: Any) -> Iterator[Any]:
        yield message([1])
        context.abort(status, "ipv4:10.0.0.1:8001 went away")

    triton[0].script = script
    with capture_logs(), pytest.raises(GlmServeError) as caught:
        list(backend.generate(a_request()))
    assert type(caught.value) is kind
    assert "10.0.0.1" not in caught.value.message


def test_nobody_listening_is_a_backend_that_is_down(connect: Connect) -> None:
    backend = connect("grpc://127.0.0.1:1", 5)
    with capture_logs(), pytest.raises(BackendDown):
        list(backend.generate(a_request()))
    assert not backend.models_ready()


def test_silence_between_two_messages_is_given_up(triton: Any, connect: Connect) -> None:
    release = threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        yield message([1])
        release.wait(WAIT_S)

    triton[0].script = script
    backend = connect(triton[1], 0.2)
    chunks = backend.generate(a_request())
    assert next(chunks).tokens == (1,)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        next(chunks)
    assert 0.1 < time.monotonic() - started < 2
    assert triton[0].ended.wait(WAIT_S)
    release.set()


def test_the_first_message_may_take_longer_than_the_silence_that_is_allowed_later(
    triton: Any, connect: Connect
) -> None:
    pause = threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        pause.wait(0.3)
        yield message([], Finish.STOP)

    triton[0].script = script
    backend = connect(triton[1], 0.1)
    assert len(list(backend.generate(a_request()))) == 1


@pytest.mark.slow
def test_a_steady_stream_may_last_longer_than_the_silence_that_is_allowed(triton: Any, connect: Connect) -> None:
    pause = threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        for i in range(8):
            yield message([i])
            pause.wait(0.2)
        yield message([], Finish.STOP)

    triton[0].script = script
    backend = connect(triton[1], 1.4)
    assert len(list(backend.generate(a_request()))) == 9


@pytest.mark.usefixtures("impatient")
def test_the_deadline_ends_a_stream_that_speaks_for_too_long(triton: Any, backend: TritonBackend) -> None:
    pause = threading.Event()

    def script(_request: Any, context: Any) -> Iterator[Any]:
        while context.is_active():
            yield message([1])
            pause.wait(0.02)

    triton[0].script = script
    with pytest.raises(DeadlineExceeded):
        list(backend.generate(a_request(deadline_s=0.3)))


@pytest.mark.usefixtures("impatient")
def test_closing_the_answer_cancels_the_call(triton: Any, backend: TritonBackend) -> None:
    release = threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        yield message([1])
        release.wait(WAIT_S)

    triton[0].script = script
    chunks = backend.generate(a_request())
    next(chunks)
    chunks.close()
    assert triton[0].ended.wait(WAIT_S)
    release.set()


def test_a_stream_that_ends_without_a_finish_is_a_backend_that_is_down(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([message([1]), final_empty()])
    with pytest.raises(BackendDown):
        list(backend.generate(a_request()))


def test_an_answer_of_another_contract_is_our_failure(triton: Any, backend: TritonBackend) -> None:
    odd = message([1])
    odd.infer_response.outputs[0].name = "IDS"
    triton[0].script = lambda *_: iter([odd])
    with pytest.raises(GlmServeError):
        list(backend.generate(a_request()))


def test_ready_means_the_model_is(triton: Any, backend: TritonBackend) -> None:
    assert backend.models_ready()
    triton[0].ready = {contract.WHOLE_MODEL}
    assert not backend.models_ready()


def test_an_image_of_the_largest_size_fits_through(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([message([], Finish.STOP)])
    request = a_request()
    large = np.zeros((24_576, 588), np.uint8)
    chunks = list(backend.generate(GenerateRequest(**{**request.__dict__, "patches": large})))
    assert chunks[-1].finish == Finish.STOP
    assert len(triton[0].received[0].raw_input_contents[1]) == large.nbytes


def test_an_answer_under_way_does_not_keep_the_bytes_that_were_sent(triton: Any, backend: TritonBackend) -> None:
    release = threading.Event()

    def script(_request: Any, _context: Any) -> Iterator[Any]:
        yield message([1])
        release.wait(WAIT_S)
        yield message([], Finish.STOP)

    triton[0].script = script
    large = replace(a_request(), patches=np.zeros((16_384, 588), np.uint8))
    tracemalloc.start()
    try:
        chunks = backend.generate(large)
        next(chunks)
        assert eventually(lambda: tracemalloc.get_traced_memory()[0] < large.patches.nbytes)
    finally:
        tracemalloc.stop()
        release.set()
    assert len(list(chunks)) == 1
