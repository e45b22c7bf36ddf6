"""Bootstrap Your Own Latent (Grill et al., 2020): self-supervised learning from any images.

    import byol
    result = byol.pretrain("photos/", out="runs/photos")
    encoder = byol.load_encoder("runs/photos")   # images in [0, 1] to features

Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from byol.api import convert as convert
    from byol.api import embed as embed
    from byol.api import evaluate as evaluate
    from byol.api import load_encoder as load_encoder
    from byol.api import pretrain as pretrain
    from byol.learner import Byol as Byol

_HOMES = {
    "Byol": "byol.learner",
    "pretrain": "byol.api",
    "convert": "byol.api",
    "embed": "byol.api",
    "evaluate": "byol.api",
    "load_encoder": "byol.api",
}
_MODULES = ("losses", "schedules", "ops", "optim", "metrics", "views", "recipes", "config", "api")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"byol.{name}")
    raise AttributeError(f"module 'byol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
