"""The Makefile passes names to the programs as typed."""

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = [
    "photos",
    "my photos",
    "Läsionen 皮肤",
    "a  b",
    "it's",
    'say "a"',
    "a;b",
    "a&b (1)",
    "a,b",
    "`a`",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("verb", "variable", "option"),
    [
        ("data", "SRC", "--src"),
        ("adopt", "SRC", "adopt"),
        ("evaluate", "ON", "--on"),
        ("evaluate", "MAPPING", "--mapping"),
        ("predict", "IN", "--images"),
        ("predict", "FORMAT", "--format"),
        ("ensemble", "IN", "--folder"),
        ("aggregate", "IN", "--folder"),
        ("compare", "BASELINE", "--baseline"),
        ("gpu", "WEIGHTS", "--weights"),
    ],
)
def test_names_are_quoted(tmp_path, verb, variable, option, name):
    (tmp_path / "runs/x/seed0").mkdir(parents=True)
    (tmp_path / "runs/x/seed0/config.yaml").touch()
    command = ["make", "-n", "-f", str(ROOT / "Makefile"), verb, "EXP=x", "PYTHON=python"]
    done = subprocess.run(
        [*command, f"{variable}={name}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    words = shlex.split(done.stdout.replace("\\\n", " "))
    assert words[words.index(option) + 1] == name
