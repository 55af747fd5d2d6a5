"""The command lines, whose output no locale can end: what it lacks is printed as an escape."""

import io
import sys

if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")
