"""The settings check hands on what differs from the defaults, and says in a sentence when nobody answers it."""

from __future__ import annotations

import pytest

from launcher import settings
from launcher.settings import WrongSettings, checked_settings


def test_a_check_that_takes_too_long_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_TIMEOUT_S", 0.01)
    with pytest.raises(WrongSettings, match=r"^Checking the settings took longer than 0\.01 s, so nothing was started"):
        checked_settings("127.0.0.1:5000")


def test_settings_that_differ_from_the_defaults_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_MODEL_NAME", "demo")
    found = checked_settings("127.0.0.1:6000")
    assert found["GLM_GATEWAY_MODEL_NAME"] == "demo" and found["GLM_GATEWAY_BIND"] == "127.0.0.1:6000"
    assert "GLM_GATEWAY_DEADLINE_S" not in found
