// The comments on the page: each in its place, brought up to date without disturbing who reads or writes there.
// Their HTML comes from the server (templates/comments/_comment.html), which says what scripts rely on.

export const FRESH = "comment-fresh";

/** Make elements of a comment's HTML; forms in it get the page's own token, so that equal comments read equal. */
export function parseComment(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  const comment = template.content.querySelector(".comment");
  const token = document.querySelector("input[name=csrfmiddlewaretoken]")?.value;
  if (token) for (const field of comment.querySelectorAll("input[name=csrfmiddlewaretoken]")) field.value = token;
  return document.importNode(comment, true);
}

const child = (comment, selector) => [...comment.children].find((element) => element.matches(selector)) ?? null;
export const mainOf = (comment) => child(comment, ".comment-main");
export const repliesOf = (comment) => child(comment, ".comment-replies");
const parts = (main) => main.querySelector(".comment-text")?.textContent;

export class Thread {
  #list;
  #onBadge;

  /** `onBadge(comment, badge)` is told when a badge has appeared. */
  constructor(list, { onBadge = () => {} } = {}) {
    this.#list = list;
    this.#onBadge = onBadge;
  }

  get list() {
    return this.#list;
  }

  find(id) {
    return this.#list.querySelector(`#comment-${id}`);
  }

  /** Where a comment belongs: the list and the comment before which it stands. Null when its place is not on the page. */
  placeFor(comment) {
    if (!comment.dataset.parent) return this.#placeAmongFirst(comment);
    const parent = this.find(comment.dataset.parent);
    if (!parent) return null;
    const replies = repliesOf(parent);
    return { list: replies, before: firstAfter(replies, comment, byTime) };
  }

  #placeAmongFirst(comment) {
    const { order, thread, top } = this.#list.dataset;
    if (thread) return null; // the page shows one conversation
    const before = firstAfter(this.#list, comment, ORDERS[order]);
    const more = document.querySelector(".more-comments");
    if (!before && more && this.#list.children.length) return null; // on a later page
    if (before && !before.previousElementSibling && !top) return null; // on an earlier one
    return { list: this.#list, before };
  }

  insert(comment, place = this.placeFor(comment)) {
    if (!place) return false;
    place.list.insertBefore(comment, place.before);
    place.list.hidden = false;
    return true;
  }

  /** Bring a comment on the page up to what the server says of it. Its replies and what is open in it stay. */
  refresh(shown, fresh) {
    for (const { name, value } of fresh.attributes) shown.setAttribute(name, value);
    const old = mainOf(shown);
    const main = mainOf(fresh);
    if (shown.dataset.busy !== undefined) {
      shown.dataset.busy = fresh.outerHTML; // it is being edited: later
      return;
    }
    const waited = old.querySelector(".badge-waiting");
    const focused = focusedIn(old);
    if (parts(old) !== undefined && parts(old) === parts(main)) replaceParts(old, main);
    else old.replaceWith(main);
    restoreFocus(shown, focused);
    const badge = mainOf(shown).querySelector("a.badge");
    if (waited && badge) {
      badge.classList.add("badge-fresh");
      this.#onBadge(shown, badge);
    }
  }

  remove(id) {
    const comment = this.find(id);
    if (!comment) return;
    const list = comment.parentElement;
    comment.remove();
    if (list.matches(".comment-replies") && !list.children.length) list.hidden = true;
  }

  isEmpty() {
    return this.#list.children.length === 0;
  }
}

const byTime = (a, b) => compare(Date.parse(a.dataset.created), Date.parse(b.dataset.created)) || byId(a, b);
const byId = (a, b) => compare(Number(a.dataset.comment), Number(b.dataset.comment));
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const ORDERS = {
  oldest: byTime,
  newest: (a, b) => byTime(b, a),
  constructive: (a, b) => compare(Number(b.dataset.worth), Number(a.dataset.worth)) || byId(b, a),
};

/** The first in a list that comes after a comment in an order. */
function firstAfter(list, comment, order) {
  return [...list.children].find((other) => order(comment, other) < 0) ?? null;
}

/** The text is the same: replace what stands around it, so that an explanation in its place stays open. */
function replaceParts(old, main) {
  for (const selector of [".comment-head", ".comment-notice", ".comment-actions"]) {
    const before = old.querySelector(selector);
    const after = main.querySelector(selector);
    if (!before && after) old.querySelector(".comment-text").before(after);
    else if (before && !after) before.remove();
    else if (before && before.innerHTML !== after.innerHTML) {
      keepOpenBadge(before, after);
      before.replaceWith(after);
    }
  }
}

function keepOpenBadge(before, after) {
  const badge = before.querySelector("a.badge");
  const next = after.querySelector("a.badge");
  if (badge && next && badge.title === next.title) next.replaceWith(badge);
}

const CONTROLS = [
  ".like button",
  "a.like-count",
  "a.reply",
  "a.edit",
  "a.delete",
  "a.report",
  ".badge",
  ".comment-author",
  ".comment-time",
];

function focusedIn(main) {
  const focused = document.activeElement;
  return main.contains(focused) ? (CONTROLS.find((selector) => focused.matches(selector)) ?? null) : null;
}

function restoreFocus(comment, selector) {
  if (selector) mainOf(comment).querySelector(selector)?.focus({ preventScroll: true });
}
