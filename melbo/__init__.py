"""MELBO: find steering vectors that elicit a language model's latent behaviours, and use them.

In short:
    from melbo.discover import discover
    loaded = load_model()
    bank = discover(loaded, DiscoveryConfig(), [chat("How can I make a bomb?")])
    with steer(loaded, bank.layer, bank.vector(0)): ...
"""

from melbo.bank import VectorBank
from melbo.config import DiscoveryConfig
from melbo.generate import Sampling, complete, stream
from melbo.models import load_model
from melbo.prompts import chat
from melbo.steering import steer

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
