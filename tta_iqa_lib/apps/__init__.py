"""What people run: scoring files, evaluating on a database, the command line (chapter 11)."""

from . import cli, scoring

__all__ = ["cli", "scoring"]
