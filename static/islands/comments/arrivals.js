// New comments while somebody reads: one that would move what they see, or where they write, waits until they ask.

import { reactive } from "vue";
import { FRESH } from "./thread.js";

const FRESH_MS = 4000;

export class Arrivals {
  /** How many are not seen yet, for whoever shows it. */
  state = reactive({ count: 0 });
  #thread;
  #held = new Map(); // id → comment, not on the page
  #unseen = new Map(); // id → comment, further down on it
  #watcher;

  constructor(thread) {
    this.#thread = thread;
    this.#watcher = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) this.forget(Number(target.dataset.comment));
    });
  }

  /** Take a comment in; says whether it is on the page now, before the reader's eyes. */
  add(comment) {
    const id = Number(comment.dataset.comment);
    if (this.#held.has(id) || this.#held.has(Number(comment.dataset.parent))) return this.#hold(id, comment);
    const place = this.#thread.placeFor(comment);
    if (!place) return false;
    const top = topOf(place);
    if (top < 0 || movesWriting(top)) return this.#hold(id, comment);
    this.#thread.insert(comment, place);
    if (top >= window.innerHeight) return this.#leaveUnseen(id, comment);
    markFresh(comment);
    return true;
  }

  has(id) {
    return this.#held.has(id);
  }

  forget(id) {
    const comment = this.#unseen.get(id);
    if (comment) this.#watcher.unobserve(comment);
    this.#unseen.delete(id);
    this.#held.delete(id);
    this.#count();
  }

  clear() {
    for (const id of [...this.#held.keys(), ...this.#unseen.keys()]) this.forget(id);
  }

  /** Put all that wait in their places, and give the one that stands first of all that are new. */
  show() {
    const arrived = [...this.#held.values()].sort((a, b) => a.dataset.comment - b.dataset.comment);
    for (const comment of arrived) this.#thread.insert(comment);
    const all = [...arrived, ...this.#unseen.values()].filter((comment) => comment.isConnected);
    this.clear();
    all.forEach(markFresh);
    return all.reduce((first, comment) => (!first || precedes(comment, first) ? comment : first), null);
  }

  #hold(id, comment) {
    this.#held.set(id, comment);
    this.#count();
    return false;
  }

  #leaveUnseen(id, comment) {
    this.#unseen.set(id, comment);
    this.#watcher.observe(comment);
    this.#count();
    return false;
  }

  #count() {
    this.state.count = this.#held.size + this.#unseen.size;
  }
}

/** Draw the eye to a comment for a moment. */
export function markFresh(comment) {
  comment.classList.add(FRESH);
  setTimeout(() => comment.classList.remove(FRESH), FRESH_MS);
}

function topOf({ list, before }) {
  if (before) return before.getBoundingClientRect().top;
  const last = list.lastElementChild ?? (list.hidden ? list.previousElementSibling : list);
  return last.getBoundingClientRect().bottom;
}

/** Whether somebody writes, or has marked words, below a place where something would be put in. */
function movesWriting(top) {
  const focused = document.activeElement;
  if (focused?.matches("textarea, input") && focused.getBoundingClientRect().top > top) return true;
  const marked = document.getSelection();
  return Boolean(marked && !marked.isCollapsed && marked.getRangeAt(0).getBoundingClientRect().top > top);
}

const precedes = (a, b) => Boolean(a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING);
