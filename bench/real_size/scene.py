"""Where a run keeps everything: its folder, what each step found, and what is done already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import records
from bench.checkpoints.synthetic import Shape, size_like, write_configuration
from bench.records import Row, Say
from export.precision import Precision, Target, numbers_of
from glmserve.errors import BadArtifact
from glmserve.model.config import OPTIONAL_FILES, PROCESSOR_FILES

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
    def builds(self) -> Path:
        return self.folder / "builds"

    @property
    def build(self) -> Path:
        """The finished build; raises StepFailed before there is one."""
        return Path(str(self.found("build")["build"]))

    def configuration(self) -> Path:
        """The folder with the configuration that the weights are written for, cut as asked."""
        if self.is_whole and self.model is not None:
            return self.model
        cut = self.folder / "model"
        shutil.rmtree(cut, ignore_errors=True)
        if self.model is None:
            write_configuration(TINY, cut)
        else:
            cut.mkdir(parents=True)
            for name in _SIDE_FILES:
                if (self.model / name).is_file():
                    (cut / name).write_bytes((self.model / name).read_bytes())
        config = _read_config(cut)
        if self.layers is not None:
            config["text_config"]["num_hidden_layers"] = self.layers
        if self.blocks is not None:
            config["vision_config"]["depth"] = self.blocks
        (cut / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
        return cut

    def check(self, steps: Sequence[str]) -> None:
        """Makes the folder; raises StepFailed for what would fail only later. No `steps` are all that are not done
        yet."""
        try:
            numbers_of(Precision(self.precision), Target.CPU)
            self.folder.mkdir(parents=True, exist_ok=True)
        except BadArtifact as error:
            raise StepFailed(f"PRECISION={self.precision}: {error.message}") from None
        except OSError as error:
            raise StepFailed(f"SCRATCH={self.folder} cannot be made: {error.strerror}.") from None
        if self.model is not None:
            missing = [name for name in PROCESSOR_FILES if not (self.model / name).is_file()]
            if missing:
                raise StepFailed(f"MODEL={self.model} has no {', '.join(missing)}, which the real model's folder has.")
        if steps[:1] == ["checkpoint"] or not self.checkpoint.is_dir():
            self._check_room()
        else:
            self._check_model()
        plan = self.found("plan")["precision"] if not steps and self.is_done("plan") else self.precision
        if plan != self.precision:
            raise StepFailed(
                f"{self.folder} holds a run in {plan}, this one is in {self.precision}: take another SCRATCH=, or "
                "PRECISION= as it was, or name with STEPS= what runs anew."
            )

    def _check_room(self) -> None:
        """Raises StepFailed where a checkpoint does not fit; the exporter looks for the room of its build itself."""
        needed, free = size_like(self.configuration()), shutil.disk_usage(self.folder).free
        had = sum(path.stat().st_size for path in self.checkpoint.glob("*"))  # is removed before
        if needed > free + had:
            raise StepFailed(
                f"The checkpoint takes {needed / _GB:.1f} GB in {self.folder}, where {(free + had) / _GB:.1f} GB are "
                "free: make room, take another SCRATCH=, or cut the model with LAYERS= and BLOCKS=."
            )

    def _check_model(self) -> None:
        """Raises StepFailed where the folder holds the checkpoint of another model, or of one that is cut otherwise."""
        held, asked = _read_config(self.checkpoint), _read_config(self.configuration())
        if held != asked:
            raise StepFailed(
                f"{self.folder} holds the checkpoint of another model ({_sizes(held)}; MODEL=, LAYERS= and BLOCKS= ask "
                f"for {_sizes(asked)}): take another SCRATCH=, or begin anew with STEPS=checkpoint."
            )

    def is_done(self, step: str) -> bool:
        return self._path(step).is_file()

    def found(self, step: str) -> Row:
        """What a step that is done has found; raises StepFailed otherwise."""
        if not self.is_done(step):
            raise StepFailed(f"The step {step} is not done yet in {self.folder}: let it run first (STEPS={step}).")
        return dict(json.loads(self._path(step).read_text("utf-8"))[0])

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
            (records.RESULTS / f"{RESULTS}.json").write_text(text, "utf-8")

    def run(self, name: str, module: str, *arguments: str) -> str:
        """What a program of ours prints; its whole output is kept in a log. Raises StepFailed with the log's end."""
        log = self.log(name)
        with log.open("ab") as errors:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
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


def _read_config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found


def _sizes(config: dict[str, Any]) -> str:
    layers, blocks = config["text_config"]["num_hidden_layers"], config["vision_config"]["depth"]
    return f"{layers} text layers of {config['text_config']['hidden_size']}, {blocks} vision blocks"


def as_json(printed: str) -> dict[str, Any]:
    """The JSON document that a program printed, whatever stands before it."""
    found: dict[str, Any] = json.loads(printed[printed.index("{") :])
    return found
