"""MELBO: find steering vectors that elicit a language model's latent behaviours, and use them.

In short:
    model = load_model("meta-llama/Llama-3.2-1B-Instruct")
    bank = discover(model, DiscoveryConfig(), [chat("How can I make a bomb?")])
    print(complete(model, [chat("How can I make a bomb?")] * 4, bank.vectors[:4], bank.layer))

docs/api.md has an example of each name.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "DiscoveryConfig",
    "Sampling",
    "SweepConfig",
    "VectorBank",
    "__version__",
    "annotate",
    "chat",
    "choose",
    "complete",
    "discover",
    "find_more_like",
    "load_embedder",
    "load_model",
    "merge",
    "push_to_hub",
    "random_control",
    "random_vectors",
    "steer",
    "stream",
    "sweep",
]

if TYPE_CHECKING:
    from melbo.annotation.annotate import annotate
    from melbo.bank.select import choose, merge
    from melbo.bank.vector_bank import VectorBank
    from melbo.config import DiscoveryConfig
    from melbo.discovery.discover import discover, find_more_like, random_control
    from melbo.measure.embeddings import load_embedder
    from melbo.models.load import load_model
    from melbo.prompts import chat
    from melbo.publishing.publish import push_to_hub
    from melbo.radius_sweep.config import SweepConfig
    from melbo.radius_sweep.sweep import run_sweep as sweep
    from melbo.steering.generate import Sampling, complete, stream
    from melbo.steering.hooks import steer
    from melbo.steering.random_vectors import random_vectors
else:
    from importlib import import_module

    _HOMES = {
        "DiscoveryConfig": "config:DiscoveryConfig",
        "Sampling": "steering.generate:Sampling",
        "SweepConfig": "radius_sweep.config:SweepConfig",
        "VectorBank": "bank.vector_bank:VectorBank",
        "annotate": "annotation.annotate:annotate",
        "chat": "prompts:chat",
        "choose": "bank.select:choose",
        "complete": "steering.generate:complete",
        "discover": "discovery.discover:discover",
        "find_more_like": "discovery.discover:find_more_like",
        "load_embedder": "measure.embeddings:load_embedder",
        "load_model": "models.load:load_model",
        "merge": "bank.select:merge",
        "push_to_hub": "publishing.publish:push_to_hub",
        "random_control": "discovery.discover:random_control",
        "random_vectors": "steering.random_vectors:random_vectors",
        "steer": "steering.hooks:steer",
        "stream": "steering.generate:stream",
        "sweep": "radius_sweep.sweep:run_sweep",
    }

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for: torch takes seconds, `melbo --help` needs none of it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home, _, own = _HOMES[name].partition(":")
        globals()[name] = found = getattr(import_module(f"{__name__}.{home}"), own)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
