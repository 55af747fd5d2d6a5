"""What waits for a GPU is recognized, and nothing else; recipes are tested in test_experiments."""

import pytest
import torch
from torch.nn import functional as F

from tests.synchronization import waits

X = torch.tensor([1.0, -2.0, 3.0])

WAITING = {
    "item": lambda: X[0].item(),
    "float": lambda: float(X[0]),
    "branch": lambda: X.sum() > 0 and None,
    "cpu": lambda: X.cpu(),
    "numpy": lambda: X.numpy(),
    "list": lambda: X.tolist(),
    "mask": lambda: X[X > 0],
    "assignment by a mask": lambda: X.clone().__setitem__(X > 0, X[:2]),
    "nonzero": lambda: X.nonzero(),
    "unique": lambda: X.unique(),
    "equal": lambda: torch.equal(X, X),
}
FREE = {
    "where": lambda: torch.where(X > 0, X, 0),
    "index": lambda: X[torch.tensor([0, 2])],
    "one-hot": lambda: F.one_hot(torch.tensor([0, 2]), 3),
    "sort": lambda: X.argsort(),
    "shape": lambda: X.reshape(1, len(X)).mean(1),
}


@pytest.mark.parametrize("operation", WAITING.values(), ids=WAITING.keys())
def test_waiting_is_recognized(operation):
    with waits() as places:
        operation()
    assert len(places) == 1
    assert __file__ in places[0]


def test_waiting_within_the_closure_of_an_optimizer_is_recognized():
    weight = torch.nn.Parameter(X)

    def closure():
        weight.grad = torch.full_like(X, weight.sum().item())
        return weight.sum()

    with waits() as places:
        torch.optim.AdamW([weight]).step(closure)
    assert [__file__ in place for place in places] == [True]


@pytest.mark.parametrize("operation", FREE.values(), ids=FREE.keys())
def test_other_operations_do_not_wait(operation):
    with waits() as places:
        operation()
    assert places == []
