"""What `plan` says of a build is what the build then is and takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from large_checkpoint import DEMO
from real_checkpoint import REAL, needs_real
from rich.console import Console
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from bench.checkpoints.random_weights import header_of, weights_of
from bench.checkpoints.synthetic import Shape, write_configuration
from export.build.pipeline import build as make_build
from export.cli import app
from export.errors import Exit
from export.plan import gpu_fit, serving_speed
from export.plan.serving_speed import ServingSpeed, can_measure
from export.precision import Precision, Target, numbers_of
from glmserve.build.safetensors_header import METADATA, read_header
from glmserve.model.config import Checkpoint

LARGE = Shape("large", layers=9, ffn=6848, vision_depth=2, hidden=2048, heads=32)
MOST_OFF = 0.25
GB = 1e9
MEASURED = """
import re
from pathlib import Path
from export.plan import gpu_fit
from export.build.pipeline import build as make_build
from export.cli import app
app(standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""  # of this very program: what the kernel tells its parent begins with what the parent held when it forked


def plan(checkpoint: Path, out: Path, *options: str) -> dict:
    command = ["plan", "--json", "--no-speed", "--checkpoint", str(checkpoint), "--out", str(out), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def plan_apart(checkpoint: Path, out: Path, *options: str) -> dict:
    """As a process of its own, whose memory the forecast counts from."""
    command = [sys.executable, "-m", "export", "plan", "--json", "--checkpoint", str(checkpoint), "--out", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, check=True)
    return dict(json.loads(done.stdout))


def build(checkpoint: Path, out: Path, *options: str) -> tuple[Path, int]:
    """The build's folder, and the peak memory of the process that made it."""
    arguments = ["build", "--checkpoint", str(checkpoint), "--out", str(out), *options]
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    folder, peak_kib = done.stdout.splitlines()[-2:]
    return Path(folder), int(peak_kib) * 1024


def test_size_and_memory_of_a_large_build_are_foretold(tmp_path: Path) -> None:
    checkpoint = with_holes(write_configuration(LARGE, tmp_path / "large"))
    assert (checkpoint / "model.safetensors").stat().st_size > GB
    told = plan_apart(checkpoint, tmp_path / "builds", "--precision", "int8")
    assert not (tmp_path / "builds").exists()
    folder, peak = build(checkpoint, tmp_path / "builds", "--precision", "int8")
    found = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    large = {name: size for name, size in found.items() if size > 10_000}
    assert {name: told["files"].get(name) for name in large} == large
    assert found.keys() - told["files"].keys() <= {"canary/image.png", "canary/canary.json"}
    assert abs(peak - told["peak_bytes"]) <= MOST_OFF * peak, (peak, told["peak_bytes"])


@pytest.mark.parametrize(
    ("precision", "target", "places"), [(Precision.FP32, Target.CPU, 1), (Precision.FP16, Target.CUDA, 7)]
)
def test_the_demo_is_foretold_to_the_byte_and_fits_everywhere(
    tmp_path: Path, precision: Precision, target: Target, places: int
) -> None:
    options = ["--precision", precision.value, "--target", target.value]
    told = plan(DEMO, tmp_path / "builds", "--slots", "4", "--length", "512", *options)
    folder = make_build(DEMO, tmp_path / "builds", Console(quiet=True), precision, target)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert {name for name, size in told["files"].items() if sizes[name] != size} <= {"manifest.json"}
    assert all(card["fits"] for card in told["cards"]) and len(told["cards"]) == places


@pytest.mark.parametrize(
    ("options", "places", "others"),
    [
        ([], ["│ this machine"], ["RTX 4090", "H200"]),
        (["--precision", "fp16", "--target", "cuda"], ["RTX 4090", "H200"], ["│ this machine"]),
        (["--precision", "fp16", "--target", "rtx"], ["RTX 5090", "RTX 4090", "A100"], ["│ this machine", "H200"]),
        (
            ["--precision", "fp16", "--target", "rtx", "--compute-capability", "8.6"],
            ["RTX 3090", "A10G"],
            ["RTX 4090", "A100"],
        ),
    ],
)
def test_the_table_names_files_memory_and_where_it_fits(
    tmp_path: Path, options: list[str], places: list[str], others: list[str]
) -> None:
    command = ["plan", "--checkpoint", str(DEMO), "--out", str(tmp_path / "builds"), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for words in ("decoder.data", "Peak memory", "fits", *places):
        assert words in result.stdout
    assert not [words for words in others if words in result.stdout]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "is_told"),
    [
        (["--precision", "int4"], True),
        (["--precision", "int4", "--target", "cuda"], False),
        (["--precision", "int8"], False),
    ],
    ids=["int4 on a processor", "int4 on a GPU", "int8 on a processor"],
)
def test_int4_on_a_processor_is_said_to_save_memory_and_not_time(
    tmp_path: Path, options: list[str], is_told: bool
) -> None:
    notes = plan(DEMO, tmp_path / "builds", *options)["notes"]
    assert len(notes) == is_told
    if is_told:
        assert "saves memory and disk, not time" in notes[0] and "--precision int8" in notes[0]


def test_on_a_processor_it_is_this_machines_memory_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for memory, is_enough in ((2 * GB, True), (0.5 * GB, False)):
        monkeypatch.setattr(gpu_fit.Host, "total_memory_bytes", lambda _, memory=memory: int(memory))
        (place,) = plan(DEMO, tmp_path / "builds", "--slots", "4", "--length", "512")["cards"]
        assert place["usable_bytes"] == int(0.9 * memory) and place["fits"] is is_enough


def test_no_more_tokens_are_reckoned_with_than_the_checkpoint_may_have(tmp_path: Path) -> None:
    bound = Checkpoint.read(DEMO).text.max_positions
    assert bound < 8192 and plan(DEMO, tmp_path / "builds")["length"] == bound
    assert plan(DEMO, tmp_path / "builds", "--length", "512")["length"] == 512


@needs_real
def test_the_real_model_in_bf16_does_not_fit_24_gb_and_in_int4_does(tmp_path: Path) -> None:
    """Headers are all that is read, so a file of holes with the real model's headers is as good as the real one."""
    shutil.copytree(REAL, tmp_path / "real")
    checkpoint = with_holes(tmp_path / "real")
    fits = {}
    for precision in ("bf16", "int4"):
        told = plan(checkpoint, tmp_path / "builds", "--precision", precision, "--target", "cuda")
        assert told["peak_bytes"] < 4 * GB
        fits[precision] = {card["card"]: card["fits"] for card in told["cards"]}
    assert {name for name, is_room in fits["bf16"].items() if is_room} == {
        name for name in gpu_fit.CARDS if "(24 GB)" not in name
    }
    assert all(fits["int4"].values()) and len(fits["int4"]) == len(gpu_fit.CARDS)


@needs_real
def test_a_24_gb_card_holds_150_usual_requests_in_int8_and_a_long_one_beside_short_ones(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "real")
    checkpoint, options = with_holes(tmp_path / "real"), ["--precision", "int8", "--target", "cuda"]
    for length, most in (("8192", 150), ("65536", 20)):
        told = plan(checkpoint, tmp_path / "builds", "--length", length, *options)
        card = next(card for card in told["cards"] if "4090" in card["card"])
        assert card["most_typical_requests"] >= most > card["most_slots"]


def test_short_rows_hold_more_requests_than_whole_contexts_where_there_are_any(tmp_path: Path) -> None:
    options = ["--precision", "fp16", "--slots", "4", "--length", "4096"]
    for target, has_more in (("cuda", True), ("rtx", False)):
        for card in plan(DEMO, tmp_path / "builds", *options, "--target", target)["cards"]:
            assert card["kv_tokens"] > card["most_slots"] * 1024
            assert (card["most_typical_requests"] > card["most_slots"]) == (has_more and card["most_slots"] < 1024)


def test_settings_of_short_rows_do_not_change_how_many_tokens_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = plan(DEMO, tmp_path / "builds")["cards"]
    monkeypatch.setenv("GLM_ENGINE_SHORT_TOKENS", "64")
    assert plan(DEMO, tmp_path / "builds")["cards"] == [before]


def test_the_long_rows_beside_short_ones_are_those_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLM_ENGINE_LONG_ROWS", "5")
    monkeypatch.setattr(gpu_fit.Host, "total_memory_bytes", lambda _: 2 * int(GB))
    result = CliRunner().invoke(app, ["plan", "--no-speed", "--checkpoint", str(DEMO), "--out", str(tmp_path)])
    assert "share the memory with 5 of 4,096." in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LONG_ROWS", "abc", "GLM_ENGINE_LONG_ROWS=abc: must be a whole number."),
        ("SHORT_TOKENS", "1", "GLM_ENGINE_SHORT_TOKENS: invalid value."),
        ("LONG_ROW", "1", "GLM_ENGINE_LONG_ROW: unknown setting; did you mean GLM_ENGINE_LONG_ROWS?"),
    ],
)
def test_a_wrong_setting_of_the_engine_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"GLM_ENGINE_{name}", value)
    result = CliRunner().invoke(app, ["plan", "--no-speed", "--checkpoint", str(DEMO), "--out", str(tmp_path)])
    assert result.exit_code == Exit.BAD_SETTINGS and said in result.stderr


