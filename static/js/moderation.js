// The queue by keyboard, and verdicts without a reload. The page works without: its buttons are those of a form.
const KEYS = { a: "approve", h: "hide", s: "spam", 1: "negative", 2: "neutral", 3: "positive" };

const form = document.getElementById("verdicts");
const cards = () => [...form.querySelectorAll(".queue-card")];

function focusCard(card) {
  card?.focus({ preventScroll: true });
  card?.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const all = cards();
  const at = all.indexOf(document.activeElement?.closest(".queue-card"));
  focusCard(all[at < 0 ? 0 : Math.min(Math.max(at + by, 0), all.length - 1)]);
}

function say(words, wrong = false) {
  const said = form.querySelector(".queue-said");
  said.textContent = words;
  said.classList.toggle("queue-wrong", wrong);
}

// Puts each card as it is now in the place of the one that was, or takes away what has left the queue.
function replaceCards(changed) {
  const all = cards();
  const at = all.indexOf(document.activeElement?.closest(".queue-card"));
  for (const [id, html] of Object.entries(changed)) {
    const card = document.getElementById(`card-${id}`);
    if (html === null) card?.closest("li").remove();
    else if (card) card.outerHTML = html;
  }
  const left = cards();
  if (left.length === 0) say(form.dataset.empty);
  else if (at >= 0) focusCard(left[Math.min(at, left.length - 1)]);
}

async function send(body) {
  try {
    const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
    if (!response.ok || response.redirected) throw new Error(response.statusText);
    const answer = await response.json();
    say(answer.said);
    replaceCards(answer.cards);
    form.elements.reason.value = "";
  } catch {
    say(form.dataset.failed, true);
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else if (event.key === "x") document.activeElement?.closest(".queue-card")?.querySelector("[name=id]")?.click();
  else if (event.key in KEYS) {
    const card = document.activeElement?.closest(".queue-card");
    card?.querySelector(`[name=one][value^="${KEYS[event.key]}:"]`)?.click();
  } else return;
  event.preventDefault();
}

if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    // A verdict on one card leaves the ticks on the others alone.
    send(new FormData(form, event.submitter));
  });
  form.querySelector("[data-tick-all]")?.addEventListener("change", (event) => {
    for (const tick of form.querySelectorAll("[name=id]")) tick.checked = event.target.checked;
  });
  document.addEventListener("keydown", onKey);
  document.querySelector(".queue-keys").hidden = false;
  focusCard(cards()[0]);
}
