"""Finished work is kept, whole, and is found again as long as the code that made it means the same (chapter 9)."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """Where built splits and finished runs are kept; set TTA_IQA_CACHE to move it. Deleting it is always safe."""
    return Path(os.environ.get("TTA_IQA_CACHE") or user_cache_dir("tta_iqa_lib", appauthor=False))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to. What is there when the block ends well becomes `path`: it never holds half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{os.getpid()}-{path.name}")  # two processes may write at once
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def code_hash(*modules) -> str:
    """A hash over the meaning of some modules: comments, docstrings and formatting do not count."""
    digest = hashlib.sha256()
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()
