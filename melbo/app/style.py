"""The style sheet of the page and of the tabs Steer and Scale strip."""

CSS = """
.gradio-container { max-width: 1180px !important; width: 100% !important; margin: 0 auto !important; }
.gradio-container > main { padding-top: 1rem !important; }
:root { --usable: #7c3aed; --refusal: #d97706; --salad: #dc2626; --plain: #94a3b8; }
.dark { --usable: #a78bfa; --refusal: #fbbf24; --salad: #f87171; --plain: #64748b; }

.gradio-container .html-container { padding: 0 !important; }
#intro h1 { font-size: 1.4rem; font-weight: 700; margin: 0; letter-spacing: .02em; }
#intro p { margin: .1rem 0 0; line-height: 1.45; }
#intro .facts { color: var(--body-text-color-subdued); font-size: .8125rem; }
.notice:not(:has(div[role])) { display: none; }
.notice .alert, .notice .hint { padding: .5rem .75rem; border-radius: var(--radius-md); font-size: .875rem;
  overflow-wrap: anywhere; border: 1px solid; }
.notice .alert { border-color: var(--salad); background: color-mix(in srgb, var(--salad) 9%, transparent); }
.notice .hint { border-color: var(--plain); background: color-mix(in srgb, var(--plain) 12%, transparent); }
footer .divider { display: none; }

/* presets and sides as chips: the radio's circle goes, keyboard focus stays visible */
#presets .wrap { gap: .4rem; }
#presets label, #side .wrap label { padding: .25rem .7rem; border-radius: 999px; font-size: .875rem; cursor: pointer;
  border: 1px solid var(--border-color-primary); background: transparent; box-shadow: none; }
#presets label.selected, #side .wrap label.selected { background: var(--primary-600);
  border-color: var(--primary-600); color: #fff; }
#presets label.selected span, #side .wrap label.selected span { color: #fff; }
#presets input, #side .wrap input { position: absolute; opacity: 0; width: 1px; height: 1px; }
#presets label:has(input:focus-visible), #side .wrap label:has(input:focus-visible) {
  outline: 2px solid var(--primary-500); outline-offset: 2px; }
#presets span, #side .wrap span { margin: 0 !important; }
#note { margin: -.5rem 0; }
#note p, #note .prose p { margin: 0; color: var(--body-text-color-subdued); font-size: .8125rem;
  overflow-wrap: anywhere; }

#side .wrap { gap: .3rem; flex-wrap: nowrap; }
#side .wrap label { font-size: .8125rem; }
#steering { align-items: flex-start; }
#mix { gap: .5rem; }
.place, #side-column { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); }
.place { align-items: flex-start; gap: 0; padding-right: .5rem; }
.place, #side-column { background: var(--block-background-fill); }
.place .form, #side-column .form { background: transparent; border-width: 0; box-shadow: none; }
.place .block, #side-column .block { border-width: 0 !important; box-shadow: none; background: transparent; }
.dark input[type=range] { --neutral-200: var(--neutral-600); }
#side-column { gap: 0; }
.place .remove { flex: 0 0 auto; align-self: center; }
.strength { gap: 0 !important; padding-bottom: .5rem; }
.range span { color: var(--body-text-color-subdued) !important; }
.range { padding: 0 32px 0 35px; margin-top: -.3rem; font-size: .75rem; min-height: 1rem; line-height: 1.5; }
.range .bar { position: relative; height: 4px; border-radius: 2px; background: var(--neutral-200); }
.dark .range .bar { background: var(--neutral-700); }
.range .bar i { position: absolute; top: 0; height: 100%; border-radius: 2px; background: var(--usable); }
#add { align-self: flex-start; flex: 0 0 auto; width: auto; }

#strip-vector input, #mix .place input[role=combobox] { text-overflow: ellipsis; padding-right: 1.75rem; }

#panes .column { gap: .35rem; }
.pane-head { display: flex; align-items: baseline; gap: .6rem; min-width: 0; }
.pane-head b { flex: none; }
.pane-head span { color: var(--body-text-color-subdued); font-size: .875rem; min-width: 0;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pane-head.steered b { color: var(--primary-600); }
.dark .pane-head.steered b { color: var(--primary-400); }
#steered { border: 2px solid var(--primary-500) !important; }
.pane .top-panel { display: none; } /* clears one pane alone */
.pane .message-content .md { white-space: pre-wrap; overflow-wrap: anywhere; }

#tokens:not(:has(.tokens)) { display: none; }
.tokens { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); padding: .75rem 1rem; }
.tokens p { margin: .4rem 0 0; line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens p span { border-radius: 3px; padding: .1em 0; }
.tokens p .more { background: color-mix(in srgb, var(--usable) calc(var(--s) * 55%), transparent); }
.tokens p .less { background: color-mix(in srgb, var(--refusal) calc(var(--s) * 55%), transparent); }
.tokens .key { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; font-size: .8125rem;
  color: var(--body-text-color-subdued); }
.tokens .key b { color: var(--body-text-color); margin-right: auto; }
.tokens .key i { width: 7rem; height: .6rem; border-radius: 3px; background: linear-gradient(90deg,
  color-mix(in srgb, var(--refusal) 55%, transparent), transparent,
  color-mix(in srgb, var(--usable) 55%, transparent)); }

#ask { gap: .5rem; align-items: stretch; }
#ask #message { flex: 1 1 300px; }
#ask button, #strip-buttons button, #share-buttons button { flex: 0 1 auto; }
#below { align-items: center; gap: .5rem; flex-wrap: nowrap; }
#examples { gap: .5rem; flex: 1 1 auto; min-width: 0 !important; }
#examples button { flex: 0 1 auto; font-weight: 400; }
#colour { flex: 0 0 auto; width: auto; min-width: 0 !important; border-width: 0 !important; background: none;
  padding: 0; }
#file { position: absolute; }

#strip-buttons { gap: .5rem; }
#strip-buttons button { padding-left: 1.5rem; padding-right: 1.5rem; }
.strip-empty { padding: 2.5rem 1rem; text-align: center; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); }
.band { display: flex; gap: 2px; }
.cell { flex: 1 1 0; min-width: 0; padding: .45rem 0; text-align: center; font-size: .75rem; overflow: hidden;
  font-variant-numeric: tabular-nums; background: color-mix(in srgb, var(--c, var(--plain)) 30%, transparent); }
.cell:first-child { border-radius: var(--radius-md) 0 0 var(--radius-md); }
.cell:last-child { border-radius: 0 var(--radius-md) var(--radius-md) 0; }
.cell.usable { border-bottom: 3px solid var(--usable); font-weight: 700; }
.unsteered, .same, .waiting { --c: var(--plain); }
.refusal { --c: var(--refusal); }
.changed { --c: var(--usable); }
.salad { --c: var(--salad); }
.band-key { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .25rem 1rem; margin: .5rem 0 .75rem;
  font-size: .8125rem; min-height: 1.25rem; }
.band-key div { display: flex; flex-wrap: wrap; gap: .25rem .9rem; color: var(--body-text-color-subdued); }
.band-key i { display: inline-block; width: .6rem; height: .6rem; border-radius: 2px; margin-right: .35rem;
  background: var(--c); }
#strip .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .6rem; margin: 0;
  padding: 0 !important; list-style: none !important; }
#strip .card { display: flex; flex-direction: column; margin: 0 !important; border-style: solid;
  border-width: 3px 1px 1px !important; border-color: var(--c) var(--border-color-primary) var(--border-color-primary);
  border-radius: var(--radius-md); padding: .6rem .75rem; }
#strip .card header { display: flex; justify-content: space-between; align-items: baseline; font-size: .8125rem; }
#strip .card header b { font-size: 1rem; font-variant-numeric: tabular-nums; }
#strip .card header span { color: var(--c); font-weight: 600; }
#strip .card.unsteered header span, #strip .card.same header span,
#strip .card.waiting header span { color: var(--body-text-color-subdued); }
#strip .card p { flex: 1; margin: .4rem 0 .6rem; font-size: .875rem; line-height: 1.45; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 16rem; overflow-y: auto; }
#strip .card footer { display: flex; flex-wrap: wrap; align-items: center; gap: .2rem .6rem; font-size: .75rem;
  color: var(--body-text-color-subdued); }
#strip .card .meter { flex: 1 1 2rem; min-width: 2rem; height: 4px; border-radius: 2px;
  background: var(--neutral-200); }
.dark #strip .card .meter { background: var(--neutral-700); }
#strip .card .meter i { display: block; height: 100%; border-radius: 2px; background: var(--plain); }
.quiet { color: var(--body-text-color-subdued); }

@media (max-width: 640px) {
  .gradio-container > main { padding: .75rem !important; }
  #bank-find { flex-wrap: wrap; }
  #ask #message, #steering > *, #bank-find > *, .place > :not(.remove) { flex-basis: 100% !important; }
  #steering { order: 1; } /* answers first: they should show without scrolling past the controls */
  #settings { order: 2; }
  #share { order: 3; }
  #intro .facts { display: none; }
  .pane { height: 225px !important; }
  #presets .wrap { flex-wrap: nowrap; overflow-x: auto; padding-bottom: .25rem; }
  #presets label, #side .wrap label { flex: none; }
  #sweep-buttons button, #discover-buttons button { min-width: 0 !important; flex: 0 1 auto; padding-left: 1.2rem;
    padding-right: 1.2rem; }
  #ask button { flex: 1 1 0; padding-left: .4rem; padding-right: .4rem; }
  #strip .cards { grid-template-columns: 1fr; }
  #strip .card p { max-height: none; }
  .cell { font-size: .625rem; }
  #below { flex-wrap: wrap; }
  #colour { margin: 0 auto 0 0 !important; }
  .range { padding: 0 12px; }
}
"""
