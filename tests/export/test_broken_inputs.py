"""Each way in which a build can fail has a sentence and an exit code of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from export.cli import app
from export.errors import MEANING, Exit, exit_code
from export.store.build_store import locked
from glmserve.errors import GlmServeError
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
SHARD = "model.safetensors"
INDEX = "model.safetensors.index.json"
FOUND = Checkpoint.read(DEMO)
SIZE = FOUND.text.vocabulary


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))


def build(checkpoint: Path, out: Path) -> Result:
    return CliRunner().invoke(app, ["build", "--checkpoint", str(checkpoint), "--out", str(out)])


def assert_refused(result: Result, code: Exit, words: str, out: Path) -> None:
    assert result.exit_code == code, result.output
    assert words in result.stderr and "Traceback" not in result.stderr
    assert not list(out.glob("[!.]*")) and not list(out.glob(".parts-*"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("config.json", Exit.BAD_ARTIFACT),
        ("preprocessor_config.json", Exit.BAD_ARTIFACT),
        ("tokenizer.json", Exit.NO_TOKENIZER),
        ("chat_template.jinja", Exit.NO_TOKENIZER),
        (SHARD, Exit.BAD_SHARD),
    ],
)
def test_a_missing_file_is_named(name: str, code: Exit, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / name).unlink()
    assert_refused(build(checkpoint, tmp_path / "builds"), code, name, tmp_path / "builds")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", b"{}", "tokenizer.json is not a tokenizer"),
        ("tokenizer.json", b"\xff", "no readable tokenizer.json"),
        ("chat_template.jinja", b"{% if %}", "chat_template.jinja is not a Jinja template"),
        ("chat_template.jinja", b"\xff", "no readable chat_template.jinja"),
        ("chat_template.jinja", b"{{ 1 / 0 }}", "do not turn a question about an image into a prompt"),
        ("chat_template.jinja", b"{{ messages[0].role }}", f"one token {FOUND.image_token_id}"),
    ],
)
def test_a_tokenizer_or_template_that_is_none_is_named(
    name: str, content: bytes, words: str, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / name).write_bytes(content)
    assert_refused(build(checkpoint, tmp_path / "builds"), Exit.NO_TOKENIZER, words, tmp_path / "builds")


def test_a_tokenizer_of_another_model_is_named(checkpoint: Path, tmp_path: Path) -> None:
    values = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    control = values["added_tokens"][-1]
    ids = range(control["id"] + 1, SIZE + 1)  # the last is one too many
    values["added_tokens"] += [control | {"id": each, "content": f"<|token {each}|>"} for each in ids]
    (checkpoint / "tokenizer.json").write_text(json.dumps(values), "utf-8")
    result = build(checkpoint, tmp_path / "builds")
    assert_refused(
        result, Exit.NO_TOKENIZER, f"a token {SIZE}, config.json a vocabulary of only {SIZE}", tmp_path / "builds"
    )


def test_an_unknown_architecture_is_named(checkpoint: Path, tmp_path: Path) -> None:
    values = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(values | {"architectures": ["LlamaForCausalLM"]}), "utf-8")
    result = build(checkpoint, tmp_path / "builds")
    assert_refused(result, Exit.UNKNOWN_ARCHITECTURE, "LlamaForCausalLM", tmp_path / "builds")


@pytest.mark.parametrize("keep", [3, 100, -1000])
def test_a_truncated_shard_is_named(keep: int, checkpoint: Path, tmp_path: Path) -> None:
    file = checkpoint / SHARD
    file.write_bytes(file.read_bytes()[:keep])
    assert_refused(build(checkpoint, tmp_path / "builds"), Exit.BAD_SHARD, f"{SHARD} is truncated", tmp_path / "builds")


def test_a_tensor_of_another_shape_is_named_with_its_shard(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / SHARD)
    tensors["lm_head.weight"] = np.ascontiguousarray(tensors["lm_head.weight"][:-1])
    save_file(tensors, checkpoint / SHARD)
    result = build(checkpoint, tmp_path / "builds")
    assert_refused(result, Exit.BAD_SHARD, f"lm_head.weight in {SHARD}", tmp_path / "builds")


def test_a_shard_of_another_checkpoint_is_named(checkpoint: Path, tmp_path: Path) -> None:
    """The index speaks of two files, and both are whole, but one holds the other's tensors."""
    tensors = load_file(checkpoint / SHARD)
    names = sorted(tensors)
    first, second = names[::2], names[1::2]
    save_file({name: tensors[name] for name in first}, checkpoint / "a.safetensors")
    save_file({name: tensors[name] for name in first}, checkpoint / "b.safetensors")
    (checkpoint / SHARD).unlink()
    shards = dict.fromkeys(first, "a.safetensors") | dict.fromkeys(second, "b.safetensors")
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": shards}))
    result = build(checkpoint, tmp_path / "builds")
    assert_refused(result, Exit.BAD_SHARD, "b.safetensors is not the shard", tmp_path / "builds")


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../model.safetensors", "/etc/model.safetensors"])
def test_only_safetensors_beside_the_index_are_read(shard: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / SHARD).unlink()
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    assert_refused(build(checkpoint, tmp_path / "builds"), Exit.BAD_SHARD, shard, tmp_path / "builds")


def test_an_index_of_other_files_beside_the_single_one_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / SHARD, checkpoint / "other.safetensors")
    names = load_file(checkpoint / SHARD)
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "other.safetensors")}))
    result = build(checkpoint, tmp_path / "builds")
    assert_refused(result, Exit.BAD_SHARD, f"both {SHARD} and {INDEX}", tmp_path / "builds")
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, SHARD)}))
    assert build(checkpoint, tmp_path / "builds").exit_code == 0


def test_a_second_build_at_once_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "builds"
    out.mkdir()
    with locked(out, ".build.lock", timeout_s=1):
        assert_refused(build(checkpoint, out), Exit.LOCKED, "Another command is at work", out)
    assert build(checkpoint, out).exit_code == 0
    with locked(out, ".build.lock", timeout_s=1):
        assert build(checkpoint, out).exit_code == 0  # it is there already: nothing is to be written


def test_a_disk_without_room_is_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    result = build(checkpoint, tmp_path / "builds")
    assert_refused(result, Exit.DISK_FULL, "The build needs 0.0 GB more", tmp_path / "builds")


def test_a_disk_that_fills_up_ends_the_build_and_what_was_done_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    """The system refuses to let any file grow past 8 MB, as it would where a quota or the disk ends."""
    out = tmp_path / "builds"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))"
    code = f"{limit}\nfrom export.cli import main\nmain()"
    command = [sys.executable, "-c", code, "build", "--checkpoint", str(checkpoint), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.DISK_FULL, done.stderr
    assert "is full" in done.stderr and "Traceback" not in done.stderr
    assert not list(out.glob("[!.]*"))
    result = build(checkpoint, out)
    assert result.exit_code == 0 and not list(out.glob(".parts-*"))


def test_every_way_to_end_is_explained_in_the_help() -> None:
    text = CliRunner().invoke(app, ["build", "--help"]).output
    for code in Exit:
        assert str(int(code)) in text and MEANING[code].split()[0] in text
    assert exit_code(GlmServeError()) == 1


def test_a_folder_that_cannot_be_written_to_is_a_sentence() -> None:
    """/proc lets nobody make anything, root neither."""
    result = build(DEMO, Path("/proc/builds"))
    assert result.exit_code == Exit.NO_ACCESS and result.stderr.startswith("/proc/"), result.output
    assert "cannot be read or written" in result.stderr
