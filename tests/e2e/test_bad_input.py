"""Bad input through the command line: one clear line, exit code 2, nothing half-written."""

import os

import numpy as np
import pytest
from builders import folder
from safetensors.numpy import save_file

from pipa.files.images import write_png

from .conftest import TINY

LAUGHS = "\n".join(
    f"  {name}: &{name} [{', '.join([before] * 9)}]"
    for name, before in zip("abcdefghij", ("x", *(f"*{name}" for name in "abcdefghi")), strict=True)
)
"""Ten lines that mean 9^10 values, three thousand million."""


@pytest.fixture
def source(tmp_path):
    return folder(tmp_path / "source", 3)


@pytest.fixture
def target(tmp_path):
    return folder(tmp_path / "target", 3, labelled=False, seed=9)


@pytest.fixture
def refused(pipa, tmp_path):
    """Train with these options; it must refuse in one line that holds all the words."""

    def check(*options, words):
        out = tmp_path / "run"
        done = pipa("train", *TINY, f"--out={out}", "--trainer.max_steps=3", *options)
        assert done.code == 2
        lines = done.err.strip().splitlines()
        assert len(lines) == 1, done.err
        assert lines[0].startswith("pipa: ")
        assert "Traceback" not in done.err
        for word in words:
            assert str(word) in lines[0], lines[0]
        assert not (out / "model").exists()
        assert not list(tmp_path.rglob("*.part"))
        return out

    return check


def test_missing_folder(refused, target, tmp_path):
    refused(
        f"--data.source={tmp_path / 'nowhere'}",
        f"--data.target={target}",
        words=["nowhere", "images"],
    )


def test_image_without_label(refused, source, target):
    (source / "labels" / "001.png").unlink()
    out = refused(f"--data.source={source}", f"--data.target={target}", words=["001", "label"])
    assert not out.exists()


def test_a_run_that_would_never_look_at_the_target(refused, source, target):
    options = [f"--data.source={source}", f"--data.target={target}"]
    refused(*options, "--method.start=3", words=["--method.start", "3"])


@pytest.mark.parametrize(
    "option",
    [
        "--pixel.dim=-1",
        "--optim.lr=1e38",
        "--patch.queries=-1",
        "--data.batch_size=99999999999999999999",
        "--trainer.devices=[]",
        "--trainer.max_time=foo",
        "--student.options={backbone: 3}",
        "--student.options={name: x}",
        "--student.options={head: {width: 0}}",
        "--method.passes=0",
        "--pixel.similarity=2",
        "--seed=-1",
        "--pixel.anchors=99999999999999999999",
        "--data.pair_frames=99999999999999999999",
        "--optim.power=-1",
        "--optim.head=1e308",
        "--method.momentum=2",
        "--trainer.devices=100",
        "--trainer.precision=64",
        "--trainer.overfit_batches=0.5",
    ],
)
def test_impossible_numbers(refused, source, target, option):
    options = [f"--data.source={source}", f"--data.target={target}"]
    name = option.split("=")[0]
    refused(*options, option, words=["--trainer" if name.startswith("--trainer") else name])


def test_a_config_that_is_no_text(refused, source, tmp_path):
    (tmp_path / "c.yaml").write_bytes(bytes(range(256)))
    refused(f"--config={tmp_path / 'c.yaml'}", f"--data.source={source}", words=["YAML"])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("student:\n  options:\n" + "\n".join(f"  {line}" for line in LAUGHS.splitlines()), "many"),
        ("student: {options: " + "{a: " * 500 + "1" + "}" * 500 + "}", "nested"),
        ("data: [1, 2]", "`data` holds no options"),
        ("optim: null", "`optim` holds no options"),
        ("seed: 1\nseed: 2", "`seed` stands twice"),
    ],
    ids=["laughs", "deep", "list", "null", "twice"],
)
def test_a_config_that_is_none(refused, source, tmp_path, text, word):
    (tmp_path / "c.yaml").write_text(text)
    refused(f"--config={tmp_path / 'c.yaml'}", f"--data.source={source}", words=["c.yaml", word])


