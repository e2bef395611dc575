"""What happens to a picture between the pen and the file: light, blur, noise and compression."""

from __future__ import annotations

import io
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


def worn(rng: random.Random, image: Image.Image) -> Image.Image:
    """A picture of the same size with none, one or several of the marks of wear."""
    if rng.random() < 0.22:
        image = with_light(rng, image)
    if rng.random() < 0.12:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9) * min(image.size) / 168))
    if rng.random() < 0.22:
        image = with_noise(rng, image)
    if rng.random() < 0.25:
        image = compressed(rng, image)
    return image


def with_light(rng: random.Random, image: Image.Image) -> Image.Image:
    """Brighter on one side, darker towards the corners, a cast of colour."""
    width, height = image.size
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
    light = 1 + rng.uniform(-0.14, 0.14) * x + rng.uniform(-0.14, 0.14) * y - rng.uniform(0, 0.14) * (x * x + y * y)
    cast = np.array([rng.uniform(0.94, 1.04) for _ in range(3)], np.float32) * rng.uniform(0.88, 1.06)
    return _image(np.asarray(image, np.float32) * light[:, :, None] * cast)


def with_noise(rng: random.Random, image: Image.Image) -> Image.Image:
    """Grain of the sensor, alike in the three channels or not."""
    strength = rng.uniform(2, 11)
    grain = np.random.default_rng(rng.getrandbits(32)).standard_normal(
        (image.height, image.width, rng.choice((1, 3))), dtype=np.float32
    )
    return _image(np.asarray(image, np.float32) + strength * grain)


def compressed(rng: random.Random, image: Image.Image) -> Image.Image:
    """Through JPEG and back."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(30, 90))
    return Image.open(file).convert("RGB")


def _image(values: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
