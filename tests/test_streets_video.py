"""Sequences of Streets: the flow is true for what is drawn, and things move without meeting."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.errors import PipaError
from pipa.files.flow import read_flow, write_flow
from pipa.files.images import read_image, write_png
from pipa.streets import street, street_frames, write_streets
from pipa.streets.camera import Camera
from pipa.streets.placing import sample_scene
from pipa.streets.traffic import frames_of, sample_traffic

COUNT = 4
seeds = st.integers(0, 2**31)


def scenes(seed, count=8):
    """A scene at each frame, as `street_frames` draws it."""
    scene = sample_scene(np.random.default_rng([seed, 0]))
    traffic = sample_traffic(np.random.default_rng([seed, 3]), scene)
    return list(frames_of(scene, traffic, count))


@pytest.fixture(scope="module")
def sequences():
    return [street_frames(seed, "game", COUNT) for seed in range(6)]


def followed(flow):
    """Pixels whose flow is known, and the pixels to which it leads."""
    here = np.nonzero(~np.isnan(flow[..., 0]))
    there = np.rint(np.stack(here, axis=1) + flow[here]).astype(int)
    return here, tuple(there.T)


@pytest.mark.parametrize("domain", ["game", "camera"])
def test_the_first_frame_is_the_still_image(domain):
    size = {"height": 64, "width": 96}
    image, label = street(5, domain, **size)
    for frames in (1, 3):
        first = street_frames(5, domain, frames, **size)[0]
        np.testing.assert_array_equal(first.image, image)
        np.testing.assert_array_equal(first.label, label)


def test_flow_leads_to_the_same_class_and_colour(sequences):
    """Both ways; were patterns not fixed to their surfaces, or flow wrong, colours would differ."""
    equal, off, without = [], [], []
    for one, two in (pair for frames in sequences for pair in pairwise(frames)):
        for start, end, flow in ((one, two, one.next), (two, one, two.previous)):
            here, there = followed(flow)
            assert len(here[0]) > 0.8 * start.label.size
            equal.append((start.label[here] == end.label[there]).mean())
            colour = start.image[here].astype(float)
            off.append(abs(colour - end.image[there]).mean())
            without.append(abs(colour - end.image[here]).mean())
    assert min(equal) > 0.97
    assert np.mean(off) < 8  # of 255; noise alone: 4.5
    assert np.mean(without) > 1.5 * np.mean(off), (np.mean(without), np.mean(off))


def test_patterns_stay_on_their_surfaces():
    """In the camera's look, with strong patterns, on the road, from the first frame to the last."""
    frames = street_frames(5, "camera", 8, gap=1.0)
    start = np.argwhere(frames[0].label == 0)
    place = start.astype(float)
    for frame in frames[:-1]:
        at = np.minimum(np.rint(place).astype(int), (127, 255))
        place = place + frame.next[tuple(at.T)]
        start, place = (part[~np.isnan(place[:, 0])] for part in (start, place))
    end = np.minimum(np.rint(place).astype(int), (127, 255))
    assert len(start) > 500
    assert abs(end - start).mean() > 3
    one, other = frames[0].image[tuple(start.T)], frames[-1].image[tuple(end.T)]
    assert np.corrcoef(one.mean(axis=1), other.mean(axis=1))[0, 1] > 0.6


def test_flow_of_the_road_is_that_of_the_camera_over_a_plane(sequences):
    """Points of the ground in metres, projected into both frames; a shadow's ground lies still."""
    size = 128, 256
    for seed, frames in enumerate(sequences):
        poses = [scene.pose for scene in scenes(seed, 2)]
        cameras = [
            Camera(p.x, p.height, size[1] / 2 / np.tan(np.radians(p.view) / 2), p.yaw,
                   np.radians(0.5 * p.roll), p.horizon * size[0], size, p.bend, p.z)
            for p in poses
        ]  # fmt: skip
        rng = np.random.default_rng(seed)
        points = np.column_stack([rng.uniform(-8, 8, 999), np.zeros(999), rng.uniform(4, 25, 999)])
        (start, _), (end, _) = (camera.project(points) for camera in cameras)
        column, row = np.rint(start - 0.25).astype(int).T
        inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
        row, column, moved = row[inside], column[inside], (end - start)[inside, ::-1]
        flow, road = frames[0].next[row, column], frames[0].label[row, column] == 0
        known = road & ~np.isnan(flow[:, 0])
        assert known.sum() > 60
        error = abs(flow - moved)[known].max(axis=1)
        assert np.median(error) < 0.1
        assert np.quantile(error, 0.95) < 0.6  # half a pixel away the flow is another