@pytest.mark.parametrize("option", ["--out=" + "x" * 300, "--data.source=" + "x" * 300])
def test_a_name_that_is_too_long(pipa, source, target, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    given = [f"--data.source={source}", f"--data.target={target}", option]
    done = pipa("train", *TINY, "--trainer.max_steps=3", *given)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert "name too long" in done.err


def test_label_with_an_id_outside_the_classes(refused, source, target):
    path = source / "labels" / "001.png"
    write_png(path, np.full((48, 64), 7, np.uint8))
    refused(f"--data.source={source}", f"--data.target={target}", words=[path, "7"])


def test_a_validation_without_any_label_ends_with_a_report(pipa, source, target, tmp_path):
    scored = folder(tmp_path / "scored", 2)
    for path in (scored / "labels").iterdir():
        write_png(path, np.full((48, 64), 255, np.uint8))
    data = [f"--data.source={source}", f"--data.target={target}", f"--data.validation={scored}"]
    out = tmp_path / "run"
    done = pipa("train", *TINY, *data, "--trainer.max_steps=2", f"--out={out}")
    assert done.code == 0, done.err
    assert (out / "report.html").exists()


def test_unreadable_png(refused, source, target):
    path = source / "images" / "001.png"
    path.write_bytes(path.read_bytes()[:40])
    refused(f"--data.source={source}", f"--data.target={target}", words=[path])


def test_unreadable_target(refused, source, target):
    path = target / "images" / "001.png"
    path.write_bytes(b"")
    refused(f"--data.source={source}", f"--data.target={target}", words=[path])


def test_image_and_label_of_different_size(refused, source, target):
    path = source / "labels" / "002.png"
    write_png(path, np.zeros((40, 64), np.uint8))
    refused(f"--data.source={source}", f"--data.target={target}", words=[path, "48x64", "40x64"])


def test_empty_target(refused, source, tmp_path):
    (tmp_path / "empty" / "images").mkdir(parents=True)
    refused(f"--data.source={source}", f"--data.target={tmp_path / 'empty'}", words=["empty"])


def test_crop_larger_than_the_image(refused, source, target):
    refused(
        f"--data.source={source}",
        f"--data.target={target}",
        "--data.crop=512",
        words=["512x512", "48x64"],
    )


def test_unknown_config_key(refused, source, target, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("method: {pixle: true}\n")
    refused(
        f"--config={config}", f"--data.source={source}", f"--data.target={target}", words=["pixle"]
    )


def test_unknown_option(refused, source):
    refused(f"--data.source={source}", "--data.sauce=2", words=["data.sauce"])


def test_config_that_is_not_there(refused, tmp_path):
    refused(f"--config={tmp_path / 'none.yaml'}", words=["none.yaml"])


def test_no_source(refused):
    refused(words=["data.source"])


@pytest.mark.parametrize("option", ["--method.name=magic", "--optim.lr=fast"])
def test_bad_value(refused, source, option):
    refused(f"--data.source={source}", option, words=[option.split("=")[1]])


def test_output_that_is_a_file(refused, source, target, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(
        f"--data.source={source}",
        f"--data.target={target}",
        f"--out={tmp_path / 'taken' / 'run'}",
        words=["taken"],
    )
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_not_writable(refused, source, target, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    refused(
        f"--data.source={source}",
        f"--data.target={target}",
        f"--out={closed / 'run'}",
        words=["closed"],
    )


def test_a_run_is_not_overwritten(refused, source, target, tmp_path):
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    (tmp_path / "old" / "checkpoints" / "last.ckpt").write_text("mine")
    refused(
        f"--data.source={source}",
        f"--data.target={target}",
        f"--out={tmp_path / 'old'}",
        words=["old", "--resume"],
    )


def test_adaptation_without_a_target(refused, source):
    refused(f"--data.source={source}", words=["target"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fly"], "fly"),
        (["predict"], "model"),
        (["predict", "nowhere", "x.png"], "nowhere"),
        (["eval", "nowhere", "data"], "nowhere"),
        (["data", "check", "nowhere"], "nowhere"),
        (["convert", "nowhere.pth", "out"], "nowhere.pth"),
        (["data", "check", "x" * 300], "too long"),
        (["data", "check", "nowhere", "--classes=" + "x" * 300], "nowhere"),
        (["data", "streets", "x" * 300, "--source=1"], "too long"),
    ],
)
def test_other_commands_refuse_in_one_line(pipa, arguments, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = pipa(*arguments)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert word in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("0: {name: a, color: [99999999999999999999, 0, 0]}", "no colour"),
        ("0: {name: a, color: [[1], [2, 3]]}", "no colour"),
        ("0: {name: a, cityscapes: [[1]]}", "cityscapes"),
        ("0: a\n1:\n" + LAUGHS, "too many values"),
        ("0: " + "[" * 3000 + "]" * 3000, "YAML"),
    ],
    ids=["huge", "ragged", "nested", "laughs", "deep"],
)
def test_class_tables_that_are_none(pipa, source, table, word):
    (source / "classes.yaml").write_text(table)
    done = pipa("data", "check", source)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert word in done.err
    assert len(done.err) < 2000


def test_a_pipe_among_the_images_is_a_fault(pipa, source):
    (source / "images" / "001.png").unlink()
    os.mkfifo(source / "images" / "001.png")
    done = pipa("data", "check", source)
    assert done.code == 1
    assert "001.png" in done.out


@pytest.mark.parametrize(
    "config",
    [
        '{"format": "pipa-segmenter"}',
        '{"format": "pipa-segmenter", "segmenter": {}, "labels": null, "metadata": {}}',
        '{"format": "pipa-segmenter", "segmenter": {"name": 5}, "labels": 3, "metadata": 1}',
    ],
)
def test_a_model_whose_config_is_none(pipa, tmp_path, config):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(config)
    save_file({"a": np.zeros(2, np.float32)}, model / "model.safetensors")
    done = pipa("predict", model, tmp_path, "--out", tmp_path / "out")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert str(model) in done.err
    assert not (tmp_path / "out").exists()
