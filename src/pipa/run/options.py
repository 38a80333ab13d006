"""Experiment files: their sections are signatures, so that `--help` and YAML agree with code."""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import torch
import yaml

from pipa.data.module import UDAData
from pipa.errors import PipaError, at_least
from pipa.evaluation.runs import flat
from pipa.files.plain_yaml import read_yaml
from pipa.files.threads import available_cores
from pipa.files.words import spelled_out
from pipa.models.build import (
    OTHER_ORIGIN,
    create_segmenter,
    imagenet_weights,
    refuse_unknown,
)
from pipa.models.segmenter import Segmenter
from pipa.run.devices import refuse_precision
from pipa.run.recipes import MethodOptions, chosen_terms
from pipa.run.resuming import refuse_other_options
from pipa.run.speed import Speed
from pipa.uda.optim import Optim
from pipa.uda.terms import TERMS

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

log = logging.getLogger("pipa")

OURS = {
    "logger",
    "callbacks",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
    "max_epochs",
    "min_epochs",
    "min_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "use_distributed_sampler",
    "default_root_dir",
    "reload_dataloaders_every_n_epochs",
    "limit_train_batches",
    "overfit_batches",
}
"""Arguments of Lightning's trainer that pipa sets itself."""
SECTIONS = ("data", "student", "method", *TERMS, "optim", "trainer")
"""Names of the sections."""
TRAINER = {"max_steps": 40_000, "enable_model_summary": False}
"""Arguments of Lightning's trainer that have another default here; the length is DAFormer's."""
MOST_IMAGES = 2**16
"""The largest batch; more is a typing error, and the numbers of its draws alone fill a memory."""
MOST_RATE, MOST_FACTOR = 1e20, 1e10
"""The largest learning rate, and its factors'; with them, more is no number in float32."""
LARGEST = 2**53
"""The largest whole number of any option; torch and Lightning fail in many ways at larger ones."""


@dataclass
class StudentOptions:
    """The `student:` section: the network.

    Args:
        name: HEAD_BACKBONE: daformer, hrda, segformer, deeplabv2 or fpn; then mit_b0 ... b5,
            resnet_50, resnet_101, mobilenet_v2, small, or auto: the backbone that `pretrained`
            names. "small" alone is fpn_small. Or the dotted name of a class of your own, a subclass
            of `pipa.Segmenter` or `pipa.Wrapped` (my_networks.Mine).
        pretrained: Weights of the backbone: a name on the Hugging Face hub (nvidia/mit-b5), a local
            folder, or "none": random. "auto": ImageNet's for MiT and ResNet, none for others.
        options: Further arguments of `pipa.create_segmenter`, such as `backbone: {frozen: true}`.
    """

    name: str = "daformer_mit_b5"
    pretrained: str = "auto"
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a name that no network has, before anything is read."""
        refuse_unknown(self.name)

    @property
    def weights(self) -> str | None:
        """Return the argument `pretrained` of `create_segmenter`."""
        if self.pretrained != "auto":
            return None if self.pretrained == "none" else self.pretrained
        return imagenet_weights(self.name)


def sections(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield section, name and value of each option of an experiment file."""
    for section, content in plan.items():
        if isinstance(content, dict):
            for name, value in content.items():
                yield section, name, value


