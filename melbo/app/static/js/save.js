(text, kind, ending) => {
  // Saves a text as a file of this kind and name ending.
  if (!text) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = `melbo.${ending}`;
  link.click();
  URL.revokeObjectURL(link.href);
}
