"""`UDAData`: the batches of a training, whatever the number of workers; and every refusal."""

import os
import shutil
from itertools import islice
from multiprocessing import active_children

import lightning as L
import pytest
import torch
from builders import CLASSES, cityscapes, folder, gta5
from torch import nn

from pipa.batch import Batch, Needs
from pipa.data.loading import labelled_images
from pipa.data.module import UDAData
from pipa.errors import PipaError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("module")
    folder(root / "source")
    folder(root / "target", labelled=False, shift=30, seed=10)
    folder(root / "val", 3, shift=30, seed=20)
    return root


def data(root, **options):
    given = {
        "source": str(root / "source"),
        "target": str(root / "target"),
        "validation": str(root / "val"),
        "crop": (24, 32),
        "batch_size": 3,
        "pair_crop": 24,
        "workers": 0,
    }
    return UDAData(**(given | options))


def batches(module, count=4):
    module.setup("fit")
    return list(islice(module.train_dataloader(), count))


def named(tree, name="batch"):
    """All tensors of a batch by their names."""
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    fields = {} if tree is None else tree._asdict()
    found = [named(value, f"{name}.{field}") for field, value in fields.items()]
    return {key: value for part in found for key, value in part.items()}


def equal(one, two):
    return all(
        named(a).keys() == named(b).keys()
        and all(torch.equal(tensor, named(b)[name]) for name, tensor in named(a).items())
        for a, b in zip(one, two, strict=True)
    )


def test_a_batch_is_what_training_expects(root):
    (batch,) = batches(data(root), 1)
    assert isinstance(batch, Batch)
    assert batch.source.image.shape == batch.target.image.shape == (3, 3, 24, 32)
    assert batch.source.image.is_contiguous()
    assert 0 <= batch.source.image.min() < 0.3 < 0.7 < batch.source.image.max() <= 1
    assert batch.source.label.dtype == torch.int64
    assert set(batch.source.label.unique().tolist()) <= {0, 1, 2}
    assert batch.pair.first.image.shape == batch.pair.second.image.shape == (3, 3, 24, 24)
    assert batch.pair.shift.shape == batch.pair.flipped.shape == (3, 2)
    assert batch.pair.flipped.dtype == torch.bool
    assert batch.target.valid.all()


def test_a_batch_holds_its_draws_under_their_own_names(root):
    """Each image is the drawn one, in the field that it was drawn for."""
    module = data(root, target_margins=(1, 2, 3, 4), pair_from="image")
    (batch,) = batches(module, 1)
    draws = [module.train_dataloader().loader.dataset[i].content for i in range(3)]
    stacked = named(batch)
    assert len(stacked) == 10
    for name, tensor in stacked.items():
        for i, draw in enumerate(draws):
            drawn = named(draw)[name]
            if name.endswith(".image"):
                want = drawn.permute(2, 0, 1).float() / 255
                assert torch.allclose(tensor[i], want, rtol=0, atol=1e-7), name
            else:
                assert torch.equal(tensor[i], drawn.to(tensor.dtype)), name


def test_by_default_the_pair_is_cut_from_the_target_crop(root):
    """Its pixels and where they are valid; the corners differ by multiples of the stride."""
    module = data(root, target_margins=(1, 2, 3, 4), pair_crop=(16, 24), pair_stride=4)
    shifts = set()
    for batch in batches(module):
        pair, target = batch.pair, batch.target
        assert torch.equal(pair.shift, pair.corner[:, 1] - pair.corner[:, 0])
        assert (pair.shift % 4 == 0).all()
        shifts |= {tuple(shift) for shift in pair.shift.tolist()}
        for i, crop in enumerate((pair.first, pair.second)):
            for b in range(3):
                y, x = pair.corner[b, i].tolist()
                image = target.image[b, :, y : y + 16, x : x + 24]
                valid = target.valid[b, y : y + 16, x : x + 24]
                if pair.flipped[b, i]:
                    image, valid = image.flip(2), valid.flip(1)
                assert torch.equal(crop.image[b], image)
                assert torch.equal(crop.valid[b], valid)
    assert len(shifts) > 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"pair_scale": (1.0, 2.0)}, "pair_scale: is .* lies in the target crop"),
        ({"pair_frames": 1}, "pair_frames: is 1, but the pair lies in the target crop"),
        ({"pair_crop": (24, 33)}, "pair_crop: is 24x33, larger than the target crop of 24x32"),
    ],
)
def test_a_pair_in_the_target_crop_is_not_larger_nor_scaled_nor_of_two_frames(
    root, options, problem
):
    with pytest.raises(PipaError, match=problem):
        data(root, **options)
    data(root, pair_from="image", **options)


