"""GGUF files are read as the package `gguf` reads them, and under the names and in the order of the checkpoint."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from gguf_checkpoints import publish_gguf, quantised
from random_checkpoints import DEMO
from safetensors.numpy import load_file

from export.checkpoint.formats.gguf_blocks import KINDS
from export.checkpoint.formats.gguf_header import GgufFile
from export.checkpoint.formats.opened import open_weights
from export.checkpoint.formats.published import PublishedWeights
from export.errors import BadShard
from glmserve.errors import BadArtifact, UnknownArchitecture
from glmserve.model.config import Checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gguf") is None, reason="the package gguf is not installed"),
]
CODED = [number for number, kind in KINDS.items() if kind.bits]
QUERIES = "model.language_model.layers.2.self_attn.q_proj.weight"


def opened(folder: Path) -> PublishedWeights:
    weights = open_weights(folder)
    assert isinstance(weights, PublishedWeights)
    return weights


@pytest.mark.parametrize("number", CODED, ids=lambda number: KINDS[number].name)
def test_blocks_hold_what_the_package_finds_in_them(number: int) -> None:
    import gguf

    kind, known = KINDS[number], gguf.GGMLQuantizationType(number)
    assert (kind.values, kind.size) == gguf.GGML_QUANT_SIZES[known] and kind.name == known.name
    weight = np.random.default_rng(number).normal(size=(6, 512)).astype(np.float32)
    raw = quantised(weight, known.name)
    wanted = gguf.quants.dequantize(raw, known)
    assert np.linalg.norm(wanted - weight) < 0.2 * np.linalg.norm(weight), "the test's own rounding is wrong"
    assert kind.unpack is not None
    held = kind.unpack(raw.reshape(6, -1, kind.size))
    codes = held.codes.reshape(6, -1, kind.block).astype(np.float32) - (1 << (kind.kept_bits - 1))
    values = codes * held.scales[..., None]
    assert (held.offsets is not None) == kind.has_offsets
    if held.offsets is not None:
        values += held.offsets[..., None]
    np.testing.assert_allclose(values.reshape(wanted.shape), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("number", CODED, ids=lambda number: KINDS[number].name)
def test_any_bytes_are_read_as_the_package_reads_them(number: int) -> None:
    import gguf

    kind, known = KINDS[number], gguf.GGMLQuantizationType(number)
    raw = np.random.default_rng(number).integers(0, 256, (4, 3 * kind.size), dtype=np.uint8)
    blocks = raw.reshape(4, 3, kind.size)
    places = [208] if kind.name == "Q6_K" else [0, 2] if kind.has_offsets else [0]
    for place in places:  # half floats that are numbers of an ordinary size
        blocks[..., place : place + 2] = np.frombuffer(np.float16(0.01 * (1 + place)).tobytes(), np.uint8)
    wanted = gguf.quants.dequantize(raw, known)
    assert kind.unpack is not None
    held = kind.unpack(blocks)
    codes = held.codes.reshape(4, -1, kind.block).astype(np.float32) - (1 << (kind.kept_bits - 1))
    values = codes * held.scales[..., None] + (0 if held.offsets is None else held.offsets[..., None])
    np.testing.assert_allclose(values.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-4)


def test_every_tensor_has_the_checkpoints_name_shape_and_row_order(tmp_path: Path) -> None:
    weights = opened(publish_gguf(DEMO, tmp_path / "plain", "F32"))
    held = load_file(DEMO / "model.safetensors")
    assert set(weights.tensors) == set(held)
    for name, array in held.items():
        found = weights.read(name, array.shape)
        tolerance = 1e-3 if "visual" in name else 0.0  # the image encoder's matrices are in fp16, as the checkpoint's
        np.testing.assert_allclose(found.astype(np.float32), array.astype(np.float32), rtol=tolerance, atol=0)
        np.testing.assert_array_equal(weights.read_rows(name, 1, 5), found[1:5])


def test_rows_that_the_converter_moved_are_put_back_in_codes_too(tmp_path: Path) -> None:
    weights = opened(publish_gguf(DEMO, tmp_path / "coded", "Q8_0"))
    wanted = load_file(DEMO / "model.safetensors")[QUERIES].astype(np.float32)
    found = weights.read(QUERIES, wanted.shape)
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    packed = weights.packed(QUERIES, wanted.shape)
    assert packed is not None and packed.bits == 8 and packed.block == 32


def test_a_model_in_several_files_is_read_as_one(tmp_path: Path) -> None:
    folder = publish_gguf(DEMO, tmp_path / "split", "Q8_0")
    whole = opened(folder)
    _split(folder / "model.gguf", folder)
    parts = opened(folder)
    assert [path.name for path in parts.files if "model-0000" in path.name] == [
        "model-00001-of-00002.gguf",
        "model-00002-of-00002.gguf",
    ]
    assert set(parts.tensors) == set(whole.tensors)


def _split(path: Path, folder: Path) -> None:
    """Puts the tensors of a file into two, as llama.cpp's tool splits."""
    import gguf

    reader = gguf.GGUFReader(path)
    text = Checkpoint.read(folder).text
    for part in (0, 1):
        writer = gguf.GGUFWriter(folder / f"model-0000{part + 1}-of-00002.gguf", "glm4")
        writer.add_uint16("split.count", 2)
        writer.add_uint16("split.no", part)
        if part == 0:
            writer.add_head_count(text.heads)
            writer.add_head_count_kv(text.kv_heads)
            writer.add_rope_dimension_count(text.rotary_dim)
            writer.add_rope_dimension_sections([*text.mrope_section, 0])
        for tensor in reader.tensors[part::2]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    path.unlink()


