"""Checkers for the exercises: `check.ex05_1(your_function)` says *not attempted*, *passed*, or why it fails.

One module a chapter; a checker runs the reader's function on fresh inputs and compares with values worked out another way.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace

from .checker import Verdict, Wrong

__all__ = ["Verdict", "Wrong", "check"]


class Check(SimpleNamespace):
    """The checkers of all chapters, by the name of their exercise."""

    def __getattr__(self, name: str):
        raise AttributeError(f"there is no exercise {name!r}; there are {', '.join(sorted(vars(self)))}")


check = Check()
for _module in iter_modules(__path__):
    if _module.name.startswith("chapter"):
        for _name, _value in vars(import_module(f"{__name__}.{_module.name}")).items():
            if _name.startswith("ex"):
                setattr(check, _name, _value)
