"""The variants of the two contrasts: their maps, their negatives, their places, their images."""

import pytest
import torch

import pipa
from pipa.batch import IGNORE_INDEX
from pipa.errors import PipaError
from pipa.losses.patch_contrast import patch_contrast
from pipa.uda.pseudo import Pseudo, PseudoWeight
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import Given, PatchTerm, PixelTerm
from pipa.uda.terms.base import SourceTerm
from uda.steps import CLASSES, LABELS, Feed, batch_of, fit, small
from uda.terms.known import flat


def pair_of(confidence: float, rare: float) -> Pseudo:
    """Pseudo-labels of both crops: class 1, of another confidence, in a corner; elsewhere 0."""
    label = torch.zeros(2, 32, 32, dtype=torch.long)
    label[:, :12, :12] = 1
    whole = flat(label, 1.0)
    whole.pair = flat(label, confidence), flat(label, confidence - 0.01)
    for crop in whole.pair:
        crop.confidence[label == 1] = rare
    return whole


def test_only_sure_cells_repel_if_asked():
    student, batch = small(), batch_of()
    pseudo = pair_of(0.95, 0.6)
    for sure_negatives, kept in ((False, {0, 1}), (True, {0})):
        term = PatchTerm(width=16, dim=8, memory=90, sure_negatives=sure_negatives)
        term(Given(student, batch, pseudo, torch.Generator().manual_seed(0)))
        assert set(term.bank_label[:30].tolist()) == kept


def test_the_surer_half_of_a_class_takes_part_if_asked():
    """Class 1 is never over the threshold, and no other place is used."""
    student, batch = small(), batch_of()
    batch.pair.shift.zero_()
    batch.pair.flipped[:] = False
    pseudo = pair_of(0.5, 0.6)
    plain, fair = (PatchTerm(width=16, dim=8, memory=0, per_class=c) for c in (False, True))
    draws = torch.Generator().manual_seed(0)
    assert plain(Given(student, batch, pseudo, draws)).item() == 0
    assert fair(Given(student, batch, pseudo, draws)).item() > 0


def test_the_surer_crops_label_chooses_negatives_if_asked():
    generator = torch.Generator().manual_seed(3)
    first, second, bank = (
        torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1)
        for n in (20, 20, 40)
    )
    labels = [torch.randint(3, (n,), generator=generator) for n in (20, 20, 40)]
    sure = torch.rand(20, generator=generator), torch.rand(20, generator=generator)
    found = patch_contrast(first, second, bank, *labels, *sure, negatives_of="surer")
    surer = torch.where(sure[0] > sure[1], labels[0], labels[1])
    expected = patch_contrast(first, second, bank, surer, surer, labels[2], *sure)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found != patch_contrast(first, second, bank, *labels, *sure)


@pytest.mark.parametrize("term", [PatchTerm, PixelTerm])
@pytest.mark.parametrize("name", ["fpn_small", "hrda_small"])
def test_the_decoders_map_trains_the_decoder(term, name):
    """The classifier behind the map gets no gradient, the encoder below it does."""
    student = pipa.create_segmenter(name, CLASSES)
    batch, contrast = batch_of(side=64), term(width=16, dim=8, maps="decoder")
    contrast.prepare(student)
    if isinstance(contrast, PatchTerm):
        label = torch.randint(CLASSES, (2, 64, 64))
        pseudo = flat(label, 1.0)
        pseudo.pair = flat(label, 0.95), flat(label, 0.99)
        loss = contrast(Given(student, batch, pseudo))
    else:
        loss = contrast(student.analyse(batch.source.image), batch.source)
    loss.backward()
    assert student.head.smooth[0].weight.grad.abs().sum() > 0
    assert next(student.backbone.parameters()).grad.abs().sum() > 0
    assert student.head.classify.weight.grad is None or not student.head.classify.weight.grad.any()


def test_a_decoder_without_a_map_is_refused_in_one_line():
    student = pipa.create_segmenter("deeplabv2_small", CLASSES)
    for term in (PatchTerm(maps="decoder"), PixelTerm(maps="decoder")):
        with pytest.raises(PipaError, match="no map to contrast"):
            term.prepare(student)


class Seen(SourceTerm):
    """Remembers the labels that it is given."""

    name = "seen"
    images = "mixed"

    def __init__(self):
        super().__init__(1.0)
        self.labels = []

    def forward(self, prediction, source, generator=None):
        self.labels.append(source.label)
        return 0 * prediction.outputs[0].logits.sum()


@pytest.mark.parametrize("rule", PseudoWeight.__args__)
def test_on_mixed_images_a_term_sees_the_source_and_sure_pixels_of_the_target(rule):
    term = Seen()
    method = SelfTraining(
        small(), LABELS, source_terms=[term], pseudo_weight=rule, confidence=0.4, mix="class"
    )
    fit(method, Feed([batch_of()]))
    mixed = method.last_step.mixed
    (label,) = term.labels
    assert torch.equal(label, mixed.label.where(mixed.sure, IGNORE_INDEX))
    if rule != "share":
        assert torch.equal(mixed.sure, mixed.weight > 0)
    assert (label == IGNORE_INDEX).any()
    assert (label != IGNORE_INDEX).any()


def test_a_method_without_mixed_images_refuses_a_contrast_of_them():
    with pytest.raises(PipaError, match="no teacher"):
        SourceOnly(small(), LABELS, source_terms=[PixelTerm(images="mixed")])
