import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from callbacks.looking.charts import CURVE_POINTS, curves, thinned
from callbacks.recording.results import UPLOADED_FILES
from callbacks.recording.wandb_logger import ResilientWandbLogger
from callbacks.run_folder import OF_LAST_EPOCH
from datamodules.classes import CLASSES
from experiments.command_line.cli import run_command
from experiments.use import dashboard
from tests.callbacks.wandb_runs import UNAVOIDABLE, own_wandb

ROOT = Path(__file__).parents[2]
RUN = Path("runs/small_ce/seed0")
pytestmark = UNAVOIDABLE
__all__ = ["own_wandb"]


def records(run: Path) -> list[dict]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.fixture
def logged(lesions, own_wandb) -> tuple[set[str], list[dict]]:
    """The keys logged by an offline run that was trained and tested, read from its files."""
    run_command(
        [
            "fit",
            f"--config={ROOT / 'experiments' / 'small_ce.yaml'}",
            f"--data.root={lesions}",
            "--data.split.test_images=3",
            "--data.split.val_images=2",
            "--data.size=32",
            "--model.mix=lightning_modules.mixes.Mixup",
            "--trainer.max_epochs=10",  # attention maps are drawn every ten epochs
            "--trainer.log_every_n_steps=1",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.callbacks+=callbacks.BestArtifact",
        ]
    )
    run_command(["test", f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"])
    ResilientWandbLogger.finish()
    found = [r for run in sorted(RUN.glob("wandb/offline-run-*/*.wandb")) for r in records(run)]
    return keys(found), found


def keys(found: list[dict]) -> set[str]:
    rows = (r["history"]["item"] for r in found if r["type"] == "history")
    return {key.partition(".")[0] for row in rows for key in row}  # media have several each


def test_all_that_the_dashboard_plots_is_logged(logged):
    found, everything = logged
    plotted = dashboard.plotted(CLASSES)
    assert plotted <= found, plotted - found
    for charts in dashboard.BY_PATTERN.values():
        for pattern in charts.values():
            assert any(re.match(pattern, key) for key in found), pattern
    for split in ("val", "test"):
        for chart in ("pr_curve", "roc_curve", "recall_bars", "confusion_matrix"):
            assert f"{split}/{chart}_table" in found
    assert "small_ce-seed0" in json.dumps([r for r in everything if r["type"] == "artifact"])
    (uploaded,) = RUN.glob("wandb/offline-run-*/files/small_ce/seed0")
    # Nothing was compressed, and the last epoch was not tested.
    for name in {*UPLOADED_FILES} - {
        "test_fidelity.csv",
        *(n for n in UPLOADED_FILES if n.startswith(OF_LAST_EPOCH)),
    }:
        assert (uploaded / name).read_bytes() == (RUN / name).read_bytes()


def test_the_workspace_has_its_sections_and_all_that_they_plot():
    if importlib.util.find_spec("wandb_workspaces") is None:
        pytest.skip("wandb-workspaces is not installed")
    command = [sys.executable, "-m", "experiments", "dashboard", "--out=workspace.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)
    text = Path("workspace.json").read_text()
    sections = json.loads(text)["section"]["panelBankConfig"]["sections"]
    assert [s["name"] for s in sections] == [*dashboard.line_charts(CLASSES)]
    assert all(f'"{key}"' in text or f":{key}" in text for key in dashboard.plotted(CLASSES))


def test_without_the_library_or_a_server_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dashboard"])
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(SystemExit, match="pip install '.\\[dashboard\\]'"):
        dashboard.main()


def test_curves_of_a_perfect_and_of_a_useless_classifier():
    label = torch.tensor([0, 0, 1, 1])
    perfect = torch.tensor([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.2, 0.8, 0]])
    charts = curves(perfect, label, ["mel", "nv", "df"])
    rows = charts["roc_curve"].table.data  # false-positive rate, class, recall
    assert {row[1] for row in rows} == {"mel", "nv"}  # no df occurs
    assert max(recall for false, _, recall in rows if false == 0) == 1
    useless = curves(torch.full((4, 3), 1 / 3), label, ["mel", "nv", "df"])
    assert all(false == recall for false, _, recall in useless["roc_curve"].table.data)


def test_long_curves_keep_their_ends():
    assert thinned(torch.arange(5)) == [0, 1, 2, 3, 4]
    thin = thinned(torch.arange(10_000))
    assert (len(thin), thin[0], thin[-1]) == (CURVE_POINTS, 0, 9999)
