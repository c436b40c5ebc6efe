"""Compare a fresh run with the stored outputs: words exactly, numbers to a unit of their last digit.

Processors and numbers of threads round differently: what one prints as 0.83, another may print as 0.84. A cell may allow
more units under `nbval_units` in its metadata, and says why under `nbval_reason`.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import wraps

# What rounding can move: a number with decimals or an exponent, or a percentage. Counts, versions and digits in a name
# are words. The spaces before a number belong to it, since a sign takes one's place.
NUMBER = re.compile(
    r" *(?<![\w.])[-+−]?(?:\d+\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\d+(?=\s?%))(?!\w|\.\d)"
)


def agree(stored: str, fresh: str, units: int = 1) -> bool:
    """Same words, as many numbers, and each within `units` of the finer one's last digit?"""
    if NUMBER.split(stored) != NUMBER.split(fresh):
        return False
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(fresh), strict=True)
    return all(near(_decimal(a), _decimal(b), units) for a, b in pairs)


def near(a: Decimal, b: Decimal, units: int) -> bool:
    last = min(int(n.as_tuple().exponent) for n in (a, b))
    return abs(a - b) <= units * Decimal(1).scaleb(last)


def _decimal(number: str) -> Decimal:
    return Decimal(number.strip().replace("−", "-"))


class Printed(str):
    """A text that is unequal to another only if the two do not `agree`: nbval asks with `!=`."""

    units = 1

    def __ne__(self, other: object) -> bool:
        return not (isinstance(other, str) and agree(self, other, self.units))


def with_numbers(sanitize: Callable) -> Callable:
    """nbval's `IPyNbCell.sanitize`, whose texts compare as `Printed`."""

    @wraps(sanitize)
    def sanitized(cell, s):
        text = sanitize(cell, s)
        if isinstance(text, str):
            text = Printed(text)
            text.units = cell.cell.metadata.get("nbval_units", 1)
        return text

    return sanitized
