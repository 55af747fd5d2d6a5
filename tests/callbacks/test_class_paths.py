"""Class paths: ``callbacks.<Class>``, and those of runs recorded before modules were grouped."""

import json
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from inspect import isabstract, isclass
from pathlib import Path

import pandas as pd
import pytest
from pytorch_lightning import Callback
from pytorch_lightning.loggers.logger import Logger

import callbacks
from callbacks.looker import Looker
from callbacks.run_callback import RunCallback
from experiments.command_line.cli import run_command
from tests.test_command_line import RUN, fit, use

BASES = (Looker, RunCallback)
FORMER = {
    "Charts": "charts.Charts",
    "DurableCheckpointIO": "checkpoint_io.DurableCheckpointIO",
    "History": "history.History",
    "MixingShortcut": "mixing_shortcut.MixingShortcut",
    "PerClass": "per_class.PerClass",
    "Predictions": "predictions.Predictions",
    "ResilientWandbLogger": "wandb_logger.ResilientWandbLogger",
    "Results": "results.Results",
    "SplitTable": "split_table.SplitTable",
    "AttentionMaps": "saliency.Saliency",
    "Resources": "cost.Cost",
}


def classes():
    """Modules of all callbacks and loggers of the package, without base classes."""
    modules = [
        import_module(m.name) for m in pkgutil.walk_packages(callbacks.__path__, "callbacks.")
    ]
    for module in modules:
        for value in vars(module).values():
            own = isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, (Callback, Logger)) and value not in BASES:
                yield value


def test_every_callback_and_logger_has_a_short_path():
    for cls in classes():
        assert getattr(callbacks, cls.__name__) is cls
        assert cls.__name__ in dir(callbacks)
    for name in callbacks.HOMES:
        assert not isabstract(getattr(callbacks, name))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        callbacks.Nothing  # noqa: B018


def test_importing_the_package_imports_neither_torch_nor_lightning():
    heavy = "{'torch', 'pytorch_lightning', 'pandas', 'wandb'}"
    code = f"import sys, callbacks; sys.exit(bool({heavy} & sys.modules.keys()))"
    root = Path(callbacks.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_a_run_recorded_with_former_paths_is_used_and_resumed(lesions):
    fit(lesions)
    record = RUN / "config.yaml"
    text, short = record.read_text(), re.compile(r"(?<=class_path: )callbacks\.(\w+)$", re.M)
    assert set(short.findall(text)) == FORMER.keys()
    record.write_text(short.sub(lambda path: f"callbacks.{FORMER[path[1]]}", text))
    assert not short.search(record.read_text())
    split = RUN / "split.csv"  # whose column has another name, too
    split.write_text(split.read_text().replace(",split\n", ",part\n", 1))
    use(
        "validate",
        "--trainer.callbacks+=callbacks.choose_decision.ChooseDecision",
        "--trainer.callbacks.rule=callbacks.decision.Sensitivity",
    )
    use("test")
    assert json.loads((RUN / "results.json").read_text())["decided"]
    run_command(["fit", f"--config={record}", "--trainer.max_epochs=2"])
    assert pd.read_json(RUN / "metrics.jsonl", lines=True)["epoch"].max() == 1