def test_a_plan_needs_no_folder_that_can_be_written_to() -> None:
    assert plan(DEMO, Path("/proc/builds"))["peak_bytes"] > 0


def test_a_tensor_of_integers_that_nothing_needs_is_no_hindrance(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | {"a.first": np.array([1], np.int64)}, file)
    assert next(name for name in read_header(file)[1] if name != METADATA) == "a.first"
    assert plan(checkpoint, tmp_path / "builds")["new_bytes"] > 0


@pytest.mark.parametrize("keep", [100, -1000])
def test_a_truncated_shard_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    for path in DEMO.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    result = CliRunner().invoke(app, ["plan", "--checkpoint", str(tmp_path)])
    assert result.exit_code == Exit.BAD_SHARD and "model.safetensors is truncated" in result.stderr


def test_a_checkpoint_that_is_not_here_is_named_with_what_to_type() -> None:
    result = CliRunner().invoke(app, ["plan", "--checkpoint", "zai-org/GLM-4.6V-Flash"])
    assert result.exit_code == Exit.BAD_ARTIFACT and "hf download zai-org/GLM-4.6V-Flash" in result.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("zai-org/GLM-4.6V-Flash@main", "`hf download zai-org/GLM-4.6V-Flash --revision main --local-dir DIR`"),
        ("/models/GLM", "There is no folder /models/GLM, and `plan` takes a folder. Name one that is there."),
    ],
)
def test_only_what_is_on_the_hub_is_to_be_downloaded(asked: str, said: str) -> None:
    result = CliRunner().invoke(app, ["plan", "--checkpoint", asked])
    assert result.exit_code == Exit.BAD_ARTIFACT and said in result.stderr
    assert ("hf download" in result.stderr) is ("hf download" in said)


