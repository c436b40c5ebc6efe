"""`pytest --nbval book` is for the chapters: `book/tools.py lint` names its folder, and assignments have no stored outputs."""

import nbval.plugin

from workshop.outputs import Cell

collect_ignore = ["lint", "assignments"]
nbval.plugin.IPyNbCell = Cell  # by this name nbval makes a notebook's cells
