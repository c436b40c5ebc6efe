"""Which code decides a result? A room or a module, and all that it imports from the library."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

LIBRARY = Path(__file__).parents[1]


def code_hash(*names: str) -> str:
    """A hash over the meaning of code: comments, docstrings and formatting do not count.

    Args:
        names: of rooms or modules, such as "models" or "experiments.runs". What they import from the library counts too,
            however far away and inside functions, so that no list of modules has to be kept by hand.

    Raises:
        ValueError: the library has no such room or module.
    """
    open_files, known = [], {}
    for name in names:
        found = _files(name.split("."), LIBRARY)
        if not found:
            raise ValueError(f"the library has no room or module '{name}'")
        open_files += found
    while open_files:
        file = open_files.pop()
        if file not in known and LIBRARY / "store" not in file.parents:  # it keeps results, and decides none
            package = (LIBRARY.name, *file.parent.relative_to(LIBRARY).parts)
            known[file], imported = _read(file.read_text(encoding="utf-8"), package)
            open_files += [found for name in imported for found in _files(name.split("."), LIBRARY)]
    digest = hashlib.sha256()
    for file in sorted(known):
        digest.update(f"{file.relative_to(LIBRARY).as_posix()}\n{known[file]}\n".encode())
    return digest.hexdigest()


def _files(name: list[str], folder: Path) -> list[Path]:
    """The module that a dotted name leads to. Where it leads to a package, or to a name that a package passes on: all of it."""
    first, rest = name[0], name[1:]
    if (folder / first).with_suffix(".py").is_file():
        return [(folder / first).with_suffix(".py")]
    if (folder / first).is_dir():
        inside = _files(rest, folder / first) if rest else []
        return inside or sorted((folder / first).rglob("*.py"))
    return []


@cache
def _read(text: str, package: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    """The meaning of a module of a package, and the dotted names that it imports from the library."""
    tree = ast.parse(text)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), ".".join(package))
            imported |= {f"{source}.{alias.name}" for alias in node.names}
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a text or number that stands alone does nothing
            kept = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            setattr(node, "body", kept)  # noqa: B010 (not every node has one)
    root = package[0] + "."
    return ast.dump(tree), frozenset(name.removeprefix(root) for name in imported if name.startswith(root))
