"""How the Bank tab's own HTML looks; scoped to its components by gradio."""

DIM = """
.dim { color: var(--body-text-color-subdued); font-size: .875rem; line-height: 1.45; margin: .35rem 0; }
.empty { color: var(--body-text-color-subdued); padding: 1.5rem 1rem; text-align: center; margin: 0;
  border: 1px dashed var(--border-color-primary); border-radius: 8px; }
"""

TABLE = (
    DIM
    + """
.scroll { max-height: 318px; overflow: auto; border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--block-background-fill); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; color: var(--body-text-color); margin: 0; }
th { position: sticky; top: 0; z-index: 1; background: var(--background-fill-secondary); text-align: left;
  font-weight: 600; padding: .45rem .6rem; white-space: nowrap; }
td { padding: .4rem .6rem; border-top: 1px solid var(--border-color-primary); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (min-width: 641px) { .span { white-space: nowrap; } }
tr[data-pick] { cursor: pointer; }
tr[data-pick]:hover td { background: var(--background-fill-secondary); }
tr[data-pick]:focus-visible { outline: 2px solid var(--primary-500); outline-offset: -2px; }
tr.chosen td { background: color-mix(in srgb, var(--primary-500) 14%, transparent); }
tr.chosen td:first-child { box-shadow: inset 3px 0 var(--primary-500); }
tr.dud td { color: var(--body-text-color-subdued); }
.label { font-weight: 500; overflow-wrap: anywhere; min-width: 9rem; }
tr.dud .label { font-weight: 400; }
.tag { display: inline-block; font-size: .75rem; padding: 0 .45rem; border-radius: 999px; margin: 0 .25rem .15rem 0;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color-subdued); white-space: nowrap; }
@media (max-width: 640px) { .wide { display: none; } th.number { white-space: normal; }
  td, th { padding-left: .45rem; padding-right: .45rem; } .label { min-width: 7rem; } }
"""
)

MAP = (
    DIM
    + """
svg { width: 100%; height: auto; display: block; background: var(--block-background-fill); overflow: hidden;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.cross { stroke: var(--border-color-primary); stroke-dasharray: 2 4; }
text { font: 12px var(--font); fill: var(--body-text-color); pointer-events: none; paint-order: stroke;
  stroke: var(--block-background-fill); stroke-width: 3px; }
.dot { cursor: pointer; fill: hsl(var(--hue) 62% 48%); stroke: var(--block-background-fill); stroke-width: 1; }
.dark & .dot { fill: hsl(var(--hue) 70% 64%); }
.dot.dud { fill: var(--body-text-color-subdued); opacity: .35; stroke: none; }
.dot.chosen { stroke: var(--body-text-color); stroke-width: 2.5; opacity: 1; }
.dot:focus-visible { outline: none; stroke: var(--body-text-color); stroke-width: 2.5; }
"""
)

PAGE = (
    TABLE
    + """
h3 { font-size: 1.125rem; font-weight: 700; margin: 0 0 .2rem; color: var(--body-text-color); overflow-wrap: anywhere; }
h4 { font-size: .875rem; font-weight: 600; margin: 1rem 0 .35rem; color: var(--body-text-color); }
.note { margin: .3rem 0; overflow-wrap: anywhere; color: var(--body-text-color); }
.example { border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden; margin: 0 0 .6rem;
  background: var(--block-background-fill); }
.asked { padding: .4rem .75rem; font-size: .875rem; background: var(--background-fill-secondary);
  color: var(--body-text-color); overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); }
.pair div { padding: .55rem .75rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9375rem;
  line-height: 1.5; color: var(--body-text-color); }
.pair b { display: block; font-size: .75rem; font-weight: 600; color: var(--body-text-color-subdued); }
.pair .steered b { color: var(--primary-600); }
.dark & .pair .steered b { color: var(--primary-400); }
.plain { max-width: 34rem; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden; }
.lens { display: grid; grid-template-columns: auto 1fr; gap: .3rem .8rem; align-items: baseline; margin: .3rem 0;
  font-size: .875rem; color: var(--body-text-color); }
.lens > span:nth-child(odd) { color: var(--body-text-color-subdued); white-space: nowrap; }
.token { display: inline-block; font-family: var(--font-mono); font-size: .8125rem; padding: 0 .4rem; margin: 0 .3rem
  .25rem 0; border-radius: 4px; background: var(--background-fill-secondary); white-space: pre-wrap;
  border: 1px solid var(--border-color-primary); }
.token small { color: var(--body-text-color-subdued); }
.passage { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .875rem; margin: 0 0 .35rem;
  color: var(--body-text-color); }
.passage mark { background: color-mix(in srgb, var(--primary-500) 35%, transparent); color: inherit; }
"""
)

PICK = """
const tell = (e) => { const el = e.target.closest('[data-pick]');
  if (el && element.contains(el)) { e.preventDefault(); trigger('select', {index: Number(el.dataset.pick)}); } };
element.addEventListener('click', tell);
element.addEventListener('keydown', (e) => { if (e.key === 'Enter' || e.key === ' ') tell(e); });
"""
"""Turns a click, Enter or Space on an element with data-pick into the event `select` with that number."""
