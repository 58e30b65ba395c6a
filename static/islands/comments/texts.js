// Words for people come from the server, in their language: one catalogue for all.

/** Read the texts of an island from the page; gives a function that says one by its key. */
export function readTexts(id) {
  const texts = JSON.parse(document.getElementById(id).textContent);
  return (key, values = {}) =>
    texts[values.n === 1 && `${key}_one` in texts ? `${key}_one` : key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
