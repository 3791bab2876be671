"""The public API's R sweep, on the app's own bank's settings."""

from collections.abc import Callable, Iterator
from typing import Any

from melbo.app.choices import example_prompts
from melbo.app.context import Context
from melbo.app.endpoint import endpoint, states
from melbo.app.jobs.device import MODEL_EVENT
from melbo.app.jobs.event import JobEvent
from melbo.app.tabs.sweep.handlers import default_radii, read_request, sweep_steps
from melbo.radius_sweep.result import Arm
from melbo.radius_sweep.sweep import Sweep

NOTHING_YET: dict[str, Any] = {"rows": [], "suggested": None, "reason": "", "calibrated": None, "complete": False}
"""Until the unsteered model is measured."""


def publish(context: Context) -> None:
    """Add the endpoint; call inside the Blocks."""
    endpoint(sweep_endpoint(context), **MODEL_EVENT)


def sweep_endpoint(context: Context) -> Callable[..., Iterator[dict[str, Any]]]:
    """The function behind /r_sweep, whose defaults are those of the app's own bank."""
    run, own_radii = context.on_device(sweep_steps), default_radii(context.own_bank)
    own_prompt = example_prompts(context.own_bank)[0]

    def r_sweep(
        prompt: str = own_prompt, radii: str = own_radii, vectors: int = 8, steps: int = 40
    ) -> Iterator[dict[str, Any]]:
        """Train vectors at several R, answer with them, and measure; the same for random vectors of the same norm.

        Args:
            prompt: what vectors are trained on and answer.
            radii: R in mean residual norms, as first:last:step or a list with commas.
            vectors: vectors at each R.
            steps: training steps.

        Returns:
            The sweep so far: rows by R, the suggested R and why, the calibrated R, and whether it is complete.
        """
        request = read_request(context.limits, radii, vectors, steps, prompt)
        yield from states(run(context.own_bank, request), NOTHING_YET, with_values)

    return r_sweep


def with_values(shown: dict[str, Any], event: JobEvent[Sweep, Sweep]) -> dict[str, Any]:
    """What a client sees after the event."""
    return shown if event.value is None else as_values(event.value)


def as_values(sweep: Sweep) -> dict[str, Any]:
    """The sweep as JSON values, without what its settings say."""
    return {
        "rows": [{"R": r.radius, "trained": _arm(r.found), "random": _arm(r.control)} for r in sweep.rows],
        "suggested": sweep.suggested.radius,
        "reason": sweep.suggested.reason,
        "calibrated": sweep.auto_radius,
        "complete": sweep.complete,
    }


def _arm(arm: Arm) -> dict[str, Any]:
    numbers = ("diversity", "distinct", "coherence", "refusal", "change", "objective")
    return {name: getattr(arm, name) for name in numbers} | {"answers": list(arm.completions[0])}