def test_the_same_for_any_number_of_workers_and_any_cache(root):
    want = batches(data(root))
    for options in ({"workers": 2}, {"cache": False}, {"cache": True, "workers": 1}):
        assert equal(batches(data(root, **options)), want), options


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away")
def test_on_one_core_one_process_loads_without_a_warning(root):
    want, cores = batches(data(root)), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        module = data(root, workers=4)
        assert module.workers == 1
        assert equal(batches(module), want)
    finally:
        os.sched_setaffinity(0, cores)


def test_the_same_source_for_every_method(root):
    want = batches(data(root))
    for options in ({"target": None}, {"pair_crop": None}):
        got = batches(data(root, **options))
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a.source.image, b.source.image)
            assert torch.equal(a.source.label, b.source.label)
        assert all((batch.target is None) == ("pair_crop" not in options) for batch in got)
        assert all(batch.pair is None for batch in got)
    assert not equal(batches(data(root, seed=1)), want)


@pytest.mark.parametrize(
    ("needs", "has_target", "has_pair"),
    [
        (Needs(target=False, pair=False, rare_classes=True), False, False),
        (Needs(target=True, pair=False, rare_classes=True), True, False),
        (Needs(target=True, pair=True, rare_classes=True), True, True),
        (Needs(target=False, pair=True, rare_classes=True), True, True),
    ],
)
@pytest.mark.parametrize("pair_crop", [24, None])
def test_data_answer_with_what_is_needed_and_no_more(root, needs, has_target, has_pair, pair_crop):
    asked = data(root, pair_crop=pair_crop)
    before = batches(asked, 2)  # the files are open already
    answer = asked.answer(needs)
    got = batches(answer, 2)
    assert all((batch.target is not None) == has_target for batch in got)
    assert all((batch.pair is not None) == has_pair for batch in got)
    assert all(
        torch.equal(a.source.image, b.source.image) for a, b in zip(got, before, strict=True)
    )
    if has_pair:
        size = (24, 24) if pair_crop else (16, 24)
        assert got[0].pair.first.image.shape == (3, 3, *size), "0.7 of `crop` by default"
    assert equal(batches(asked, 2), before), "the data that were asked stay as they are"
    assert answer.skipped is asked.skipped


def test_rare_classes_are_sampled_only_if_they_are_needed(root):
    plain = batches(data(root, rare_class_temperature=None))
    asked = data(root, rare_class_temperature=0.01)
    without, sampled = (asked.answer(Needs(True, True, rare)) for rare in (False, True))
    assert equal(batches(without), plain)
    assert not equal(batches(sampled), plain)
    assert equal(
        batches(data(root, rare_class_temperature=None).answer(Needs(True, True, True))), plain
    )


@pytest.mark.parametrize(("target", "pair"), [(True, False), (False, True)])
def test_needed_target_images_that_are_not_given_are_asked_for(root, target, pair):
    alone = data(root, target=None)
    assert alone.answer(Needs(False, False, True)).target is None
    with pytest.raises(PipaError) as caught:
        alone.answer(Needs(target, pair, True))
    assert str(caught.value).startswith("--data.target: the method needs target images")
    assert "--method.name source_only" in caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("crop", 0, "expected at least 1"),
        ("crop", (64, 0), "expected at least 1"),
        ("batch_size", 0, "expected at least 1"),
        ("workers", -1, "expected at least 0"),
        ("source_resize", (0, 720), "expected at least 1"),
        ("target_resize", (512, -1), "expected at least 1"),
        ("rare_class_temperature", 0.0, "expected more than 0"),
        ("min_pixels", -1, "expected at least 0"),
        ("min_crop_ratio", -0.5, "expected at least 0"),
        ("cat_max_ratio", 0.0, "expected more than 0"),
        ("cat_max_ratio", 1.5, "expected at most 1"),
        ("pair_crop", 0, "expected at least 1"),
        ("pair_iou", (0.5, 1.1), "expected at most 1"),
        ("pair_iou", (0.7, 0.2), "expected the lower bound first"),
        ("pair_stride", 0, "expected at least 1"),
        ("pair_scale", (0.0, 1.0), "expected more than 0"),
        ("pair_scale", (1.5, 1.0), "expected the lower bound first"),
        ("pair_frames", -1, "expected at least 0"),
        ("target_margins", (0, 0, -1, 0), "expected at least 0"),
        ("target_crop_margins", (0, 0, 0, -1), "expected at least 0"),
        ("seed", -1, "expected at least 0"),
    ],
)
def test_an_impossible_number_is_refused_by_its_options_name(option, value, problem):
    with pytest.raises(PipaError, match=f"^--data.{option}: is .*; {problem}"):
        UDAData("/nowhere", "/nowhere", **{option: value})


