"""Images built to cost more than they show: one generator for each kind, in any size."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def small_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 200)).save(file, "JPEG")
    return file.getvalue()


def jpeg_segment(marker: int, content: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(before: bytes, jpeg: bytes | None = None) -> bytes:
    """A small JPEG with something behind its first two bytes."""
    jpeg = jpeg or small_jpeg()
    return jpeg[:2] + before + jpeg[2:]


def jpeg_segments(marker: int, count: int, content: bytes = b"") -> bytes:
    return jpeg_with(jpeg_segment(marker, content) * count)


def jpeg_exif(total_bytes: int, piece: bytes = b"B") -> bytes:
    """EXIF in many small pieces behind some large ones: whoever joins them one by one copies all for each."""
    large, small = jpeg_segment(0xE1, b"Exif\0\0" + b"A" * 65_000), jpeg_segment(0xE1, b"Exif\0\0" + piece)
    count = min(115, total_bytes // 2 // len(large))
    return jpeg_with(large * count + small * ((total_bytes - count * len(large)) // len(small)))


def jpeg_exif_values(entries: int = 5000) -> bytes:
    """One EXIF directory whose entries all point at the same sixty kilobytes."""
    blob = 65_000 - 12 * entries
    listed = b"".join(struct.pack("<HHII", 0x9000 + i % 0x6000, 7, blob, 14 + 12 * entries) for i in range(entries))
    tiff = b"II*\0" + struct.pack("<IH", 8, entries) + listed + bytes(4 + blob)
    return jpeg_with(jpeg_segment(0xE1, (b"Exif\0\0" + tiff)[:65_533]))


def jpeg_filler(count: int) -> bytes:
    return jpeg_with(b"\xff" * count)


def jpeg_scans(side: int, count: int, way: str = "first", components: int = 1, padding: int = 0) -> bytes:
    """A progressive JPEG whose scans hold next to nothing, after a first one of `padding` stuffed bytes more.

    `way`: whole bands for the first time or refined, one coefficient at a time, or sequential scans of all blocks.
    """
    sequential = way == "sequential"
    parts = [b"\xff\xd8", jpeg_segment(0xDB, b"\0" + b"\1" * 64)]
    frame = b"".join(bytes((i + 1, 0x11, 0)) for i in range(components))
    parts.append(jpeg_segment(0xC0 if sequential else 0xC2, struct.pack(">BHHB", 8, side, side, components) + frame))
    parts.append(jpeg_segment(0xC4, b"\0" + bytes((1, *[0] * 15)) + b"\0"))
    parts.append(jpeg_segment(0xC4, b"\x10" + bytes((1, 1, *[0] * 14)) + b"\xe0\0"))
    blocks = (-(-side // 8)) ** 2
    runs = -(-blocks // 32_767)
    bits = ("0" + "1" * 14) * runs
    bits += "1" * (-len(bits) % 8)
    run = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    if not sequential:
        every = b"".join(bytes((i + 1, 0)) for i in range(components))
        first = bytes((components,)) + every + b"\0\0\0"
        parts.append(jpeg_segment(0xDA, first) + bytes(components * blocks // 8 + 1) + b"\xff\0" * padding)
    for i in range(count):
        name = i % components + 1
        if sequential:
            parts.append(jpeg_segment(0xDA, bytes((1, name, 0, 0, 63, 0))))
            continue
        start, end, step = {"first": (1, 63, 0), "refine": (1, 63, 0x10), "narrow": (i % 63 + 1, i % 63 + 1, 0)}[way]
        parts.append(jpeg_segment(0xDA, bytes((1, name, 0, start, end, step))) + run)
    return b"".join((*parts, b"\xff\xd9"))


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    side: int = 64,
    depth: int = 8,
    colour: int = 2,
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
    height: int | None = None,
) -> bytes:
    """A PNG of zeros, which compress to a thousandth."""
    rows = height or side
    row = bytes((side * PNG_CHANNELS[colour] * depth + 7) // 8 + 1)
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(row) for _ in range(rows)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, rows, depth, colour, 0, 0, interlaced)
    return png_of(png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", packed) + after)


def png_of(chunks: bytes) -> bytes:
    return PNG_SIGNATURE + chunks + png_chunk(b"IEND")


def png_chunks(name: bytes, count: int, content: bytes = b"") -> bytes:
    return png(before=png_chunk(name, content) * count)


def png_texts(count: int) -> bytes:
    return png(before=b"".join(png_chunk(b"tEXt", b"%07x\0" % i) for i in range(count)))


def png_zipped(name: bytes, unpacked_bytes: int, count: int = 1) -> bytes:
    """Text or a colour profile that grows a thousandfold."""
    packed = zlib.compress(b"A" * unpacked_bytes, 9)
    prefix = {b"zTXt": b"k%d\0\0", b"iTXt": b"k%d\0\1\0\0\0", b"iCCP": b"k%d\0\0"}[name]
    return png(before=b"".join(png_chunk(name, prefix % i + packed) for i in range(count)))


def png_data_chunks(count: int, side: int = 64) -> bytes:
    """Pixels that begin after many chunks of none."""
    whole = png(side)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + png_chunk(b"IDAT") * count + whole[at:]


def png_deflate_blocks(count: int, side: int = 64) -> bytes:
    """Compressed data of blocks without content, each with tables of its own that have to be built."""
    bits = "0" + "01"  # not the last, tables of its own
    lengths = {18: 1, 0: 2, 1: 2}  # codes for code lengths: a long run of zeros, none, one bit
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    bits += f"{0:05b}"[::-1] + f"{0:05b}"[::-1] + f"{len(order) - 4:04b}"[::-1]
    bits += "".join(f"{lengths.get(code, 0):03b}"[::-1] for code in order)
    zeros, one = "0", "11"
    bits += zeros + f"{138 - 11:07b}"[::-1] + zeros + f"{118 - 11:07b}"[::-1] + one  # 256 zeros, the end's code
    bits += "10"  # no distances
    bits += "0"  # the end
    bits = bits * 8
    block = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return png_of(png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"\x78\x01" + block * (count // 8)))


def gif(side: int = 64, before: bytes = b"") -> bytes:
    file = io.BytesIO()
    Image.new("P", (side, side)).save(file, "GIF", transparency=0)
    whole = file.getvalue()
    at = 13 + (3 << ((whole[10] & 7) + 1) if whole[10] & 0x80 else 0)
    return whole[:at] + before + whole[at:]


def gif_comment(blocks: int, content: bytes = b"A") -> bytes:
    return gif(before=b"\x21\xfe" + (bytes((len(content),)) + content) * blocks + b"\0")


def gif_comments(count: int) -> bytes:
    return gif(before=b"\x21\xfe\x01A\0" * count)


def gif_junk(count: int) -> bytes:
    return gif(before=b"\1" * count)


def bmp_runs(width: int, height: int, runs: bytes, bits: int = 8) -> bytes:
    table = b"".join(bytes((i, i // 2, 255 - i, 0)) for i in range(1 << bits))
    start = 54 + len(table)
    compression = {8: 1, 4: 2}[bits]
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(runs), 0, 0, 1 << bits, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + table + runs


def bmp_line_ends(width: int, height: int, bits: int = 8) -> bytes:
    """Rows of one pixel, which are filled up by whoever reads them."""
    return bmp_runs(width, height, b"\1\1\0\0" * height, bits)


def bmp_single_pixels(width: int, height: int, bits: int = 8) -> bytes:
    return bmp_runs(width, height, (b"\1\1" * width + b"\0\0") * height, bits)


def bmp_runs_past_the_row(side: int, count: int, bits: int = 8) -> bytes:
    return bmp_runs(side, side, b"\xff\1" * count, bits)


def riff_chunk(name: bytes, content: bytes = b"") -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(side: int = 64, before: bytes = b"", after: bytes = b"") -> bytes:
    """A WebP with a canvas, and chunks before or after its image."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (9, 99, 200)).save(file, "WEBP", quality=1, method=0)
    image = file.getvalue()[12:]
    sides = (side - 1).to_bytes(3, "little") * 2
    body = b"WEBP" + riff_chunk(b"VP8X", bytes(4) + sides) + before + image + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_film(side: int) -> bytes:
    """One that says it moves."""
    still = webp(side)
    return still[:20] + b"\2" + still[21:]


def webp_lossless_head(side: int) -> bytes:
    """A WebP without losses, of which only the size is there."""
    bits = (side - 1) | (side - 1) << 14
    body = b"WEBP" + riff_chunk(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(99))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunks(count: int, content: bytes = b"") -> bytes:
    return webp(after=riff_chunk(b"abcd", content) * count)


def webp_frames(side: int, count: int) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (side, side), (i % 256, i // 256 % 256, 7)) for i in range(count)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True, method=0)
    return file.getvalue()
