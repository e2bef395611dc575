"""Builds a build's engines one after another, each in a process of its own, and goes on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
from rich.console import Console

from export.graph.standard_ops import share
from export.precision import Numbers
from export.rtx import worker
from export.rtx.engines import Engine
from export.rtx.library import LIBRARY, library_version
from export.rtx.order import EngineOrder
from export.rtx.rounded import data_of, put_aside, share_codes
from export.rtx.worker import Job
from glmserve.build.rtx_engines import LAYERS_FILE, RTX_FOLDER, RtxEngines
from glmserve.errors import BadArtifact

_GRAPH = ".rtx.onnx"
"""What the graphs that engines are built from end with; they lie beside their weights while they are needed."""
_REAL = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
_SAID_CHARS = 2000
_MB = 1e6


class EngineWriter:
    """Writes engines into a build that is being made; `scratch` keeps what only an interrupted build needs again."""

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        order: EngineOrder,
        numbers: Numbers,
        console: Console,
        build: Callable[[Path], None] | None = None,
    ) -> None:
        """`folder` is the decoder's model version in the build; `build` does what a job's file says, by default in a
        process of its own. Raises MissingTensorRt."""
        self._folder, self._scratch = folder / RTX_FOLDER, scratch
        self._order, self._numbers, self._console = order, numbers, console
        self._version = library_version()
        self._build = build or _build_apart
        self._folder.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(parents=True, exist_ok=True)

    def write(self, engine: Engine, beside: Path, written: Mapping[str, ir.TensorProtocol]) -> None:
        """Builds one engine unless it is there already. Its weights are those `written` beside the graph `beside`.

        Raises BadArtifact with TensorRT's own words when it refuses the graph.
        """
        plan = self._folder / engine.plan
        graph = beside.with_name(f"{Path(engine.plan).stem}{_GRAPH}")
        if plan.is_file():
            _remove(graph)  # which a kill may have left
            self._console.print(f"{engine.plan}: {engine.title}, built before")
            return
        share(engine.model, written)
        share_codes(engine.model, written)
        job = Job(
            str(graph),
            {name: list(shapes) for name, shapes in engine.shapes.items()},
            list(self._order.capabilities),
            engine.attentions,
            _REAL[self._numbers.real],
            str(plan),
            str(self._report(engine)),
        )
        self._console.print(f"{engine.plan}: {engine.title}, {engine.weights / _MB:,.0f} MB of weights ...")
        try:
            put_aside(engine.model, graph)
            ir.save(engine.model, graph)
            self._run(job, engine)
        finally:
            _remove(graph)

    def finish(self, decoder: list[Engine], vision: Engine, context: int) -> str:
        """Lists the engines and their layers in the build; the manifest's line on them."""
        reports = []
        for engine in (vision, *decoder):
            report = json.loads(self._report(engine).read_text("utf-8"))
            reports.append({"plan": engine.plan, "title": engine.title, "layers": report["layers"]})
        (self._folder / LAYERS_FILE).write_text(json.dumps(reports, indent=1) + "\n", "utf-8")
        sizes, capabilities = self._order.sizes, list(self._order.capabilities)
        names = [engine.plan for engine in decoder]
        made = RtxEngines(LIBRARY, self._version, capabilities, sizes.rows, context, sizes.chunk_tokens, names)
        made.write(self._folder)
        return made.title

    def _run(self, job: Job, engine: Engine) -> None:
        path = self._scratch / "job.json"
        job.write(path)
        try:
            self._build(path)
        except BadArtifact as error:
            raise BadArtifact(f"{engine.plan} was not built. {error.message}") from None
        report = json.loads(self._report(engine).read_text("utf-8"))
        size = (self._folder / engine.plan).stat().st_size
        self._console.print(
            f"{engine.plan}: {size / _MB:,.0f} MB in {report['seconds']:.0f} s, {report['peak_bytes'] / _MB:,.0f} MB "
            f"at the peak, {len(report['layers'])} kernels, all {job.attentions} attentions fused"
        )

    def _report(self, engine: Engine) -> Path:
        return self._scratch / f"{Path(engine.plan).stem}.json"


def _remove(graph: Path) -> None:
    """A graph that an engine was built from, and its weights that nothing else has."""
    for path in (graph, data_of(graph)):
        path.unlink(missing_ok=True)


def _build_apart(job: Path) -> None:
    """Raises BadArtifact with what the process said, or with how it ended."""
    command = [sys.executable, "-m", worker.__name__, str(job)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == worker.REFUSED:
        raise BadArtifact(done.stderr.strip()[-_SAID_CHARS:])
    if done.returncode:
        said = done.stderr.strip()[-_SAID_CHARS:]
        raise BadArtifact(
            f"The process that builds it ended with code {done.returncode}; -9 is mostly a lack of memory, which "
            f"--build-memory lowers. The same command goes on from here. {said}".strip()
        )
