"""A way to a server that can be disturbed, for tests that are not about the proxy itself."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.chaos.ports import free_port
from tests.chaos.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

forgets_sockets = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""For every test with a proxy: it leaves a connection that it cut to the garbage collector."""


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Give a proxy before a port of this machine."""
    with Proxy(free_port(), port) as proxy:
        yield proxy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
