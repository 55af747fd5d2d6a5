"""The command line accepts what a sweep would run."""

from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from tests.parsed import parsed

ROOT = Path(__file__).parents[1]
SWEEPS = {path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob("experiments/sweeps/*")}


def runs(sweep: dict):
    """Every value of every parameter, combined with the first (or lowest) of the others."""
    choices = {k: p.get("values") or [p["min"], p["max"]] for k, p in sweep["parameters"].items()}
    first = {name: values[0] for name, values in choices.items()}
    for name, values in choices.items():
        yield from (first | {name: value} for value in values)


CASES = [(name, run) for name, sweep in SWEEPS.items() for run in runs(sweep)]
NAMES = [f"{name}{i}" for i, (name, _) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "run"), CASES, ids=NAMES)
def test_its_flags_are_options_of_the_experiment(name, run):
    words = " ".join(map(str, SWEEPS[name]["command"])).split()
    config = ROOT / words[words.index("--config") + 1]
    flags = create_sweep_command_args({"args": {k: {"value": v} for k, v in run.items()}})["args"]
    config = parsed("fit", f"--config={config}", "--name=sweep-x", *flags)
    for key, value in run.items():
        if not key.endswith("criterion"):
            found = config
            for part in key.split("."):
                found = found.get("init_args", found) if part not in found else found
                found = found[part]
            assert found == pytest.approx(value) if isinstance(value, float) else found == value


def test_a_sweep_is_judged_on_validation_and_named_after_its_run():
    for name, sweep in SWEEPS.items():
        assert sweep["metric"]["name"].startswith("val/"), name
        assert "sweep-$WANDB_RUN_ID" in " ".join(map(str, sweep["command"]))
    assert set(SWEEPS) == {"weighting", "spmix"}
