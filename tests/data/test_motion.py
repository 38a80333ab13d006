"""Pairs whose frames are matched by optical flow: each pixel says which place it shows."""

from itertools import islice

import numpy as np
import pytest
import torch
from builders import folder

from pipa.batch import CropPair, Unlabelled
from pipa.data import crops
from pipa.data.module import UDAData
from pipa.errors import PipaError
from pipa.files.flow import write_flow
from pipa.files.images import write_png
from pipa.streets import write_streets
from pipa.uda.terms.patch import match

SIZE = 50, 70
CROP = 24, 32
COUNT = 5
STEP = np.array([-2, 3])
"""Rows and columns by which everything moves in the image from frame to frame."""


def write_video(root, lost=None):
    """Everything moves alike; what leaves the image, or a region `lost`, has no known flow."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for i in range(COUNT):
        scene = [rows - i * STEP[0] + 20, columns - i * STEP[1] + 20, rows * 0 + i]
        write_png(root / f"images/a/{i}.png", np.stack(scene, -1).astype(np.uint8))
        for kind, step in (("flow_next", STEP), ("flow_previous", -STEP)):
            flow = np.broadcast_to(step, (*SIZE, 2)).astype(np.float32)
            place = np.stack([rows, columns], -1) + step
            flow[((place < 0) | (place >= SIZE)).any(axis=-1)] = np.nan
            if lost:
                flow[lost] = np.nan
            write_flow(root / f"{kind}/a/{i}.png", flow)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("motion") / "source", 2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    root = tmp_path_factory.mktemp("motion") / "video"
    for kind in ("images", "flow_next", "flow_previous"):
        (root / kind / "a").mkdir(parents=True)
    write_video(root)
    return root


def pairs(source, root, count=6, **options):
    given = {"crop": 16, "pair_crop": CROP, "batch_size": 8, "workers": 0, "pair_from": "image"}
    given |= {"pair_frames": 1, "pair_motion": "flow"}
    module = UDAData(str(source), str(root), **(given | options))
    module.setup("fit")
    return [batch.pair for batch in islice(module.train_dataloader(), count)]


def matched(pair, grid=CROP):
    """Whether each place of the first crops is shared, and the colours of both crops there."""
    plain = torch.zeros(2 * len(pair.shift), *CROP)
    places = match(pair, plain.long(), plain + 1, grid)
    first, second = (
        (part.image.permute(0, 2, 3, 1) * 255).round().long().flatten(0, 2)
        for part in (pair.first, pair.second)
    )
    return places.shared, first, second[places.partner - len(places.partner)]


@pytest.mark.parametrize("frames", [1, 3])
def test_a_place_meets_itself_in_another_frame(source, video, frames):
    """Through files, crops, mirroring and matching; over more frames, too."""
    moments, flips, shares = set(), set(), []
    for pair in pairs(source, video, pair_frames=frames):
        shared, one, other = matched(pair)
        assert torch.equal(one[shared][:, :2], other[shared][:, :2])
        moments |= set((other[shared] - one[shared])[:, 2].tolist())
        flips |= {tuple(flip) for flip in pair.flipped.tolist()}
        shares.append(shared.float().mean().item())
    assert moments == set(range(-frames, frames + 1))
    assert len(flips) == 4
    assert 0.2 < np.mean(shares) < 0.9


def test_without_the_flow_it_meets_another_place(source, video):
    wrong = []
    for pair in pairs(source, video, pair_motion="none"):
        assert pair.flow is None
        shared, one, other = matched(pair)
        apart = one[shared] - other[shared]
        wrong.append((apart[:, :2].abs() == torch.tensor(abs(STEP))).all(dim=1).float().mean())
    assert np.mean(wrong) > 0.5  # all but those at the ends, where both crops are of one frame


def test_a_place_whose_flow_is_unknown_is_not_shared(source, video, tmp_path):
    for kind in ("images", "flow_next", "flow_previous"):
        (tmp_path / kind / "a").mkdir(parents=True)
    write_video(tmp_path, lost=(slice(0, 50), slice(0, 35)))
    for known, lost in zip(pairs(source, video), pairs(source, tmp_path), strict=True):
        before, one, _ = matched(known)
        after = matched(lost)[0]
        assert torch.equal(known.first.image, lost.first.image)
        column = one[:, 1] - 20 + one[:, 2] * int(STEP[1])
        other_frame = known.first.image[:, 2, 0, 0] != known.second.image[:, 2, 0, 0]
        moved = other_frame.repeat_interleave(CROP[0] * CROP[1])
        assert torch.equal(after, before & ((column >= 35) | ~moved))


@pytest.mark.parametrize("flipped", [(a, b) for a in (False, True) for b in (False, True)])
def test_flow_that_is_a_shift_gives_the_places_of_the_shift(flipped):
    """On the grid of the features, which is coarser than the image."""
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.integers(5, size=(2, *CROP)))
    valid = [torch.from_numpy(rng.random((1, *CROP)) < 0.9) for _ in range(2)]
    first, second = (Unlabelled(torch.zeros(1, 3, *CROP), mask) for mask in valid)
    shift, flips = torch.tensor([[8, -12]]), torch.tensor([flipped])
    flow = -shift[:, :, None, None].float().expand(-1, -1, *CROP)
    grid = CROP[0] // 4, CROP[1] // 4
    still = CropPair(first, second, shift, flips)
    moved = CropPair(first, second, torch.zeros_like(shift), flips, flow=flow)
    want, found = (match(pair, label, label / 5, grid) for pair in (still, moved))
    assert 0 < want.shared.float().mean() < 1
    for one, other in zip(want, found, strict=True):
        assert torch.equal(one, other)


def test_flow_is_resized_with_its_image():
    flow = np.random.default_rng(0).normal(size=(*SIZE, 2)).astype(np.float32)
    whole = crops.cut_flow(flow, (100, 210), (0, 0), (100, 210))
    np.testing.assert_allclose(whole[::2, ::3], flow * np.array([2, 3]), rtol=1e-6)
    part = crops.cut_flow(flow, (100, 210), (90, 30), (20, 50))
    np.testing.assert_array_equal(part[:10], whole[90:, 30:80])
    assert np.isnan(part[10:]).all()


def test_streets_as_a_video_has_flow(source, tmp_path):
    """The colours of matched places are nearer than those of places that are taken as still."""
    write_streets(
        tmp_path / "s", source=1, target=2, validation=1, test=1, height=64, width=96, gap=0.0,
        frames=3, workers=1,
    )  # fmt: skip
    off = {}
    for motion in ("flow", "none"):
        found = [
            matched(pair) for pair in pairs(source, tmp_path / "s/target", 4, pair_motion=motion)
        ]
        off[motion] = np.mean(
            [(one[s] - other[s]).abs().float().mean().item() for s, one, other in found]
        )
    assert off["flow"] < 0.75 * off["none"]


def test_a_target_without_flow_is_refused(source, video):
    with pytest.raises(PipaError, match=r"0\.png: has no optical flow; pair_motion is flow"):
        pairs(source, video / "images/a")
    with pytest.raises(PipaError, match="pair_motion: is flow, but both crops are of one frame"):
        pairs(source, video, pair_frames=0)
    with pytest.raises(PipaError, match="pair_frames: is 1, but the pair lies in the target crop"):
        pairs(source, video, pair_from="crop")


def test_flow_of_another_size_or_missing_is_one_clear_error(source, video, tmp_path):
    for kind in ("images", "flow_next", "flow_previous"):
        (tmp_path / kind / "a").mkdir(parents=True)
    write_video(tmp_path)
    for file in (tmp_path / "flow_next/a").iterdir():
        write_flow(file, np.zeros((4, 5, 2), np.float32))
    with pytest.raises(PipaError, match="the optical flow has 4x5 pixels"):
        pairs(source, tmp_path)
    for file in (tmp_path / "flow_next/a").iterdir():
        file.unlink()
    with pytest.raises(PipaError, match=r"flow_next/a/\d\.png: cannot be read"):
        pairs(source, tmp_path)
