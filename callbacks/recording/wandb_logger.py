"""W&B logging that never stops or blocks a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal

import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from callbacks.errors import reason
from callbacks.recording import wandb_service
from callbacks.recording.metrics_file import best_of, best_values
from callbacks.run_folder import RunFolder

GRACE_SECONDS = 15.0  # on top of wandb-core's own time-out
ONLY_HISTORY = "metrics are recorded in metrics.jsonl only"


class ResilientWandbLogger(WandbLogger):
    """A WandbLogger whose failures never stop or block a run.

    The mode is chosen once, at first use: ``mode`` if it is not "auto", else WANDB_MODE or
    ``wandb offline`` if set, else online if there is an API key and the server answers within three
    seconds. If online logging fails, the run is logged offline under the same id, and
    ``wandb sync`` joins the two. If wandb dies during training, one warning is printed. Local files
    are in ``wandb/`` of the run folder.

    Validation metrics are plotted over epochs, with their best value in the summary. They are
    defined one by one: a glob with a summary would also match images and tables, and hide them.

    Args:
        project: W&B project; if None, WANDB_PROJECT or "longderm". A sweep sets its own.
        name: Name of the run on W&B, unless WANDB_NAME is set.
        id: Id by which W&B recognizes a resumed run. In a sweep, the agent's id is used.
        group: Group shared by the seeds of a recipe, unless WANDB_RUN_GROUP is set.
        job_type: Label of the kind of job, such as "train".
        tags: Labels to filter by.
        save_dir: Run folder.
        mode: "auto" as above, or a mode of W&B; "online" skips the search for a server, but still
            falls back on offline logging.
        finish_timeout: Time limit for the upload at the end of a run, at least 0, in seconds.
    """

    _running: ClassVar[ResilientWandbLogger | None] = None

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        id: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        save_dir: str | Path = ".",
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        finish_timeout: float = 60.0,
    ) -> None:
        in_sweep = os.environ.keys() & {"WANDB_RUN_ID", "WANDB_SWEEP_ID"}
        super().__init__(
            project=project or os.environ.get("WANDB_PROJECT") or "longderm",
            name=os.environ.get("WANDB_NAME") or name,
            id=None if in_sweep else id,
            group=os.environ.get("WANDB_RUN_GROUP") or group,
            job_type=job_type,
            tags=tags,
            save_dir=save_dir,
        )
        del self._wandb_init["anonymous"]  # deprecated: wandb warns about any value
        self.mode: str = mode
        self.finish_timeout = finish_timeout
        self._best: dict[str, float] = {}

    @property
    def version(self) -> str:
        """Empty, because progress bars would show the end of the id as ``v_num``."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, started at first use. Calls on it may raise; prefer the methods below."""
        if self._experiment is None:
            self._start()
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with self._surviving():
            self._define(metrics)
            super().log_metrics(metrics, step)
            self._keep_best(metrics)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        with self._surviving():
            super().log_hyperparams(*args, **kwargs)

    @rank_zero_only
    def log_media(self, media: Mapping[str, Any], step: int | None = None) -> None:
        """Log images, tables and charts of wandb, by name."""
        self.log_metrics(media, step)

    @rank_zero_only
    def log_artifact(self, artifact: wandb.Artifact) -> None:
        with self._surviving():
            self.experiment.log_artifact(artifact)

    @rank_zero_only
    def keep_files(self, files: Iterable[Path], base: Path) -> None:
        """Upload those of the files that exist, under their paths relative to ``base``."""
        with self._surviving(), redirect_stderr(StringIO()):  # wandb prints a line for each file
            for file in filter(Path.exists, files):
                self.experiment.save(str(file), str(base), policy="now", glob=False)

    @rank_zero_only
    def update_config(self, config: Mapping[str, Any]) -> None:
        with self._surviving():
            self.experiment.config.update(dict(config), allow_val_change=True)

    @rank_zero_only
    def add_tag(self, tag: str) -> None:
        with self._surviving():
            self.experiment.tags = tuple({*(self.experiment.tags or ()), tag})

    @rank_zero_only
    def mark_preempting(self) -> None:
        with self._surviving():
            self.experiment.mark_preempting()

    @classmethod
    def finish(cls, exit_code: int = 0) -> None:
        """End this process's run, if there is one, in bounded time and without raising.

        Args:
            exit_code: Exit code of the run, 0 for success. While an error is being raised, 0
                counts as 1.
        """
        logger, ResilientWandbLogger._running = ResilientWandbLogger._running, None
        if logger is None:
            return
        code = exit_code or int(not isinstance(sys.exception(), SystemExit | None))
        run, logger._experiment, logger._best = logger._experiment, None, {}
        if not wandb_service.shut_down(run, code, logger.finish_timeout + GRACE_SECONDS):
            rank_zero_warn("W&B could not finish the run: its last minutes may be missing.")

    def _start(self) -> None:
        self.finish()  # wandb would join two runs of one process
        ResilientWandbLogger._running = self
        folder = Path(str(self.save_dir), "wandb").absolute()
        if "WANDB_DIR" in os.environ:
            rank_zero_info(f"WANDB_DIR is ignored: W&B writes to {folder}.")
        os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # else tables fill the home directory
        for mode, fallback in (
            (None, "logging offline under the same id"),
            ("offline", ONLY_HISTORY),
        ):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return self._init(mode or self._resolve_mode())
            except Exception as error:  # of any kind: none is worth a run
                rank_zero_warn(f"W&B: {reason(error)}; {fallback}.")
                wandb_service.shut_down()  # else wandb-core refuses the id as in use
        self._experiment = wandb.init(mode="disabled")

    def _resolve_mode(self) -> str:
        if self.mode != "auto":
            return self.mode
        settings = wandb.setup().settings
        if "WANDB_MODE" in os.environ or settings.mode != "online":
            return str(settings.mode)
        if not wandb_service.has_key():
            rank_zero_info(
                "W&B logs offline, because there is no API key: run `wandb login` to store one."
            )
            return "offline"
        if not wandb_service.server_answers(settings.base_url):
            raise ConnectionError(f"{settings.base_url} does not answer")
        return "online"

    def _init(self, mode: str) -> None:
        if mode == "online" and not wandb_service.has_key():  # wandb would prompt for one
            raise wandb.Error("there is no API key, run `wandb login` to store one")
        settings = wandb.Settings(
            console="off",  # else progress bars fill it; the terminal or Slurm keeps the output
            finish_timeout=self.finish_timeout,
            init_timeout=60.0,
            quiet=True,  # our own tables summarize the run
            x_transaction_log_flush_interval=1.0,  # seconds of metrics that a kill loses
        )
        self._wandb_init.update(mode=mode, settings=settings)
        self._experiment = None
        self._experiment = super().experiment
        self.mode = mode

    def _define(self, metrics: Mapping[str, Any]) -> None:
        new = {key for key in metrics if key.startswith("val/")} - self._best.keys()
        scalars = {key for key in new if isinstance(metrics[key], Real)}
        earlier = best_values(RunFolder(str(self.save_dir)).metrics_file) if scalars else {}
        for key in scalars:
            self.experiment.define_metric(key, step_metric="epoch", summary=best_of(key).__name__)
            self._best[key] = earlier.get(key, metrics[key])

    def _keep_best(self, metrics: Mapping[str, Any]) -> None:
        """Restore the best value if it is an earlier one, which a resumed wandb run forgets."""
        for key in metrics.keys() & self._best.keys():
            best, value = best_of(key), metrics[key]
            if best(value, self._best[key]) == value:
                self._best[key] = value
            else:
                self.experiment.summary.update({key: {best.__name__: self._best[key]}})

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Replace a lost run by a disabled one, which ignores all calls."""
        try:
            yield
        except wandb_service.LOST as error:
            rank_zero_warn(f"W&B is lost: {reason(error)}; {ONLY_HISTORY}.")
            self._experiment = wandb.init(mode="disabled")