def build_student(student: StudentOptions, num_classes: int) -> Segmenter:
    """The network of the `student:` section; say where its weights are random unasked.

    Raises:
        PipaError: The name, the weights or an option is none that a network can be built with.
    """
    options = student.options or {}
    known = next((OTHER_ORIGIN[end] for end in OTHER_ORIGIN if student.name.endswith(end)), None)
    if known is not None and student.pretrained == "auto":
        how = f"--student.pretrained {known} gives ImageNet's"
        log.warning("%s starts from random weights; %s", student.name, how)
    try:
        return create_segmenter(student.name, num_classes, pretrained=student.weights, **options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        if not options:
            raise
        raise PipaError(f"no network can be built ({error})", "--student.options") from error


def read_experiment(parser: "ArgumentParser", given: list[str]) -> dict[str, Any]:
    """Parse `[CONFIG] [--data FORMAT] [--SECTION.NAME VALUE]...` into the arguments of `train`."""
    add_sections(parser)
    words = with_good_files(spelled_out(given))
    refuse_before_printing(parser, words)
    try:
        config = parser.parse_args(words)
    except (UnicodeDecodeError, RecursionError) as error:
        raise PipaError(f"is no YAML ({error})", "the experiment file") from error
    options = build_sections(parser, config)
    out: Path = config.out
    if config.resume:
        refuse_other_options(out, yaml.safe_load(as_text(parser, config)))
    resume = config.pop("resume")  # of this call only
    text = as_text(parser, config)
    speed = Speed(config.compile, config.checkpoint, config.accumulate)
    own = {"out": out, "seed": config.seed, "judge": config.judge, "speed": speed}
    return {**options, **own, "resume": resume, "config": text}


def refuse_before_printing(parser: "ArgumentParser", words: list[str]) -> None:
    """Where `--print_config` is asked for, check all other options as a run would.

    Raises:
        PipaError: A run with these options would not start.
    """
    others = [word for word in words if not word.startswith("--print_config")]
    if others != words:
        # What is printed may lack a source; one among the words comes later, and wins.
        build_sections(parser, parser.parse_args(["--data.source=SOURCE", *others]))


def with_good_files(words: list[str]) -> list[str]:
    """Return the words, after each experiment file among them is read strictly.

    Raises:
        PipaError: A file is none.
    """
    for option, word in zip(["", *words], words, strict=False):
        name = word if option == "--config" else word.partition("--config=")[2]
        if name and os.path.isfile(name):
            refuse_wrong_file(Path(name))
    return words


def refuse_wrong_file(file: Path) -> None:
    """Read an experiment file; its sections must hold options.

    Raises:
        PipaError: It is no YAML, holds an option twice, or a section holds something else.
    """
    remedy = "`pipa configs own_data_small` shows what one looks like."
    content = read_yaml(file, remedy)
    for section, value in content.items() if isinstance(content, dict) else ():
        if section in SECTIONS and not isinstance(value, dict):
            raise PipaError(f"`{section}` holds no options", file, remedy)


def build_sections(parser: "ArgumentParser", config: Any) -> dict[str, Any]:
    """Build the arguments of `train` that are sections.

    Raises:
        PipaError: An option has an impossible value.
    """
    refuse_large(config)
    refuse_impossible(config)
    built = parser.instantiate(config)
    config.method.momentum = built.method.momentum  # the file says which default was chosen
    sections = {name: getattr(built, name) for name in ("data", "student", "method", "optim")}
    sections["terms"] = chosen_terms(built.method, {name: getattr(built, name) for name in TERMS})
    sections["trainer"] = built.trainer.as_dict()
    return sections


def as_text(parser: "ArgumentParser", config: Any) -> str:
    """Write all options as an experiment file, `null` too, since it is not always the default."""
    text: str = parser.dump(config, skip_unset=False, skip_validation=True)
    return text


def refuse_impossible(config: Any) -> None:
    """Reject values of the trainer that pass the type check but cannot be used in training.

    Raises:
        PipaError: A number is too small, or not whole.
    """
    at_least(0, config.seed, "seed")
    at_least(0, config.judge, "judge")
    at_least(0, config.trainer.patience, "trainer.patience")
    for name in ("max_steps", "log_every_n_steps"):
        if (value := config.trainer[name]) is not None:
            at_least(1, value, f"trainer.{name}")
    if config.data.batch_size > MOST_IMAGES:
        problem = f"is {config.data.batch_size}, must be at most {MOST_IMAGES}"
        raise PipaError(problem, "--data.batch_size")
    every = config.trainer.val_check_interval
    if every is not None and (not isinstance(every, int) or every < 1):
        raise PipaError(
            f"is {every}", "--trainer.val_check_interval", "It counts steps: 1, 2, 3, ..."
        )


def refuse_large(config: Any) -> None:
    """Reject numbers that torch, Lightning or the machine cannot take.

    Raises:
        PipaError: A number is too large, or a factor is negative.
    """
    for name, value in flat(config.as_dict()).items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise PipaError(f"is {value}, which is too large", f"--{name}")
    for name, value, most in (
        ("seed", config.seed, 2**32 - 1),
        ("optim.lr", config.optim.lr, MOST_RATE),
        ("optim.head", config.optim.head, MOST_FACTOR),
        ("optim.decay", config.optim.decay, MOST_FACTOR),
        ("optim.power", config.optim.power, MOST_FACTOR),
        ("method.momentum", config.method.momentum, 1),
        ("masked.momentum", config.masked.momentum, 1),
    ):
        if value is not None and not 0 <= value <= most:
            raise PipaError(f"is {value}, must be 0 to {most:.10g}", f"--{name}")
    processes, most = str(config.trainer.devices), max(8, 2 * available_cores())
    if processes.isdigit() and int(processes) > max(most, torch.cuda.device_count()):
        raise PipaError(f"is {processes}; this machine has not so many", "--trainer.devices")
    refuse_precision(config.trainer.precision)


def add_sections(parser: "ArgumentParser") -> None:
    """Declare the sections from their signatures."""
    parser.add_argument("--config", action="config", help="experiment file; may stand first, bare")
    parser.add_argument("--out", type=Path, default=Path("runs/latest"), help="folder of the run")
    parser.add_argument("--seed", type=int, default=0, help="decides every draw")
    about = "resume the run in --out; `--resume RUN` needs no other option"
    parser.add_argument("--resume", type=bool, default=False, help=about)
    about = "target images by which to judge, without labels, whether adaptation helped; 0: none"
    parser.add_argument("--judge", type=int, default=0, help=about)
    about = "compile backbone, heads and teacher; the first step takes minutes"
    parser.add_argument("--compile", type=bool, default=False, help=about)
    about = "compute the backbone's blocks again in the backward pass: less memory, more time"
    parser.add_argument("--checkpoint", type=bool, default=False, help=about)
    about = "parts of a batch that go through one after the other, before one update"
    parser.add_argument("--accumulate", type=int, default=1, help=about)
    parser.add_class_arguments(UDAData, "data")
    parser.link_arguments("seed", "data.seed")
    parser.add_class_arguments(StudentOptions, "student")
    parser.add_class_arguments(MethodOptions, "method")
    for name, term in TERMS.items():
        parser.add_class_arguments(term, name)
    parser.add_class_arguments(Optim, "optim")
    parser.add_class_arguments(L.Trainer, "trainer", instantiate=False, skip=OURS)
    about = "log to this service, too; its package must be installed"
    parser.add_argument(
        "--trainer.logger", type=Literal["wandb", "mlflow"] | None, default=None, help=about
    )
    about = "end after so many validations without a better mIoU (or judge's score); 0: never"
    parser.add_argument("--trainer.patience", type=int, default=0, help=about)
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER.items()})
