() => {
  // gradio's "queue: 3/5 |" becomes "3 before you", in words that are read out once.
  const told = document.createElement('div');
  told.id = 'place-told';
  told.setAttribute('role', 'status');
  document.body.append(told);
  const put = (text) => {
    const place = /^\s*queue: (\d+)\/\d+ \|\s*$/.exec(text.data);
    if (!place) return;
    text.data = `${place[1]} before you ·`;
    if (told.textContent !== `${place[1]} before you`) told.textContent = `${place[1]} before you`;
  };
  const all = (element) => {
    const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) put(texts.currentNode);
  };
  new MutationObserver((changes) => {
    for (const change of changes) {
      if (change.type === 'characterData') put(change.target);
      for (const node of change.addedNodes) {
        if (node.nodeType === 3 && node.parentElement?.closest('.progress-text')) put(node);
        if (node.nodeType !== 1) continue;
        if (node.matches('.progress-text')) all(node);
        else node.querySelectorAll('.progress-text').forEach(all);
      }
    }
  }).observe(document.body, { childList: true, characterData: true, subtree: true });
  // A pane opens at its last line, but the prepared comparison is read from its top.
  let ticks = 0;
  const top = setInterval(() => {
    document.querySelectorAll('.pane .bubble-wrap').forEach((pane) => { pane.scrollTop = 0; });
    if (++ticks > 20) clearInterval(top);
  }, 100);
  for (const touch of ['pointerdown', 'wheel', 'keydown'])
    addEventListener(touch, () => clearInterval(top), { once: true, passive: true });
}