class Watching(L.LightningModule):
    """Learns nothing; keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(1, 1), []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        """Without one, Lightning warns."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, **options):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )


def test_a_resumed_training_goes_on_with_the_next_draws(root, tmp_path):
    once, module = Watching(), data(root, validation=None)
    trainer(tmp_path, max_steps=5, enable_checkpointing=False).fit(once, datamodule=module)
    assert equal(once.seen, batches(data(root), 5))

    first, second = Watching(), Watching()
    begun = trainer(tmp_path, max_steps=2, enable_checkpointing=False)
    begun.fit(first, datamodule=data(root, validation=None))
    begun.save_checkpoint(tmp_path / "last.ckpt")
    resumed = trainer(tmp_path, max_steps=5, enable_checkpointing=False)
    module = data(root, validation=None)
    resumed.fit(second, datamodule=module, ckpt_path=tmp_path / "last.ckpt")
    assert equal(first.seen + second.seen, once.seen)


def test_processes_share_the_draws(root):
    from pipa.data.loading import EndlessBatchSampler

    alone = list(islice(EndlessBatchSampler(10, 4), 3))
    two = [list(islice(EndlessBatchSampler(10, 2, rank, 2), 3)) for rank in (0, 1)]
    for step in range(3):
        assert sorted(two[0][step] + two[1][step]) == alone[step]
    assert list(islice(EndlessBatchSampler(10 + 8, 4), 1)) == [alone[2]]


def test_validation_shows_whole_images_with_their_labels(root):
    module = data(root, target_resize=(24, 32))
    shown = list(module.val_dataloader())
    assert [tuple(item.label.shape) for item in shown] == [(1, 24, 32)] * 3
    images, labels = labelled_images(str(root / "val"))
    assert len(images) == 3
    assert labels.names == ("ground", "water", "forest")
    assert [tuple(item.image.shape) for item in images] == [(1, 3, 48, 64)] * 3
    assert data(root, validation=None).val_dataloader() == []


def test_a_process_without_a_labelled_image_is_refused(root):
    module = data(root)
    module.trainer = L.Trainer(devices=4, accelerator="cpu", strategy="ddp_fork", logger=False)
    with pytest.raises(PipaError, match=r"has 3 images for 4 processes. Use fewer devices"):
        module.val_dataloader()


def test_a_targets_labels_are_never_opened(root, tmp_path):
    shutil.copytree(root / "source", tmp_path / "target")
    for path in (tmp_path / "target" / "labels").iterdir():
        path.write_bytes(b"secret")
    batches(data(root, target=str(tmp_path / "target")))


def test_labels_are_those_of_the_option_else_of_the_source(root, tmp_path):
    gta5(tmp_path / "gta")
    cityscapes(tmp_path / "cs")
    module = data(
        root,
        source=f"gta5:{tmp_path}/gta",
        target=f"cityscapes:{tmp_path}/cs",
        validation=f"cityscapes:{tmp_path}/cs",
    )
    assert module.labels.num_classes == 19
    (tmp_path / "few.yaml").write_text(
        "0: {name: flat, cityscapes: [0, 1, 9]}\n1: {name: vehicle, cityscapes: [13, 14, 15]}\n"
    )
    module = data(
        root,
        source=f"gta5:{tmp_path}/gta",
        target=f"cityscapes:{tmp_path}/cs",
        validation=f"cityscapes:{tmp_path}/cs",
        classes=str(tmp_path / "few.yaml"),
    )
    assert module.labels.names == ("flat", "vehicle")
    got = {int(i) for batch in batches(module) for i in batch.source.label.unique()}
    assert got == {0, 1, 255}
    assert {int(i) for item in module.val_dataloader() for i in item.label.unique()} == {0, 1, 255}


def test_a_warning_names_absent_classes(root, tmp_path, caplog):
    shutil.copytree(root / "source", tmp_path / "data")
    (tmp_path / "data" / "classes.yaml").write_text(CLASSES + "3: {name: lava}\n")
    module = data(root, source=str(tmp_path / "data"), validation=None)
    batches(module, 1)
    assert "the source has no pixel of: lava" in caplog.text


