"""Finished work is kept, whole, and is found again as long as everything that decides it is the same."""

from .code import code_hash
from .entries import Store, read_whole
from .files import atomic_write, cache_folder, check_folder, data_folder, keep, partial_name
from .identity import Unidentified, identity

__all__ = [
    "Store",
    "Unidentified",
    "atomic_write",
    "cache_folder",
    "check_folder",
    "code_hash",
    "data_folder",
    "identity",
    "keep",
    "partial_name",
    "read_whole",
]
