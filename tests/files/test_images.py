"""Files by the definition of their format, byte by byte, and broken files of every kind."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from builders import mosaic, raw_png
from PIL import Image

from pipa.errors import PipaError
from pipa.files.images import image_size, read_image, read_label, write_png


def test_labels_are_read_as_they_are_stored(tmp_path):
    path, rng = tmp_path / "label.png", np.random.default_rng(0)
    for channels in (1, 2, 3, 4):
        for kind in ("u1", ">u2"):
            array = rng.integers(0, 250, (5, 7, channels)).astype(kind)
            path.write_bytes(raw_png(array))
            got = read_label(path)
            first = got if got.ndim == 2 else got[..., 0]
            assert np.array_equal(first, array[..., 0]), (channels, kind)
            if channels >= 3:
                assert np.array_equal(got, array), "R G B A, whatever order OpenCV has"


def test_palette_indices_are_read_and_not_their_colours(tmp_path):
    path = tmp_path / "label.png"
    ids = mosaic(0, ids=range(35)).astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)  # GTA5 has several ids of one colour
    path.write_bytes(raw_png(ids[..., None], palette))
    assert np.array_equal(read_label(path), ids)


@pytest.mark.parametrize("suffix", ["bmp", "tif"])
def test_one_bit_and_palettes_hold_ids_in_other_formats_too(tmp_path, suffix):
    path = tmp_path / f"label.{suffix}"
    ids = mosaic(2, ids=range(2)).astype(np.uint8)
    Image.fromarray(ids.astype(bool)).save(path)
    assert np.array_equal(read_label(path), ids)
    ids = mosaic(3, ids=range(5)).astype(np.uint8)
    coloured = Image.fromarray(ids)
    coloured.putpalette([7, 7, 7, 200, 0, 0, 0, 90, 0, 1, 2, 3, 255, 255, 255])
    coloured.save(path)
    assert np.array_equal(read_label(path), ids)
    Image.fromarray(ids * 60).save(path)
    assert np.array_equal(read_label(path), ids * 60), "grey values are as they are"


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("kind", [0, 3])
def test_few_bits_per_pixel(tmp_path, depth, kind):
    ids = mosaic(1, (9, 16), range(2**depth), block=1).astype(np.uint8)
    bits = (ids[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.reshape(9, -1), axis=1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 16, 9, depth, kind, 0, 0, 0))]
    if kind == 3:
        chunks += [(b"PLTE", bytes(3 * 2**depth)), (b"tRNS", b"\x80" * 2**depth)]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)))]
    chunks += [(b"IEND", b"")]
    path = tmp_path / "label.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    assert np.array_equal(read_label(path), ids)


def test_images_are_rgb_whatever_they_are_stored_as(tmp_path):
    path, rng = tmp_path / "image.png", np.random.default_rng(0)
    array = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    for channels, want in ((1, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])):
        path.write_bytes(raw_png(array[..., :channels]))
        assert np.array_equal(read_image(path), array[..., want])


@pytest.mark.parametrize("form", ["ids", "palette", "colours"])
def test_what_is_written_is_read(tmp_path, form):
    path = tmp_path / "x.png"
    ids = mosaic(0, ids=range(256), block=1).astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    if form == "colours":
        write_png(path, palette[ids])
        assert np.array_equal(read_label(path), palette[ids])
    else:
        write_png(path, ids, palette if form == "palette" else None)
        assert np.array_equal(read_label(path), ids)
    if form != "ids":
        assert np.array_equal(read_image(path), palette[ids])
    assert image_size(path) == (48, 64)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"], "no temporary file is left"


def test_a_truncated_png_is_never_taken_for_a_whole_one(tmp_path):
    path = tmp_path / "broken.png"
    write_png(path, np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    data = path.read_bytes()
    for length in (0, 4, 20, 40, len(data) // 2, len(data) - 13, len(data) - 6):
        path.write_bytes(data[:length])
        for read in (read_image, read_label):
            with pytest.raises(PipaError, match=r"broken\.png: .*(truncated|empty)"):
                read(path)


def test_damage_within_a_png_is_noticed(tmp_path, capfd):
    path = tmp_path / "broken.png"
    write_png(path, np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(PipaError, match=r"broken\.png"):
        read_image(path)
    capfd.readouterr()  # libpng has its say on stderr


def test_a_truncated_jpeg_is_noticed(tmp_path):
    path = tmp_path / "broken.jpg"
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    path.write_bytes(data)
    assert read_image(path).shape == (*image_size(path), 3)
    for length in (10, len(data) // 2, len(data) - 2):
        path.write_bytes(data[:length])
        with pytest.raises(PipaError, match=r"broken\.jpg: the file is truncated"):
            read_image(path)


def test_missing_files_no_images_and_fractions_are_named(tmp_path):
    with pytest.raises(PipaError, match=r"nowhere\.png: cannot be read \(No such file"):
        read_image(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(PipaError, match=r"text\.png: .*no image"):
        image_size(tmp_path / "text.png")
    cv2.imwrite(str(tmp_path / "depth.tif"), np.full((4, 4), 0.5, np.float32))
    with pytest.raises(PipaError, match="whole numbers"):
        read_label(tmp_path / "depth.tif")


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PipaError, match=r"cannot be written"):
        write_png(tmp_path / "file" / "x.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(PipaError, match=r"taken\.png: cannot be written"):
        write_png(tmp_path / "taken.png", np.zeros((2, 2), np.uint8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.png"]


def test_the_fast_decoder_of_png_changes_no_bit(tmp_path, monkeypatch):
    """pyspng against OpenCV, on what it takes and on what it must leave alone."""
    pytest.importorskip("pyspng")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (21, 34, 4), np.uint8)
    plain = raw_png(pixels[..., :3])
    header, rest = plain[:33], plain[33:]
    gamma, clear = (chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"tRNS", bytes(6)))
    turned = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    cases = {
        "colours": plain,
        "alpha": raw_png(pixels),
        "grey": raw_png(pixels[..., :1]),
        "sixteen": raw_png(rng.integers(0, 65536, (9, 5, 3)).astype(">u2")),
        "gamma": header + gamma + rest,
        "transparent": header + clear + rest,
        "turned": header + turned + rest,
    }
    path = tmp_path / "x.png"
    for name, data in cases.items():
        path.write_bytes(data)
        fast = read_image(path)
        with monkeypatch.context() as without:
            without.setattr("pipa.files.images.pyspng", None)
            assert np.array_equal(fast, read_image(path)), name
    assert fast.shape == (34, 21, 3), "OpenCV turns it upright"


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_format_that_is_not_read_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    (tmp_path / "x.svg").write_text("<svg/>")
    for name, format_ in {"x.jpg": "HEIC", "x.svg": "SVG"}.items():
        with pytest.raises(PipaError, match=rf"{name}: {format_} is not read\. Convert"):
            read_image(tmp_path / name)


def test_an_animation_is_refused_and_a_still_gif_is_read(tmp_path):
    frames = [Image.new("L", (6, 4), grey) for grey in (50, 100, 200)]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "still.gif").shape == (4, 6, 3)
    with pytest.raises(PipaError, match=r"moving\.gif: is an animation, not an image"):
        read_image(tmp_path / "moving.gif")