def test_outside_of_a_training_a_loaders_process_ends_when_it_is_told_once(root):
    """As Python tells it at the end of a script; there is no step to finish."""
    before = set(active_children())
    module = data(root, workers=1)
    module.setup("fit")
    loader = iter(module.train_dataloader())
    next(loader)
    (process,) = set(active_children()) - before
    process.terminate()
    process.join(20)
    assert not process.is_alive()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_training_arrives_whole(root, tmp_path, workers):
    shutil.copytree(root / "source", tmp_path / "data")
    image = tmp_path / "data" / "images" / "002.png"
    module = data(root, source=str(tmp_path / "data"), workers=workers, cache=False)
    module.setup("fit")
    loader = iter(module.train_dataloader())
    next(loader)
    (tmp_path / "part").write_bytes(image.read_bytes()[:200])
    os.replace(tmp_path / "part", image)  # at once: a process reads ahead
    fault = None
    try:  # pytest.raises would keep the frames, and with them the workers
        list(islice(loader, 20))
    except PipaError as error:
        fault = error.with_traceback(None)
    assert str(fault).startswith(f"{image}: the file is truncated or no image. ")
    assert fault.where == image


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_may_be_skipped_and_is_counted(root, tmp_path, workers, caplog):
    for name in ("source", "target", "val"):
        shutil.copytree(root / name, tmp_path / name)
    for spoiled in ("source/images/000.png", "target/images/001.png", "val/images/001.png"):
        (tmp_path / spoiled).write_bytes(b"x")
    (tmp_path / "source" / "labels" / "001.png").write_bytes(b"x")
    module = data(tmp_path, on_error="skip", workers=workers, rare_class_temperature=None)
    assert len(batches(module, 8)) == 8
    assert len(list(module.val_dataloader())) == 2
    named = {str(error.where.relative_to(tmp_path)) for error in module.skipped}
    assert named == {
        "source/images/000.png",
        "source/labels/001.png",
        "target/images/001.png",
        "val/images/001.png",
    }
    module.teardown("fit")
    assert f"skipped {len(module.skipped)} times, 4 faulty files" in caplog.text
    assert str(tmp_path / "source/images/000.png") in caplog.text


def test_where_everything_is_faulty_skipping_ends(root, tmp_path):
    shutil.copytree(root / "source", tmp_path / "data")
    for path in (tmp_path / "data" / "images").iterdir():
        path.write_bytes(b"x")
    module = data(root, source=str(tmp_path / "data"), on_error="skip", rare_class_temperature=None)
    with pytest.raises(PipaError, match="truncated"):
        batches(module, 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"crop": 49}, "the crop of 49x49 is larger than the image, 48x64"),
        ({"crop": 48, "target_resize": (40, 50)}, "larger than the image, 38x50 after resizing"),
        ({"source": "/nowhere"}, "/nowhere/images: the folder does not exist"),
        ({"target": "/nowhere"}, "the folder does not exist"),
        ({"validation": "/nowhere"}, "the folder does not exist"),
        ({"classes": "/nowhere.yaml"}, "is no file"),
        ({"format": "kitti"}, "the format kitti is not known"),
    ],
)
def test_wrong_options_fail_before_training(root, options, problem):
    with pytest.raises(PipaError) as caught:
        data(root, **options).setup("fit")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("labels/001.png", None, "has no label"),
        ("images/001.png", b"abc", "001.png: the file is truncated or no image"),
        ("labels/001.png", "small", "the image has 48x64 pixels, its label 8x8"),
        ("labels/001.png", "id", "label id 77 is not in"),
    ],
)
def test_faulty_files_fail_before_training(root, tmp_path, name, content, problem):
    import numpy as np

    from pipa.files.images import write_png

    shutil.copytree(root / "source", tmp_path / "data")
    path = tmp_path / "data" / name
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        size = (8, 8) if content == "small" else (48, 64)
        write_png(path, np.full(size, 0 if content == "small" else 77, np.uint8))
    with pytest.raises(PipaError) as caught:
        data(root, source=str(tmp_path / "data")).setup("fit")
    assert problem in str(caught.value)
    assert str(tmp_path / "data") in str(caught.value)


def test_the_constructor_touches_no_file():
    UDAData("gta5:/nowhere", "cityscapes:/nowhere", "cityscapes:/nowhere", crop=512)
