from types import SimpleNamespace

import pytest
import torch

from datamodules.samplers import Bilateral, ClassBalanced, Paired
from lightning_modules import ModelError
from lightning_modules.batches import SAMPLERS, pairs

BATCH = {"image": torch.rand(6, 3, 2, 2), "label": torch.arange(6)}


@pytest.mark.parametrize(("rows", "sampler"), list(zip(SAMPLERS, (Bilateral, Paired), strict=True)))
def test_even_and_odd_rows_are_split(rows, sampler):
    even, odd = pairs(BATCH, rows, sampler([0, 1]))
    assert even["label"].tolist() == [0, 2, 4]
    assert torch.equal(odd["image"], BATCH["image"][1::2])
    assert SAMPLERS[rows].endswith(f".{sampler.__name__}")


@pytest.mark.parametrize(
    ("rows", "sampler"),
    [
        ("natural and reversed", Paired),
        ("natural and reversed", ClassBalanced),
        ("anchor and partner", Bilateral),
        ("anchor and partner", ClassBalanced),
    ],
)
def test_other_samplers_are_refused_by_name(rows, sampler):
    with pytest.raises(ModelError, match=f"set data.sampler to {SAMPLERS[rows]}"):
        pairs(BATCH, rows, sampler([0, 1]))


def test_odd_batches_are_refused():
    with pytest.raises(ModelError, match="even batch"):
        pairs({"label": torch.arange(5)}, "anchor and partner", None)


@pytest.mark.parametrize("kind", ["BBN", "SPMix"])
def test_modules_ask_the_sampler_of_their_training_batches(kind):
    import lightning_modules

    module = getattr(lightning_modules, kind).__new__(getattr(lightning_modules, kind))
    torch.nn.Module.__init__(module)
    module._fabric = module._trainer = None
    sampler = ClassBalanced([0, 1])
    assert module.sampler is None
    module._trainer = SimpleNamespace(train_dataloader=SimpleNamespace(sampler=sampler))
    assert module.sampler is sampler