def with_holes(folder: Path) -> Path:
    """Gives a checkpoint a file of weights of its size, all zero, that takes no room on the disk."""
    weights = list(weights_of(Checkpoint.read(folder)))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header_of(weights))
        file.truncate(file.tell() + sum(weight.size_bytes for weight in weights))
    return folder


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_serving_speed_is_foretold_and_nothing_is_left_behind(tmp_path: Path, precision: str) -> None:
    options = ["--out", str(tmp_path / "builds"), "--precision", precision]
    result = CliRunner().invoke(app, ["plan", "--json", "--checkpoint", str(DEMO), *options])
    assert result.exit_code == 0, result.output
    speed = json.loads(result.stdout)["speed"]
    small, large = (speed["first_token_s"][photo] for photo in ("640x480", "1920x1080"))
    assert 0 < small < 60 and 0 < large < 60  # of the demo, which takes both in one size
    assert speed["tokens_per_s"].keys() == {"1", "16"} and min(speed["tokens_per_s"].values()) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "build"])
@pytest.mark.parametrize("option", ["--checkpoint", "--lora"])
def test_a_file_where_a_folder_is_wanted_is_told_its_folder(tmp_path: Path, command: str, option: str) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    others = [] if option == "--checkpoint" else ["--checkpoint", str(DEMO)]
    result = CliRunner().invoke(app, [command, option, str(file), *others, "--out", str(tmp_path / "builds")])
    assert result.exit_code == Exit.BAD_ARTIFACT and f"which holds it: {tmp_path}." in result.stderr


def test_the_demo_is_planned_by_its_name(tmp_path: Path) -> None:
    assert plan(Path("demo"), tmp_path)["files"] == plan(DEMO, tmp_path)["files"]


def test_a_slow_machine_is_told_of_its_deadline() -> None:
    slow = ServingSpeed({(640, 480): 59.0, (1920, 1080): 300.0}, {1: 1.9, 16: 7.0})
    said = " ".join(slow.sentences(30))
    assert "640x480 59 s" in said and "1 at a time 1.9" in said and "GLM_GATEWAY_DEADLINE_S allows 30 s" in said
    assert len(ServingSpeed({(640, 480): 0.1}, {1: 100.0, 16: 900.0}).sentences(30)) == 1


@needs_real
def test_layers_of_the_real_model_fit_this_machine_in_four_bits() -> None:
    checkpoint = Checkpoint.read(REAL)
    assert can_measure(checkpoint, numbers_of(Precision.INT4, Target.CPU))


@pytest.mark.parametrize(("take_s", "takes"), [(0.009, 50), (0.2, 3), (0.5, 2), (1.9, 2), (3.0, 1), (60.0, 1)])
def test_what_takes_long_is_not_measured_often(monkeypatch: pytest.MonkeyPatch, take_s: float, takes: int) -> None:
    now, done = [0.0], []
    monkeypatch.setattr(serving_speed.time, "perf_counter", lambda: now[0])

    def act() -> None:
        done.append(take_s)
        now[0] += take_s

    assert serving_speed._shortest_s(act) == pytest.approx(take_s) and len(done) == takes
