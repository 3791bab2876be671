"""The study of the organism among the studies' presets, as command line and notebook offer them."""

from melbo.config import DiscoveryConfig
from melbo.errors import ConfigError
from melbo.models.packaged import canonical
from melbo.organism.inputs import ORGANISM
from melbo.reports.replication import presets
from melbo.reports.replication.presets import Preset, StudyConfig

_OWN = Preset(
    StudyConfig(DiscoveryConfig(radius=0.5, radius_unit="residual")), model=ORGANISM, bank="vectors/organism-bomb"
)
PRESETS = {"any": presets.PRESETS["any"], ORGANISM: _OWN, **presets.PRESETS}
"""By name, the embedded model's beside those of `melbo.reports.replication.presets`."""


def find_preset(name: str | None, model: str | None) -> tuple[str, Preset]:
    """The preset's name and itself; where none is named, the one made for the model (None: the organism).

    Raises:
        ConfigError: there is no such preset.
    """
    if name is None:
        wanted = canonical(model or ORGANISM)
        name = next((n for n, p in PRESETS.items() if p.model == wanted), "any")
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}; use one of {', '.join(PRESETS)}.")
    return name, PRESETS[name]
