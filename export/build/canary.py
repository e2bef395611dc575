"""The question a server must get through before it calls itself ready."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image, ImageDraw

_SIDE = 224


def write_canary(checkpoint: Path, folder: Path, is_adapted: bool = False) -> None:
    """Copies the checkpoint's own golden question; one without, and one that adapters make answer otherwise, gets a
    drawn image and no expected answer."""
    folder.mkdir(exist_ok=True)
    golden = checkpoint / "golden"
    if not is_adapted and (golden / "canary.json").is_file() and (golden / "canary.png").is_file():
        shutil.copyfile(golden / "canary.png", folder / "image.png")
        shutil.copyfile(golden / "canary.json", folder / "canary.json")
        return
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    ImageDraw.Draw(image).ellipse((56, 56, 168, 168), fill="red")
    image.save(folder / "image.png")
    question = {"prompt": "What is in this picture?", "answer": None}
    (folder / "canary.json").write_text(json.dumps(question) + "\n", "utf-8")
