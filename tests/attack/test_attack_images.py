"""Damaged images and images that ask for too much: bad images, and nothing worse."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features

from skbridge import CLIPEmbedder

# Formats to damage, and options that lead to other decoders.
KINDS = {
    "JPEG": [("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True})],
    "CMYK": [("JPEG", "CMYK", {"quality": 40})],
    "PNG": [("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "I;16", {})],
    "WEBP": [("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True})],
    "GIF": [("GIF", "P", {"save_all": True})],
    "BMP": [("BMP", "RGB", {})],
    "TIFF": [("TIFF", "RGB", {}), ("TIFF", "L", {"compression": "tiff_lzw"})],
    "TGA": [("TGA", "RGB", {"compression": "tga_rle"})],
    "PPM": [("PPM", "RGB", {})],
    "PCX": [("PCX", "P", {})],
    "SGI": [("SGI", "RGB", {})],
    "ICO": [("ICO", "RGBA", {})],
    "QOI": [("QOI", "RGB", {})],
    "JPEG2000": [("JPEG2000", "RGB", {})],
    "MPO": [("MPO", "RGB", {"save_all": True})],
    "AVIF": [("AVIF", "RGB", {})],
}
# Older versions of Pillow write fewer formats.
Image.init()
for _kind in ("AVIF", "QOI"):
    if _kind not in Image.SAVE:
        del KINDS[_kind]
if not features.check("jpg_2000"):
    del KINDS["JPEG2000"]

N_GOOD = 3


def seeds(kind, rng):
    """Small files of a kind, with notes that may be damaged too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    files = []
    for format, mode, options in KINDS[kind]:
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        pixels[:20] = 90
        image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        if options.get("save_all"):
            options = {**options, "append_images": [image.transpose(0)]}
        if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            options = {**options, "exif": exif}
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        files.append(buffer.getvalue())
    return files


