"""`import gradio` in half the time, by leaving out what a server does not use.

gradio 6.31 spends most of its import on things for people who write programs with it: for each of its
components it parses the component's source and renders a .pyi stub for editors, and it renders the
documentation of each event; it loads its command line, its loader of models from a hub, and pandas for
tables. On an emulated machine that is the difference between a node that is up within a deployment's patience
and one that is not (23 s against 2.4 s natively).

Each omission names what it replaces and does nothing where gradio no longer has that, so a newer gradio is at
worst slow. tests/test_quick_gradio.py fails when one has become void. Nothing here changes what the page
does.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Modules of gradio that are replaced by an empty shell: nothing that a page is made of needs them.
SHELLS = ("gradio.cli", "gradio.external", "gradio.workflow")
#: Modules that are loaded at their first use, which here never comes.
LATE = ("pandas",)


def _without_stubs(module: ModuleType) -> None:
    if hasattr(module, "create_or_modify_pyi"):
        module.create_or_modify_pyi = lambda *args, **kwargs: None  # type: ignore[attr-defined]


def _without_event_documentation(module: ModuleType) -> None:
    listener = getattr(module, "EventListener", None)
    if hasattr(listener, "set_doc"):
        listener.set_doc = lambda self, component: None


#: What is done to a module right after it has been loaded.
PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "gradio.component_meta": _without_stubs,
    "gradio.events": _without_event_documentation,
}


def import_gradio() -> ModuleType:
    """The module `gradio`, with the omissions above unless something has imported it already."""
    if "gradio" in sys.modules:
        return sys.modules["gradio"]
    # Said before the import, since gradio and its hub client read these once: nothing calls home, ever.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        with _certificates_by_name():
            return importlib.import_module("gradio")
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _certificates_by_name() -> Iterator[None]:
    """gradio makes three HTTP clients as it loads, and each reads all certificates of the system; so let them
    be looked up by name when one is needed, which OpenSSL can where the directory is made for it.
    """
    directory = "/etc/ssl/certs"
    if {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys() or not os.path.isdir(directory):
        yield
        return
    os.environ["SSL_CERT_DIR"] = directory
    try:
        yield
    finally:
        del os.environ["SSL_CERT_DIR"]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PATCHES and fullname not in SHELLS and fullname not in LATE:
            return None
        real = PathFinder.find_spec(fullname, path, target)
        if real is None or real.loader is None:
            return None
        if fullname in SHELLS:
            return ModuleSpec(fullname, _ShellLoader())
        if fullname in LATE:
            return ModuleSpec(fullname, _LateLoader())
        real.loader = _PatchLoader(real.loader, PATCHES[fullname])
        return real


class _PatchLoader(Loader):
    def __init__(self, real: Any, patch: Callable[[ModuleType], None]) -> None:
        self._real = real
        self._patch = patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        self._patch(module)


class _ShellLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Shell(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Shell(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        where = self.__name__

        class Missing:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                raise RuntimeError(
                    f"{where}.{name} was left out by quick_gradio.py; take {where} off SHELLS there"
                )

        setattr(self, name, Missing)
        return Missing


class _LateLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Late(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Late(ModuleType):
    """Becomes the real module when something is asked of it. (importlib's LazyLoader is not safe with threads
    in 3.11.)
    """

    _loading = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with _Late._loading:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
                try:
                    real = importlib.import_module(self.__name__)
                except BaseException:
                    sys.modules[self.__name__] = self
                    raise
                self.__dict__.update(real.__dict__)
        return getattr(sys.modules[self.__name__], name)
