import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from callbacks.errors import RunError
from experiments.compare.__main__ import main
from experiments.compare.comparison import compare
from experiments.compare.wandb_runs import read_project


def remote(name="ce", seed=0, accuracy=0.5, root="data/ham10000", **summary):
    split = {"class_path": "datamodules.splits.Balanced", "init_args": {"seed": 0}}
    config = {
        "name": name,
        "seed_everything": seed,
        "data": {"root": root, "split": split, "task": "melanoma"},
        "model": {"lr": 0.1},
    }
    summary = {
        "test/balanced_accuracy": accuracy,
        "test/macro_auroc": "NaN",
        "test/recall_nv": 1.0,
        "test/recall_mel": 2 * accuracy - 1,
        "val/loss": 3,
        **summary,
    }
    history = [
        {"_step": 0, "trainer/global_step": 9, "epoch": 0, "train/loss": 2.0},
        {"_step": 1, "trainer/global_step": 9, "epoch": 0, "val/balanced_accuracy": 0.4},
        {"_step": 2, "trainer/global_step": 9, "epoch": 0, "cost/seconds": 4.0},
        {"_step": 3, "trainer/global_step": 19, "epoch": 1, "train/loss": 1.0, "chart": {"a": 1}},
    ]
    return SimpleNamespace(
        id=f"{name}-seed{seed}",
        config=config,
        summary_metrics=summary,
        scan_history=lambda: iter(history),
    )


@pytest.fixture
def server(monkeypatch):
    """Stands in for wandb.Api; ``runs`` are what it knows."""

    class Api:
        def __init__(self, timeout):
            pass

        def runs(self, project):
            assert project == "me/longderm"
            if isinstance(known, Exception):
                raise known
            return iter(known)

    known = []

    def set_runs(answer):
        nonlocal known
        known = answer

    monkeypatch.setattr(wandb, "Api", Api)
    return set_runs


def test_reads_what_the_server_has(server):
    server([remote(seed=0), remote(seed=1, accuracy=0.6)])
    runs, left_out = read_project("me/longderm")
    assert left_out == []
    run = runs[0]
    assert (run.name, run.seed, run.classes) == ("ce", 0, ("nv", "mel"))
    assert run.metrics == {"balanced_accuracy": 0.5, "recall_nv": 1.0, "recall_mel": 0.0}
    assert run.history["train/loss"].dropna().tolist() == [2.0, 1.0]
    assert run.history["val/balanced_accuracy"].dropna().tolist() == [0.4]


def test_means_and_intervals_over_seeds_only(server):
    server([remote(seed=0), remote(seed=1, accuracy=0.6), remote("other")])
    found = compare(read_project("me/longderm")[0], baseline="other")
    assert [row.name for row in found.rows] == ["ce", "other"]
    estimate = found.rows[0].metrics["balanced_accuracy"]
    assert estimate.mean == pytest.approx(0.55)
    assert estimate.seeds[0] < 0.55 < estimate.seeds[1]
    assert estimate.lesions is None
    assert found.rows[0].difference is None
    assert any("neither intervals over lesions nor diff" in note for note in found.notes)


def test_untested_runs_are_named_and_left_out(server):
    untested = remote("young")
    untested.summary_metrics = {"val/loss": 1.0}
    server([remote(), untested])
    runs, left_out = read_project("me/longderm")
    assert [run.name for run in runs] == ["ce"]
    assert left_out == [
        "me/longderm/young-seed0 has no test/balanced_accuracy: evaluate it, and `make sync`."
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "no tested run in me/longderm"),
        (wandb.errors.UsageError("No API key configured."), "No API key.*wandb login"),
        (ValueError("Could not find project longderm"), "Could not find project"),
        ([remote(), remote()], "called alike"),
    ],
)
def test_refusals(server, answer, said):
    server(answer)
    with pytest.raises(RunError, match=said):
        read_project("me/longderm")


def test_drawn_lesions_are_not_mixed_with_real_ones(server):
    server([remote(), remote("demo", root="data/demo")])
    with pytest.raises(RunError, match="demo-seed0 .*drawn lesions"):
        compare(read_project("me/longderm")[0])


def test_command_line(server, monkeypatch, capsys):
    server([remote(), remote("other", accuracy=0.7)])
    monkeypatch.setattr(sys, "argv", ["compare", "--project", "me/longderm"])
    main()
    assert "nor differences: other, ce" in capsys.readouterr().out
    assert '"name":"other"' in Path("compare/index.html").read_text()
