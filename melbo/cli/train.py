"""`melbo train`: find a bank of steering vectors and save it."""

from dataclasses import replace
from typing import Annotated, Literal

import typer

from melbo.cli.arguments import ANYWHERE, Force, Model, NewBank, OtherModel, Prompts, SaeFolder, System, Where
from melbo.cli.common import check_out, report, run_training, say, say_model
from melbo.cli.defaults import MODEL, PROMPT, SAE, SAE_HELP, SYSTEM
from melbo.cli.options import Fields
from melbo.config import DiscoveryConfig
from melbo.discovery.attention_sink import place_layers, told
from melbo.discovery.discover import discover
from melbo.discovery.usable_scale import with_usable_scale
from melbo.errors import ConfigError
from melbo.inspect.sae.files import load_sae
from melbo.prompts import chat
from melbo.runs.settings import explain

BASE = DiscoveryConfig()
AUTO: Literal["auto"] = "auto"
Radius = Annotated[str, typer.Option(help=f"{explain(DiscoveryConfig, 'radius')} Or {AUTO}.")]
OWN = Fields(without=("radius",), types={"method": Literal["melbo", "dct", "power", "sae-basis", "random"]})


def train(
    out: NewBank,
    model: Model = MODEL,
    prompt: Prompts = None,
    system: System = SYSTEM,
    radius: Radius = AUTO,
    config: Annotated[DiscoveryConfig, OWN] = BASE,
    sae: Annotated[str, typer.Option(help=f"SAE of sae-basis. {SAE_HELP}")] = SAE,
    sae_folder: SaeFolder = "",
    other_model: OtherModel = False,
    where: Where = ANYWHERE,
    force: Force = False,
) -> None:
    """Find steering vectors that change the model's activations most, and save them as a bank.

    Stopped or killed, the same command goes on from its last checkpoint and gives the same bank.
    """
    config = with_radius(config, radius)
    check_out(out, force)
    loaded = where.load(model)
    messages = [chat(text, system) for text in prompt or [PROMPT]]
    placed, seen = place_layers(loaded, config, messages)
    say_model(loaded)
    say("\n".join(f"  {name} = {value}" for name, value in placed.to_dict().items()))
    if line := told(seen):
        say(line)
    basis = config.method == "sae-basis"
    decoder = load_sae(sae, sae_folder, loaded, placed.source_layer, other_model).decoder if basis else None
    run_training(
        lambda progress, checkpoint: with_usable_scale(
            loaded, discover(loaded, config, messages, progress, checkpoint, decoder=decoder)
        ),
        report,
        out,
        placed.steps or 0,
    )


def with_radius(config: DiscoveryConfig, text: str) -> DiscoveryConfig:
    """The config with a radius that is given as text: "auto", or a number, in mean residual norms or as the unit says.

    Raises:
        ConfigError: it is neither.
    """
    if text.strip().lower() == AUTO:
        return replace(config, radius_unit=AUTO)
    try:
        radius = float(text)
    except ValueError as error:
        raise ConfigError(f'radius is {text!r}; give a number greater than 0, or "auto".') from error
    return replace(config, radius=radius, radius_unit="residual" if config.radius_unit == AUTO else config.radius_unit)
