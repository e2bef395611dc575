"""Settings are read once, checked, and all documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import PREFIX, GatewaySettings, auto_threads, settings_table
from glmserve.errors import BadSettings
from glmserve.system import cpu_count


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_BUILD", "/some/where")
    monkeypatch.setenv("GLM_GATEWAY_DEADLINE_S", "12.5")
    settings = GatewaySettings.read()
    assert (settings.build, settings.deadline_s) == (Path("/some/where"), 12.5)


def test_a_misspelt_variable_is_an_error_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_DEADLINES", "12.5")
    with pytest.raises(
        BadSettings, match=r"^GLM_GATEWAY_DEADLINES: unknown setting; did you mean GLM_GATEWAY_DEADLINE_S\?$"
    ):
        GatewaySettings.read()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PICTURE_TOKENS_PER_MINUTE", "IMAGE_TOKENS_PER_MINUTE"),
        ("ADDRESS_PICTURE_TOKENS_PER_MINUTE", "ADDRESS_IMAGE_TOKENS_PER_MINUTE"),
        ("DECODE_SLOTS", "IMAGE_DECODERS"),
    ],
)
def test_a_renamed_variable_is_refused_with_its_new_name(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    assert new.lower() in GatewaySettings.model_fields
    monkeypatch.setenv(PREFIX + old, "4")
    with pytest.raises(BadSettings) as caught:
        GatewaySettings.read()
    assert caught.value.message == f"{PREFIX}{old}: unknown setting; it is now called {PREFIX}{new}."


def test_a_renamed_name_in_the_file_is_refused_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("GLM_GATEWAY_DECODE_SLOTS=7\n")
    monkeypatch.setenv("GLM_GATEWAY_FILE", str(file))
    with pytest.raises(BadSettings, match="GLM_GATEWAY_DECODE_SLOTS: unknown setting; it is now called GLM_GATEWAY_IM"):
        GatewaySettings.read()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEADLINE_S", "inf", "=inf: must be a finite number."),
        ("DEADLINE_S", "0", "=0: must be more than 0."),
        ("DEADLINE_S", "abc", "=abc: must be a number."),
        ("TRITON_URL", "http://x", ": invalid value. Address of Triton"),
        ("TRITON_URL", "grpc://one:8001,two:8001", ": invalid value. Address of Triton"),
        ("ALLOWED_ADDRESSES", "10.0.0.0/8,nonsense", ": invalid value. Networks (CIDR)"),
        ("THREADS", "0", "=0: must be at least 1 or auto."),
        ("WORKERS", "many", "=many: must be a whole number or auto."),
        ("MAX_IMAGE_PIXELS", "1e9", "=1e9: must be a whole number."),
        ("LARGE_IMAGES", "shrink", "=shrink: must be downscale or refuse."),
        ("NO_AUTH", "perhaps", "=perhaps: must be true or false."),
    ],
)
def test_a_senseless_value_is_one_line_that_says_what_it_must_be(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(BadSettings) as caught:
        GatewaySettings.read()
    assert caught.value.message.startswith(PREFIX + name + words) and "\n" not in caught.value.message


def test_no_fault_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_GATEWAY_REDIS_URL", "user:secret@10.0.0.5")
    with pytest.raises(BadSettings, match="GLM_GATEWAY_REDIS_URL: ") as caught:
        GatewaySettings.read()
    assert "secret" not in caught.value.message


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("THREADS", "0"), ("DEADLINE", "3"), ("WORKERS", "x")):
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(BadSettings) as caught:
        GatewaySettings.read()
    assert len(caught.value.message.splitlines()) == 3


@pytest.mark.parametrize(
    "command", [["-m", "gateway", "check"], ["-m", "gunicorn", "-c", "python:gateway.server.gunicorn_config"]]
)
def test_a_wrong_setting_ends_a_program_with_a_line_and_no_traceback(command: list[str]) -> None:
    environment = {**os.environ, "GLM_GATEWAY_THREADS": "0"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and done.stderr == "GLM_GATEWAY_THREADS=0: must be at least 1 or auto.\n"


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
    with pytest.raises(BadSettings, match=r"GLM_GATEWAY_DEADLINES: unknown setting|GLM_GATEWAY_THREADS=x: must be"):
        GatewaySettings.read()


def test_a_file_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLM_GATEWAY_FILE", str(tmp_path / "none"))
    with pytest.raises(BadSettings, match="GLM_GATEWAY_FILE"):
        GatewaySettings.read()


def test_what_is_shown_at_the_start_holds_no_password() -> None:
    shown = GatewaySettings(redis_url="redis://user:secret@10.0.0.5:6379/0").shown()
    assert shown["redis_url"] == "redis://***@10.0.0.5:6379/0" and "secret" not in str(shown)


def test_what_is_shown_at_the_start_is_what_is_not_the_default() -> None:
    settings = GatewaySettings(
        deadline_s=7, image_hosts=("a.example", "b.example"), workers=1, threads=2, image_decoders=3
    )
    assert settings.shown() == {
        "deadline_s": "7.0",
        "image_hosts": "a.example,b.example",
        "workers": "1",
        "threads": "2",
        "image_decoders": "3",
    }


@pytest.mark.parametrize(
    ("core_count", "workers", "threads", "image_decoders"),
    [(1, 1, 64, 1), (2, 1, 64, 1), (4, 2, 64, 3), (8, 4, 128, 7), (64, 4, 256, 63)],
)
def test_what_is_not_chosen_follows_the_cores(
    monkeypatch: pytest.MonkeyPatch, core_count: int, workers: int, threads: int, image_decoders: int
) -> None:
    monkeypatch.setattr(cpu_count, "cores", lambda: core_count)
    monkeypatch.setenv("GLM_GATEWAY_THREADS", "auto")
    settings = GatewaySettings.read()
    assert (settings.workers, settings.threads, settings.image_decoders) == (workers, threads, image_decoders)
    assert (GatewaySettings(workers=3).workers, GatewaySettings(threads=5).threads) == (3, 5)


def test_gunicorn_gets_these_numbers() -> None:
    code = "import gateway.server.gunicorn_config as c; print(c.worker_class, c.workers, c.threads, c.graceful_timeout)"
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
    threads = str(auto_threads(cpu_count.cores()))
    assert done.stdout.split() == ["gateway.server.worker.GatewayWorker", "3", threads, "7", "JoinedResponse"]


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        GatewaySettings().deadline_s = 3  # type: ignore[misc]


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(GatewaySettings.model_fields)
    assert all(row.split("|")[3].strip().endswith(".") for row in rows)
