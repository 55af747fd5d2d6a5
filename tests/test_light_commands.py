"""Commands that train nothing answer at once, and training says at once that it has begun."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import datamodules
import lightning_modules
from tests.benchmarks.comparison import draw_run

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "pytorch_lightning", "torchvision", "wandb", "kornia", "onnx", "timm", "cv2",
         "scipy", "scipy.stats", "pandas")  # fmt: skip
LIGHT = (
    ["--help"],
    ["recipes"],
    ["train", "--help"],
    ["study", "--help"],
    ["study", "finished.yaml"],
)
# With the heavy modules that they import.
TABLES = {
    "status": ["pandas"],
    "compare --resamples=10": ["scipy", "pandas"],
    "results finished.yaml": ["scipy", "pandas"],
}
# Imports add up over the commands, so that the first command that imports too much is named.
PROGRAM = """
import json, sys
from experiments.__main__ import main
heavy, commands = json.loads(sys.argv[1])
for command in commands:
    sys.argv = ["experiments", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    print(command, [name for name in heavy if name in sys.modules], file=sys.stderr)
"""
BEGINS = """
import sys
from experiments.__main__ import main
name, *sys.argv = sys.argv
sys.modules[sys.argv[0]] = None  # importing it raises an ImportError
sys.argv = ["experiments", *sys.argv[1:]]
main()
"""


@pytest.fixture
def finished():
    """A finished run of the study finished.yaml."""
    Path("finished.yaml").write_text("seeds: [0]\nrows: {ce: {experiment: vgg_ce}}\n")
    return draw_run(Path("runs/finished-ce/seed0"), seed=0, images=70)


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_light_commands_import_nothing_heavy(finished):
    done = run(PROGRAM, json.dumps([HEAVY, LIGHT]))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"{command} []" for command in LIGHT]


def test_tables_of_runs_import_no_torch(finished):
    progress = {
        "epoch_progress": {"current": {"processed": 3}},
        "epoch_loop.batch_progress": {"current": {"ready": 9, "completed": 9}, "is_last_batch": 1},
    }
    checkpoint = {"global_step": 9, "loops": {"fit_loop": progress}, "weight": torch.zeros(2)}
    torch.save(checkpoint, finished / "last.ckpt")
    Path("docs").mkdir()
    Path("docs/results.md").write_text("<!-- results: finished -->\n<!-- end -->\n")
    commands = [command.split() for command in TABLES]
    done = run(PROGRAM, json.dumps([HEAVY, commands]))
    assert done.returncode == 0, done.stderr
    assert "3/30" in done.stdout
    assert done.stderr.splitlines() == [f"{c.split()} {TABLES[c]}" for c in TABLES]


def test_training_says_that_it_has_begun_before_its_imports():
    for command in (["train", "vgg_ce"], ["fit", "--config=vgg_ce"]):
        done = run(BEGINS, "filelock", *command)
        assert done.stderr.startswith("Loading PyTorch ...\n")
        assert "import of filelock halted" in done.stderr


def test_a_recipe_is_printed_before_the_imports_that_explain_it():
    done = run(BEGINS, "torch", "show", "vgg_ce")
    assert "criterion: torch.nn.CrossEntropyLoss" in done.stdout
    assert "'torch' is not a package" in done.stderr


@pytest.mark.parametrize("package", [datamodules, lightning_modules])
def test_names_of_lazy_packages_are_those_of_their_modules(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    assert {*package.HOMES} <= {*package.__all__}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        package.Nothing  # noqa: B018
