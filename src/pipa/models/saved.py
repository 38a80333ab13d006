"""Saved networks: `model.safetensors`, and a `config.json` that rebuilds the network.

`load_segmenter` also takes a run's checkpoint, the checkpoints that `mmseg` converts, and an ONNX
file.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.files.odd_names import utf8_path
from pipa.models import mmseg
from pipa.models.build import create_segmenter
from pipa.models.checkpoint import build_with, checkpoints_of, read_checkpoint
from pipa.models.hub import FILES, download, is_hub_name
from pipa.models.mmseg import Weights
from pipa.models.onnx_file import OnnxSegmenter
from pipa.models.segmenter import Segmenter

log = logging.getLogger("pipa")

KEPT_FOLDER, ADAPTED_FOLDER, SOURCE_ONLY_FOLDER = "model", "model_adapted", "source_only"
"""Folders of a run's networks: the kept one; the adapted one if that is not kept; the one before.

The source-only network is the student at the first step with a target.
"""


def save_segmenter(
    model: Segmenter,
    folder: Path | str,
    labels: LabelSpace | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> None:
    """Write `model.safetensors` and `config.json`, both or neither.

    Args:
        model: A network of `create_segmenter` or `load_segmenter`.
        folder: The folder to write; a saved network in it is replaced.
        labels: Names and colours of the classes; None: those of `model`.
        metadata: Further facts to keep, for JSON.
        card: Text of a README.md to write beside them; an older one is replaced.

    Raises:
        PipaError: The folder has other contents, or cannot be written, or the network is not of
            `create_segmenter`.
    """
    folder = Path(folder)
    if not model.config:
        problem = "the network was not built by create_segmenter, so it could not be loaded"
        raise PipaError(problem, folder, "Save its state_dict with torch.save.")
    known = labels if labels is not None else model.labels
    config = {
        "format": "pipa-segmenter",
        "version": 1,
        "segmenter": model.config,
        "labels": None if known is None else known.as_plain(),
        "resize": model.resize,
        "metadata": dict(metadata or {}),
    }
    names = FILES if card is None else (*FILES, "README.md")
    if folder.name in ("", ".."):
        raise PipaError("cannot be replaced", folder, "Name a new folder.")
    if folder.exists() and not _holds_only(folder, names):
        raise PipaError("is there already, and not a saved network", folder, "Name another folder.")
    # A folder beside it takes the weights first, so that a full disk leaves no partial network.
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        fresh.mkdir(parents=True)
        state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
        weights = fresh / "model.safetensors"
        save_file(state, weights, metadata={"format": "pt"})
        text = json.dumps(config, indent=1, ensure_ascii=False)
        (fresh / "config.json").write_text(text + "\n", encoding="utf-8")
        shutil.copymode(fresh / "config.json", weights)  # else nobody else could read it
        if card is not None:
            (fresh / "README.md").write_text(card, encoding="utf-8")
        _put_in_place(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise PipaError(f"cannot be written: {error}", folder) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename a folder; what is there is removed afterwards, so that one of both always exists."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _holds_only(folder: Path, names: Sequence[str]) -> bool:
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= set(names)


def load_segmenter(path: Path | str, weights: Weights = "student") -> Segmenter:
    """Read a network, in evaluation mode; it has `labels` if it was saved with them.

    Args:
        path: A folder of `save_segmenter`, the folder of a run, a run's `.ckpt`, a `.pth` of the
            authors of DAFormer, HRDA, MIC or PiPa, an `.onnx` of `pipa export`, which cannot be
            trained, or `user/model` on the Hugging Face Hub.
        weights: The network to read from a checkpoint: the student, or its moving average.

    Raises:
        PipaError: The path holds no network, or one that is damaged or incomplete, or no teacher.

    Examples:
        >>> model = pipa.load_segmenter("runs/mine")
        >>> model.labels.names
        ('ground', 'water', 'forest')
        >>> ids = model.predict("photo.jpg")  # class ids, uint8, (h, w)
        >>> ids.shape
        (48, 64)
    """
    path = Path(path)
    if is_hub_name(path):
        path = download(path.as_posix())
    try:
        return _load(path, weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipaError(f"holds no network that can be built ({reason})", path) from error


def adapted_folder(run: Path) -> Path:
    """Return where a run has its adapted network, even if it kept the source-only one."""
    return run / (ADAPTED_FOLDER if holds_network(run / ADAPTED_FOLDER) else KEPT_FOLDER)


def holds_network(folder: Path) -> bool:
    """Whether a folder is that of a saved network."""
    return (folder / "config.json").is_file()


def _load(path: Path, weights: Weights) -> Segmenter:
    if path.name in FILES:
        path = path.parent
    if path.is_dir():
        return _load_folder(path, weights).eval()
    if path.suffix == ".onnx":
        if weights == "teacher":
            remedy = "`pipa export RUN OUT --weights teacher` writes the teacher's file."
            raise PipaError("is an ONNX file, which holds a single network", path, remedy)
        return OnnxSegmenter(path).eval()
    content = read_checkpoint(path)
    if "pytorch-lightning_version" in content:
        return _load_run(content, path, weights).eval()
    return mmseg.load(content, path, weights)[0].eval()


def _load_folder(folder: Path, weights: Weights) -> Segmenter:
    if not holds_network(folder):
        unfinished = not holds_network(folder / KEPT_FOLDER)
        if (unfinished or weights == "teacher") and checkpoints_of(folder):
            return _load_newest(folder, weights)
        folder = folder if unfinished else folder / KEPT_FOLDER
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "It needs a config.json, or checkpoints/last.ckpt of a run that did not end."
        raise PipaError("holds no network", folder, remedy) from error
    if not isinstance(config, dict) or config.get("format") != "pipa-segmenter":
        raise PipaError(
            "its config.json is not of a pipa network",
            folder,
            "Weights of a backbone go to --student.pretrained, checkpoints to `pipa convert`.",
        )
    if weights == "teacher" and config["metadata"].get("weights") != "teacher":
        raise PipaError(
            "holds the student only", folder, "The teacher is in checkpoints/last.ckpt of the run."
        )
    file = folder / "model.safetensors"
    try:
        with utf8_path(file) as readable:
            state = load_file(readable)
    except (OSError, SafetensorError) as error:
        raise PipaError(f"cannot be read: {error}", file) from error
    model = build_with(lambda: create_segmenter(**config["segmenter"]), state, file)
    model.labels, model.resize = _label_space(config["labels"]), _size(config.get("resize"))
    return model


def _load_newest(run: Path, weights: Weights) -> Segmenter:
    """Load from the newest checkpoint of a run that can be read; say which."""
    faults = []
    for file in checkpoints_of(run):
        try:
            content = read_checkpoint(file)
            model = _load_run(content, file, weights)
        except PipaError as error:
            faults.append(error)
            continue
        said = f"{faults[0]} " if faults else ""
        step = content.get("global_step", "unknown")
        log.warning("%sThe %s is of %s, step %s", said, weights, file, step)
        return model
    raise faults[0]


def _load_run(content: Mapping[str, Any], path: Path, weights: Weights) -> Segmenter:
    """Read a network from a checkpoint of Lightning, which holds both student and teacher."""
    prefix = {"student": "student.", "teacher": "teacher.network."}[weights]
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(prefix)
    }
    parameters = content.get("hyper_parameters", {})
    if not state or "student" not in parameters:
        raise PipaError(f"is a checkpoint of Lightning without a {weights} of pipa", path)
    model = build_with(lambda: create_segmenter(**parameters["student"]), state, path)
    model.labels = _label_space(parameters.get("labels"))
    model.resize = _size(parameters.get("resize"))
    return model


def _label_space(plain: Mapping[str, Any] | None) -> LabelSpace | None:
    return None if plain is None else LabelSpace.from_plain(plain)


def _size(sides: Sequence[int] | None) -> tuple[int, int] | None:
    if sides is None:
        return None
    height, width = (int(side) for side in sides)
    if min(height, width) < 1:
        raise ValueError("a side is below 1")
    return height, width


def convert(
    checkpoint: Path | str,
    out: Path | str,
    weights: Weights = "student",
    labels: LabelSpace | None = None,
) -> str:
    """Convert a checkpoint to a folder of pipa; return a report.

    Args:
        checkpoint: A `.pth` of PiPa, HRDA, DAFormer or MIC, a `.pth` or `.bin` of MiT, or a run's
            `.ckpt`.
        out: The folder to write; for MiT, one for `pretrained`.
        weights: The student, or its moving average.
        labels: The classes; None: those of the checkpoint, which may have no names for them.

    Raises:
        PipaError: The file cannot be read, names are unknown or missing, there are not as many
            classes, or `out` is in use.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    content = read_checkpoint(checkpoint)
    metadata = {"converted_from": checkpoint.name, "weights": weights}
    if "pytorch-lightning_version" in content:
        model = load_segmenter(checkpoint, weights)
        lines = [f"{model.config['name']}: the {weights} of a run"]
    elif mmseg.is_encoder(content, checkpoint):
        return mmseg.convert_encoder(content, checkpoint, out)
    else:
        model, lines = mmseg.load(content, checkpoint, weights)
    if labels is not None and labels.num_classes != model.num_classes:
        problem = f"are {labels.num_classes}, and the network has {model.num_classes} classes"
        raise PipaError(problem, "--classes")
    model.labels = labels or model.labels
    if model.labels is None:
        lines.append("its classes have no names: --classes classes.yaml, or names with commas")
    save_segmenter(model, out, metadata=metadata)
    return "\n".join([*lines, f"written to {out}"])
