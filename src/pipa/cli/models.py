"""`pipa judge`, `eval`, `predict`, `convert`, `export` and `push`."""

import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipa.cli.common import add_model, add_weights, load_model, new_parser, print_scores, show
from pipa.errors import PipaError
from pipa.files.words import with_sizes
from pipa.files.writing import refuse_suffix

if TYPE_CHECKING:
    from pipa.models.segmenter import Segmenter


def judge_command(given: list[str]) -> int:
    """`pipa judge RUN|MODEL...`."""
    parser = new_parser("judge", "Rank models by target images without labels.")
    parser.add_argument(
        "models", nargs="+", type=Path, help="runs, model folders, checkpoints, .onnx"
    )
    about = "unlabelled target images, [FORMAT:]PATH; default: those of the first run"
    parser.add_argument("--target", type=str | None, help=about)
    about = "the labelled source, whose shares of the classes are counted; default: the first run's"
    parser.add_argument("--source", type=str | None, help=about)
    parser.add_argument("--classes", type=str | None, help="the classes of the source")
    parser.add_argument("--images", type=int, default=64, help="how many to look at, at most")
    about = "the model that all others are compared with; default: each run's source-only model"
    parser.add_argument("--against", type=Path | None, help=about)
    parser.add_argument("--out", type=Path | None, help="write all criteria here, as JSON")
    options = parser.parse_args(given)
    refuse_suffix(options.out, ".json", "--out")

    from pipa.run.judge_saved import judge_saved

    judgement, verdicts = judge_saved(
        options.models,
        target=options.target,
        source=options.source,
        classes=options.classes,
        count=options.images,
        against=options.against,
    )
    show(judgement.table())
    for verdict in verdicts:
        print(verdict)
    if options.out:
        judgement.write(options.out)
    return 0


def eval_command(given: list[str]) -> int:
    """`pipa eval MODEL DATA`."""
    parser = new_parser("eval", "Mean IoU of a model on labelled images.")
    add_model(parser)
    parser.add_argument("data", type=str, help="[FORMAT:]PATH of labelled images")
    parser.add_argument("--classes", type=str | None, help="classes.yaml; default: the data's own")
    about = "resize images by this for the network; default: to the size of the model's training"
    parser.add_argument("--scale", type=float | None, help=about)
    about = "HEIGHTxWIDTH to fit images and labels into first, as a training's validation does"
    parser.add_argument("--resize", type=tuple[int, int] | None, help=about)
    parser.add_argument("--out", type=Path | None, help="write the scores here, as JSON")
    options = parser.parse_args(with_sizes(given))
    refuse_suffix(options.out, ".json", "--out")

    from pipa.evaluation.evaluate import evaluate

    model = load_model(options)
    how = {name: options[name] for name in ("classes", "scale", "resize")}
    result = evaluate(model, options.data, **how)
    print_scores(result)
    if options.out:
        result.write(options.out)
    return 0


def predict_command(given: list[str]) -> int:
    """`pipa predict MODEL INPUT...`."""
    parser = new_parser("predict", "Label images, folders of images, globs or videos.")
    add_model(parser)
    parser.add_argument("inputs", nargs="+", help="files, folders, globs")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to")
    about = "some of ids, colour, overlay, confidence, probabilities, cityscapes, with commas"
    parser.add_argument("--write", type=str, default="ids,colour,overlay", help=about)
    about = "resize images by this for the network; default: to the size of the model's training"
    parser.add_argument("--scale", type=float | None, help=about)
    about = "images of one size that go together; default: 1 on a CPU, else up to 8"
    parser.add_argument("--batch", type=int | None, help=about)
    about = "at an input that cannot be read, stop, or go on and list it at the end"
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help=about)
    about = "I/N: every N-th input from the I-th on, 1 <= I <= N, so that N machines share the work"
    parser.add_argument("--shard", type=str, default="1/1", help=about)
    about = "leave out the inputs whose outputs are all there"
    parser.add_argument("--resume", action="store_true", help=about)
    options = parser.parse_args(given)

    from pipa.cli.progress import Progress
    from pipa.deploy.predict import predict

    model = load_model(options)
    with Progress() as progress:
        predictions = predict(
            model,
            options.inputs,
            options.out,
            kinds=[kind.strip() for kind in options.write.split(",")],
            scale=options.scale,
            batch=options.batch,
            shard=_shard(options.shard),
            resume=options.resume,
            on_error=options.on_error,
            tick=progress.advance,
        )
        progress.begin(predictions.count())
        for _, outputs in predictions:
            print(*outputs)
    ignored = [str(file) for file in predictions.ignored]
    if ignored:
        print(f"no images or videos, left out: {', '.join(ignored)}", file=sys.stderr)
    for fault in predictions.faults:
        print(fault, file=sys.stderr)
    return 1 if predictions.faults else 0


