"""Writes a build's certificate: the stages of a comparison, as JSON for programs and as a page for people."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.text import Text

from export.certificate.html import page
from export.errors import DiskFull, NoAccess, is_full
from export.store.build_store import write_whole
from export.verify.comparison import Stage
from glmserve.build.manifest import CERTIFICATE_FILE, CERTIFICATE_PAGE, Manifest
from glmserve.contract import CONTRACT_VERSION

TRANSFORMERS = "transformers"
GOLDEN = "golden logits"
WHOLE, LAYER_BY_LAYER = "whole", "layer by layer"
"""How a build is run for a comparison. Both are held to the same tolerances."""
_CERTIFICATE_BYTES = 256 * 1024
"""Far more than a certificate and its page need."""
_PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "pillow", "tokenizers")


def write_certificate(
    build: Path,
    manifest: Manifest,
    stages: Iterable[Stage],
    against: str,
    console: Console,
    valid_days: int | None = None,
    mode: str = WHOLE,
) -> bool:
    """Prints each stage as it is done, then writes the certificate into the build. True when every stage passed.

    `mode` says how the build was run. The certificate expires after `valid_days`, if that is given.
    """
    done = []
    for stage in stages:
        done.append(stage)
        console.print(_line(stage))
    passed = bool(done) and all(stage.passed for stage in done)
    made = datetime.now(UTC)
    expires = None if valid_days is None else made + timedelta(days=valid_days)
    certificate = {
        "digest": manifest.digest,
        "contract_version": CONTRACT_VERSION,
        "precision": manifest.precision,
        "target": manifest.target,
        "source": manifest.source,
        "format": manifest.format,
        "against": against,
        "mode": mode,
        "margin": _margin(done),
        "passed": passed,
        "made": made.isoformat(timespec="seconds"),
        "expires": expires.isoformat(timespec="seconds") if expires else None,
        "versions": _versions(),
        "stages": [asdict(stage) | {"passed": stage.passed} for stage in done],
    }
    write_whole(build / CERTIFICATE_PAGE, page(certificate))
    write_whole(build / CERTIFICATE_FILE, json.dumps(certificate, indent=1) + "\n")
    console.print(Text(f"{'passed' if passed else 'FAILED'}: {build / CERTIFICATE_FILE}"))
    return passed


def _margin(stages: list[Stage]) -> dict[str, str | float] | None:
    """The stage that came closest to its tolerance, and the share of it that was left: below 0 where it was exceeded.
    None where no stage has an error that can be measured."""
    shares = {stage.name: stage.worst / stage.tolerance for stage in stages if stage.tolerance > 0}
    shares = {name: share for name, share in shares.items() if math.isfinite(share)}
    if not shares:
        return None
    name = max(shares, key=lambda name: shares[name])
    return {"stage": name, "left": round(1 - shares[name], 3)}


def check_writable(build: Path) -> None:
    """Raises NoAccess or DiskFull when no certificate can be written into a build. Call it before the comparison, which
    takes minutes."""
    try:
        with tempfile.TemporaryFile(dir=build, prefix=".") as file:
            file.write(bytes(_CERTIFICATE_BYTES))
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"The disk of {build} is full: make room for a certificate.") from None
        raise NoAccess(f"No certificate can be written into {build}: {error.strerror}.") from error


def _versions() -> dict[str, str]:
    """The installed versions of the packages that a comparison uses."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _line(stage: Stage) -> Text:
    verdict = ("ok    ", "green") if stage.passed else ("FAILED", "red")
    errors = f"worst {stage.worst:.1e}  median {stage.typical:.1e}  allowed {stage.tolerance:.0e}"
    return Text.assemble(verdict, f" {stage.name:<42} {errors}")
