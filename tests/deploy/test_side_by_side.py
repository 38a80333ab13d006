"""One network or two on one picture: what is compared, counted and refused."""

import zlib
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from tiny import COLOURS, Strongest

from pipa.classes import LabelSpace
from pipa.deploy.side_by_side import Limits, SideBySide
from pipa.deploy.video import VideoReader, VideoWriter
from pipa.errors import PipaError
from pipa.files.images import write_png
from pipa.models.segmenter import IMAGENET_MEAN

RED, BLUE = (250, 0, 0), (0, 0, 250)


class Weakest(Strongest):
    """Confuses red and blue."""

    def forward(self, image):
        return super().forward(image)[:, [2, 1, 0]]


def half(height=16, width=32, share=0.75):
    """Red, and blue to the right of `share`."""
    image = np.full((height, width, 3), RED, np.uint8)
    image[:, int(width * share) :] = BLUE
    return image


def sureness(colour):
    """The largest of the probabilities that `Strongest` gives to the three classes."""
    logits = 3 * (np.array(colour) / 255 - IMAGENET_MEAN)
    return (np.exp(logits) / np.exp(logits).sum()).max()


@pytest.fixture
def both():
    return SideBySide({"one": Strongest(), "other": Weakest()})


def test_two_networks_are_compared_and_counted(both):
    labelled = both.label(half())
    left, right = both.pictures(labelled, "overlay", 1.0)
    assert [tuple(left[0, 0]), tuple(left[0, -1])] == [COLOURS[0], COLOURS[2]]
    assert [tuple(right[0, 0]), tuple(right[0, -1])] == [COLOURS[2], COLOURS[0]]
    for picture in both.pictures(labelled, "overlay", 0.0):
        assert (picture == labelled.image).all()
    legend = both.legend(labelled)
    assert [(row.name, row.shares) for row in legend.rows] == [
        ("red", (0.75, 0.25)),
        ("blue", (0.25, 0.75)),
    ]
    assert legend.same == 0
    red, blue = sureness(RED), sureness(BLUE)
    close = {"rtol": 0, "atol": 0.5 / 255}  # it is kept in 8 bits
    np.testing.assert_allclose(legend.confidence, 0.75 * red + 0.25 * blue, **close)
    np.testing.assert_allclose(
        [row.confidence for row in legend.rows], [(red, blue), (blue, red)], **close
    )


def test_a_network_alone_is_compared_with_the_image():
    alone = SideBySide({"one": Strongest()})
    labelled = alone.label(half())
    left, right = alone.pictures(labelled, "confidence", 0.5)
    assert (left == labelled.image).all()
    assert right.shape == left.shape
    assert (right > 200).all()
    assert alone.legend(labelled).same is None


def test_a_class_that_only_one_predicts_has_no_confidence_of_the_other(both):
    rows = both.legend(both.label(half(share=1))).rows
    assert [(row.name, row.shares, [c is None for c in row.confidence]) for row in rows] == [
        ("red", (1, 0), [False, True]),
        ("blue", (0, 1), [True, False]),
    ]


def test_the_networks_see_the_size_that_they_were_trained_on():
    seen = []

    class Watched(Strongest):
        def forward(self, image):
            seen.append(image.shape[-2:])
            return super().forward(image)

    network = Watched()
    network.resize = 12, 8
    side_by_side = SideBySide({"one": network})
    assert side_by_side.label(half(32, 64)).answers[0].ids.shape == (32, 64)
    assert set(seen) == {(6, 12)}


def test_a_video_holds_both_pictures_and_counts_all_frames(both, tmp_path):
    with VideoWriter(tmp_path / "in.webm", Fraction(10)) as sink:
        for share in (1, 0.5):
            sink.write(half(32, 64, share))
    ticks = []
    legend = both.video(
        tmp_path / "in.webm", tmp_path / "out.webm", alpha=1.0, tick=lambda *n: ticks.append(n)
    )
    assert ticks == [(1, 2), (2, 2)]
    with VideoReader(tmp_path / "out.webm") as reader:
        frames = [frame.astype(int) for frame in reader]
    assert [frame.shape for frame in frames] == [(32, 128, 3)] * 2
    assert np.abs(frames[0][16, 20] - COLOURS[0]).max() < 20
    assert np.abs(frames[0][16, 90] - COLOURS[2]).max() < 20
    shares = {row.name: row.shares for row in legend.rows}
    np.testing.assert_allclose(shares["red"], (0.75, 0.25), atol=0.05)


def test_large_images_are_reduced(tmp_path):
    write_png(tmp_path / "x.png", half(40, 80))
    one = SideBySide({"one": Strongest()}, limits=Limits(side=20))
    assert one.read(tmp_path / "x.png").shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("limits", "name", "said"),
    [
        (Limits(megabytes=0), "x.png", "is larger than 0 MB"),
        (Limits(megabytes=0), "x.webm", "is larger than 0 MB"),
        (Limits(pixels=100), "x.png", "million pixels"),
        (Limits(pixels=100), "x.webm", "million pixels"),
        (Limits(frames=1), "x.webm", "more than 1 frames"),
        (Limits(), "x.txt", "neither an image nor a video"),
    ],
)
def test_what_is_too_large_or_nothing_is_refused(tmp_path, limits, name, said):
    one = SideBySide({"one": Strongest()}, limits=limits)
    write_png(tmp_path / "x.png", half())
    (tmp_path / "x.txt").write_text("no picture")
    with VideoWriter(tmp_path / "x.webm", Fraction(10)) as sink:
        for _ in range(2):
            sink.write(half())
    read = partial(one.video, out=tmp_path / "out.webm") if name == "x.webm" else one.read
    with pytest.raises(PipaError, match=said):
        read(tmp_path / name)


def test_an_image_whose_header_promises_terabytes_is_not_decoded(tmp_path):
    write_png(tmp_path / "x.png", half())
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[16:24] = (1 << 20).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(PipaError, match="more than 50 million pixels"):
        SideBySide({"one": Strongest()}).read(tmp_path / "x.png")


def test_networks_of_other_classes_are_refused():
    other = Strongest()
    other.labels = LabelSpace(("a", "b", "c"), COLOURS)
    with pytest.raises(PipaError, match="one and other: predict different classes"):
        SideBySide({"one": Strongest(), "other": other})
