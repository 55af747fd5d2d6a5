"""Options of a command as it takes them, without building anything."""

from typing import Any

from experiments.command_line.cli import ExperimentCLI, run_command


class Parsed(ExperimentCLI):
    """The command line up to its options."""

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


def parsed(*arguments: str) -> dict[str, Any]:
    """Options as nested dictionaries; exits with a message where the command would."""
    cli = run_command(arguments, Parsed)
    options: dict[str, Any] = cli.config[arguments[0]].as_dict()
    return options
