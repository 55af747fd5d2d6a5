"""Commands that train nothing answer at once, and training says at once that it has begun."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "pytorch_lightning", "torchvision", "wandb", "kornia", "onnx", "scipy", "timm")
LIGHT = (
    ["--help"],
    ["recipes"],
    ["train", "--help"],
    ["study", "--help"],
    ["study", "finished.yaml"],
)
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
sys.modules["filelock"] = None  # what the command line imports first raises an ImportError
sys.argv = ["experiments", *sys.argv[1:]]
main()
"""


def test_light_commands_import_nothing_heavy():
    Path("finished.yaml").write_text("seeds: [0]\nrows: {ce: {experiment: vgg_ce}}\n")
    folder = Path("runs/finished-ce/seed0")
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([HEAVY, LIGHT])],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"{command} []" for command in LIGHT]


def test_training_says_that_it_has_begun_before_its_imports():
    for command in (["train", "vgg_ce"], ["fit", "--config=vgg_ce"]):
        done = subprocess.run(
            [sys.executable, "-c", BEGINS, *command],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stderr.startswith("Loading PyTorch ...\n")
        assert "import of filelock halted" in done.stderr
