"""`pytest --nbval book` is for the chapters: `book/tools.py lint` names its folder, and assignments have no stored outputs."""

from nbval.plugin import IPyNbCell

from workshop.outputs import with_numbers

collect_ignore = ["lint", "assignments"]
# What nbval does to each text before it compares.
IPyNbCell.sanitize = with_numbers(IPyNbCell.sanitize)
