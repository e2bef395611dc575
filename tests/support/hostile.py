"""Files that are no image, and files that are an odd one: what is sent to break a decoder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from hostile_images import PNG_SIGNATURE, png_chunk
from PIL import Image, PngImagePlugin
from samples import file_of

RGB = Image.effect_noise((64, 48), 90).convert("RGB")
JPEG = file_of(RGB, "JPEG")
PNG = file_of(RGB, "PNG")


def png_of(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PNG_SIGNATURE + header + before + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND")


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


BAD_IMAGES: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\x89",
    "text": b"just some words",
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pdf": b"%PDF-1.7\n1 0 obj<<>>endobj",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "zip": b"PK\x03\x04" + bytes(60),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(60),
    "tiff": file_of(RGB, "TIFF"),
    "ico": file_of(RGB, "ICO"),
    "tga": file_of(RGB, "TGA"),
    "ppm": file_of(RGB, "PPM"),
    "pcx": file_of(RGB, "PCX"),
    "jpeg 2000": file_of(RGB, "JPEG2000"),
    "half an avif": file_of(RGB, "AVIF")[:300],
    "half a jpeg": JPEG[: len(JPEG) // 2],
    "jpeg start only": b"\xff\xd8",
    "jpeg of no pixels": with_size(JPEG, 0, 0),
    "jpeg of 65500 x 65500": with_size(JPEG, 65500, 65500),
    "jpeg header flipped": flipped(JPEG, JPEG.index(b"\xff\xc0") + 1),
    "half a png": PNG[: len(PNG) // 2],
    "png of 50000 x 50000": png_of(50_000, 50_000, b""),
    "png of 9400 x 9400 in 2 kB": png_of(9400, 9400, b""),
    "png with short data": png_of(64, 64, bytes(100)),
    "png with a bad header checksum": flipped(PNG, 30),
    "png with a bad data checksum": flipped(PNG, PNG.index(b"IDAT") + 20),
    "png of colour type 5": png_of(8, 8, bytes(300), colour=5),
    "png of no pixels": png_of(0, 0, b""),
    "png that is a header only": PNG[:33],
    "gif cut short": file_of(RGB.convert("P"), "GIF")[:40],
    "webp cut short": file_of(RGB, "WEBP")[:200],
    "bmp of negative size": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -5, 5, 1, 24, 0, 0, 0, 0, 0, 0),
    "strip of 5000 to 1": file_of(Image.new("RGB", (5000, 1))),
}


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 30_000_000, zip=True)
    return file_of(RGB, "PNG", pnginfo=info)


ODD_IMAGES: dict[str, Callable[[], bytes]] = {
    "png text bomb": text_bomb,
    "png profile bomb": lambda: png_of(
        8, 8, bytes(8 * 25), before=png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000), 9))
    ),
    "png data longer than its picture": lambda: png_of(8, 8, bytes(30_000_000)),
    "jpeg without its end": lambda: JPEG[:-2],
    "jpeg with a byte flipped": lambda: flipped(JPEG, len(JPEG) // 2),
    "moving png of 200 frames": lambda: file_of(
        RGB, "PNG", save_all=True, append_images=[RGB.rotate(i) for i in range(199)]
    ),
    "moving webp": lambda: file_of(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(9)]),
    "moving gif": lambda: file_of(RGB.convert("P"), "GIF", save_all=True, append_images=[RGB.rotate(9).convert("P")]),
    "broken exif": lambda: file_of(RGB, "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"),
}
