"""Exit codes of a run."""

EXIT_REQUEUE = 75  # EX_TEMPFAIL: the same command resumes; a batch job requeues itself
