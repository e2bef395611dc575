"""A build's certificate: what its answers were compared with, and whether it is valid for this build."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from glmserve.build.manifest import CERTIFICATE_FILE, Manifest
from glmserve.contract import CONTRACT_VERSION
from glmserve.errors import Disproved, NotCertified

REQUIRE_VARIABLE = "GLM_ENGINE_REQUIRE_CERTIFICATE"
"""Set to false, it lets a build without a valid certificate be served."""


@dataclass(frozen=True)
class Certificate:
    """A comparison that a build passed, and what it was compared with: `transformers` or `golden logits`."""

    digest: str
    against: str
    made: datetime
    expires: datetime | None

    @staticmethod
    def find(build: Path, manifest: Manifest) -> Certificate | None:
        """The certificate of a build, or None where there is none.

        Raises NotCertified, saying what is wrong, for one that cannot be read, failed, has expired, or was made for
        another build or contract version; Disproved, which is one of these, where it failed.
        """
        path = build / CERTIFICATE_FILE
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text("utf-8"))
            expires = values["expires"]
            found = Certificate(
                str(values["digest"]),
                str(values["against"]),
                _moment(values["made"]),
                None if expires is None else _moment(expires),
            )
            version, passed = values["contract_version"], values["passed"]
        except (OSError, ValueError, KeyError, TypeError):
            raise NotCertified(f"{CERTIFICATE_FILE} of build {manifest.digest} cannot be read.") from None
        if found.digest != manifest.digest:
            raise NotCertified(
                f"{CERTIFICATE_FILE} of build {manifest.digest} was made for another build, {found.digest}."
            )
        if version != CONTRACT_VERSION:
            raise NotCertified(
                f"{CERTIFICATE_FILE} of build {manifest.digest} is of contract version {version}, "
                f"this server of version {CONTRACT_VERSION}."
            )
        if passed is not True:
            raise Disproved(
                f"{CERTIFICATE_FILE} of build {manifest.digest} says that it does not compute what its checkpoint does."
            )
        if found.expires is not None and found.expires <= datetime.now(UTC):
            raise NotCertified(f"{CERTIFICATE_FILE} of build {manifest.digest} expired on {found.expires:%Y-%m-%d}.")
        return found

    @staticmethod
    def vouches(build: Path, manifest: Manifest) -> bool:
        """Whether a build has a valid certificate."""
        try:
            return Certificate.find(build, manifest) is not None
        except NotCertified:
            return False

    @staticmethod
    def demand(build: Path, manifest: Manifest) -> Certificate:
        """The certificate of a build that must have one; raises NotCertified as `find` does, and for none at all."""
        found = Certificate.find(build, manifest)
        if found is None:
            raise NotCertified(
                f"Build {manifest.digest} has no certificate: make one with `python -m export verify`, or set "
                f"{REQUIRE_VARIABLE}=false to serve it all the same."
            )
        return found


def _moment(text: str) -> datetime:
    """A moment with its time zone; raises ValueError without one."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError
    return found
