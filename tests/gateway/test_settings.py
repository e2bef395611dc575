"""Settings are read once, checked, and all documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway import auto
from gateway.settings import PREFIX, GatewaySettings, settings_table
from glmserve import cores


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
        ("WORKERS", "many"),
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


@pytest.mark.parametrize(
    ("core_count", "workers", "threads", "decode_slots"),
    [(1, 1, 64, 1), (2, 1, 64, 1), (4, 2, 64, 3), (8, 4, 128, 7), (64, 4, 256, 63)],
)
def test_what_is_not_chosen_follows_the_cores(
    monkeypatch: pytest.MonkeyPatch, core_count: int, workers: int, threads: int, decode_slots: int
) -> None:
    monkeypatch.setattr(cores, "cores", lambda: core_count)
    monkeypatch.setenv("GLM_GATEWAY_THREADS", "auto")
    settings = GatewaySettings.read()
    assert (settings.workers, settings.threads, settings.decode_slots) == (workers, threads, decode_slots)
    assert (GatewaySettings(workers=3).workers, GatewaySettings(threads=5).threads) == (3, 5)


def test_gunicorn_gets_these_numbers() -> None:
    code = "import gateway.gunicorn_config as c; print(c.worker_class, c.workers, c.threads, c.graceful_timeout)"
    code += "; import gunicorn.http.wsgi as w; print(w.Response.__name__)"
    chosen = {"GLM_GATEWAY_WORKERS": "3", "GLM_GATEWAY_GRACEFUL_TIMEOUT_S": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **chosen},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    threads = str(auto.threads(cores.cores()))
    assert done.stdout.split() == ["gateway.worker.PromptWorker", "3", threads, "7", "JoinedResponse"]


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        GatewaySettings().deadline_s = 3  # type: ignore[misc]


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(GatewaySettings.model_fields)
    assert all(row.split("|")[3].strip().endswith(".") for row in rows)
