"""LongDerm's commands: ``python -m experiments COMMAND [options]``."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "fit": "command_line.cli",
    "validate": "command_line.cli",
    "test": "command_line.cli",
    "predict": "command_line.cli",
    "study": "running.study",
    "submit": "running.slurm",
    "status": "running.status",
    "compare": "compare.__main__",
    "export": "use.export",
    "ensemble": "use.ensemble",
    "card": "use.card",
    "dashboard": "use.dashboard",
}


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    module = COMMANDS.get(command, "command_line.cli")
    if module != "command_line.cli":
        sys.argv[:2] = [f"experiments {command}"]
    import_module(f"experiments.{module}").main()


if __name__ == "__main__":
    main()
