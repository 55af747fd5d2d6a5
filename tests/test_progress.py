from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datamodules import HAM10000
from lightning_modules import Classifier


@pytest.mark.parametrize("batches", [1, 7, 20])
@pytest.mark.parametrize("limit", [1, 5, 1.0, 0.55])
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_module_and_data_agree_on_the_steps_of_an_epoch(batches, limit, accumulated):
    """Otherwise a resumed run would have another schedule and order of images."""
    trainer = SimpleNamespace(
        limit_train_batches=limit,
        accumulate_grad_batches=accumulated,
        max_epochs=3,
        max_steps=-1,
        global_step=0,
    )
    if isinstance(limit, float) and int(batches * limit) < 1:
        return
    module = Classifier(nn.Identity(), None, torch.optim.SGD, batches_per_epoch=batches)
    module.trainer = trainer
    data = HAM10000.__new__(HAM10000)
    data.trainer = trainer
    trainer.global_step = module.steps
    assert data._progress(batches) == (3, 0)
    trainer.global_step = module.steps - 1
    assert data._progress(batches)[0] == 2