def test_long_vocabularies_cost_no_memory(tmp_path: Path) -> None:
    folder = publish_gguf(DEMO, tmp_path / "made", "Q8_0")
    metadata = GgufFile.read(folder / "model.gguf").metadata
    assert metadata["glm4.attention.head_count"] == 8
    assert metadata["tokenizer.ggml.tokens"] is None


@pytest.mark.parametrize("cut", [0, 3, 12, 40, 300, 5000, -1, -4000])
def test_a_truncated_file_is_named(cut: int, tmp_path: Path) -> None:
    folder = publish_gguf(DEMO, tmp_path / "made", "Q8_0")
    path = folder / "model.gguf"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadShard, match=r"model\.gguf is truncated"):
        open_weights(folder)


def test_a_damaged_header_never_raises_anything_but_a_named_error(tmp_path: Path) -> None:
    folder = publish_gguf(DEMO, tmp_path / "made", "Q8_0")
    path = folder / "model.gguf"
    whole, random = bytearray(path.read_bytes()), np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, 6000, 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            open_weights(folder)
        except BadArtifact as error:
            assert "gguf" in error.message or "GGUF" in error.message, error.message
        except UnknownArchitecture as error:
            assert "model.gguf" in error.message


def test_types_that_are_not_read_are_named_with_what_to_take_instead(tmp_path: Path) -> None:
    folder = publish_gguf(DEMO, tmp_path / "made", "Q8_0")
    path = folder / "model.gguf"
    content = path.read_bytes()
    entry = content.index(b"output.weight") + len(b"output.weight") + 4 + 16
    path.write_bytes(content[:entry] + (10).to_bytes(4, "little") + content[entry + 4 :])
    with pytest.raises(BadShard, match=r"output\.weight in model\.gguf is of GGUF's type 10; only .* are read\. Take"):
        open_weights(folder)


def test_what_else_lies_in_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder = publish_gguf(DEMO, tmp_path / "made", "Q8_0")
    (folder / "second.gguf").write_bytes((folder / "model.gguf").read_bytes())
    with pytest.raises(BadShard, match=r"Of model\.gguf, second\.gguf it is not clear which is meant"):
        open_weights(folder)
    (folder / "second.gguf").unlink()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadShard, match=r"holds GGUF files and model\.safetensors"):
        open_weights(folder)
    (folder / "model.safetensors").unlink()
    (folder / "mmproj-model.gguf").rename(folder / "aside")
    with pytest.raises(BadShard, match=r"image encoder lies in one GGUF file of its own .* has none"):
        open_weights(folder)
    (folder / "aside").rename(folder / "mmproj-model.gguf")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BadShard, match=r"lacks chat_template\.jinja, which GGUF files do not hold: copy"):
        open_weights(folder)
