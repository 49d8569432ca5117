"""What can go wrong, each with what to do about it.

Every error that a user can cause derives from :class:`CardiacCTError`; the command line prints its text as
one line and exits with :attr:`CardiacCTError.exit_code`. Messages name the value, the reason and the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class CardiacCTError(Exception):
    """Base of all errors caused by input, configuration or files; the message is meant for a person."""

    exit_code: int = 1


class UsageError(CardiacCTError):
    """An argument cannot be used as given."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in a list of known names; the message offers the nearest and the whole list."""

    def __init__(self, what: str, name: str, known: Sequence[str]) -> None:
        near = get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"There is no {what} called {name!r}.{hint} Known: {', '.join(known) or 'none'}.")
        self.name = name
        self.known = tuple(known)


class ImageError(CardiacCTError):
    """An image cannot be read or is not a CT this package can work on."""


class WeightsError(CardiacCTError):
    """Weights are missing, damaged, of another architecture or not safe to load."""


class ConfigError(UsageError):
    """A configuration (model, cohort, training, federation) is inconsistent or out of range."""


class DataError(CardiacCTError):
    """A data list, label map or landmark file does not fit its purpose."""


class OutputError(CardiacCTError):
    """A result could not be written; nothing half-written is left behind."""


class MissingExtraError(CardiacCTError):
    """An optional dependency is needed; the message says which extra to install."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional dependency. Install it: {install_command(extra)}")
        self.extra = extra


def install_command(extra: str) -> str:
    """How to install an extra and keep the torch that is there, which timm's torchvision would replace by its own."""
    from importlib import metadata

    try:
        torch = f' "torch=={metadata.version("torch")}"'
    except metadata.PackageNotFoundError:
        torch = ""
    return f'pip install "cardiac-ct-fm[{extra}]"{torch} (or in a clone with make\'s .venv: make extras EXTRAS={extra})'
