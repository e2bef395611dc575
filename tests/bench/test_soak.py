"""A short soak of the demo model ends with every slot free."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from shared_builds import build_of_demo, copied

from bench.measure.soak import soak


@pytest.mark.parametrize("short_tokens", [0, 96])
def test_ten_seconds_of_random_requests_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_tokens: int
) -> None:
    """With whole contexts, and with short rows and a single long one."""
    monkeypatch.setenv("GLM_ENGINE_SHORT_TOKENS", str(short_tokens))
    monkeypatch.setenv("GLM_ENGINE_LONG_ROWS", "1")
    made = copied(build_of_demo(), tmp_path)
    summary = soak(made, minutes=1 / 6, threads=1, seed=0, say=print)
    refused_too = {"overloaded"}  # those whose deadline was too short for the queue
    assert set(summary.endings) - refused_too == {"done", "cancelled", "deadline_exceeded"}
    assert json.loads(json.dumps(asdict(summary) | {"passed": summary.passed}))["requests"] == summary.requests
    assert summary.running_at_end == summary.waiting_at_end == 0
    assert summary.thread_growth <= 0 and summary.file_growth <= 0  # threads that start opened may end later
