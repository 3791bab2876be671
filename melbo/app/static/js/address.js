(query) => {
  // The whole address of a query string; what is one already stays.
  return !query || query.startsWith('http') ? query : location.origin + location.pathname + '?' + query;
}
