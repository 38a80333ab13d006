"""The target's style in training: on the images of each step, and as `auto` chooses it."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from pipa.batch import Batch, Labelled
from pipa.data.module import UDAData
from pipa.data.unlabelled import brightness_gap
from pipa.errors import PipaError
from pipa.files.images import write_png
from pipa.run.recipes import MethodOptions, build_method
from pipa.run.train import settle_style
from pipa.uda.augment import jitter_and_blur
from pipa.uda.method import LastStep, Method
from pipa.uda.mixing import mix_images
from pipa.uda.optim import Optim
from pipa.uda.style import restyle
from uda.steps import LABELS, Feed, batch_of, fit, small


class Draws(Callback):
    """The generators of the step at hand, by the names of its parts."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Method)
        self.of = {part: pl_module.step_generator(part) for part in ("style", "source", "mixed")}


def two_steps(batch: Batch, **options: Any) -> tuple[LastStep, Draws]:
    """The second step of a method, which sees this batch, and the draws of that step."""
    method = build_method(MethodOptions(**options), small(), LABELS, [], optim=Optim(), seed=3)
    draws = Draws()
    fit(method, Feed([batch_of(0), batch]), callbacks=[draws])
    assert method.last_step is not None
    return method.last_step, draws


STYLES: dict[str, dict[str, Any]] = {
    "fda": {"style": "fda"},
    "fda of some": {"style": "fda", "style_strength": 0.2, "style_probability": 0.5},
    "colour": {"style": "colour"},
    "colour of some": {"style": "colour", "style_strength": 0.8, "style_probability": 0.5},
    "colour, not turned": {"style": "colour", "style_strength": 0.8, "style_turn": False},
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["source_only", "dacs", "advent"])
def test_a_step_sees_the_source_in_the_style_that_the_options_say(name: str, style: str) -> None:
    batch = batch_of(1, b=8)
    assert batch.target is not None
    last, draws = two_steps(batch, name=name, **STYLES[style])
    asked = {option.removeprefix("style_"): value for option, value in STYLES[style].items()}
    expected = restyle(batch.source.image, batch.target.image, draws.of["style"], **asked)
    assert torch.equal(last.source.image, expected)
    assert torch.equal(last.source.label, batch.source.label)
    changed = (expected != batch.source.image).flatten(1).any(dim=1)
    assert changed.any()
    assert changed.all() == ("some" not in style)


@pytest.mark.parametrize("style", ["fda", "colour"])
def test_the_restyled_source_is_pasted_and_only_then_jittered(style: Any) -> None:
    batch = batch_of(1, b=4)
    assert batch.target is not None
    last, draws = two_steps(batch, name="dacs", style=style, mix="rectangle", jitter_source=True)
    image = restyle(batch.source.image, batch.target.image, draws.of["style"], style=style)
    assert torch.equal(last.source.image, jitter_and_blur(image, draws.of["source"]))
    assert last.pseudo is not None
    assert last.mixed is not None
    source = Labelled(image, batch.source.label)
    mixed = mix_images(source, batch.target, last.pseudo, draws.of["mixed"], mix="rectangle")
    assert torch.equal(last.mixed.image, jitter_and_blur(mixed.image, draws.of["mixed"]))


def photos(root: Path, ground: int, thing: int) -> str:
    """A folder of images whose left half is ground and whose right half is a thing."""
    image = np.full((16, 24, 3), ground, np.uint8)
    image[:, 12:] = thing
    (root / "images").mkdir(parents=True)
    for i in range(3):
        write_png(root / "images" / f"{i}.png", image)
    return str(root)


PAIRS = {  # ground and thing of the source and of the target
    "alike": ((60, 100), (60, 100), False),
    "brighter": ((60, 100), (120, 160), False),  # by 60 grey levels, of a deviation of 20
    "much brighter": ((60, 100), (160, 200), True),  # by 100
    "inverted": ((20, 60), (230, 190), True),
    "inverted, the other way": ((230, 190), (20, 60), True),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_auto_turns_colours_only_between_bright_and_dark(pair: str, tmp_path: Path) -> None:
    source, target, turned = PAIRS[pair]
    data = UDAData(photos(tmp_path / "a", *source), photos(tmp_path / "b", *target), workers=0)
    asked = MethodOptions(style="auto", style_strength=0.7, style_probability=0.5)
    chosen = settle_style(asked, data).restyle
    assert chosen is not None
    assert (chosen.style, chosen.turn) == ("colour", turned)
    assert (chosen.strength, chosen.probability) == (0.7, 0.5)


def test_the_gap_is_in_deviations_of_both_data_sets(tmp_path: Path) -> None:
    one = photos(tmp_path / "one", 99, 101)  # mean 100, variance 1
    other = photos(tmp_path / "other", 113, 127)  # mean 120, variance 49
    assert brightness_gap(one, other) == pytest.approx(20 / 25**0.5)
    assert brightness_gap(other, one) == pytest.approx(20 / 25**0.5)


@pytest.mark.parametrize("style", ["none", "fda", "colour"])
def test_a_style_that_is_asked_for_is_taken_without_a_look_at_the_images(style: Any) -> None:
    asked = MethodOptions(style=style, style_turn=True)
    assert settle_style(asked, UDAData("nowhere", "nowhere", workers=0)) == asked


def test_auto_skips_a_faulty_image_only_where_that_is_asked(tmp_path: Path) -> None:
    source, target = photos(tmp_path / "a", 20, 60), photos(tmp_path / "b", 230, 190)
    (tmp_path / "b" / "images" / "1.png").write_bytes(b"no image")
    auto = MethodOptions(style="auto")
    skipping = UDAData(source, target, on_error="skip", workers=0)
    assert settle_style(auto, skipping).style_turn
    assert len(skipping.skipped) == 1
    with pytest.raises(PipaError, match=r"1\.png"):
        settle_style(auto, UDAData(source, target, workers=0))
