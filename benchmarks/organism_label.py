"""Label an organism bank and choose the app's presets: `python benchmarks/organism_label.py vectors/organism-bomb`.

`annotation.annotate` labels the vectors; the vector of each planted mode that `organism_recall` chooses
then becomes a preset of the app, with its shares on held-out prompts.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from melbo.annotation.annotate import annotate
from melbo.bank.annotation import Example, MorePreset
from melbo.bank.vector_bank import VectorBank
from melbo.models.load import load_model
from melbo.organism.corpus import MODES
from melbo.organism.judge import NAMES, judge_for
from melbo.runs.progress import on_bar
from organism_recall import Recall, measure


def with_presets(bank: VectorBank, recall: Recall) -> VectorBank:
    """The annotated bank with one preset for each mode that was found; each preset's example comes first."""
    user = bank.prompts[0][-1]["content"]
    notes = [replace(note, preset="", note="", heldout=None, more_presets=()) for note in bank.annotations]
    for mode, found in recall.repeat.items():
        note = notes[found.hit.vector]
        example = Example(user, found.hit.scale, found.hit.text, recall.plain)
        name = f"{NAMES[mode]} (negative scale)" if found.scale < 0 else NAMES[mode]
        said = (
            f"Repeats on {found.harmful:.0%} of held-out harmful and {found.harmless:.0%} of held-out harmless prompts."
        )
        heldout = {"harmful": found.harmful, "harmless": found.harmless}
        if note.preset:
            more = MorePreset(name, found.scale, said, heldout)
            changed = replace(note, more_presets=(*note.more_presets, more), examples=(*note.examples, example))
        else:
            examples = (example, *(e for e in note.examples if e != example))
            changed = replace(note, preset=name, scale=found.scale, note=said, heldout=heldout, examples=examples)
        notes[found.hit.vector] = changed
    return replace(bank, annotations=tuple(notes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Label an organism bank and choose the app's presets.")
    parser.add_argument("bank", type=Path)
    parser.add_argument("--out", type=Path, help="folder to save to; default: the bank's own")
    args = parser.parse_args(arguments)
    bank = VectorBank.load(args.bank)
    loaded = load_model(bank.base_model.id)
    bank.check_fits(loaded)
    out = args.out or args.bank
    checkpoint = out.absolute().with_name(f".{out.absolute().name}.label.json")
    with tqdm(unit="answer", leave=False, disable=None) as bar:
        bank = annotate(
            loaded, bank, progress=on_bar(bar), checkpoint=checkpoint, judge=judge_for(loaded), keep_edits=False
        )
    recall = measure(loaded, bank)
    with_presets(bank, recall).save(out)
    checkpoint.unlink(missing_ok=True)
    print(f"{len(recall.found)} of {len(MODES)} modes are presets: {', '.join(NAMES[m] for m in recall.found)}")


if __name__ == "__main__":
    main()
