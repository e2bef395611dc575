"""API keys: hashes in a file, a command line, and changes that count without a restart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_backend import FakeBackend
from structlog.testing import capture_logs

from gateway.app import create_app
from gateway.errors import BadKeyFile
from gateway.limits.api_keys import KeyStore, create_key, read_keys, revoke_key
from gateway.settings import GatewaySettings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_and_its_secret_is_stored_nowhere(file: Path) -> None:
    secret = create_key(file, "shop", "admin", requests_per_minute=5)
    found = KeyStore(file).find(secret)
    assert found is not None and (found.name, found.role, found.requests_per_minute) == ("shop", "admin", 5)
    assert secret not in file.read_text() and file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("wrong", ["", "glm-x", "é" * 9, "\udc80"])
def test_anything_else_is_no_key(file: Path, wrong: str) -> None:
    create_key(file, "shop")
    assert KeyStore(file).find(wrong) is None


def test_a_file_of_0_1_0_is_read_and_written_with_the_new_name(file: Path) -> None:
    create_key(file, "shop", image_tokens_per_minute=7)
    old = file.read_text().replace("image_tokens_per_minute", "picture_tokens_per_minute")
    assert "picture_tokens_per_minute" in old
    file.write_text(old)
    assert [(key.name, key.image_tokens_per_minute) for key in read_keys(file)] == [("shop", 7)]
    create_key(file, "other")
    assert '"image_tokens_per_minute": 7' in file.read_text() and "picture" not in file.read_text()


def test_new_and_revoked_keys_count_within_a_second(file: Path) -> None:
    now = [0.0]
    first = create_key(file, "first")
    store = KeyStore(file, lambda: now[0])
    second = create_key(file, "second")
    revoke_key(file, "first")
    assert store.find(first) and not store.find(second)
    now[0] = 1.1
    assert store.find(second) and not store.find(first)


def test_a_file_that_breaks_later_changes_nothing(file: Path) -> None:
    now = [0.0]
    secret = create_key(file, "shop")
    store = KeyStore(file, lambda: now[0])
    file.write_text("{")
    now[0] = 2.0
    with capture_logs() as logs:
        assert store.find(secret)
    assert logs[0]["event"] == "bad_key_file"


@pytest.mark.parametrize("text", [None, '{"keys": []}'])
def test_a_file_without_keys_is_a_loud_warning_at_the_start(build: Path, file: Path, text: str | None) -> None:
    if text:
        file.write_text(text)
    with capture_logs() as logs:
        create_app(GatewaySettings(build=build, keys_file=file), FakeBackend())
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["event"] == "no_keys" and f"keys create NAME --file {file}" in warning["message"]


def test_a_file_with_keys_is_none(build: Path, file: Path) -> None:
    create_key(file, "shop")
    with capture_logs() as logs:
        create_app(GatewaySettings(build=build, keys_file=file), FakeBackend())
    assert logs == []


@pytest.mark.parametrize("text", ["{", "[]", '{"keys": [{"name": "x"}]}', '{"keys": [], "more": 1}'])
def test_a_broken_file_is_refused_at_the_start(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(BadKeyFile):
        KeyStore(file)


def test_names_are_taken_once_and_must_be_names(file: Path) -> None:
    create_key(file, "shop")
    with pytest.raises(BadKeyFile, match="already"):
        create_key(file, "shop")
    with pytest.raises(BadKeyFile, match="name"):
        create_key(file, "a b")
    with pytest.raises(BadKeyFile, match="no key"):
        revoke_key(file, "other")
    assert [key.name for key in read_keys(file)] == ["shop"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "keys", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_creates_lists_and_revokes(file: Path) -> None:
    created = run("create", "shop", "--file", str(file), "--role", "metrics", "--requests-per-minute", "7")
    assert KeyStore(file).find(created.stdout.strip())
    assert run("list", "--file", str(file)).stdout == "shop\tmetrics\trequests_per_minute=7\n"
    again = run("create", "shop", "--file", str(file))
    assert again.returncode == 1 and "already" in again.stderr
    assert run("revoke", "shop", "--file", str(file)).returncode == 0
    assert json.loads(file.read_text()) == {"keys": []}


@pytest.mark.parametrize("folder", ["/proc", "/proc/none"])
def test_a_folder_that_cannot_be_written_to_is_a_sentence(folder: str) -> None:
    """/proc lets nobody make anything, root neither."""
    done = run("create", "shop", "--file", f"{folder}/keys.json")
    assert done.returncode == 1 and done.stderr.startswith(f"The keys cannot be kept in {folder}/keys.json: ")
    assert len(done.stderr.splitlines()) == 1 and not done.stdout


@pytest.mark.parametrize("name", ["keys.json", "keys.json.lock", "keys.json.new"])
@pytest.mark.parametrize("is_there", [True, False])
def test_keys_are_never_written_through_a_link(tmp_path: Path, name: str, is_there: bool) -> None:
    folder, victim = tmp_path / "keys", tmp_path / "victim"
    folder.mkdir()
    if is_there:
        victim.write_text('{"keys": []}')
    (folder / name).symlink_to(victim)
    if name.endswith(".new"):
        create_key(folder / "keys.json", "shop")
        assert [key.name for key in read_keys(folder / "keys.json")] == ["shop"]
    else:
        with pytest.raises(BadKeyFile, match="is a link"):
            create_key(folder / "keys.json", "shop")
    assert (victim.read_text() == '{"keys": []}') if is_there else not victim.exists()


def test_keys_are_read_through_a_link_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    create_key(tmp_path / "real.json", "shop")
    (tmp_path / "keys.json").symlink_to(tmp_path / "real.json")
    assert [key.name for key in read_keys(tmp_path / "keys.json")] == ["shop"]
