"""What people learn with: figures and players, exercises and their checkers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["course", "display"])