def test_flow_is_not_known_where_the_view_ends_or_is_covered(sequences):
    for frames in sequences:
        assert frames[0].previous is None
        assert frames[-1].next is None
        for frame in frames[:-1]:
            _, there = followed(frame.next)
            assert np.min(there) >= 0
            assert (np.max(there, axis=1) < (128, 256)).all()
            unknown = np.isnan(frame.next)
            assert (unknown[..., 0] == unknown[..., 1]).all()
            assert 0.01 < unknown.mean() < 0.2


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_things_move_and_do_not_meet(seed):
    drive = scenes(seed)
    for before, after in pairwise(drive):
        boxes = [thing.footprint for thing in after.things]
        assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[:i])
        middles = [((box.x0 + box.x1) / 2, (box.z0 + box.z1) / 2) for box in boxes]
        np.testing.assert_allclose(middles, [(thing.x, thing.z) for thing in after.things])
        assert all(thing.footprint.z0 > after.pose.z for thing in after.things
                   if abs(thing.x - after.pose.x) < 0.8 and thing.kind != "person")  # fmt: skip
        for old, new in zip(before.things, after.things, strict=True):
            assert (new.kind, new.heading) == (old.kind, old.heading)
            assert np.hypot(new.x - old.x, new.z - old.z) < 1.0
            assert before.ground(old.x, old.z) == after.ground(new.x, new.z)
    assert all(np.array([s.pose.z for s in drive]) <= 8 * 0.6)


def test_the_camera_drives_and_so_do_others():
    driven, moved = [], {}
    for seed in range(15):
        first, *_, last = scenes(seed)
        driven.append(last.pose.z - first.pose.z)
        for old, new in zip(first.things, last.things, strict=True):
            moved.setdefault(old.kind, []).append(np.hypot(new.x - old.x, new.z - old.z) > 0.1)
    assert np.mean(np.array(driven) > 0.5) > 0.9
    for kind in ("car", "truck", "bus", "person", "rider", "rider_behind"):
        assert np.mean(moved.pop(kind)) > 0.25, kind  # cars are parked, too
    assert not np.concatenate([*moved.values()]).any()  # furniture, trees, parked bicycles


def test_a_file_holds_flow_as_kitti_does(tmp_path):
    flow = np.random.default_rng(0).normal(0, 30, (9, 11, 2)).astype(np.float32)
    flow[2, 3], flow[4, 5] = np.nan, (0, 600)
    write_flow(tmp_path / "flow.png", flow)
    raw = read_image(tmp_path / "flow.png")
    assert raw[0, 0, 0] == int(round(flow[0, 0, 1] * 64) + 32768) >> 8  # columns first
    flow[4, 5] = np.nan
    np.testing.assert_allclose(read_flow(tmp_path / "flow.png"), flow, atol=1 / 128)
    write_png(tmp_path / "other.png", np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(PipaError, match="is no optical flow"):
        read_flow(tmp_path / "other.png")


SMALL = {"source": 1, "target": 2, "validation": 1, "test": 1, "height": 32, "width": 64}


def test_a_sequence_is_a_folder_with_flow_beside_it(tmp_path):
    for name, options in (("still", {}), ("video", {"frames": 3}), ("two", {"frames": 3})):
        write_streets(tmp_path / name, **SMALL, **options, workers=1 + (name == "two"))
    files = {
        root: {f.relative_to(tmp_path / root) for f in (tmp_path / root).rglob("*.png")}
        for root in ("still", "video", "two")
    }
    assert files["two"] == files["video"]
    target = {
        Path("target") / kind / f"00000{i}" / f"0{number}.png"
        for kind, numbers in (("images", "012"), ("flow_next", "01"), ("flow_previous", "12"))
        for i in range(2)
        for number in numbers
    }
    still = {Path(f"target/images/00000{i}.png") for i in range(2)}
    assert files["video"] - target == files["still"] - still
    for file in files["still"] - still:  # other splits are still images, the same ones
        assert (tmp_path / "video" / file).read_bytes() == (tmp_path / "still" / file).read_bytes()
    video = tmp_path / "video/target"
    same = read_image(video / "images/000001/00.png")
    np.testing.assert_array_equal(same, read_image(tmp_path / "still/target/images/000001.png"))
    frames = street_frames(1_000_000, "camera", 3, height=32, width=64)
    np.testing.assert_allclose(
        read_flow(video / "flow_next/000000/01.png"), frames[1].next, atol=1 / 128
    )
    np.testing.assert_allclose(
        read_flow(video / "flow_previous/000000/01.png"), frames[1].previous, atol=1 / 128
    )


@pytest.mark.parametrize("frames", [0, 9])
def test_a_sequence_too_long_is_refused(frames, tmp_path):
    with pytest.raises(PipaError, match=f"frames is {frames}. Take 1 to 8"):
        write_streets(tmp_path / "new", **SMALL, frames=frames)
