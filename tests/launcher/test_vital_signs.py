"""A process that ended, one that stands still, and an engine that shows no life are told from those that are well."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from eventually import eventually

from glmserve.system.stopped import is_stopped
from launcher.supervision.vital_signs import (
    CONTINUE_AFTER_S,
    Frozen,
    Process,
    Pulse,
    cpu_s,
    is_running,
    pulse_in,
    stubs_of,
)

METRICS = """# HELP glm_engine_healthy 1 while the engine runs requests
# TYPE glm_engine_healthy gauge
glm_engine_healthy {healthy}
glm_engine_alive_timestamp_seconds 1.0e+09
glm_engine_loop_timestamp_seconds{{model="glm4v",version="1"}} 999999990
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Calls itself a stub."""
    process = subprocess.Popen(["bash", "-c", "exec -a triton_python_backend_stub sleep 60"])
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait(5)


def own_stub(pid: int) -> Process:
    assert eventually(lambda: any(stub.pid == pid for stub in stubs_of(os.getpid())))
    return next(stub for stub in stubs_of(os.getpid()) if stub.pid == pid)


def test_a_stub_that_was_killed_does_not_run_even_before_it_is_collected(sleeper: subprocess.Popen[bytes]) -> None:
    stub = own_stub(sleeper.pid)
    assert is_running(stub)
    sleeper.kill()
    assert eventually(lambda: not is_running(stub))


def test_another_process_with_the_same_id_is_not_the_one_that_ran(sleeper: subprocess.Popen[bytes]) -> None:
    stub = own_stub(sleeper.pid)
    assert not is_running(Process(stub.pid, stub.started - 1))


def test_a_stopped_process_is_told_from_a_sleeping_one(sleeper: subprocess.Popen[bytes]) -> None:
    own_stub(sleeper.pid)
    assert not is_stopped(sleeper.pid)
    sleeper.send_signal(signal.SIGSTOP)
    assert eventually(lambda: is_stopped(sleeper.pid))
    sleeper.send_signal(signal.SIGCONT)
    assert eventually(lambda: not is_stopped(sleeper.pid))


def test_the_pulse_is_read_from_tritons_metrics() -> None:
    assert pulse_in(METRICS.format(healthy=1), now_s=1e9 + 2) == Pulse(True, 2.0, 12.0)
    assert pulse_in(METRICS.format(healthy=0), now_s=1e9) == Pulse(False, 0.0, 10.0)


def test_a_model_without_our_engine_has_no_pulse() -> None:
    assert pulse_in("nv_inference_count 3\n", now_s=1e9) is None


def test_a_process_that_computes_is_told_from_one_that_waits(sleeper: subprocess.Popen[bytes]) -> None:
    waits = own_stub(sleeper.pid)
    with subprocess.Popen(["bash", "-c", "exec -a triton_python_backend_stub yes > /dev/null"]) as yes:
        try:
            computes = own_stub(yes.pid)
            assert eventually(lambda: cpu_s([computes]) > 0.3)
            assert cpu_s([computes, waits]) < cpu_s([computes]) + 0.3
            assert cpu_s([waits]) < 0.1
        finally:
            yes.kill()
    assert cpu_s([computes]) == 0


def test_one_that_is_stopped_again_and_again_has_stood_still_all_the_while() -> None:
    frozen = Frozen()
    for tenth in range(100):
        now = tenth / 10
        stopped = set() if tenth % 5 == 4 else {1}  # it runs for a moment, and is stopped again
        longest = frozen.longest_s(stopped, now)
        assert longest == (now if stopped else 0.0)
        assert frozen.due(stopped, now) == (stopped if now >= CONTINUE_AFTER_S else set())


def test_one_that_has_run_for_a_second_begins_anew() -> None:
    frozen = Frozen()
    assert frozen.longest_s({1}, 0.0) == 0.0
    assert frozen.longest_s({1}, 3.0) == 3.0
    assert frozen.longest_s(set(), 4.5) == 0.0
    assert frozen.longest_s({1}, 5.0) == 0.0 and frozen.due({1}, 5.0) == set()
