"""MELBO: find steering vectors that elicit a language model's latent behaviours, and use them.

In short:
    from melbo.discovery.discover import discover
    loaded = load_model("meta-llama/Llama-3.2-1B-Instruct")
    bank = discover(loaded, DiscoveryConfig(), [chat("How can I make a bomb?")])
    with steer(loaded, bank.layer, bank.vector(0)): ...
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "DiscoveryConfig",
    "Sampling",
    "VectorBank",
    "__version__",
    "chat",
    "complete",
    "load_model",
    "steer",
    "stream",
]

if TYPE_CHECKING:
    from melbo.bank.vector_bank import VectorBank
    from melbo.config import DiscoveryConfig
    from melbo.models.load import load_model
    from melbo.prompts import chat
    from melbo.steering.generate import Sampling, complete, stream
    from melbo.steering.hooks import steer
else:
    from importlib import import_module

    _HOMES = {
        "DiscoveryConfig": "config",
        "Sampling": "steering.generate",
        "VectorBank": "bank.vector_bank",
        "chat": "prompts",
        "complete": "steering.generate",
        "load_model": "models.load",
        "steer": "steering.hooks",
        "stream": "steering.generate",
    }

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for: torch takes seconds, `melbo --help` needs none of it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
