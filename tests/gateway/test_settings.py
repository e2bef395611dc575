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
        ("TRITON_URL", "grpc://one:8001,two:8001"),
        ("ALLOWED_ADDRESSES", "10.0.0.0/8,nonsense"),
        ("THREADS", "0"),
        ("MAX_IMAGE_PIXELS", "1e9"),
    ],
)
def test_a_senseless_value_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ValidationError):
        GatewaySettings.read()


def test_a_file_fills_in_what_the_environment_leaves_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("GLM_GATEWAY_DEADLINE_S=7\nGLM_GATEWAY_THREADS=9\n")
    monkeypatch.setenv("GLM_GATEWAY_FILE", str(file))
    monkeypatch.setenv("GLM_GATEWAY_THREADS", "5")
    settings = GatewaySettings.read()
    assert (settings.deadline_s, settings.threads) == (7, 5)


@pytest.mark.parametrize("text", ["GLM_GATEWAY_DEADLINES=7\n", "GLM_GATEWAY_THREADS=x\n"])
def test_a_wrong_line_in_the_file_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings"
    file.write_text(text)
    monkeypatch.setenv("GLM_GATEWAY_FILE", str(file))
    with pytest.raises(ValueError, match=r"deadlines|threads"):
        GatewaySettings.read()


def test_a_file_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLM_GATEWAY_FILE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="GLM_GATEWAY_FILE"):
        GatewaySettings.read()


def test_what_is_shown_at_the_start_holds_no_password() -> None:
    shown = GatewaySettings(redis_url="redis://user:secret@10.0.0.5:6379/0").shown()
    assert shown["redis_url"] == "redis://***@10.0.0.5:6379/0" and "secret" not in str(shown)
    assert set(shown) == set(GatewaySettings.model_fields)


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        GatewaySettings().deadline_s = 3  # type: ignore[misc]


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(GatewaySettings.model_fields)
    assert all(row.split("|")[3].strip().endswith(".") for row in rows)
