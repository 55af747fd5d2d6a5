"""Compare recipes at two commits: ``python -m tests.equality COMMIT [--only "spmix bbn"]``.

Refactoring must not change results. At each commit, every recipe is resolved to its whole
configuration and trained for three steps with tiny networks on synthetic lesions. The command lists
the recipes whose configuration or whose weights differ.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TINY = (
    "--data.split=Balanced",
    "--data.split.test_images=3",
    "--data.split.val_images=2",
    "--data.size=32",
    "--data.batch_size=8",
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)
SMALLER = {"hidden": "network.hidden=32", "queue_size": "queue_size=64", "width": "codec.width=32"}


def describe(lesions: Path, only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Configuration and weights of the recipes at the commit checked out here.

    Args:
        lesions: Folder of the synthetic lesions.
        only: Names of recipes; all if empty.
    """
    import timm

    from lightning_modules.networks import timm_network

    try:
        from experiments.command_line.cli import run_command
    except ImportError:  # up to 0.1.0
        from experiments.__main__ import main as run_command

    create = timm.create_model
    timm_network.load = lambda *_: None  # the tiny networks keep their random weights
    described = {}
    for name, path in sorted(recipes().items()):
        if only and name not in only:
            continue
        config = resolved(run_command, path)
        small = [
            f"--model.{flag}"
            for option, flag in SMALLER.items()
            if has(config["model"]["init_args"], flag.partition("=")[0])
        ]
        timm.create_model = partial(tiny, create)
        flags = [*TINY, "--trainer.fast_dev_run=3", *small]
        command = ["fit", f"--config={path}", f"--data.root={lesions}", *flags]
        weights = run_command(command).model.state_dict()
        timm.create_model = create
        digest = hashlib.sha256()
        for key, value in weights.items():
            digest.update(value.cpu().numpy().tobytes() if value.dtype.itemsize != 2 else b"")
            del key  # renamed modules have the same weights
        described[name] = {"config": config, "weights": digest.hexdigest()}
        print(f"{name}: {digest.hexdigest()[:12]}", file=sys.stderr, flush=True)
    return described


def tiny(create: Any, name: str, pretrained: bool = False, **options: Any) -> Any:
    """A tiny network of the kind of ``name``, by timm's function ``create``, not pretrained."""
    if "vit" in name and "img_size" in options:
        return create("test_vit", pretrained=False, **options)
    small = "test_efficientnet" if "efficientnet" in name else "test_resnet"
    known = {"num_classes", "features_only", "out_indices"} & {*options}
    return create(small, pretrained=False, **{key: options[key] for key in known})


def recipes() -> dict[str, Path]:
    shelves = list(Path("experiments").glob("recipes/*/*.yaml"))
    files = shelves or Path("experiments").glob("*.yaml")
    return {path.stem: path for path in files if path.stem not in ("base", "family")}


def resolved(run_command: Any, path: Path) -> Any:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        run_command(["fit", f"--config={path}", "--print_config"])
    return yaml.safe_load(printed.getvalue())


def has(options: Any, key: str) -> bool:
    """Whether a dotted option is set; ``init_args`` may be left out, as on the command line."""
    for part in key.split("."):
        inner = options.get("init_args", options) if isinstance(options, dict) else {}
        if not isinstance(inner, dict) or part not in inner:
            return False
        options = inner[part]
    return True


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(config, dict) and config:
        return {k: v for key in config for k, v in flat(config[key], f"{prefix}.{key}").items()}
    if isinstance(config, list) and config:
        return {k: v for i, c in enumerate(config) for k, v in flat(c, f"{prefix}.{i}").items()}
    return {prefix.removeprefix("."): config}


def described_at(folder: Path, lesions: Path, only: str) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", str(Path(__file__))]
    command += ["--describe", str(lesions), "--only", only]
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "WANDB_MODE": "disabled",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(before: Any, after: Any, moved: dict[str, str]) -> int:
    """Print what differs; return how many recipes do."""
    differing = 0
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            print(f"{name}: only {'after' if name in after else 'before'}")
            continue
        old, new = flat(before[name]["config"]), flat(after[name]["config"])
        old = {key: moved.get(str(value), value) for key, value in old.items()}
        lines = [
            f"    {key}: {old.get(key)} -> {new.get(key)}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if before[name]["weights"] != after[name]["weights"]:
            lines.append("    other weights after three steps")
        if lines:
            differing += 1
            print("\n".join([f"{name}:", *lines]))
    print(f"{len(after)} recipes, {differing} differ")
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD", help="the commit to compare with")
    parser.add_argument("--moved", type=Path, help="YAML that maps class paths of then to now")
    parser.add_argument("--only", default="", help="recipes, separated by spaces (default: all)")
    parser.add_argument("--describe", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.describe:
        print(json.dumps(describe(options.describe, options.only.split())))
        return
    from datamodules.synthetic import synthesize

    moved = yaml.safe_load(options.moved.read_text()) if options.moved else {}
    with tempfile.TemporaryDirectory() as temporary:
        lesions, then = Path(temporary, "lesions"), Path(temporary, "then")
        synthesize(lesions, images=400)
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", then, options.commit], check=True
        )
        try:
            before = described_at(then, lesions, options.only)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", then], check=True)
        sys.exit(compare(before, described_at(ROOT, lesions, options.only), moved) > 0)


if __name__ == "__main__":
    main()
