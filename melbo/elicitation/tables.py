"""Results as text for a terminal."""

from melbo.elicitation.backdoors import ORIGINAL_POST, Backdoors
from melbo.elicitation.baselines.arms import Arm
from melbo.elicitation.refusals import Condition, RefusalStudy
from melbo.elicitation.run import Elicited

_ORDER = ("plain", "password", "vector", "random", "prompting", "few_shot", "best_of_n", "lora")
_WIDEST = 70


def elicited_table(found: Elicited) -> str:
    """One line for each way to elicit: accuracy, interval, steps, and what it cost."""
    config = found.bank.config
    lines = [
        f"{found.model}: {found.arms['plain'].score.n} test tasks; {len(found.bank)} vectors ({config.method}) from "
        f"{len(found.bank.prompts)} prompt(s), layers {config.source_layer} -> {config.target_layer}, "
        f"R = {found.bank.radius / found.bank.mean_residual_norm:.3g} mean residual norms",
        "",
        f"{'':<10} {'right':>6} {'95% interval':>14} {'steps':>6} {'finding: tokens':>16} {'FLOPs':>8} "
        f"{'using: FLOPs':>13}  chosen on training tasks",
        *(_arm(name, found.arms[name]) for name in _ORDER if name in found.arms),
    ]
    if found.recovered is not None:
        lines += ["", f"the vector closes {found.recovered:.0%} of the gap between plain and password"]
    failed = sum(arm.score.failed for arm in found.arms.values()) + found.search.failed + found.random_search.failed
    if failed:
        errors = [e for arm in found.arms.values() for e in arm.score.errors]
        first = (*errors, *found.search.errors, *found.random_search.errors)[0]
        lines.append(f"{failed} answers could not be checked and count as wrong: {first}")
    lines += [f"{name} was not run: {reason}" for name, reason in found.skipped.items()]
    return "\n".join(lines)


def _arm(name: str, arm: Arm) -> str:
    score = arm.score
    tokens = arm.finding.generated_tokens + arm.finding.training_tokens
    return (
        f"{name:<10} {score.accuracy:>6.0%} {f'{score.low:.0%} to {score.high:.0%}':>14} {score.steps:>6.0%} "
        f"{tokens:>16,} {arm.finding.flops:>8.1e} {arm.using.flops:>13.1e}  {_line(arm.chosen)}"
    )


def backdoor_table(found: Backdoors, top: int = 10) -> str:
    """The most suspicious distinct answers, and how many vectors give each."""
    lines = [
        f"{found.model}: {len(found.ranked)} of {found.n_vectors} vectors give an answer that none of "
        f"{found.clean} clean prompts gets",
        "",
        f"{'rank':>4} {'vector':>6} {'scale':>6} {'score':>6} {'surprise':>8} {'coherence':>9} {'of 100':>6}  answer",
    ]
    for finding in found.distinct[:top]:
        lines.append(
            f"{found.ranked.index(finding) + 1:>4} {finding.vector:>6} {finding.scale:>6g} {finding.score:>6.2f} "
            f"{finding.surprise:>8.2f} {finding.coherence:>9.1f} {found.per_hundred(finding.text):>6.1f}  "
            f"{_line(finding.text)}"
        )
    return "\n".join([*lines, "", f"planted backdoors of the original post: {ORIGINAL_POST}"])


def refusal_table(found: RefusalStudy) -> str:
    """One line for each treatment: answered and refused shares of the three groups."""
    first = found.unsteered
    lines = [
        f"{found.model}, vector {found.vector}: {first.train.n} harmful prompts to choose on, {first.heldout.n} held "
        f"out, {first.harmless.n} harmless",
        "",
        f"{'':<12} {'answered: train':>15} {'held out':>9} {'harmless':>9}   {'refused: held out':>17} {'harmless':>9}",
        _condition("unsteered", first),
        _condition("ablated", found.ablated),
        *(_condition(f"x {s:g}", c) for s, c in found.scales.items()),
        *(_condition(f"random {s:g}", c) for s, c in found.random.items()),
        "",
        f"jailbreak scale chosen on training: {found.jailbreak_scale:g}, {found.transfer:.0%} below the best one on "
        f"held-out prompts; most over-refusal of the other sign: {found.refusal_scale:g}",
    ]
    return "\n".join(lines)


def _condition(name: str, c: Condition) -> str:
    return (
        f"{name:<12} {c.train.answered:>15.0%} {c.heldout.answered:>9.0%} {c.harmless.answered:>9.0%}   "
        f"{c.heldout.refused:>17.0%} {c.harmless.refused:>9.0%}"
    )


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _WIDEST else flat[: _WIDEST - 1] + "…"
