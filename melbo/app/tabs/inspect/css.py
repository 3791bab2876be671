"""How the Understand tab's HTML looks; scoped to its components by gradio."""

from melbo.app.tabs.bank.css import DIM
from melbo.app.widgets.chart import CSS as CHART

STYLE = (
    DIM
    + CHART
    + """
.bar { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden; margin: .2rem 0 0; }
.bar i { display: block; height: 100%; background: var(--primary-500); }
.told { margin: 0; font-size: .875rem; color: var(--body-text-color); }
.empty { padding: 1rem; font-size: .875rem; line-height: 1.6; }
code { font-family: var(--font-mono); font-size: .8125rem; background: var(--background-fill-secondary);
  border-radius: 4px; padding: 0 .3rem; overflow-wrap: anywhere; }
.columns { display: grid; gap: .5rem 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
.columns > section { min-width: 0; }
h4 { font-size: .9375rem; font-weight: 600; margin: .3rem 0 .15rem; color: var(--body-text-color); }
h4 small, .dim small { font-weight: 400; font-size: .8125rem; color: var(--body-text-color-subdued); }
.tag { display: inline-block; font-size: .75rem; padding: 0 .45rem; border-radius: 999px; margin: 0 .3rem .15rem 0;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color-subdued); white-space: nowrap; }
.tag.first { border-color: var(--usable); color: var(--body-text-color); }
.histogram { display: block; width: 100%; height: auto; margin: .35rem 0 .5rem; }
.histogram rect { fill: var(--body-text-color-subdued); }
.histogram .level { stroke: var(--refusal); stroke-width: 1.5; stroke-dasharray: 4 3; }
.histogram .own { stroke: var(--usable); stroke-width: 2; }
.histogram text { font: 11px var(--font); fill: var(--body-text-color-subdued); }
.passages, .features { list-style: none; margin: 0; padding: 0 !important; }
.passages li { display: grid; grid-template-columns: 6.2rem 1fr; gap: .1rem .6rem; padding: .35rem 0; margin: 0;
  border-top: 1px solid var(--border-color-primary); font-size: .875rem; line-height: 1.5; }
.passages .value { font-weight: 600; font-variant-numeric: tabular-nums; color: var(--body-text-color); }
.passages .value small { display: block; font-weight: 400; font-size: .75rem; overflow-wrap: anywhere;
  color: var(--body-text-color-subdued); }
.passages p, .read p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; color: var(--body-text-color); }
.more { background: color-mix(in srgb, var(--usable) calc(var(--s) * 55%), transparent); border-radius: 3px; }
.less { background: color-mix(in srgb, var(--refusal) calc(var(--s) * 55%), transparent); border-radius: 3px; }
mark { background: color-mix(in srgb, var(--usable) 42%, transparent); color: inherit; border-radius: 3px;
  outline: 1.5px solid var(--usable); font-weight: 600; }
summary { cursor: pointer; color: var(--body-text-color-subdued); font-size: .8125rem; padding: .25rem 0; }
summary:focus-visible { outline: 2px solid var(--primary-500); border-radius: 4px; }
.read { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .6rem .9rem; }
.read p { line-height: 2; }
.read .key { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem .6rem; font-size: .8125rem;
  color: var(--body-text-color-subdued); margin-bottom: .3rem; }
.read .key b { color: var(--body-text-color); margin-right: auto; }
.read .key i { width: 7rem; height: .6rem; border-radius: 3px; background: linear-gradient(90deg,
  color-mix(in srgb, var(--refusal) 55%, transparent), transparent,
  color-mix(in srgb, var(--usable) 55%, transparent)); }
.features li { border-top: 1px solid var(--border-color-primary); margin: 0; font-size: .875rem; }
.features li:last-child { border-bottom: 1px solid var(--border-color-primary); }
.features summary, .features .alone { display: grid; grid-template-columns: 3.2rem 1fr 4rem 3.2rem; gap: .5rem;
  align-items: center; color: var(--body-text-color); font-size: .875rem; padding: .3rem 0; list-style: none; }
.features summary::-webkit-details-marker { display: none; }
.features summary::before { content: none; }
.features .name::before { content: "▸ "; color: var(--body-text-color-subdued); }
.features .alone .name::before { content: none; }
.features details[open] .name::before { content: "▾ "; }
.features .name, .features .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.features .number { text-align: right; }
.features .what { overflow-wrap: anywhere; }
.features .size { height: 6px; border-radius: 3px; background: var(--background-fill-secondary); }
.features .size i { display: block; height: 100%; border-radius: 3px; background: var(--usable); }
.features .size i.below { background: var(--refusal); }
.features .notes { padding: .1rem 0 .5rem .9rem; }
.features .notes p { margin: 0 0 .35rem; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; }
.features .notes .dim { font-size: .8125rem; }
.moved { display: grid; grid-template-columns: minmax(6.5rem, auto) 1fr; gap: .3rem .8rem; align-items: baseline;
  font-size: .875rem; margin: .2rem 0; color: var(--body-text-color); }
.moved > span:nth-child(odd) { color: var(--body-text-color-subdued); }
.token { display: inline-block; font-family: var(--font-mono); font-size: .8125rem; padding: 0 .4rem;
  margin: 0 .3rem .25rem 0; border-radius: 4px; background: var(--background-fill-secondary); white-space: pre-wrap;
  overflow-wrap: anywhere; border: 1px solid var(--border-color-primary); color: var(--body-text-color-subdued); }
.token.above { color: var(--body-text-color); border-color: var(--usable); }
.maps { display: grid; gap: .75rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(220px, 100%), 1fr)); }
.maps figure { margin: 0; min-width: 0; max-width: 380px; }
.maps figcaption { font-size: .8125rem; font-weight: 600; color: var(--body-text-color); margin: 0 0 .35rem; }
.map { position: relative; border: 1px solid var(--border-color-primary); background: var(--background-fill-primary);
  margin-left: 10px; margin-top: 10px; }
.map img, .bar-key img { display: block; width: 100%; image-rendering: pixelated; margin: 0; border-radius: 0; }
.map img { aspect-ratio: 1; }
.map i { position: absolute; background: var(--refusal); }
.map .row { left: -10px; width: 8px; min-height: 3px; }
.map .column { top: -10px; height: 8px; min-width: 3px; }
.bar-key { display: flex; align-items: center; gap: .5rem; font-size: .8125rem; margin: .5rem 0 .2rem;
  color: var(--body-text-color-subdued); }
.bar-key img { width: 9rem; height: .6rem; border: 1px solid var(--border-color-primary); }
.plain { border: 1px solid var(--border-color-primary); border-radius: 8px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; color: var(--body-text-color); margin: 0; }
th, td { padding: .3rem .6rem; text-align: left; } th { font-weight: 600; }
tbody tr { border-top: 1px solid var(--border-color-primary); }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
.said { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .5rem .75rem; margin: 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; line-height: 1.5; color: var(--body-text-color);
  background: var(--block-background-fill); }
.said b { display: block; font-size: .75rem; font-weight: 600; color: var(--body-text-color-subdued); }
.said.own { border-color: var(--usable); }
@media (max-width: 640px) { .passages li { grid-template-columns: 1fr; }
  .passages .value small { display: inline; margin-left: .5rem; }
  .features summary, .features .alone { grid-template-columns: 3.2rem 1fr 3rem 3.4rem; } .wide { display: none; }
  .histogram { overflow: visible; padding-bottom: .4rem; }
  .histogram text { font-size: 20px; transform: translateY(9px); } }
@media print { * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
)
