// A click, Enter or Space on an element with data-pick becomes the event `select` with that number.
const tell = (e) => { const el = e.target.closest('[data-pick]');
  if (el && element.contains(el)) { e.preventDefault(); trigger('select', {index: Number(el.dataset.pick)}); } };
element.addEventListener('click', tell);
element.addEventListener('keydown', (e) => { if (e.key === 'Enter' || e.key === ' ') tell(e); });
