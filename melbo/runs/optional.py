"""Packages that only an extra of melbo installs: `pip install 'melbo[measure]'`."""

from collections.abc import Iterator
from contextlib import contextmanager

from melbo.errors import MissingPackageError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """For the import of a package that comes with an extra: `with needs("formats"): import gguf`.

    Args:
        extra: its name in pyproject.toml.

    Raises:
        MissingPackageError: the package is not installed; the message names it and the extra.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise MissingPackageError(f"this needs {package}: pip install 'melbo[{extra}]'") from error
