// Badges that wait: ask the API until the prediction is there, then show it. Without this file a reload does it.

const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 3000;
const BACK_OFF = 1.5;
const GIVE_UP_AFTER_MS = 60_000;
const REQUEST_TIMEOUT_MS = 5000;
const AT_ONCE = 4; // a page may wait for fifty; the newest ones are asked about first

const list = document.querySelector(".comment-list");
const news = document.getElementById("badge-news");
let askedFor = 0; // milliseconds spent asking while the page was in view

const waiting = () => [...document.querySelectorAll(".badge-waiting[data-comment]")].reverse();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Ask about one comment: its prediction, null while it waits, undefined when it cannot be asked about any more. */
async function fetchPrediction(id) {
  try {
    const response = await fetch(`${list.dataset.api}${id}/`, {
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    if (response.status === 403 || response.status === 404) return undefined; // deleted or hidden meanwhile
    return response.ok ? (await response.json()).prediction : null;
  } catch {
    return null; // offline or slow: the next round asks again
  }
}

function makeBadge(prediction, id) {
  const badge = document.getElementById(`badge-${prediction.label}`).content.firstElementChild.cloneNode(true);
  const certainty = prediction.score < 1 ? Math.min(Math.round(prediction.score * 100), 99) : 100;
  badge.title = badge.title.replace("00", certainty);
  badge.setAttribute("href", badge.getAttribute("href").replace("/0/", `/${id}/`));
  const aside = badge.querySelector(".visually-hidden");
  aside.textContent = aside.textContent.replace("00", certainty);
  badge.classList.add("badge-fresh");
  return badge;
}

function show(badge, prediction) {
  const fresh = makeBadge(prediction, badge.dataset.comment);
  const author = badge.closest(".comment").querySelector(".comment-author").textContent;
  badge.replaceWith(fresh);
  news.textContent = `${author}: ${fresh.textContent}`;
  countOne(prediction.label);
}

/** Move one comment in the strip from waiting to its label. */
function countOne(label) {
  const number = (name) => document.querySelector(`[data-count="${name}"]`);
  const add = (name, by) => (number(name).textContent = Math.max(0, Number(number(name).textContent) + by));
  add("waiting", -1);
  add(label, 1);
  number("waiting").parentElement.hidden = number("waiting").textContent === "0";
  const bars = [...document.querySelectorAll("#echo rect[data-label]")];
  const counts = bars.map((bar) => Number(number(bar.dataset.label).textContent));
  const total = counts.reduce((sum, count) => sum + count, 0);
  let start = 0;
  bars.forEach((bar, i) => {
    const width = (100 * counts[i]) / total;
    bar.setAttribute("x", start);
    bar.setAttribute("width", width);
    start += width;
  });
}

async function askOnce() {
  const badges = waiting().slice(0, AT_ONCE);
  const answers = await Promise.all(badges.map((badge) => fetchPrediction(badge.dataset.comment)));
  answers.forEach((prediction, i) => {
    if (prediction === undefined) badges[i].removeAttribute("data-comment");
    else if (prediction !== null) show(badges[i], prediction);
  });
  return answers.some((prediction) => prediction !== null);
}

let asking = false;

async function ask() {
  if (asking) return;
  asking = true;
  let delay = FIRST_DELAY_MS;
  while (waiting().length && !document.hidden && askedFor < GIVE_UP_AFTER_MS) {
    const began = performance.now();
    await pause(delay);
    delay = (await askOnce()) ? FIRST_DELAY_MS : Math.min(delay * BACK_OFF, LONGEST_DELAY_MS);
    askedFor += performance.now() - began;
  }
  asking = false;
}

if (list) {
  document.addEventListener("visibilitychange", ask);
  ask();
}
