"""A build takes the checkpoint's own files over where they hold what it needs, and runs on them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from large_checkpoint import DEMO
from rich.console import Console
from safetensors.numpy import load_file, save_file
from shared_builds import build_of_demo

from export.build.pipeline import build
from export.checkpoint.stored_tensors import StoredTensor, stored_tensors_in
from export.precision import Precision
from export.verify.candidate import Candidate
from export.verify.subgraph import Subgraphs
from glmserve.build.manifest import Manifest, decoder_in
from glmserve.build.safetensors_header import read_header
from glmserve.engine.memory_plan import weight_bytes
from glmserve.errors import BadArtifact

QUIET = Console(quiet=True)
SHARD = "model.safetensors"
HEAD = "lm_head.weight"


def _decoder_folder(made: Path) -> Path:
    return decoder_in(made).parent


def _copied(tmp_path: Path, type_: type[np.generic]) -> Path:
    """The demo's checkpoint in another type of numbers."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO, folder)
    save_file({name: array.astype(type_) for name, array in load_file(DEMO / SHARD).items()}, folder / SHARD)
    return folder


def test_a_build_of_the_same_type_of_numbers_shares_the_checkpoints_file(tmp_path: Path) -> None:
    checkpoint = _copied(tmp_path, np.float32)
    made = build(checkpoint, tmp_path / "builds", QUIET)
    folder = _decoder_folder(made)
    assert (folder / SHARD).samefile(checkpoint / SHARD)
    assert not (folder / "decoder.data").exists() or (folder / "decoder.data").stat().st_size < 4096
    other = build(DEMO, tmp_path / "builds", QUIET)  # the same numbers, kept in a file of the build's own
    assert not (_decoder_folder(other) / SHARD).exists()
    prompt = np.arange(5, 25)
    answers = []
    for path in (made, other):
        candidate = Candidate(path, 1, 64)
        answers.append(candidate.prefill(candidate.prompt(prompt, []), 0, 64))
    np.testing.assert_array_equal(*answers)


def test_the_plan_counts_no_weight_twice(tmp_path: Path) -> None:
    shared = build(_copied(tmp_path, np.float32), tmp_path / "builds", QUIET)
    own = build_of_demo()
    sizes = [weight_bytes(decoder_in(path).parent.iterdir()) for path in (shared, own)]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[1]


def test_where_files_cannot_be_linked_they_are_copied_and_the_build_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _copied(tmp_path, np.float32)
    linked_build = build(checkpoint, tmp_path / "one", QUIET)

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    copied_build = build(checkpoint, tmp_path / "two", QUIET)
    assert linked_build.name == copied_build.name
    assert not (_decoder_folder(copied_build) / SHARD).samefile(checkpoint / SHARD)
    Manifest.read(copied_build).check(copied_build)


def test_a_checkpoint_changed_in_place_shows_in_its_build(tmp_path: Path) -> None:
    checkpoint = _copied(tmp_path, np.float32)
    made = build(checkpoint, tmp_path / "builds", QUIET)
    with (checkpoint / SHARD).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(BadArtifact, match=r"model\.safetensors of build .* was altered"):
        Manifest.read(made).check(made)


def test_a_rounded_build_copies_what_little_it_keeps(tmp_path: Path) -> None:
    made = build(_copied(tmp_path, np.float32), tmp_path / "builds", QUIET, Precision.INT4)
    assert not (_decoder_folder(made) / SHARD).exists()


def test_tensors_that_do_not_begin_at_a_multiple_of_their_elements_are_copied(tmp_path: Path) -> None:
    tensor = StoredTensor("f", 9, 8, ir.DataType.FLOAT, (2,))
    value = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((2,)))
    assert not tensor.holds(value)
    assert StoredTensor("f", 12, 8, ir.DataType.FLOAT, (2,)).holds(value)


def _in_two_shards(checkpoint: Path, first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """The checkpoint's tensors in two files; one that both hold is the first's."""
    (checkpoint / SHARD).unlink()
    save_file(first, checkpoint / "a.safetensors")
    save_file(second, checkpoint / "b.safetensors")
    shards = dict.fromkeys(second, "b.safetensors") | dict.fromkeys(first, "a.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_of_two_tensors_of_one_name_the_index_chooses(tmp_path: Path) -> None:
    checkpoint = _copied(tmp_path, np.float32)
    tensors = load_file(checkpoint / SHARD)
    first = {name: tensor for name, tensor in tensors.items() if "visual" in name or name == HEAD}
    second = {name: tensor for name, tensor in tensors.items() if name not in first}
    _in_two_shards(checkpoint, first, second | {HEAD: np.zeros_like(tensors[HEAD])})
    graph = decoder_in(build(checkpoint, tmp_path / "builds", QUIET))
    found = Subgraphs(graph).table(HEAD)
    np.testing.assert_array_equal(found, tensors[HEAD])


@pytest.mark.parametrize(("tensor", "offsets"), [("first", [0, 16]), ("first", [0, 36]), ("second", [4, 36])])
def test_a_header_that_contradicts_itself_is_refused_by_tensor(tensor: str, offsets: list[int], tmp_path: Path) -> None:
    save_file({"first": np.zeros(8, np.float32), "second": np.ones(8, np.float32)}, tmp_path / SHARD)
    begin, header = read_header(tmp_path / SHARD)
    header[tensor]["data_offsets"] = offsets  # of [0, 32] and [32, 64]: too short, too long, and over the one before
    text, body = json.dumps(header).encode(), (tmp_path / SHARD).read_bytes()[begin:]
    (tmp_path / SHARD).write_bytes(len(text).to_bytes(8, "little") + text + body)
    with pytest.raises(BadArtifact, match=rf"model\.safetensors is damaged: its header puts tensor {tensor}"):
        stored_tensors_in(tmp_path / SHARD)


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(BadArtifact, match=r"broken\.safetensors is truncated"):
        stored_tensors_in(tmp_path / "broken.safetensors")
