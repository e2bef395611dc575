"""Settings are read once, checked, and all documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import PREFIX, GatewaySettings, settings_table


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_BUILD", "/some/where")
    monkeypatch.setenv("GLM_GATEWAY_DEADLINE_S", "12.5")
    settings = GatewaySettings.read()
    assert (settings.build, settings.deadline_s) == (Path("/some/where"), 12.5)


def test_a_misspelt_variable_is_an_error_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_DEADLINES", "12.5")
    with pytest.raises(ValueError, match="GLM_GATEWAY_DEADLINES"):
        GatewaySettings.read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEADLINE_S", "inf"),
        ("DEADLINE_S", "0"),
        ("TRITON_URL", "http://x"),
        ("THREADS", "0"),
        ("MAX_IMAGE_PIXELS", "1e9"),
    ],
)
def test_a_senseless_value_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ValidationError):
        GatewaySettings.read()


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        GatewaySettings().deadline_s = 3  # type: ignore[misc]


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(GatewaySettings.model_fields)
    assert all(row.split("|")[3].strip().endswith(".") for row in rows)
