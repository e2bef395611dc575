"""What the gRPC client sends and reads, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from small_triton import a_request, message, with_logprobs

from gateway.triton.grpc_client import TritonBackend
from glmserve import contract
from glmserve.contract import Finish
from glmserve.sampling_parameters import Sampling

WAIT_S = 10


def test_every_tensor_travels_as_the_contract_says(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([message([], Finish.STOP)])
    request = a_request()
    list(backend.generate(request))
    sent = triton[0].received[0]
    named = {t.name: t for t in contract.DECODER_INPUTS}
    assert all(i.datatype == named[i.name].triton_dtype for i in sent.inputs)
    assert {i.name for i in sent.inputs} >= {t.name for t in contract.DECODER_INPUTS if not t.is_optional}
    arrays = {
        i.name: np.frombuffer(raw, named[i.name].dtype).reshape(i.shape)
        for i, raw in zip(sent.inputs, sent.raw_input_contents, strict=True)
    }
    assert np.array_equal(arrays["PATCHES"], request.patches)
    assert arrays["GRIDS"].tolist() == [[4, 8]]
    assert arrays["SEED"].tolist() == [2**62]
    assert 0 < arrays["DEADLINE_MS"][0] <= WAIT_S * 1000
    assert sent.model_name == contract.DECODER_MODEL
    assert sent.parameters["triton_enable_empty_final_response"].bool_param


def test_a_request_without_an_image_sends_no_image_tensors(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([message([], Finish.STOP)])
    list(backend.generate(a_request(patches=False)))
    names = {i.name for i in triton[0].received[0].inputs}
    assert names == {t.name for t in contract.DECODER_INPUTS if not t.is_optional} | {contract.CANCEL_KEY.name}


def test_optional_tensors_travel_when_they_say_something(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([message([], Finish.STOP)])
    sampling = Sampling(min_p=0.25, repetition_penalty=1.5, stop_token_ids=(7, 9), logprobs=True, top_logprobs=3)
    said = replace(a_request(), sampling=sampling, grammar=b'{"type":"object"}', cache_scope=-(2**62), answers=2)
    list(backend.generate(said))
    sent = triton[0].received[0]
    named = {t.name: t for t in contract.DECODER_INPUTS}
    arrays = {
        i.name: np.frombuffer(raw, named[i.name].dtype).reshape(i.shape)
        for i, raw in zip(sent.inputs, sent.raw_input_contents, strict=True)
    }
    assert (arrays["MIN_P"][0], arrays["REPETITION_PENALTY"][0]) == (0.25, 1.5)
    assert arrays["STOP_TOKEN_IDS"].tolist() == [7, 9]
    assert (arrays["LOGPROBS"].tolist(), arrays["TOP_LOGPROBS"].tolist()) == ([True], [3])
    assert (arrays["GRAMMAR"].tobytes(), arrays["CACHE_SCOPE"].tolist()) == (b'{"type":"object"}', [-(2**62)])
    assert {output.name for output in sent.outputs} == {t.name for t in contract.DECODER_OUTPUTS}


def test_log_probabilities_are_asked_for_only_when_wanted(triton: Any, backend: TritonBackend) -> None:
    triton[0].script = lambda *_: iter([message([], Finish.STOP)])
    list(backend.generate(a_request()))
    assert "LOGPROB_IDS" not in {output.name for output in triton[0].received[0].outputs}


def test_log_probabilities_come_beside_their_tokens(triton: Any, backend: TritonBackend) -> None:
    rows = [[(4, -0.5), (4, -0.5), (6, -1.5)], [(5, -0.25), (5, -0.25), (8, -4.0)]]
    triton[0].script = lambda *_: iter([with_logprobs([4, 5], rows), message([], Finish.STOP)])
    first, last = backend.generate(replace(a_request(), sampling=Sampling(logprobs=True, top_logprobs=2)))
    assert first.logprobs == tuple(tuple(row) for row in rows)
    assert last.logprobs == ()
