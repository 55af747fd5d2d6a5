"""`make gpu`, tried on a CPU with drawn lesions."""

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from time import monotonic, sleep

import pandas as pd
import pytest
import timm
import torch
import yaml

from experiments.running.study import Study, find_study
from tests.gpu import __main__ as start
from tests.gpu.budget import STOPPED, Budget, execute
from tests.gpu.report import report
from tests.gpu.studies import write_study

ROOT = Path(__file__).parents[1]
SLEEPER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_command_whose_time_is_up_leaves_no_process(tmp_path, monkeypatch):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    start = monotonic()
    code = execute("sleeper", [], tmp_path, tmp_path / "log", seconds=3)
    assert code == STOPPED
    assert monotonic() - start < 30
    child = int((tmp_path / "log").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the command's child is running")


def test_missing_packages_are_named(monkeypatch):
    def version(name):
        if name in ("wandb", "jsonargparse"):
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(start, "version", version)
    assert start.missing_packages() == ["jsonargparse", "wandb"]


def test_a_budget_is_spent_by_its_shares():
    budget = Budget(minutes=10)
    assert 295 < budget.left(share=0.5) <= 300
    assert Budget(minutes=10, start=budget.start - 600).left() <= 0


def test_a_study_grows_by_seeds_and_takes_weights_from_a_file(tmp_path):
    study = write_study("spmix_pretrained", tmp_path, 2, "w.pth", 224)
    runs, original = Study.read(study).runs, Study.read(find_study("spmix_pretrained")).runs
    assert {run.seed for run in runs} == {0, 1}
    assert [run.row for run in runs if not run.seed] == [r.row for r in original if not r.seed]
    for run in runs:
        assert "--data.size=224" in run.options
        assert "--model.network.encoder.weights=w.pth" in run.options
    fewer = write_study("spmix_pretrained", tmp_path, 1, None, 96, ["ce"])
    assert yaml.safe_load(fewer.read_text())["rows"].keys() == {"ce"}
    assert Study.read(fewer).runs[0].options == original[0].options


def test_a_report_names_what_failed():
    steps = {"paco": {"failed": "out of memory"}}
    text = report({"machine": {"device": "x"}, "steps": steps})
    assert "- paco: out of memory" in text
    assert "Mixing" not in text


@pytest.mark.slow
def test_everything_on_a_cpu(lesions, tmp_path):
    weights = tmp_path / "lite0.pth"
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)
    command = [sys.executable, "-m", "tests.gpu", f"--data={lesions}", f"--weights={weights}"]
    command += ["--device=cpu", "--minutes=10", "--size=32", "--steps=1", "--seeds=1", "--jobs=1"]
    command += ["--tests=bf16 and finetune", "--recipes=finetune_ce", "--studies=finetune"]
    command += ["--rows=focal", "--data.size=32", "--data.split.test_images=3"]
    command += ["--data.split.val_images=2", "--data.batch_size=8", "--trainer.max_epochs=1"]
    command += ["--trainer.limit_train_batches=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "gpu"
    record = json.loads((out / "measurements.json").read_text())
    assert record["tests"]["summary"].startswith("1 passed")
    variants = record["steps"]["finetune_ce"]["variants"]
    assert [name for name, row in variants.items() if "failed" in row] == []
    assert variants["float32"]["ratio"] == 1
    assert "1 of 1 runs are finished; whole seeds: 0." in (out / "report.md").read_text()
    kept = pd.read_csv(out / "results" / "finetune.csv")
    assert set(kept["row"]) == {"focal"}
