"""A run that is judged without labels: what it says, and what it keeps."""

import csv
import json
from functools import partial
from pathlib import Path

import builders
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from uda.steps import LABELS, Feed, batch_of, fit, small

from pipa.classes import LabelSpace
from pipa.data.module import UDAData
from pipa.errors import PipaError
from pipa.evaluation.record import read_record
from pipa.evaluation.report import write_report
from pipa.evaluation.scores import Result
from pipa.models.build import create_segmenter
from pipa.models.saved import adapted_folder, load_segmenter, save_segmenter
from pipa.run.ending import write_run
from pipa.run.judge_saved import comparisons, judge_saved
from pipa.run.judging import Judge, judge_for
from pipa.run.recipes import MethodOptions
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly

from .conftest import TINY

SPACE = LabelSpace(("ground", "water", "forest"), ((90, 60, 40), (30, 60, 200), (20, 140, 30)))


@pytest.fixture
def pair(tmp_path):
    source = builders.folder(tmp_path / "synthetic", 4)
    target = builders.folder(tmp_path / "photos", 6, labelled=False, shift=25, seed=50)
    return f"--data.source={source}", f"--data.target={target}"


def test_a_run_ends_with_a_verdict_and_keeps_the_source_only_model(pipa, pair, tmp_path):
    given = [*pair, *TINY, "--method.name=daformer", "--method.start=6", "--judge=4"]
    given += ["--trainer.max_steps=12", "--trainer.val_check_interval=3"]
    done = pipa("train", *given, f"--out={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert "Judged without labels: adapted" in done.out.replace("\n", " ")
    record = json.loads((tmp_path / "run" / "results.json").read_text())["judgement"]
    assert record["outcome"] in ("better", "worse", "not distinguishable")
    assert set(record["figures"]["models"]) == {"adapted", "source-only"}
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    adapted, before = (
        load_file(tmp_path / "run" / name / "model.safetensors")
        for name in ("model", "source_only")
    )
    same = all(torch.equal(adapted[name], before[name]) for name in adapted)
    assert same == (record["outcome"] == "worse")
    assert record["kept"] == ("source_only" if same else "adapted")
    assert "Judged without labels" in (tmp_path / "run" / "report.html").read_text()
    header = (tmp_path / "run" / "metrics.csv").read_text().partition("\n")[0]
    assert {"judge/score", "judge/same", "pseudo_share/water", "pseudo/sure", "lr"} <= set(
        header.split(",")
    )

    report = tmp_path / "page.html"
    made = pipa("report", tmp_path / "run", "--pictures", 1, "--out", report)
    assert made.code == 0, made.err
    assert "source-only student on its left" in report.read_text()

    points = [step for step, _ in read_record(tmp_path / "run").series["judge/score"]]
    assert points == [2, 5, 8, 11], "at the steps that were judged"
    none = pipa("judge", tmp_path / "run", "--against", "nobody", "--out", tmp_path / "judged.json")
    assert none.code == 2
    assert "--against: is none of the models" in none.err
    adapted = f"{tmp_path / 'run'}/"
    other = pipa("judge", adapted, "--against", adapted)
    assert other.code == 0, other.err
    again = pipa("judge", tmp_path / "run", "--out", tmp_path / "judged.json")
    assert again.code == 0, again.err
    for column in ("score", "agreement", "JS", "SND", "MI", "confidence"):
        assert column in again.out
    judged = json.loads((tmp_path / "judged.json").read_text())
    assert len(judged["models"]) == 2
    assert f"over {judged['images']} unlabelled images" in again.out.replace("\n", " ")


def test_a_run_that_is_moved_and_made_longer_keeps_its_best_checkpoint(pipa, pair, tmp_path):
    given = [*pair, *TINY, "--method.name=daformer", "--method.start=2", "--judge=4"]
    run = tmp_path / "run"
    assert pipa("train", *given, f"--out={run}", "--trainer.max_steps=4").code == 0
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
    by_score = last["callbacks"]["checkpoints by judge/score"]
    by_score["best_model_score"] = torch.tensor(2.0)  # more than any score can be
    by_score["kth_value"] = torch.tensor(2.0)
    by_score["best_k_models"] = dict.fromkeys(by_score["best_k_models"], torch.tensor(2.0))
    torch.save(last, run / "checkpoints" / "last.ckpt")
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    moved = run.rename(tmp_path / "moved")
    options = ["--trainer.max_steps=6", "--trainer.val_check_interval=2"]
    done = pipa("train", "--resume", moved, *options)
    assert done.code == 0, done.err
    assert "Be aware" not in done.err
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best
    kept = sorted(file.name for file in (moved / "checkpoints").iterdir())
    assert kept == ["best.ckpt", "last.ckpt", "step6.ckpt"]


@pytest.mark.parametrize("options", [[], ["--method.style=colour", "--method.start=9"]])
def test_a_source_only_training_is_not_judged(pipa, pair, tmp_path, caplog, options):
    given = [*pair, *TINY, "--method.name=source_only", "--judge=4", "--trainer.max_steps=2"]
    run = tmp_path / "run"
    done = pipa("train", *given, *options, f"--out={run}")
    assert done.code == 0, done.err
    assert "--judge has no effect: source_only learns from the source alone" in caplog.text
    assert "Judged without labels" not in done.out
    assert "judgement" not in json.loads((run / "results.json").read_text())


def test_a_run_without_a_start_says_that_it_has_no_verdict(pipa, pair, tmp_path, caplog):
    given = [*pair, *TINY, "--method.name=daformer", "--judge=4", "--trainer.max_steps=2"]
    done = pipa("train", *given, f"--out={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert "no verdict at the end: without --method.start N" in caplog.text


def test_a_judged_run_need_not_be_scored(pipa, pair, tmp_path):
    given = [*pair, *TINY, "--method.name=daformer", "--judge=4", "--method.start=1"]
    given += [f"--data.validation={pair[0].partition('=')[2]}", "--trainer.limit_val_batches=0"]
    done = pipa("train", *given, "--trainer.max_steps=2", f"--out={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert "judgement" in json.loads((tmp_path / "run" / "results.json").read_text())


def test_the_source_only_model_is_the_student_at_the_start(pipa, pair, tmp_path):
    given = [*pair, *TINY, "--method.name=daformer", "--judge=4", "--method.start=3"]
    given += ["--trainer.max_steps=5", "--trainer.val_check_interval=3"]
    run = tmp_path / "run"
    done = pipa("train", *given, f"--out={run}")
    assert done.code == 0, done.err
    kept = load_segmenter(run / "source_only").state_dict()
    third = load_segmenter(run / "checkpoints" / "step3.ckpt").state_dict()
    last = load_segmenter(run / "checkpoints" / "last.ckpt").state_dict()
    assert all(torch.equal(kept[name], third[name]) for name in kept)
    assert not all(torch.equal(kept[name], last[name]) for name in kept)


def test_the_agreement_with_the_source_only_student_is_logged(tmp_path):
    images = [builders.picture(builders.mosaic(i), i) for i in range(3)]
    judging = Judge(images, np.ones(3, dtype=int), start=1, every=2)
    board = CSVLogger(tmp_path, name=None, version="")
    module = SelfTraining(small(), LABELS, optim=Optim(lr=3.0e-3, warm_up=0))
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(module, feed, logger=board, callbacks=[judging])
    board.save()
    with (tmp_path / "metrics.csv").open() as file:
        logged = [row["judge/same"] for row in csv.DictReader(file) if row["judge/same"]]
    before = judging.source_only_model(module.student)
    assert before is not None
    same = [module.student.predict(image) == before.predict(image) for image in images]
    assert 0 < np.mean(same) < 1
    assert len(logged) == 2
    assert float(logged[-1]) == pytest.approx(np.mean(same))


def destroyed():
    """A student that says one class everywhere, judged against one that tells colours apart."""
    torch.manual_seed(0)
    student = create_segmenter("small", 3)
    student.labels = SPACE
    labels = [builders.mosaic(i) for i in range(12)]
    images = [builders.picture(label, i) for i, label in enumerate(labels)]
    optimizer = torch.optim.AdamW(student.parameters(), 3e-3)
    for step in range(60):
        i = step % len(images)
        x = torch.from_numpy(images[i]).permute(2, 0, 1)[None].float() / 255
        loss = torch.nn.functional.cross_entropy(student(x), torch.from_numpy(labels[i])[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    judging = Judge(images, np.bincount(np.concatenate(labels).ravel()), start=1, every=1)
    judging.source_only = {name: value.clone() for name, value in student.state_dict().items()}
    with torch.no_grad():
        student.head.classify.bias[0] += 100
    return student, judging, images


def test_what_adaptation_destroyed_is_not_kept(tmp_path):
    student, judging, images = destroyed()
    run = write_run(tmp_path / "run", SourceOnly(student, SPACE), None, 1.0, judging)
    assert "made it worse: the source-only model is kept" in run.verdict
    kept = load_segmenter(tmp_path / "run")
    assert len(np.unique(kept.predict(images[0]))) > 1
    lost = load_segmenter(adapted_folder(tmp_path / "run"))
    assert len(np.unique(lost.predict(images[0]))) == 1
    (tmp_path / "run" / "config.yaml").write_text("{}")
    shown = read_record(tmp_path / "run").models()
    assert len(np.unique(shown["after"].predict(images[0]))) == 1
    (tmp_path / "run" / "model_adapted" / "model.safetensors").write_bytes(b"damaged")
    assert "after" not in read_record(tmp_path / "run").models(), "it is the source-only model"


def test_labelled_images_decide_over_the_verdict_without_labels(tmp_path):
    student, judging, images = destroyed()
    after, before = (
        Result(miou, dict.fromkeys(SPACE.names, miou), confusion=((1,) * 3,) * 3)
        for miou in (40.0, 30.0)
    )
    run = write_run(tmp_path / "up", SourceOnly(student, SPACE), after, 1.0, judging, before)
    assert "adapted model has 40.00 mIoU, the source-only model 30.00: the adapted" in run.verdict
    assert "adapted is worse than source-only" in run.verdict
    assert len(np.unique(load_segmenter(tmp_path / "up").predict(images[0]))) == 1
    unknown = Result(float("nan"), dict.fromkeys(SPACE.names), confusion=((0,) * 3,) * 3)
    run = write_run(tmp_path / "none", SourceOnly(student, SPACE), unknown, 1.0, judging, unknown)
    assert "Adaptation made it worse: the source-only model is kept" in run.verdict
    run = write_run(tmp_path / "down", SourceOnly(student, SPACE), before, 1.0, judging, after)
    assert "the source-only model is kept" in run.verdict
    assert len(np.unique(load_segmenter(tmp_path / "down").predict(images[0]))) > 1
    stored = json.loads((tmp_path / "down" / "results.json").read_text())
    assert stored["judgement"]["kept"] == "source_only"
    write_run(tmp_path / "down", SourceOnly(student, SPACE), after, 1.0, judging, before)
    assert not (tmp_path / "down" / "model_adapted").exists(), "it is of an earlier end of the run"


def test_other_photos_are_read_in_their_own_format(tmp_path):
    """The data of the run are VOC's; the photos lie in a plain folder."""
    model = create_segmenter("small", 3)
    model.labels = SPACE
    save_segmenter(model, tmp_path / "run" / "model", SPACE)
    data = {"format": "voc", "source": "elsewhere", "target": "elsewhere"}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    source = builders.folder(tmp_path / "synthetic", 2)
    photos = builders.folder(tmp_path / "photos", 2, labelled=False)
    found, _ = judge_saved([tmp_path / "run"], target=str(photos), source=str(source), count=2)
    assert found.as_dict()["images"] == 2
    with pytest.raises(PipaError, match="images"):
        judge_saved([tmp_path / "run"], target=str(photos), source=str(source), count=0)


def test_a_run_with_relative_paths_says_from_where(tmp_path, monkeypatch):
    run, home = tmp_path / "run", tmp_path / "home"
    builders.folder(home / "photos", 2)
    save_segmenter(create_segmenter("small", 3), run / "model", SPACE)
    (run / "config.yaml").write_text("data: {source: ./photos, target: 'folder:photos'}")
    (run / "results.json").write_text(json.dumps({"seed": 0, "started_in": str(home)}))
    monkeypatch.chdir(tmp_path)
    meant = rf"photos/images: .*relative to the folder where its training was started, {home}: "
    with pytest.raises(PipaError, match=meant):
        judge_saved([run], count=1)
    with pytest.raises(PipaError, match=r"elsewhere/images: the folder does not exist. Images"):
        judge_saved([run], target="elsewhere", count=1)
    write_report([run], tmp_path / "page.html", pictures=1)
    assert f"was started, {home}: call pipa there" in (tmp_path / "page.html").read_text()
    monkeypatch.chdir(home)
    assert judge_saved([run], count=1)[0].as_dict()["images"] == 1
    (run / "config.yaml").write_text("data: {source: ./elsewhere, target: photos}")
    with pytest.raises(PipaError, match=r"elsewhere/images: the folder does not exist. Images"):
        judge_saved([run], count=1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("source: 5", "data.source is 5, expected a text"),
        ("target: [a]", "data.target is .'a'., expected a text"),
        ("crop: large", "data.crop is large, expected .HEIGHT, WIDTH."),
        ("target_resize: [24]", "data.target_resize is .24., expected .HEIGHT, WIDTH."),
    ],
)
def test_a_damaged_config_is_named(tmp_path, data, said):
    photos = str(builders.folder(tmp_path / "photos", 2))
    run = tmp_path / "run"
    save_segmenter(create_segmenter("small", 3), run / "model", SPACE)
    (run / "config.yaml").write_text(f"data: {{{data}}}")
    with pytest.raises(PipaError, match=f"run/config.yaml: {said}"):
        judge_saved([run], target=photos, source=photos)


def test_each_run_is_compared_with_its_own_source_only_model():
    two = ["a", "b", "a/source_only", "b/source_only"]
    assert comparisons(two, None) == {"a": "a/source_only", "b": "b/source_only"}
    kept = ["a", "b", "a/model_adapted", "a/source_only"]
    found = {"a/model_adapted": "a/source_only", "b": "a/source_only"}
    assert comparisons(kept, None) == found, "a is its own source-only model, b has none"
    assert comparisons(["m", "n"], None) == {"n": "m"}
    assert comparisons(["a", "a/source_only", "n"], Path("n")) == {"a": "n", "a/source_only": "n"}


def test_the_sources_classes_are_matched_with_the_models_by_name(tmp_path):
    photos, source = (str(builders.folder(tmp_path / name, 2)) for name in ("photos", "source"))
    spaces = {
        "same": SPACE,
        "turned": LabelSpace(("water", "ground", "forest"), SPACE.colours),
        "others": LabelSpace(("sky", "road", "car"), SPACE.colours),
    }
    for name, space in spaces.items():
        save_segmenter(create_segmenter("small", 3), tmp_path / name, space)
    judged = partial(judge_saved, target=photos, source=source, count=1)
    ground, water, forest = judged([tmp_path / "same"])[0].source_shares
    assert len({ground, water, forest}) == 3
    turned = judged([tmp_path / "turned"])[0].source_shares
    assert turned.tolist() == [water, ground, forest]
    with pytest.raises(PipaError, match=r"source: none of its classes \(ground, .* model's \(sky"):
        judged([tmp_path / "others"])
    with pytest.raises(PipaError, match=r"turned: its classes .* are not those of .*same"):
        judged([tmp_path / "same", tmp_path / "turned"])


def test_of_photographs_a_few_crops_are_judged(tmp_path):
    photos = str(builders.folder(tmp_path / "photos", 2, size=(48, 64)))
    data = UDAData(photos, photos, crop=(8, 16), workers=0)
    judging = judge_for(data, MethodOptions(start=1), {"max_steps": 10}, 2, adapts=True)
    assert judging is not None
    assert [image.shape for image in judging.images] == [(40, 64, 3)] * 2
    run = tmp_path / "run"
    save_segmenter(create_segmenter("small", 3), run / "model", SPACE)
    (run / "config.yaml").write_text("data: {crop: [8, 16]}")
    found, _ = judge_saved([run], target=photos, source=photos, count=2)
    assert found.observed[str(run)].count.sum() == 2 * 40 * 64, "as in training"


def test_a_model_is_judged_on_images_of_the_size_that_it_was_trained_on(tmp_path):
    photos, source = (str(builders.folder(tmp_path / name, 2)) for name in ("photos", "source"))
    model = create_segmenter("small", 3)
    save_segmenter(model, tmp_path / "whole", SPACE)
    save_segmenter(model, tmp_path / "run" / "model", SPACE)
    (tmp_path / "run" / "config.yaml").write_text("data: {target_resize: [24, 24]}")
    for side in (24, 16):
        model.resize = (side, side)
        save_segmenter(model, tmp_path / f"small{side}", SPACE)

    def score(name):
        judged, _ = judge_saved([tmp_path / name], target=photos, source=source, count=2)
        return judged.figures(str(tmp_path / name)).score

    assert score("small24") == score("run")
    assert score("small24") != score("whole")
    with pytest.raises(PipaError, match="small24: was trained on images of other sizes than the"):
        judge_saved([tmp_path / "small24", tmp_path / "small16"], target=photos, source=source)