def mutated(content, rng):
    """Damage a file in one of six ways, near its beginning more often."""
    content = bytearray(content)
    size = len(content)
    near = min(size, int(rng.choice([16, 64, 256, size])))
    where = int(rng.integers(near))
    how = rng.integers(6)
    if how == 0:
        for position in rng.integers(0, near, rng.integers(1, 9)):
            content[position] ^= 1 << rng.integers(8)
    elif how == 1:
        del content[max(1, where) :]
    elif how == 2:
        length = int(rng.integers(1, 65))
        content[where : where + length] = rng.bytes(length)
    elif how == 3:
        del content[where : where + int(rng.integers(1, 65))]
    elif how == 4:
        other = int(rng.integers(size))
        content[where:where] = content[other : other + int(rng.integers(1, 257))]
    else:
        extremes = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
        content[where : where + 4] = extremes[rng.integers(4)]
    return bytes(content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_error", ["nan", "raise"])
def test_damaged_image_is_read_or_reported_and_moves_no_row(
    kind, on_error, rng, times, report
):
    n_images, batch = times(12, 640), times(12, 80)
    embedder = CLIPEmbedder("skbridge-tiny", device="cpu", on_error=on_error)
    good = [np.full((8, 8, 3), 80 * i, dtype=np.uint8) for i in range(N_GOOD)]
    expected = embedder.transform(good)
    rng.bytes(len(on_error))  # The two modes get different files.
    files = seeds(kind, rng)
    assert embedder.valid_images(files).all()
    n_read = n_bad = n_moved = n_silent = n_other = 0
    for _ in range(n_images // batch):
        damaged = [mutated(files[i % len(files)], rng) for i in range(batch)]
        where = np.sort(rng.choice(batch + N_GOOD, N_GOOD, replace=False))
        X, rest = [None] * (batch + N_GOOD), iter(damaged)
        for i in range(len(X)):
            at = np.flatnonzero(where == i)
            X[i] = good[at[0]] if len(at) else next(rest)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                valid = embedder.valid_images(X)
                n_read += valid.sum() - N_GOOD
                n_bad += (~valid).sum()
                if on_error == "nan":
                    rows = embedder.transform(X)
                    is_told = any(
                        f"Cannot read {(~valid).sum()} of" in str(w.message)
                        for w in told
                    )
                    n_silent += not (valid.all() or is_told)
                    n_silent += np.any(np.isfinite(rows).all(axis=1) != valid)
                else:
                    n_silent += not (valid.all() or raises(embedder, X, valid))
                    rows = np.full((len(X), expected.shape[1]), np.nan)
                    rows[valid] = embedder.transform(
                        [X[i] for i in np.flatnonzero(valid)]
                    )
                n_moved += (np.abs(rows[where] - expected).max(axis=1) > 1e-3).sum()
            except Exception as error:
                n_other += 1
                print(f"{type(error).__name__}: {error}")
    report(
        f"damaged {kind} files, on_error={on_error!r}",
        n_images,
        read=n_read,
        bad_images=n_bad,
        silent_losses=n_silent,
        moved_rows=n_moved,
        exceptions=n_other,
    )
    assert n_bad > 0
    assert (n_moved, n_silent, n_other) == (0, 0, 0)


def raises(embedder, X, valid):
    """Whether the first image that cannot be read is named by an error."""
    try:
        embedder.transform(X)
    except ValueError as error:
        return f"Cannot read X[{np.argmin(valid)}]" in str(error)
    return False


# Resource bombs


def chunk(name, data):
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def png(width, height, color_type, n_channels=1, depth=8, extra=b""):
    """A black PNG, written without having its pixels."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + (width * n_channels * depth + 7) // 8)
    rows = b"".join(compressor.compress(row) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", rows + compressor.flush())
        + chunk(b"IEND", b"")
    )


def saved(format, size, mode="RGB", **options):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new(mode, size).save(buffer, format, **options)
    return buffer.getvalue()


def many_scans():
    content = saved("JPEG", (3000, 3000), progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * 3000 + content[-2:]


def many_frames():
    frames = [Image.new("L", (1000, 1000), i % 256) for i in range(300)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def compressed_text(n_chunks):
    text = b"Comment\0\0" + zlib.compress(bytes(2**20 - 1), 9)
    return png(8, 8, 0, extra=chunk(b"zTXt", text) * n_chunks)


def profile():
    content = b"icc\0\0" + zlib.compress(bytes(2**30), 9)
    return png(8, 8, 0, extra=chunk(b"iCCP", content))


# Each is quick to write; those of the second table run in the long form only.
BOMBS = {
    "100,000 x 1 PNG": lambda: png(100_000, 1, 0, depth=1),
    "1 x 300,000 PNG": lambda: png(1, 300_000, 0, depth=1),
    "65,500 x 2 JPEG": lambda: saved("JPEG", (65_500, 2)),
    "177 MP PNG in colour": lambda: png(13_300, 13_300, 2, 3),
    "500 text chunks of 1 MB each": lambda: compressed_text(500),
    "24 MP GIF header of 40 bytes": lambda: (
        b"GIF89a" + struct.pack("<HH", 4900, 4900) + bytes(30)
    ),
}
SLOW_BOMBS = {
    "88 MP grey PNG with transparency": lambda: png(
        9380, 9380, 0, extra=chunk(b"tRNS", b"\0\1")
    ),
    "88 MP PNG with alpha": lambda: png(9380, 9380, 6, 4),
    "177 MP grey PNG": lambda: png(13_300, 13_300, 0),
    "88 MP 16-bit PNG": lambda: png(9380, 9380, 0, depth=16),
    "177 MP JPEG": lambda: saved("JPEG", (13_300, 13_300)),
    "66 MP progressive JPEG": lambda: saved("JPEG", (8100, 8100), progressive=True),
    "JPEG of 3,000 scans": many_scans,
    "GIF of 300 frames": many_frames,
    "colour profile of 1 GB": profile,
    "100 MP WebP": lambda: saved("WEBP", (10_000, 10_000), method=0),
    "80 MP TIFF": lambda: saved("TIFF", (9000, 9000), compression="tiff_lzw"),
    "30 MP JPEG2000": lambda: saved("JPEG2000", (5500, 5500)),
}

# Embeds one file after another, in a process that may take 400 MB more than it has.
PROGRAM = """
import resource, sys, time, warnings
import numpy as np
from skbridge import CLIPEmbedder
warnings.simplefilter("ignore")
embedder = CLIPEmbedder("skbridge-tiny", device="cpu", on_error="nan", num_workers=0)
embedder.transform([np.zeros((8, 8))])
def memory(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))
resource.setrlimit(resource.RLIMIT_AS, ((memory("VmSize") + 420_000) * 1024,) * 2)
for path in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")
    before, started = memory("VmRSS"), time.process_time()
    rows = embedder.transform([path, np.zeros((8, 8))])
    seconds = time.process_time() - started
    assert np.isfinite(rows[1]).all()
    taken = (memory("VmHWM") - before) // 1000
    print(np.isfinite(rows[0]).all(), taken, seconds, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_bomb_takes_little_memory_and_time(tmp_path, times, report):
    bombs = {**BOMBS, **times({}, SLOW_BOMBS)}
    paths = [tmp_path / str(i) for i in range(len(bombs))]
    for path, make in zip(paths, bombs.values(), strict=True):
        path.write_bytes(make())
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    for name, (is_read, taken, seconds) in zip(bombs, lines, strict=False):
        print(f"{name}: read {is_read}, {taken} MB, {float(seconds):.1f} s")
    assert run.returncode == 0, f"after {len(lines)} bombs: {run.stderr[-2000:]}"
    most = max(int(taken) for _, taken, _ in lines)
    slowest = max(float(seconds) for *_, seconds in lines)
    report(
        "images that ask for too much memory or time",
        len(bombs),
        read=sum(is_read == "True" for is_read, *_ in lines),
        MB_at_most=most,
        seconds_at_most=round(slowest),
    )
    assert most < 400
    assert slowest < 60
