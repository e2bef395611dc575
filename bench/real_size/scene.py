"""Where a run keeps everything: its folder, what each step found, and what is done already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import records
from bench.checkpoints.synthetic import Shape, size_like, write_configuration
from bench.real_size.meter import used_bytes
from bench.records import Row, Say
from export.precision import Precision, Target, numbers_of
from export.store.build_store import locked, write_whole
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadArtifact, GlmServeError
from glmserve.model.config import OPTIONAL_FILES, PROCESSOR_FILES, Checkpoint
from glmserve.model.config_section import Section
from launcher.children import ending_with_us

RESULTS = "real_size"
TINY = Shape("real-size-tiny", layers=2, ffn=256, vision_depth=1, hidden=128, heads=2, vision_hidden=64, vision_heads=1)
"""The rehearsal's model."""
_PROJECT = Path(__file__).resolve().parents[2]
_GB = 1e9
_SIDE_FILES = (*PROCESSOR_FILES, *OPTIONAL_FILES, "tokenizer_config.json")


class StepFailed(Exception):
    """A step did not do what it should; the message says what came instead."""


@dataclass(frozen=True)
class Scene:
    """One run. `layers` and `blocks` cut the model; `is_rehearsal` is a run whose figures say nothing."""

    folder: Path
    model: Path | None
    precision: str
    layers: int | None
    blocks: int | None
    say: Say

    @property
    def is_whole(self) -> bool:
        """Whether it runs the real configuration, uncut."""
        return self.model is not None and self.layers is None and self.blocks is None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def partial(self) -> Path:
        """Where the checkpoint is written."""
        return self.folder / ".partial-checkpoint"

    @property
    def _cut(self) -> Path:
        return self.folder / "model"

    @property
    def builds(self) -> Path:
        return self.folder / "builds"

    @property
    def gguf(self) -> Path:
        """The folder of llama.cpp's files."""
        return self.folder / ".llama-gguf"

    @property
    def build(self) -> Path:
        """The finished build; raises StepFailed before there is one."""
        return Path(str(self.found("build")["build"]))

    def configuration(self) -> Path:
        """The folder with the configuration that the weights are written for, cut as asked. Raises StepFailed where the
        model's is broken, or has fewer layers than asked for."""
        if self.is_whole and self.model is not None:
            _read_facts(self.model)
            return self.model
        cut = self._cut
        shutil.rmtree(cut, ignore_errors=True)
        if self.model is None:
            write_configuration(TINY, cut)
        else:
            cut.mkdir(parents=True)
            for name in _SIDE_FILES:
                if (self.model / name).is_file():
                    (cut / name).write_bytes((self.model / name).read_bytes())
        whole, config = _read_facts(cut), _read_config(cut)
        for name, asked, had in (
            ("LAYERS", self.layers, whole.text.layers),
            ("BLOCKS", self.blocks, whole.vision.depth),
        ):
            if asked is not None and asked > had:
                raise StepFailed(
                    f"{name}={asked} is more than the model has: take 1 to {had}, or leave it out for all."
                )
        if self.layers is not None:
            _of_text(config)["num_hidden_layers"] = self.layers
        if self.blocks is not None:
            config["vision_config"]["depth"] = self.blocks
        (cut / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
        return cut

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Makes the folder, in which no other run works meanwhile; raises StepFailed or Locked."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StepFailed(f"SCRATCH={self.folder} cannot be made: {error.strerror}.") from None
        with locked(self.folder, ".run.lock"):
            yield

    def check(self, steps: Sequence[str]) -> None:
        """Raises StepFailed for what would fail only later. No `steps` are all that are not done yet."""
        try:
            numbers_of(Precision(self.precision), Target.CPU)
        except BadArtifact as error:
            raise StepFailed(f"PRECISION={self.precision}: {error.message}") from None
        self._check_folders()
        if self.model is not None:
            missing = [name for name in PROCESSOR_FILES if not (self.model / name).is_file()]
            if missing:
                raise StepFailed(f"MODEL={self.model} has no {', '.join(missing)}, which the real model's folder has.")
        if steps[:1] != ["checkpoint"]:
            self._check_model()
        if "checkpoint" in steps if steps else not self.is_done("checkpoint"):
            self._check_room()
        plan = self.found("plan")["precision"] if not steps and self.is_done("plan") else self.precision
        if plan != self.precision:
            raise StepFailed(
                f"{self.folder} holds a run in {plan}, this one is in {self.precision}: take another SCRATCH=, or "
                "PRECISION= as it was, or name with STEPS= what runs anew."
            )

    def _check_folders(self) -> None:
        """Raises StepFailed where a folder that this run removes is the model's, or leads elsewhere."""
        for folder in (self.checkpoint, self.partial, self._cut, self.gguf):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise StepFailed(f"{folder} is no folder of its own: remove it, or take another SCRATCH=.")
            if self.model is not None and self.model.is_relative_to(folder):
                raise StepFailed(
                    f"MODEL={self.model} lies where a run in {self.folder} keeps its own: take another SCRATCH=."
                )

    def _check_room(self) -> None:
        """Raises StepFailed where a checkpoint does not fit; the exporter looks for the room of its build itself."""
        needed, free = size_like(self.configuration()), shutil.disk_usage(self.folder).free
        had = sum(map(used_bytes, (self.checkpoint, self.partial, self.gguf)))  # are removed before
        if needed > free + had:
            raise StepFailed(
                f"The checkpoint takes {needed / _GB:.1f} GB in {self.folder}, where {(free + had) / _GB:.1f} GB are "
                "free: make room, take another SCRATCH=, or cut the model with LAYERS= and BLOCKS=."
            )

    def _check_model(self) -> None:
        """Raises StepFailed where the folder holds the checkpoint of another model, or of one that is cut otherwise;
        once `clean` has removed the checkpoint, the build tells which it was."""
        held = self.checkpoint
        if not held.is_dir() and self.is_done("build"):
            held = self.build / CHECKPOINT_FOLDER
        if not held.is_dir():
            return
        asked = _read_config(self.configuration())
        try:
            found = _read_config(held)
        except BadArtifact as error:
            raise StepFailed(
                f"{held}: {error.message} Take another SCRATCH=, or begin anew with STEPS=checkpoint."
            ) from None
        if found != asked:
            raise StepFailed(
                f"{self.folder} holds the checkpoint of another model ({_sizes(found)}; MODEL=, LAYERS= and BLOCKS= "
                f"ask for {_sizes(asked)}): take another SCRATCH=, or begin anew with STEPS=checkpoint."
            )

    def is_done(self, step: str) -> bool:
        return self._path(step).is_file()

    def found(self, step: str) -> Row:
        """What a step that is done has found; raises StepFailed otherwise."""
        if not self.is_done(step):
            raise StepFailed(f"The step {step} is not done yet in {self.folder}: let it run first (STEPS={step}).")
        try:
            return dict(json.loads(self._path(step).read_text("utf-8"))[0])
        except (ValueError, LookupError, TypeError):
            raise StepFailed(f"{self._path(step)} is broken: let the step run anew (STEPS={step}).") from None

    def keep(self, step: str, row: Row) -> None:
        """Writes what a step has found, at once; a whole run's also goes among the results of this checkout."""
        self._write(step, row, self.folder / "steps")
        self._publish(self.found(step))

    def keep_so_far(self, step: str, row: Row) -> None:
        """Puts what a step has found until now among the results, should it be killed; it stays undone."""
        folder = self.folder / "unfinished"
        self._write(step, row, folder)
        self._publish(json.loads((folder / f"{step}.json").read_text("utf-8"))[0])

    def _write(self, step: str, row: Row, folder: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        written = {"step": step, "precision": self.precision, **row}
        records.write(step, [written], f"make real-size STEPS={step}", folder)

    def _publish(self, row: Row) -> None:
        if self.is_whole:
            known = {each["step"]: each for each in records.read(RESULTS)} | {row["step"]: row}
            text = json.dumps(list(known.values()), indent=1) + "\n"
            write_whole(records.RESULTS / f"{RESULTS}.json", text)

    def run(self, name: str, module: str, *arguments: str) -> str:
        """What a program of ours prints; its whole output is kept in a log. Raises StepFailed with the log's end."""
        log = self.log(name)
        with log.open("ab") as errors:
            done = subprocess.run(
                ending_with_us([sys.executable, "-m", module, *arguments]),
                cwd=_PROJECT,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
            )
        printed = done.stdout.decode("utf-8", "replace")
        with log.open("a", encoding="utf-8") as kept:
            kept.write(printed)
        if done.returncode:
            raise StepFailed(f"{name} ended with code {done.returncode}. {log} ends:\n{log.read_text('utf-8')[-2000:]}")
        return printed

    @staticmethod
    def threads() -> int:
        """The engine's threads by default, whatever our environment says."""
        return EngineSettings.model_construct().threads

    def log(self, name: str) -> Path:
        folder = self.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    @staticmethod
    def environment() -> dict[str, str]:
        """Ours without any setting of the service: what is measured are the defaults."""
        return {name: value for name, value in os.environ.items() if not name.startswith("GLM_")}

    def _path(self, step: str) -> Path:
        return self.folder / "steps" / f"{step}.json"


def _read_facts(model: Path) -> Checkpoint:
    try:
        return Checkpoint.read(model)
    except GlmServeError as error:
        raise StepFailed(f"MODEL={model}: {error.message}") from None


def _read_config(folder: Path) -> dict[str, Any]:
    return Section.load(folder / "config.json").values


def _of_text(config: dict[str, Any]) -> dict[str, Any]:
    """What holds the text model's values: the first releases of the architecture kept them beside everything else."""
    held: dict[str, Any] = config.get("text_config", config)
    return held


def _sizes(config: dict[str, Any]) -> str:
    text, vision = (each if isinstance(each, dict) else {} for each in (_of_text(config), config.get("vision_config")))
    layers, hidden, blocks = text.get("num_hidden_layers"), text.get("hidden_size"), vision.get("depth")
    return f"{layers} text layers of {hidden}, {blocks} vision blocks"


def as_json(printed: str) -> dict[str, Any]:
    """The JSON document that a program printed, whatever stands before it."""
    found: dict[str, Any] = json.loads(printed[printed.index("{") :])
    return found
