"""Judging without labels: during training, of its end, and of finished models.

The student at `method.start`, which has seen the source alone, is kept as the source-only model.
At the end the adapted student is compared with it: what adaptation made worse is not kept.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml
from jaxtyping import Int, UInt8
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from pipa.data.unlabelled import source_pixels, target_images
from pipa.errors import PipaError
from pipa.evaluate.judge import Judgement, Verdict, judge
from pipa.models.saved import load_segmenter
from pipa.models.segmenter import Segmenter
from pipa.uda.method import Method

ADAPTED, SOURCE_ONLY = "adapted", "source-only"


class Judge(Callback):
    """Judges the student at every validation; keeps the source-only student.

    Logs `judge/score` and its parts, and `judge/same`: the share of pixels to which the student
    gives the class that the source-only model gives them.

    Args:
        images: Target images at the size that the network is used at.
        shares: Pixels of each class in the source's labels.
        start: The first step with a target.
        every: Steps between two judgements.
    """

    def __init__(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        shares: Int[np.ndarray, " k"],
        *,
        start: int,
        every: int,
    ) -> None:
        self.images, self.shares, self.start, self.every = images, shares, start, every
        self.source_only: dict[str, Tensor] | None = None
        self.before: list[UInt8[np.ndarray, "_ _"]] | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        """Keep the student before its first step with a target."""
        if trainer.global_step == self.start > 0:
            assert isinstance(module, Method)
            state = module.student.state_dict()
            self.source_only = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.before = [module.student.predict(image) for image in self.images]

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Judge, and log with the other numbers."""
        if trainer.global_step % self.every:
            return
        assert isinstance(module, Method)
        found = vars(judge({ADAPTED: module.student}, self.images, self.shares).figures(ADAPTED))
        logged = {f"judge/{name}": float(found[name]) for name in ("score", "agreement", "js")}
        if self.before is not None:
            now = [module.student.predict(image) for image in self.images]
            same = [float((a == b).mean()) for a, b in zip(now, self.before, strict=True)]
            logged["judge/same"] = float(np.mean(same))
        module.log_dict(logged)

    def state_dict(self) -> dict[str, Any]:
        """The source-only student travels with checkpoints."""
        before = None if self.before is None else [torch.from_numpy(one) for one in self.before]
        return {"source_only": self.source_only, "before": before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.source_only, before = state_dict["source_only"], state_dict["before"]
        self.before = None if before is None else [one.numpy() for one in before]

    def source_only_model(self, student: Segmenter) -> Segmenter | None:
        """The source-only model; None where the target was there from the first step."""
        if self.source_only is None:
            return None
        model = copy.deepcopy(student)
        model.load_state_dict(self.source_only)
        return model

    def conclude(self, adapted: Segmenter, source_only: Segmenter) -> tuple[Judgement, Verdict]:
        """Compare the adapted student with the source-only model."""
        found = judge({ADAPTED: adapted, SOURCE_ONLY: source_only}, self.images, self.shares)
        return found, found.verdict(ADAPTED, SOURCE_ONLY)


def in_words(verdict: Verdict) -> str:
    """The verdict on a run, in plain words for its owner."""
    kept = {
        "better": "Adaptation helped: the adapted model is kept.",
        "worse": "Adaptation made it worse: the source-only model is kept.",
        "not distinguishable": (
            "Whether adaptation helped cannot be told: the adapted model is kept."
        ),
    }
    return f"{kept[verdict.outcome]} Judged without labels: {verdict}."


def judge_saved(
    paths: Sequence[Path],
    *,
    target: str | None = None,
    source: str | None = None,
    classes: str | None = None,
    count: int = 64,
) -> tuple[Judgement, str]:
    """Judge finished models; of a run, its model and its source-only model.

    Args:
        paths: Runs, model folders, checkpoints.
        target: Unlabelled images, `[FORMAT[/SPLIT]:]PATH`; None: those of the first run.
        source: Where the class shares are counted; None: the source of the first run.
        classes: The classes of the source; None: those of the first run, or the data set's own.
        count: How many target images are looked at, at most.

    Returns:
        The judgement, and the name of the model that the others are compared with.

    Raises:
        PipaError: A model or an image cannot be read, or no source is known.
    """
    told = run_data(paths[0])
    target, source = target or told.get("target"), source or told.get("source")
    for option, value in {"--target": target, "--source": source}.items():
        if value is None:
            raise PipaError(f"{paths[0]} is no run that says what it was", option, "Give a folder.")
    assert target is not None
    assert source is not None
    same = {"format": told.get("format", "folder")}
    images = target_images(target, count, resize=told.get("target_resize"), **same)
    shares = source_pixels(source, classes=classes or told.get("classes"), **same)
    models = dict(saved_models(paths))
    baseline = next((name for name in models if name.endswith("source_only")), next(iter(models)))
    return judge(models, images, shares, quiet=False), baseline


def saved_models(paths: Sequence[Path]) -> list[tuple[str, Segmenter]]:
    """Name and network of each path; of a run, the source-only model as well."""
    further = [path / name for path in paths for name in ("model_adapted", "source_only")]
    known = [*paths, *(path for path in further if (path / "config.json").is_file())]
    return [(str(path), load_segmenter(path)) for path in known]


def run_data(path: Path) -> Mapping[str, Any]:
    """The `data` section of a run; empty where the path is none."""
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    data = config.get("data") if isinstance(config, dict) else None
    return data if isinstance(data, dict) else {}


def as_record(judgement: Judgement, verdict: Verdict) -> dict[str, Any]:
    """What `results.json` keeps of a judgement."""
    text = json.dumps(judgement.as_dict())
    return {"outcome": verdict.outcome, "words": in_words(verdict), "figures": json.loads(text)}
