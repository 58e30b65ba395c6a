// The numbers above the comments, and the strip that draws them.

const LABELS = ["positive", "neutral", "negative"];

export function showCounts(section, counts) {
  section.querySelector("#comments-title .count").textContent = counts.comments;
  const echo = section.querySelector("#echo");
  echo.hidden = counts.comments === 0;
  for (const name of [...LABELS, "waiting"]) echo.querySelector(`[data-count="${name}"]`).textContent = counts[name];
  echo.querySelector(".echo-key-waiting").hidden = counts.waiting === 0;
  drawStrip(echo, counts);
}

/** Count a comment that has just been posted here and waits for its badge; the next answer of the feed has the truth. */
export function countPosted(section) {
  const number = (selector) => Number(section.querySelector(selector).textContent);
  const counts = Object.fromEntries([...LABELS, "waiting"].map((name) => [name, number(`[data-count="${name}"]`)]));
  showCounts(section, { ...counts, waiting: counts.waiting + 1, comments: number("#comments-title .count") + 1 });
}

function drawStrip(echo, counts) {
  const total = LABELS.reduce((sum, label) => sum + counts[label], 0) || 1;
  let start = 0;
  for (const bar of echo.querySelectorAll("rect[data-label]")) {
    const width = (100 * counts[bar.dataset.label]) / total;
    bar.setAttribute("x", start);
    bar.setAttribute("width", width);
    start += width;
  }
}
