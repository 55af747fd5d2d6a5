"""Commands, code and links in the README and the guides work as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.command_line.cli import run_command
from experiments.recipes import find
from tests.documents import DOCUMENTS, ROOT, blocks
from tests.test_experiments import small_networks  # noqa: F401, a fixture

# Names that readers choose themselves.
CHOSEN = {"archived", "short", "vgg_poly"}
WRITTEN = "tests/lightning_modules/test_poly.py"  # readers of "Add a method" write it
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TINY = ("--data.size=32", "--data.batch_size=8", "--data.num_workers=0",
        "--trainer.accelerator=cpu", "--trainer.fast_dev_run=true",
        "--trainer.enable_progress_bar=false")  # fmt: skip
BALANCED = ("--data.split=Balanced", "--data.split.test_images=3", "--data.split.val_images=2")


def commands(program: str) -> list[str]:
    """All commands of this program in a shell block, without comments."""
    text = "\n".join(block for path in DOCUMENTS for block in blocks(path, "bash"))
    lines = (line.split(" #")[0].strip() for line in text.split("\n"))
    return sorted({line for line in lines if line.startswith(program)})


def variables(command: str) -> dict[str, str]:
    """EXP, ARGS and other variables of a make command."""
    return dict(word.split("=", 1) for word in shlex.split(command)[2:])


@pytest.mark.parametrize("command", commands("make "))
def test_make_knows_every_command(command):
    recipe = variables(command).get("EXP")
    if recipe in CHOSEN:
        command = command.replace(f"EXP={recipe}", "EXP=vgg_ce")
    for name in ("Makefile", "experiments"):
        Path(name).symlink_to(ROOT / name)
    if recipe:
        folder = Path("runs", "vgg_ce" if recipe in CHOSEN else recipe, "seed0")
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
    arguments = ["make", "--dry-run", f"PYTHON={sys.executable}", *shlex.split(command)[1:]]
    outcome = subprocess.run(arguments, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "There is no" not in outcome.stdout


def trains_here(command: str) -> bool:
    options = variables(command).get("ARGS", "")
    return bool(options) and "devices" not in options and variables(command)["EXP"] not in CHOSEN


TRAININGS = [command for command in commands("make train") if trains_here(command)]


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("command", TRAININGS)
def test_options_of_training_commands_are_known(command, lesions):
    options = shlex.split(variables(command)["ARGS"].replace("data/mine", str(lesions)))
    split = () if any("data.split" in option for option in options) else BALANCED
    recipe = find(variables(command)["EXP"])
    small = ("--model.queue_size=64", "--model.network.hidden=32") if "spmix" in recipe.stem else ()
    given = [f"--config={recipe}", f"--data.root={lesions}", *split, *options, *TINY, *small]
    if any("data.split.seed" in option for option in options):
        given += BALANCED[1:]
    assert run_command(["fit", *given]).trainer.global_step == 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_recipes_studies_and_files_that_are_named_exist(path):
    text = path.read_text()
    for name in set(re.findall(r"make (?:train|show|submit) EXP=(\w+)", text)) - CHOSEN:
        assert find(name)
    for name in set(re.findall(r"STUDY=(\w+)", text)):
        assert (ROOT / "experiments" / "studies" / f"{name}.yaml").exists(), name
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_tests_that_are_named_exist(path):
    named = set(re.findall(r"\btests/[\w/]+\.(?:py|sh)\b", path.read_text()))
    assert all((ROOT / name).exists() for name in named - {WRITTEN})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_code_of_documents_can_be_read(path):
    for block in blocks(path, "python"):
        compile(block, path.name, "exec")
    for block in blocks(path, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(tmp_path / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    outcome = subprocess.run(command, capture_output=True, text=True, env=quiet, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "vgg_focal" in (tmp_path / "site" / "recipes.html").read_text()
    assert (
        'href="../recipes.html"' in (tmp_path / "site" / "guides/train_and_resume.html").read_text()
    )
    for page in (tmp_path / "site" / "reference").glob("*.html"):
        assert not re.search(r":(class|func|meth|attr):", page.read_text()), page.name


def test_the_lock_file_agrees_with_the_constraints():
    pins = r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)"
    locked = set(re.findall(pins, (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    constraints = set(re.findall(pins, (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {(n.lower().replace("_", "-"), v) for n, v in constraints} <= locked


def test_each_package_of_the_lock_file_has_its_hashes():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    entries = " ".join(line.removesuffix("\\") for line in lines if not line.startswith("#"))
    packages = re.split(r"\s+(?=[\w.-]+==)", entries.strip())
    pattern = r"[\w.-]+==\S+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+ *"
    assert [package for package in packages if not re.fullmatch(pattern, package)] == []
