"""Checks of W&B credentials and server, and the end of the wandb-core process."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from subprocess import Popen
from threading import Thread
from typing import Any, TypeVar

import wandb
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

LOST = (OSError, wandb.Error, HandleAbandonedError, MailboxClosedError)
PROBE_SECONDS = 3.0
Result = TypeVar("Result")


def has_key() -> bool:
    """Whether wandb finds credentials, without asking the user or the server."""
    # The public wandb.login(prompt=False) would ask the server for the user's name.
    credentials = wbauth.authenticate_session(
        host=wandb.setup().settings.base_url, source="LongDerm", prompt=False, update_session=False
    )
    return credentials is not None


def server_answers(url: str) -> bool:
    """Whether a server that may be W&B's answers within ``PROBE_SECONDS``."""
    # In a thread, because the lookup of a host name has no time-out.
    return bool(_within(PROBE_SECONDS, lambda: _answers(url)))


def shut_down(run: Any = None, exit_code: int = 0, seconds: float = 15.0) -> bool:
    """End a run and wandb-core, by force after a time limit.

    If wandb-core is dead or frozen, wandb's own calls raise, exit or wait forever.

    Args:
        run: The wandb run, if there is one.
        exit_code: Exit code of the run.
        seconds: Time limit in seconds.

    Returns:
        Whether the run ended without force.
    """

    def end() -> bool:
        if run is not None:
            run.finish(exit_code)
        with suppress(Exception, SystemExit):
            wandb.teardown(exit_code)
        return True

    core = _core()
    ended = _within(seconds, end)
    if core is not None:
        core.kill()  # has no effect if it has already ended
        core.wait()
    if not ended:
        _within(1.0, wandb.teardown)  # forgets the dead process
    wandb.run = None
    return bool(ended)


def _core() -> Popen[bytes] | None:
    connection = getattr(wandb_setup._singleton, "_connection", None)
    return getattr(getattr(connection, "_proc", None), "_process", None)


def _within(seconds: float, action: Callable[[], Result]) -> Result | None:
    """The result of ``action``; None if it raises or takes longer, left to its thread."""
    results: list[Result] = []

    def work() -> None:
        with suppress(Exception, SystemExit):
            results.append(action())

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500  # from 500 on, a proxy answers for a server that is down
    except OSError as error:  # wandb may trust a certificate that Python does not
        return isinstance(getattr(error, "reason", None), ssl.SSLError)
    return True
