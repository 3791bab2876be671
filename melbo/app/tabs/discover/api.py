"""The public API's discovery."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from melbo.app.choices import example_prompts
from melbo.app.context import Context
from melbo.app.endpoint import endpoint, states
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.jobs.event import JobEvent
from melbo.app.tabs.discover.handlers import defaults, discover_steps, read_request
from melbo.bank.vector_bank import VectorBank


def publish(context: Context) -> None:
    """Add the endpoint; call inside the Blocks."""
    endpoint(discover_endpoint(context), **MODEL_EVENT)


def discover_endpoint(context: Context) -> Callable[..., Iterator[dict[str, Any]]]:
    """The function behind /discover, whose defaults are the tab's: those of the app's own bank."""
    run, usual = context.on_device(discover_steps), defaults(context.own_bank, context.limits)
    own_prompt = example_prompts(context.own_bank)[0]

    def discover(
        prompts: str = own_prompt,
        method: Literal["melbo", "dct", "power", "random"] = "melbo",
        vectors: int = 16,
        steps: int = 40,
        radius: float = usual.radius,
        auto_radius: bool = False,
        source_layer: int = usual.source,
        target_layer: int = usual.target,
        system: str = usual.system,
        seed: int = 325,
    ) -> Iterator[dict[str, Any]]:
        """Find new steering vectors from prompts, without labels.

        Args:
            prompts: one a line.
            method: "random" draws the control.
            vectors: how many.
            steps: training steps.
            radius: R, the vectors' norm, in mean residual norms.
            auto_radius: choose R from the model instead.
            source_layer: block whose output the vectors are added to.
            target_layer: block whose output is compared.
            system: system prompt; "" leaves it out.
            seed: of the starting points.

        Returns:
            Steps done, steps in all and the mean objective; in the end also the vectors, their norm, layer and
            objectives.
        """
        request = read_request(
            context,
            context.own_bank,
            prompts,
            system,
            method,
            source_layer,
            target_layer,
            auto_radius,
            radius,
            vectors,
            steps,
            seed,
        )
        start = {"done": 0, "steps": request.config.steps, "objective": None}
        with tempfile.TemporaryDirectory(prefix="melbo-run-") as folder:
            yield from states(run(request, Path(folder) / "run.safetensors"), start, with_values)

    return discover


def with_values(shown: dict[str, Any], event: JobEvent[float, VectorBank]) -> dict[str, Any]:
    """What a client sees after the event."""
    if event.value is not None:
        shown = shown | {"done": event.done, "objective": event.value}
    return shown if event.result is None else shown | as_values(event.result)


def as_values(bank: VectorBank) -> dict[str, Any]:
    """The bank's vectors as JSON values."""
    return {
        "layer": bank.layer,
        "norm": bank.radius,
        "objectives": bank.objective.tolist(),
        "vectors": bank.vectors.tolist(),
    }
