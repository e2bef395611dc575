"""Where a checkpoint comes from: a folder, or a name on the Hugging Face hub that is downloaded first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from export.errors import DiskFull, DownloadFailed, MissingPackage, is_full
from glmserve.errors import BadArtifact
from glmserve.system.bundled_files import DEMO, DEMO_CHECKPOINT

_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_WANTED = ("*.safetensors", "*.json", "*.jinja")
"""Weights and what describes them; pickled weights can run code and are never fetched."""


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder, and the name that its builds keep."""

    folder: Path
    name: str

    @staticmethod
    def of(text: str, kind: str = "checkpoint") -> Source:
        """The folder `text` of a checkpoint, or of what else `kind` names; `demo` for the one that comes with the
        project; or the hub's `owner/name[@revision]`, downloaded unless it was before.

        Raises BadArtifact when it is none of these, MissingPackage without huggingface_hub, DownloadFailed when the hub
        refuses or cannot be reached.
        """
        folder = local_folder(text, kind)
        if folder.is_dir():
            return Source(folder, folder.resolve().name)
        match = _HUB_ID.fullmatch(text)
        if match is None:
            raise BadArtifact(f"There is no {kind} folder {text}, and it is no hub id (owner/name[@revision]).")
        return _download(match["name"], match["revision"], kind)


def local_folder(text: str, kind: str = "checkpoint") -> Path:
    """The folder on this machine that `text` names, there or not; raises BadArtifact where a file is there."""
    folder = DEMO_CHECKPOINT if text == DEMO else Path(text)
    if folder.is_file():
        raise BadArtifact(f"{text} is a file, and this takes the {kind}'s folder, which holds it: {folder.parent}.")
    return folder


def fetched_by(text: str) -> str | None:
    """The command that downloads what `text` names on the hub; None where it names nothing there."""
    match = _HUB_ID.fullmatch(text)
    if match is None:
        return None
    revision = f" --revision {match['revision']}" if match["revision"] else ""
    return f"hf download {match['name']}{revision} --local-dir DIR"


def _download(name: str, revision: str | None, kind: str) -> Source:
    try:
        from httpx2 import HTTPError
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise MissingPackage(
            f"There is no folder {name}, and downloading it takes huggingface_hub: pip install huggingface_hub."
        ) from None
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_WANTED)))
    except GatedRepoError:
        raise DownloadFailed(
            f"The hub hands {name} out to those only who have agreed to its terms: do so, then set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise DownloadFailed(f"The hub's {name} has no revision {revision}.") from None
    except RepositoryNotFoundError:
        raise DownloadFailed(f"There is no folder {name} here, and no {kind} {name} on the hub.") from None
    except (OSError, ValueError, HTTPError) as error:  # the hub's other errors are among these
        if isinstance(error, OSError) and is_full(error):
            raise DiskFull("The disk that downloads are kept on is full: make room, or set HF_HOME.") from None
        raise DownloadFailed(
            f"There is no folder {name} here, and it could not be downloaded from the hub: is the network there?"
        ) from None
    return Source(folder, f"{name}@{folder.name}")  # the snapshot's folder is named by its commit
