// Badges that say why: a click shows the comment's words tinted by what they do to the judgement, in place of its text.
// Without it the badge is a link to a page that shows the same.

const REQUEST_TIMEOUT_MS = 8000;

const isBadge = (element) => element.closest?.("a.badge");
const copy = (id) => document.getElementById(id).content.cloneNode(true);

/** Make a link to a page into a button that opens what the page says. */
function prepare(badge) {
  if (badge.hasAttribute("role")) return; // it was moved, and may be open
  badge.setAttribute("role", "button");
  badge.setAttribute("aria-expanded", "false");
}

function panelOf(badge) {
  const comment = badge.closest(".comment");
  const own = badge.closest(".comment-main"); // beside it stand the replies, with explanations of their own
  const found = own.querySelector(".explanation");
  if (found) return found;
  const made = document.createElement("div");
  made.className = "explanation";
  made.id = `explanation-of-${comment.id}`;
  made.hidden = true;
  own.querySelector(".comment-text").after(made);
  return made;
}

function open(badge, panel, isOpen) {
  badge.setAttribute("aria-expanded", isOpen);
  badge.setAttribute("aria-controls", panel.id);
  panel.hidden = !isOpen;
  panel.previousElementSibling.hidden = isOpen && panel.dataset.whole === "1"; // the text as it is shown otherwise
}

/** Fill a panel with what the server says, the text or the reason why there is none. */
async function fill(badge, panel) {
  panel.replaceChildren(copy("explanation-waiting"));
  panel.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(`${badge.getAttribute("href")}part/`, {
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    if (!(response.headers.get("Content-Type") ?? "").startsWith("text/html") || response.status === 404) throw response;
    panel.innerHTML = await response.text();
    panel.dataset.whole = response.ok ? "1" : "";
  } catch {
    panel.replaceChildren(copy("explanation-unreachable"));
  }
  panel.removeAttribute("aria-busy");
}

async function toggle(badge, news) {
  const panel = panelOf(badge);
  const isOpen = badge.getAttribute("aria-expanded") !== "true";
  open(badge, panel, isOpen);
  if (!isOpen || panel.dataset.whole === "1" || panel.getAttribute("aria-busy")) return;
  await fill(badge, panel);
  news.replaceChildren(...panel.querySelector(".explanation-note").cloneNode(true).childNodes);
  open(badge, panel, badge.getAttribute("aria-expanded") === "true"); // it may have been closed meanwhile
}

/** Let the badges of a list explain themselves, those that come later too; `news` is read out. */
export function explainOnClick(list, news) {
  list.querySelectorAll("a.badge").forEach(prepare);
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) {
      for (const node of addedNodes) {
        if (node.matches?.("a.badge")) prepare(node);
        node.querySelectorAll?.("a.badge").forEach(prepare);
      }
    }
  }).observe(list, { childList: true, subtree: true });
  list.addEventListener("click", (event) => {
    const badge = isBadge(event.target);
    if (!badge || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    toggle(badge, news);
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== " " || !isBadge(event.target)) return;
    event.preventDefault();
    toggle(isBadge(event.target), news);
  });
}
