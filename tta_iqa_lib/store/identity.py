"""What tells one model, file or setting from another, in this process and in the next."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # else in the functions, as PyTorch takes two seconds
    from torch import Tensor, nn

PLAIN = (types.NoneType, types.EllipsisType, bool, int, float, complex, str, bytes)
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Unidentified(TypeError):
    """Nothing tells a value from another of its kind; what depends on it cannot be kept."""


def identity(value) -> str:
    """A hash of a value's meaning, the same in every process; 64 hexadecimal digits.

    * Plain data, tensors, arrays: type, shape and content. A dictionary or set: whatever its order.
    * A path: the file it leads to, its size and the time of its last change, however the path is spelt.
    * A module: classes, parameters, buffers (persistent or not), hooks, and every other attribute of each of its parts.
    * A function or class: by its name where it was installed; one's own by its code, and by the values it refers to.
    * Other objects: what `pickle` would take along.

    Raises:
        Unidentified: the value holds something else, such as an open file.
    """
    try:
        return _Identities()(value).hex()
    except RecursionError as error:
        raise Unidentified("it is nested too deeply") from error


class _Identities:
    """Digests of values that refer to one another, each computed once."""

    def __init__(self):
        self.known: dict[int, bytes] = {}
        self.alive: list = []  # so that no number of `id` is used again

    def __call__(self, value) -> bytes:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, PLAIN):
            return _hash(type(value).__name__, repr(value))
        if id(value) not in self.known:
            self.alive.append(value)
            self.known[id(value)] = _hash("inside itself")  # a function that calls itself, say
            self.known[id(value)] = self._compute(value)
        return self.known[id(value)]

    def all(self, *values) -> bytes:
        return _hash(*map(self, values))

    def unordered(self, values: Iterable) -> bytes:
        return _hash(*sorted(map(self, values)))

    def _compute(self, value) -> bytes:
        from torch import Tensor, nn

        kind = type(value).__name__
        match value:
            case Path():
                return self.all(kind, *_file(value))
            case Tensor():
                return _tensor(value)
            case np.ndarray() if value.dtype != object:
                return _hash(kind, value.dtype.str, str(value.shape), _bytes(value))
            case nn.Module():
                return self._module(value)
            case list() | tuple():
                return self.all(kind, *value)
            case dict():
                return _hash(kind, self.unordered(value.items()))
            case set() | frozenset():
                return _hash(kind, self.unordered(value))
            case types.CodeType():
                return self.all(kind, value.co_code, value.co_names, value.co_varnames, value.co_consts)
            case types.FunctionType():
                return self._function(value)
            case types.MethodType():
                return self.all(kind, value.__func__, value.__self__)
            case types.BuiltinFunctionType():
                owner = None if isinstance(value.__self__, types.ModuleType) else value.__self__
                return self.all(kind, value.__module__, value.__qualname__, owner)
            case type():
                return self._class(value)
            case types.ModuleType():
                file = getattr(value, "__file__", None)
                return self.all(kind, _package(value.__name__) or [value.__name__, file and Path(file).read_bytes()])
            case property():
                return self.all(kind, value.fget, value.fset, value.fdel)
            case staticmethod() | classmethod():
                return self.all(kind, value.__func__)
            case functools.cached_property():
                return self.all(kind, value.func)
        return self._pickled(value)

    def _module(self, module: nn.Module) -> bytes:
        digests, first, machinery = [], {}, _machinery()
        tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        for name, tensor in tensors:  # two names of one tensor are adapted together
            digests.append(self.all(name, first.setdefault(id(tensor), name), tensor))
        for name, part in module.named_modules(remove_duplicate=False):
            own = vars(part)
            settings = {key: own[key] for key in own if key not in machinery}
            hooks = [list(own[key].values()) for key in HOOKS if key in own]
            digests.append(self.all(name, type(part), settings, hooks))
        return _hash("module", *digests)

    def _function(self, function: types.FunctionType) -> bytes:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        bound = [cells, function.__defaults__, function.__kwdefaults__, vars(function)]
        if package := _package(function.__module__):
            return self.all("function", package, function.__module__, function.__qualname__, bound)
        used = _globals(function.__code__)
        values = {name: function.__globals__[name] for name in used if name in function.__globals__}
        return self.all("function", function.__code__, values, bound)

    def _class(self, kind: type) -> bytes:
        name = [kind.__module__, kind.__qualname__]
        if package := _package(kind.__module__):
            return self.all("class", package, name)
        members = {
            key: member
            for key, member in vars(kind).items()
            if not key.startswith("_abc") and (callable(member) or not key.startswith("__"))
        }
        return self.all("class", kind.__qualname__, kind.__bases__, members)

    def _pickled(self, value) -> bytes:
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise Unidentified(f"nothing tells one {type(value).__qualname__} from another") from error
        if isinstance(reduced, str):
            return self.all("global", type(value), reduced)
        make, arguments, *state = reduced
        return self.all("object", make, arguments, *(list(s) if hasattr(s, "__next__") else s for s in state))


@functools.cache
def _machinery() -> frozenset[str]:
    """What every module carries; its tensors and parts are listed by name, its hooks are looked at apart."""
    from torch import nn

    return frozenset(vars(nn.Module())) - {"training"} | {"_compiled_call_impl"}


def _hash(*parts: str | bytes | memoryview) -> bytes:
    """Of texts, bytes and arrays of bytes."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _tensor(tensor: Tensor) -> bytes:
    from torch import uint8

    try:
        content = tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()
    except Exception as error:  # sparse, quantised, without data
        raise Unidentified(f"a tensor of layout {tensor.layout} on '{tensor.device}' has no plain content") from error
    return _hash("tensor", str(tensor.dtype), str(tuple(tensor.shape)), tensor.device.type, content.data)


def _file(path: Path) -> tuple:
    place = path.resolve()
    if place.is_dir():
        raise Unidentified(f"a folder, '{path}', may change unnoticed: name its files")
    if not place.exists():
        return str(place), None
    about = place.stat()
    return str(place), about.st_size, about.st_mtime_ns


def _package(module: str | None) -> str | None:
    """Name and version of the installed package that a module belongs to; None for one's own code, which may change."""
    top = (module or "builtins").partition(".")[0]
    if top == __name__.partition(".")[0] or top in sys.stdlib_module_names:
        return top  # the library's own code is hashed by `code_hash`
    package = sys.modules.get(top)
    file = getattr(package, "__file__", None) or ""
    if package and {"site-packages", "dist-packages"} & set(Path(file).parts):
        return f"{top} {getattr(package, '__version__', '')}"
    return None


def _globals(code: types.CodeType) -> set[str]:
    """The global names that a function reads, in the functions inside it, too."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals(part) for part in code.co_consts if isinstance(part, types.CodeType)))
