"""The control: plain cross entropy on the pair, with the teacher's labels."""

import pytest
import torch
from torch.nn import functional as F

from pipa.uda.augment import jitter_and_blur
from pipa.uda.pseudo import Pseudo
from pipa.uda.terms import Given, PairCrossEntropy
from uda.steps import CLASSES, batch_of, small
from uda.terms.known import Window, labelled_pair, pair_batch


def test_the_control_is_cross_entropy_with_the_teachers_labels():
    batch, student = batch_of(), small()
    weight = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1))
    label = torch.randint(CLASSES, (2, 32, 32), generator=torch.Generator().manual_seed(2))
    sure = weight > 0.9
    crops = [Pseudo(label, weight, weight, sure), Pseudo(2 - label, weight / 2, weight, sure)]
    whole = Pseudo(label, weight, weight, sure, pair=(crops[0], crops[1]))
    found = PairCrossEntropy()(Given(student, batch, whole, torch.Generator().manual_seed(0)))
    whole.pair[0].weight.zero_()
    whole.pair[1].weight.zero_()
    nothing = PairCrossEntropy()(Given(student, batch, whole, torch.Generator().manual_seed(0)))
    assert found > 0
    assert nothing.item() == 0


def test_each_crop_is_jittered_and_learns_its_own_labels():
    batch, student = pair_batch((48, 40), (8, -16), (False, True)), Window()
    pseudo = labelled_pair(batch)
    pseudo.pair[1].weight.mul_(0.3)
    found = PairCrossEntropy()(Given(student, batch, pseudo, torch.Generator().manual_seed(1)))
    given = torch.cat([batch.pair.first.image, batch.pair.second.image])
    coloured = jitter_and_blur(given, torch.Generator().manual_seed(1))
    assert ((coloured - given).abs().amax(dim=(1, 2, 3)) > 0.05).all()
    assert not torch.equal(pseudo.pair[0].label, pseudo.pair[1].label)
    expected = 0.0
    for image, crop, weight in zip(coloured.double(), pseudo.pair, (1.0, 0.3), strict=True):
        logits = F.interpolate(image[None, :, ::4, ::4], (48, 40), mode="bilinear")[0]
        log = logits - logits.exp().sum(dim=0).log()
        for y in range(48):
            for x in range(40):
                expected -= weight * log[crop.label[0, y, x], y, x].item() / (2 * 48 * 40)
    assert found.item() == pytest.approx(expected, rel=1e-5)
