"""Prediction: the outputs of each input, and that a fault leaves no partial file."""

import gc
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import COLOURS, Strongest

from pipa.classes import CITYSCAPES, CITYSCAPES_IDS, LabelSpace
from pipa.deploy.outputs import Painter
from pipa.deploy.plan import output_names, plan
from pipa.deploy.predict import _Work, predict
from pipa.deploy.video import VideoReader
from pipa.errors import PipaError
from pipa.files.images import read_image, read_label
from pipa.models.labeller import Labeller
from pipa.models.segmenter import IMAGENET_MEAN


def picture(seed=0, shape=(20, 30)):
    """Blocks of 5 x 5 pixels in which one channel is clearly the strongest."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-shape[0] // 5), -(-shape[1] // 5)
    blocks = rng.integers(0, 120, (rows, columns, 3), np.uint8)
    strongest = rng.integers(0, 3, (rows, columns, 1))
    np.put_along_axis(blocks, strongest, 240, axis=2)
    return blocks.repeat(5, 0).repeat(5, 1)[: shape[0], : shape[1]]


def save(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture() if image is None else image
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def run(inputs, out, **options):
    return list(predict(Strongest(), inputs, out, **options))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("shape", [(20, 30), (7, 5), (33, 17)])
def test_one_image_gives_three_pictures(tmp_path, shape):
    image = picture(1, shape)
    source = save(tmp_path / "in" / "street.png", image)
    out = tmp_path / "out"
    assert run([source], out) == [
        (source, [out / kind / "street.png" for kind in ("ids", "colour", "overlay")])
    ]
    ids = image.argmax(2)
    np.testing.assert_array_equal(read_label(out / "ids" / "street.png"), ids)
    colours = np.array(COLOURS, np.uint8)[ids]
    np.testing.assert_array_equal(read_image(out / "ids" / "street.png"), colours)  # its palette
    np.testing.assert_array_equal(read_image(out / "colour" / "street.png"), colours)
    half = (image.astype(float) + colours) / 2
    assert np.abs(read_image(out / "overlay" / "street.png") - half).max() <= 0.5
    assert len(files(out)) == 3


def test_a_folder_keeps_its_folders(tmp_path):
    save(tmp_path / "in" / "a" / "x.png")
    save(tmp_path / "in" / "b" / "x.jpg")
    save(tmp_path / "in" / "y.bmp")
    save(tmp_path / "in" / ".hidden.png")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    run([tmp_path / "in"], tmp_path / "out", kinds=["ids"])
    assert files(tmp_path / "out") == ["ids/a/x.png", "ids/b/x.png", "ids/y.png"]


@pytest.mark.parametrize("as_text", [True, False])
def test_files_of_one_name_do_not_meet(tmp_path, as_text):
    inputs = [save(tmp_path / "a" / "x.png"), save(tmp_path / "b" / "x.png")]
    run([str(path) if as_text else path for path in inputs], tmp_path / "out", kinds=["ids"])
    assert files(tmp_path / "out") == ["ids/a/x.png", "ids/b/x.png"]


def test_one_stem_with_two_suffixes(tmp_path):
    save(tmp_path / "in" / "x.png")
    save(tmp_path / "in" / "x.jpg")
    run([tmp_path / "in"], tmp_path / "out", kinds=["colour"])
    assert files(tmp_path / "out") == ["colour/x.jpg.png", "colour/x.png.png"]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "jpg", "png"]), min_size=1, max_size=4),
        min_size=1,
        max_size=8,
        unique_by=tuple,
    )
)
def test_no_two_outputs_have_one_name(parts):
    """a.jpg, a.png and a.jpg.png: the last without its suffix is the first with its own."""
    found = [Path("folder", ".".join(words)) for words in parts]
    names = output_names(found)
    assert len(set(names)) == len(found)
    for file, name in zip(found, names, strict=True):
        assert name in (file, file.with_suffix(""))
    assert output_names([Path("x.png"), Path("y.z.png")]) == [Path("x"), Path("y.z")]


def test_a_glob(tmp_path):
    for name in ("a/left_1.png", "b/left_1.png", "b/right_1.png"):
        save(tmp_path / name)
    run([f"{tmp_path}/**/left_*.png"], tmp_path / "out", kinds=["ids"])
    assert files(tmp_path / "out") == ["ids/a/left_1.png", "ids/b/left_1.png"]


def test_an_input_given_twice_is_done_once(tmp_path, monkeypatch):
    save(tmp_path / "in" / "x.png")
    monkeypatch.chdir(tmp_path)
    assert len(run(["in", "in/x.png", tmp_path / "in" / "x.png"], tmp_path / "out")) == 1


def test_the_labels_of_a_folder_are_not_labelled(tmp_path, caplog):
    for name in ("images/x.png", "labels/x.png"):
        save(tmp_path / "data" / name)
    ((source, _),) = run([tmp_path / "data"], tmp_path / "out", kinds=["ids"])
    assert source == tmp_path / "data" / "images" / "x.png"
    assert "1 files in labels are left out, as labels" in caplog.text


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path):
    source = save(tmp_path / "x[1].png")
    assert run([source], tmp_path / "out", kinds=["ids"])[0][0] == source


@pytest.mark.parametrize("out", [".", "predictions", "linked/predictions"])
def test_outputs_do_not_lie_among_the_photos(tmp_path, monkeypatch, out):
    """The next call would label them, too."""
    photos = tmp_path / "photos"
    save(photos / "x.png")
    (tmp_path / "linked").symlink_to(photos)
    monkeypatch.chdir(tmp_path if out.startswith("linked") else photos)
    with pytest.raises(PipaError, match=rf"^--out {out}: lies in a folder of inputs .* outside"):
        run([photos], Path(out))
    assert files(photos) == ["x.png"]
    assert len(run([photos / "x.png"], photos, kinds=["ids"])) == 1  # a file that is named
    assert len(plan([photos / "ids"], photos).jobs) == 1  # and a folder


def test_a_pattern_does_not_take_the_outputs(tmp_path, monkeypatch):
    save(tmp_path / "x.png")
    monkeypatch.chdir(tmp_path)
    assert len(run(["**/*.png"], Path("predictions"), kinds=["ids"])) == 1
    with pytest.raises(PipaError, match=r"among the outputs \(predictions/ids/x.png\)"):
        run(["**/*.png"], Path("predictions"), kinds=["ids"])
    assert files(tmp_path) == ["predictions/ids/x.png", "x.png"]


def test_an_input_is_never_replaced(tmp_path, monkeypatch):
    photo = save(tmp_path / "colour" / "street.png")
    before = photo.read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipaError, match=r"colour/street.png.* is an input.*another --out"):
        run(["colour"], Path())
    assert files(tmp_path) == ["colour/street.png"]
    assert photo.read_bytes() == before


def test_linked_folders_are_searched_and_hidden_ones_are_not(tmp_path):
    photos = tmp_path / "photos"
    save(photos / "a.png")
    save(photos / ".ipynb_checkpoints" / "a-checkpoint.png")
    save(tmp_path / "elsewhere" / "b.png")
    (photos / "day2").symlink_to(tmp_path / "elsewhere")
    (photos / "round").symlink_to(photos)
    names = [str(job.name) for job in plan([photos], tmp_path / "out").jobs]
    assert names == ["a", "day2/b"]


@pytest.mark.parametrize(
    ("scale", "remembered", "seen_as"),
    [
        (0.5, None, (40, 60)),
        (2.0, (1, 1), (160, 240)),
        (None, (60, 40), (40, 60)),
        (1.0, (60, 40), (80, 120)),
    ],
)
def test_scale_changes_what_the_network_sees_and_not_the_outputs_size(
    tmp_path, scale, remembered, seen_as
):
    image = picture(2, (40, 60)).repeat(2, 0).repeat(2, 1)
    source = save(tmp_path / "x.png", image)
    seen = []
    model = Strongest()
    model.resize = remembered
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model.window = model.stride = 1000
    list(predict(model, [source], tmp_path / "out", kinds=["ids"], scale=scale))
    assert tuple(seen[0][-2:]) == seen_as
    ids = read_label(tmp_path / "out" / "ids" / "x.png")
    assert ids.shape == (80, 120)
    assert (ids == image.argmax(2)).mean() > 0.75


def test_probabilities_and_confidence_agree_with_the_ids(tmp_path):
    image = picture(3, (33, 41))
    source = save(tmp_path / "x.png", image)
    out = tmp_path / "out"
    for scale in (1.0, 0.5):
        run([source], out, kinds=["ids", "confidence", "probabilities"], scale=scale)
        shares = np.load(out / "probabilities" / "x.npy")
        assert (shares.dtype, shares.shape) == (np.float16, (3, 33, 41))
        np.testing.assert_allclose(shares.sum(0, dtype=np.float64), 1, atol=2e-3)
        ids = read_label(out / "ids" / "x.png")
        assert np.take_along_axis(shares, ids[None], 0)[0] == pytest.approx(shares.max(0), abs=1e-3)
        sure = read_label(out / "confidence" / "x.png")
        assert np.abs(sure - 255 * shares.max(0).astype(float)).max() < 0.7
        if scale == 1:  # the softmax of the logits of `Strongest`, by hand
            expected = np.exp(3 * (image / 255.0) - 3 * np.array(IMAGENET_MEAN))
            expected /= expected.sum(2, keepdims=True)
            np.testing.assert_allclose(shares, expected.transpose(2, 0, 1), atol=1e-3)


def test_cityscapes_label_ids(tmp_path):
    image = picture(4)
    source = save(tmp_path / "berlin" / "berlin_000000_000019_leftImg8bit.png", image)
    model = Strongest()
    with pytest.raises(PipaError, match=r"not those of Cityscapes \(red, green, blue\)"):
        predict(model, [source], tmp_path / "out", kinds=["cityscapes"])
    names = ("person", "road", "bicycle")
    model.labels = LabelSpace(names, COLOURS)
    list(predict(model, [source], tmp_path / "out", kinds=["cityscapes"]))
    (path,) = (tmp_path / "out").rglob("*.png")
    # the pattern of cityscapesscripts/evaluation/evalPixelLevelSemanticLabeling.py
    assert path.match("berlin_000000_000019*.png")
    ids = np.array([CITYSCAPES_IDS[CITYSCAPES.names.index(name)] for name in names])
    assert set(ids) == {24, 7, 33}
    np.testing.assert_array_equal(read_label(path), ids[image.argmax(2)])


def test_large_images_go_through_a_gpu_in_smaller_batches(tmp_path):
    work = _Work(Labeller(Strongest()), Painter(Strongest(), ["ids"], 0.5), tmp_path, print, None)
    assert [work.most((n, n, 3)) for n in (512, 2048, 3000, 9000)] == [8, 4, 1, 1]


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_images_of_one_size_go_through_the_network_together(tmp_path, batch):
    shapes = [(20, 30)] * 5 + [(16, 16)] + [(20, 30)] * 2
    for i, shape in enumerate(shapes):
        save(tmp_path / "in" / f"{i}.png", picture(i, shape))
    model, seen = Strongest(), []
    model.window = model.stride = 100
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    ticks = []
    options = {"kinds": ["ids"], "batch": batch, "tick": ticks.append}
    results = list(predict(model, [tmp_path / "in"], tmp_path / "out", **options))
    groups = {1: [1] * 8, 2: [2, 2, 1, 1, 2], 3: [3, 2, 1, 2], 8: [5, 1, 2]}
    assert seen == ticks == groups[batch]
    assert [source.stem for source, _ in results] == list("01234567")
    for i, shape in enumerate(shapes):
        ids = read_label(tmp_path / "out" / "ids" / f"{i}.png")
        np.testing.assert_array_equal(ids, picture(i, shape).argmax(2))


def test_memory_is_bounded_by_what_waits(tmp_path, monkeypatch):
    """However many images there are, only a few are read before they are labelled."""
    for i in range(40):
        save(tmp_path / "in" / f"{i:02}.png", picture(i, (5, 5)))
    lead, lock, labelled = [0], threading.Lock(), []

    def counting(path):
        with lock:
            lead[0] += 1
            assert lead[0] - len(labelled) <= 8
        return read_image(path)

    monkeypatch.setattr("pipa.deploy.predict.read_image", counting)
    options = {"kinds": ["ids"], "tick": lambda images: labelled.extend([1] * images)}
    assert len(run([tmp_path / "in"], tmp_path / "out", **options)) == 40


def test_shards_share_the_work(tmp_path):
    inputs = [save(tmp_path / "in" / name) for name in ("a.jpg", "a.png", "b.png", "c.png")]
    out = tmp_path / "out"
    parts = [run([tmp_path / "in"], out, kinds=["ids"], shard=(i, 3)) for i in (1, 2, 3)]
    assert [[source.name for source, _ in part] for part in parts] == [
        ["a.jpg", "c.png"],
        ["a.png"],
        ["b.png"],
    ]
    assert len(files(out)) == len(inputs)
    with pytest.raises(PipaError, match=r"4/3; expected I/N"):
        run(inputs, out, shard=(4, 3))


def test_a_second_run_goes_on_where_the_first_one_stopped(tmp_path):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    first = predict(Strongest(), [tmp_path / "in"], out)
    assert next(first)[0].stem == "a"
    del first
    gc.collect()  # it ends, and waits for what is being written
    (out / "overlay" / "b.png").unlink(missing_ok=True)
    (out / "ids" / "c.png").unlink(missing_ok=True)
    assert [source.stem for source, _ in run([tmp_path / "in"], out, resume=True)] == ["b", "c"]
    assert run([tmp_path / "in"], out, resume=True) == []
    assert len(run([tmp_path / "in"], out)) == 3


def test_colours_are_made_up_where_the_network_has_none(tmp_path):
    source = save(tmp_path / "x.png")
    list(predict(Strongest(legend=False), [source], tmp_path / "out"))
    painted = read_image(tmp_path / "out" / "colour" / "x.png").reshape(-1, 3)
    assert len(np.unique(painted, axis=0)) == 3


def test_inputs_are_read_only_when_asked_for(tmp_path):
    broken = tmp_path / "in" / "b.png"
    save(tmp_path / "in" / "a.png")
    broken.write_bytes(b"not an image")
    results = predict(Strongest(), [tmp_path / "in"], tmp_path / "out", kinds=["ids"])
    assert next(results)[0].name == "a.png"
    with pytest.raises(PipaError, match=r"b\.png: the file is truncated or no image"):
        next(results)
    assert files(tmp_path / "out") == ["ids/a.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", r"gone\.png: no such file or folder"),
        ("empty", "empty: no images or videos in this folder"),
        ("none*.png", r"none\*\.png: no images or videos match"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(tmp_path, name, message):
    good = save(tmp_path / "x.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipaError, match=message):
        predict(Strongest(), [good, tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "above 0"),
        ({"kinds": ["masks"]}, r"\['masks'\]; expected some of ids, colour, overlay"),
        ({"kinds": []}, "expected some of"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(PipaError, match=message):
        predict(Strongest(), [save(tmp_path / "x.png")], tmp_path / "out", **options)


def test_an_output_that_is_a_file_is_said(tmp_path):
    source = save(tmp_path / "x.png")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PipaError, match="the folder cannot be made"):
        predict(Strongest(), [source], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def video(path, frames, size=(48, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, size)
    assert sink.isOpened()
    for frame in frames:
        sink.write(frame)
    sink.release()
    return path


def frames_of(path):
    with VideoReader(path) as frames:
        return frames.rate, list(frames)


def test_a_video_becomes_videos(tmp_path):
    red, blue = np.zeros((2, 32, 48, 3), np.uint8)
    red[..., 2], blue[..., 0] = 250, 250  # BGR
    source = video(tmp_path / "in" / "drive.avi", [red, red, blue])
    out = tmp_path / "out"
    kinds = ["overlay", "confidence", "ids"]
    written = [out / kind / "drive.webm" for kind in kinds[:2]]
    assert run([source], out, kinds=kinds, batch=2) == [(source, written)]
    rate, frames = frames_of(written[0])
    assert rate == 12
    assert files(out) == ["confidence/drive.webm", "overlay/drive.webm"]
    expected = [(225, 0, 0), (225, 0, 0), (0, 0, 225)]
    for frame, colour in zip(frames, expected, strict=True):
        assert np.abs(frame.astype(int) - colour).mean() < 12


def test_a_video_that_is_none_leaves_nothing(tmp_path):
    source = tmp_path / "drive.mp4"
    source.write_bytes(b"\0" * 100)
    with pytest.raises(PipaError, match=r"drive\.mp4: cannot be read .* \(Invalid data found"):
        run([source], tmp_path / "out")
    assert files(tmp_path / "out") == []
    with pytest.raises(PipaError, match="a video has no outputs of these kinds"):
        run([source], tmp_path / "out", kinds=["ids"])


def test_a_video_whose_labelling_fails_leaves_nothing(tmp_path):
    source = video(tmp_path / "drive.avi", [np.zeros((32, 48, 3), np.uint8)] * 3)
    model = Strongest()
    calls = []

    def fail_at_the_second(*_):
        calls.append(1)
        if len(calls) > 12:
            raise RuntimeError("out of memory")

    model.register_forward_pre_hook(fail_at_the_second)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(predict(model, [source], tmp_path / "out"))
    assert files(tmp_path / "out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said(tmp_path):
    source = save(tmp_path / "x.png")
    (tmp_path / "out" / "ids").mkdir(parents=True)
    (tmp_path / "out" / "ids").chmod(0o500)
    with pytest.raises(PipaError, match="cannot be written"):
        run([source], tmp_path / "out")
