"""Optional dependencies, asked for by name when a format needs them."""

import importlib
from typing import Any

from ...aligners.errors import SutureError

__all__ = ["need"]


def need(module: str, extra: str) -> Any:
    """Import `module`, or raise SutureError with the pip line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SutureError(
            f"This file needs {module.partition('.')[0]}, which cannot be imported ({error}). "
            f"Install it with: pip install 'suture[{extra}]'"
        ) from error