def _shard(given: str) -> tuple[int, int]:
    index, _, count = given.partition("/")
    try:
        return int(index), int(count)
    except ValueError as error:
        raise PipaError(f"{given}; expected I/N, such as 1/4", "--shard") from error


def convert_command(given: list[str]) -> int:
    """`pipa convert CKPT OUT`."""
    parser = new_parser("convert", "Turn a checkpoint of PiPa, HRDA, DAFormer or MIC into a model.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="folder to make")
    add_weights(parser)
    about = "classes.yaml, cityscapes, or names with commas; default: those in the checkpoint"
    parser.add_argument("--classes", type=str | None, help=about)
    options = parser.parse_args(given)

    from pipa.data.tables import class_table
    from pipa.models.saved import convert

    labels = None if options.classes is None else class_table(options.classes).labels
    print(convert(options.checkpoint, options.out, options.weights, labels))
    return 0


def export_command(given: list[str]) -> int:
    """`pipa export MODEL OUT`."""
    about = "Write a network for other runtimes and compare its output with the model's."
    parser = new_parser("export", about)
    add_model(parser)
    parser.add_argument("out", type=Path, help="the .onnx or .pt2 file to write")
    about = "HEIGHTxWIDTH of a window; default: the run's crop, else the network's own window"
    parser.add_argument("--size", type=tuple[int, int] | None, help=about)
    about = "onnx, or torch for a program of torch.export that needs no pipa"
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", help=about)
    about = "write INT8, and print what it costs in mIoU on these labelled images, [FORMAT:]PATH"
    parser.add_argument("--int8", type=str | None, metavar="DATA", help=about)
    parser.add_argument("--classes", type=str | None, help="with --int8: as in `pipa eval`")
    about = "with --int8: how many of the images to calibrate on"
    parser.add_argument("--images", type=int, default=32, help=about)
    options = parser.parse_args(with_sizes(given))
    if options.int8 and options.format != "onnx":
        raise PipaError("is for ONNX", "--int8", "Leave --format out.")
    refuse_suffix(options.out, {"onnx": ".onnx", "torch": ".pt2"}[options.format], "OUT")

    from pipa.data.loading import labelled_images
    from pipa.deploy.export import export

    # The labelled images are looked at first: without them, no file is written.
    images = labelled_images(options.int8, options.classes)[0] if options.int8 else ()
    model = load_model(options).cpu()
    size = options.size or trained_size(options.model, model)
    difference = export(model, options.out, size, format=options.format)
    print(
        f"wrote {options.out}, which labels windows of {size[0]}x{size[1]}; "
        f"largest difference to the original {difference:.1e}"
    )
    if options.int8:
        print(_quantised(options, islice(images, options.images)))
    return 0


def trained_size(path: Path, model: "Segmenter") -> tuple[int, int]:
    """The crop of the run that a model is of, as far as that is known; else its own window."""
    from pipa.data.crops import height_and_width
    from pipa.evaluation.runs import run_data

    places = [path, *path.absolute().parents[:2]]  # RUN, RUN/model, RUN/checkpoints/last.ckpt
    size = next((crop for run in places if (crop := run_data(run).get("crop"))), model.window)
    return height_and_width(size)


def push_command(given: list[str]) -> int:
    """`pipa push USER/MODEL RUN...`."""
    about = "Put a run's model on the Hugging Face Hub, with a card that says its scores by seed."
    parser = new_parser("push", about)
    parser.add_argument("name", type=str, help="user/model")
    about = "the run whose model it is; then runs of the same recipe with other seeds"
    parser.add_argument("runs", nargs="+", type=Path, help=about)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    about = "write the folder here instead, and send nothing"
    parser.add_argument("--out", type=Path | None, help=about)
    options = parser.parse_args(given)

    from pipa.deploy.publish import push_to_hub, save_pretrained
    from pipa.models.saved import load_segmenter

    model = load_segmenter(options.runs[0])
    if options.out:
        save_pretrained(model, options.out, runs=options.runs, name=options.name)
        print(f"wrote {options.out}")
    else:
        print(push_to_hub(model, options.name, runs=options.runs, private=options.private))
    return 0


def _quantised(options: Any, images: Iterable[Any]) -> str:
    """Replace an ONNX file by its INT8 form, calibrated on these images; say what that costs."""
    from pipa.deploy.int8 import quantise
    from pipa.evaluation.evaluate import evaluate
    from pipa.models.onnx_file import OnnxSegmenter

    def miou() -> float:
        return evaluate(OnnxSegmenter(options.out), options.int8, classes=options.classes).miou

    before, bytes_before = miou(), options.out.stat().st_size
    quantise(options.out, options.out, (batch.image[0] for batch in images))
    after, bytes_after = miou(), options.out.stat().st_size
    return (
        f"INT8: mIoU {before:.2f} -> {after:.2f} ({after - before:+.2f}) on {options.int8}, "
        f"{bytes_before / 1e6:.1f} -> {bytes_after / 1e6:.1f} MB"
    )
