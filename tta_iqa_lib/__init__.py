"""Test-time adaptation for blind image quality assessment: the library of the book.

The public names stand in `__init__.pyi`; each is imported when it is first used, so that `import tta_iqa_lib` costs nothing.
"""

import lazy_loader

__version__ = "0.3.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
