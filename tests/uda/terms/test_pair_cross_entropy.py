"""The control: plain cross entropy on the pair, with the teacher's labels."""

import torch

from pipa.uda.teacher import Pseudo
from pipa.uda.terms import Given, PairCrossEntropy
from uda.steps import CLASSES, batch_of, small


def test_the_control_is_cross_entropy_with_the_teachers_labels():
    batch, student = batch_of(), small()
    weight = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1))
    label = torch.randint(CLASSES, (2, 32, 32), generator=torch.Generator().manual_seed(2))
    crops = [Pseudo(label, weight, weight), Pseudo(2 - label, weight / 2, weight)]
    whole = Pseudo(label, weight, weight, pair=(crops[0], crops[1]))
    found = PairCrossEntropy()(Given(student, batch, whole, torch.Generator().manual_seed(0)))
    whole.pair[0].weight.zero_()
    whole.pair[1].weight.zero_()
    nothing = PairCrossEntropy()(Given(student, batch, whole, torch.Generator().manual_seed(0)))
    assert found > 0
    assert nothing.item() == 0
