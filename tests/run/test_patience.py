"""Early stopping, on scores that are given."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from uda.steps import LABELS, Feed, batch_of, fit, small

from pipa.data.module import UDAData
from pipa.errors import PipaError
from pipa.run.patience import Patience, patience_for
from pipa.uda.source_only import SourceOnly


class Score(Callback):
    """Logs the score of each step, as the judge does."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        module.log("judge/score", torch.tensor(self.scores[trainer.global_step - 1]))


def steps_until_it_ends(scores, **options) -> int:
    patience = Patience("judge/score", **({"patience": 2, "start": 0, "every": 1} | options))
    module = SourceOnly(small(), LABELS)
    feed = Feed([batch_of()] * len(scores))
    trainer: L.Trainer = fit(module, feed, callbacks=[Score(scores), patience])
    return trainer.global_step


@pytest.mark.parametrize(
    ("scores", "options", "steps"),
    [
        ([0.1, 0.2, 0.3, 0.2, 0.3, 0.9], {}, 5),  # 0.3 twice without more
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], {}, 6),
        ([0.9, 0.1, 0.1, 0.2, 0.3, 0.4], {"start": 3}, 6),  # before the start nothing counts
        ([0.9, 0.1, 0.8, 0.1, 0.7, 0.1], {"every": 2}, 6),  # steps 2, 4, 6: all the same
        ([0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], {"every": 2}, 6),
    ],
)
def test_a_run_ends_after_so_many_scores_without_a_better_one(scores, options, steps):
    assert steps_until_it_ends(scores, **options) == steps


def test_it_goes_on_after_a_checkpoint_with_what_it_had_seen():
    first = Patience("miou", patience=3, start=0, every=1)
    first.stopping.best_score, first.stopping.wait_count = torch.tensor(0.5), 2
    second = Patience("miou", patience=3, start=0, every=1)
    second.load_state_dict(first.state_dict())
    assert (second.stopping.best_score, second.stopping.wait_count) == (torch.tensor(0.5), 2)


def test_without_a_score_it_is_refused():
    trainer = {"patience": 2, "max_steps": 10}
    with pytest.raises(PipaError, match="no score to watch"):
        patience_for(trainer, UDAData("a", "b", workers=0), 0, judged=False)
    assert patience_for({"max_steps": 10}, UDAData("a", workers=0), 0, judged=False) == []
    (by_judge,) = patience_for(trainer, UDAData("a", "b", workers=0), 0, judged=True)
    (by_labels,) = patience_for(trainer, UDAData("a", "b", "c", workers=0), 0, judged=True)
    assert (by_judge.monitor, by_labels.monitor) == ("judge/score", "miou")
