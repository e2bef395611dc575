"""Several Tritons behind one setting."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
from small_triton import WAIT_S, SmallTriton, a_request, message
from tritonclient.grpc import service_pb2_grpc

from gateway.triton import TritonBackend
from glmserve.contract import Finish


def test_several_tritons_take_turns_and_one_that_is_gone_is_passed_over() -> None:
    servers, servicers = [], [SmallTriton(), SmallTriton()]
    for servicer in servicers:
        servicer.script = lambda *_: iter([message([], Finish.STOP)])
        server = grpc.server(ThreadPoolExecutor(2))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        servers.append((server, server.add_insecure_port("127.0.0.1:0")))
        server.start()
    with closing(TritonBackend(",".join(f"grpc://127.0.0.1:{port}" for _, port in servers), 5)) as backend:
        assert backend.models_ready()
        give_up = time.monotonic() + WAIT_S
        while not all(servicer.received for servicer in servicers):
            list(backend.generate(a_request()))
            assert time.monotonic() < give_up
        servers[0][0].stop(None).wait(WAIT_S)
        while not backend.models_ready():
            assert time.monotonic() < give_up
        before = len(servicers[1].received)
        for _ in range(4):
            list(backend.generate(a_request()))
        assert len(servicers[1].received) == before + 4
    servers[1][0].stop(None).wait(WAIT_S)
