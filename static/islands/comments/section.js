// The comments below an article, alive: what others write appears, and what one does happens without a reload.
// Every link and form here works without this; what goes wrong is left to them.

import { createApp, reactive } from "vue";
import { Arrivals, markFresh } from "./arrivals.js";
import CommentDialogs from "./CommentDialogs.vue";
import { Composers } from "./composers.js";
import { countPosted, showCounts } from "./counts.js";
import { forgetOldDrafts } from "./drafts.js";
import { explainOnClick } from "./explanations.js";
import { Feed } from "./feed.js";
import { fetchComments, NotForIslands, send } from "./http.js";
import LiveNotices from "./LiveNotices.vue";
import { readTexts } from "./texts.js";
import { mainOf, parseComment, repliesOf, Thread } from "./thread.js";

const NOTICE_MS = 5000;
const TEXTS = "comment-texts";

export function enliven(section) {
  return new CommentSection(section);
}

class CommentSection {
  #section;
  #say = readTexts(TEXTS);
  #news;
  #thread;
  #arrivals;
  #feed;
  #composers;
  #dialogs;
  #notices = reactive({ text: "" });
  #noticeTimer = 0;

  constructor(section) {
    this.#section = section;
    const list = section.querySelector(".comment-list");
    const { draft_address: draftAddress, reasons } = JSON.parse(document.getElementById(TEXTS).textContent);
    this.#news = section.querySelector("#badge-news");
    this.#thread = new Thread(list, { onBadge: (comment, badge) => this.#readBadge(comment, badge) });
    this.#arrivals = new Arrivals(this.#thread);
    this.#feed = new Feed({
      address: list.dataset.changes,
      since: list.dataset.cursor,
      apply: (answer) => this.#apply(answer),
      isWaiting: () => list.querySelector(".badge-waiting") !== null,
    });
    this.#composers = new Composers(section.querySelector("form#comment-form"), {
      say: this.#say,
      draftAddress,
      onSent: (answer) => this.#showSent(answer),
    });
    this.#mountNotices();
    this.#dialogs = createApp(CommentDialogs, { say: this.#say, reasons }).mount(this.#room("dialogs"));
    explainOnClick(list, this.#news);
    section.addEventListener("click", (event) => this.#onClick(event));
    section.addEventListener("submit", (event) => this.#onSubmit(event));
    forgetOldDrafts();
    this.#feed.start();
  }

  #mountNotices() {
    const props = { arrivals: this.#arrivals.state, notices: this.#notices, say: this.#say, onShow: () => this.#showNew() };
    createApp(LiveNotices, props).mount(this.#room("live"));
  }

  #room(name) {
    const room = document.createElement("div");
    room.className = name;
    this.#section.append(room);
    return room;
  }

  // -- What the server says --

  #apply({ comments, gone, counts }) {
    // A parent before its replies: the feed goes by time of change.
    for (const { id, html } of [...comments].sort((a, b) => a.id - b.id)) this.#take(id, parseComment(html));
    for (const id of gone) {
      this.#arrivals.forget(id);
      this.#thread.remove(id);
    }
    showCounts(this.#section, counts);
    this.#showWhetherEmpty();
  }

  #take(id, fresh) {
    const shown = this.#thread.find(id);
    if (shown) this.#thread.refresh(shown, fresh);
    else if (!this.#arrivals.has(id) && this.#arrivals.add(fresh)) this.#announce("new_here", { name: nameOf(fresh) });
    this.#read(this.#arrivals.state.count);
  }

  #lastCount = 0;

  #read(count) {
    if (count > this.#lastCount) this.#announce("new", { n: count });
    this.#lastCount = count;
  }

  #showWhetherEmpty() {
    const isEmpty = this.#thread.isEmpty();
    this.#section.querySelector(".empty").hidden = !isEmpty;
    const orders = this.#section.querySelector(".comment-orders");
    if (orders) orders.hidden = isEmpty;
  }

  #readBadge(comment, badge) {
    this.#news.textContent = `${nameOf(comment)}: ${badge.textContent}`;
  }

  #announce(key, values) {
    this.#news.textContent = this.#say(key, values);
  }

  #notify(text) {
    clearTimeout(this.#noticeTimer);
    this.#notices.text = text;
    this.#noticeTimer = setTimeout(() => (this.#notices.text = ""), NOTICE_MS);
  }

  #showNew() {
    const first = this.#arrivals.show();
    this.#lastCount = 0;
    this.#showWhetherEmpty();
    if (first) lead(first);
  }

  /** Put what this reader has written, or changed, before their eyes. */
  #showSent({ comment: { id, html }, notice }) {
    const fresh = parseComment(html);
    const shown = this.#thread.find(id);
    if (shown) this.#thread.refresh(shown, fresh);
    else if (!this.#thread.insert(fresh)) return location.assign(fresh.querySelector(".comment-time").href);
    else if (fresh.dataset.status === "visible") countPosted(this.#section);
    this.#showWhetherEmpty();
    this.#notify(notice || this.#say("posted"));
    const comment = this.#thread.find(id);
    markFresh(comment);
    lead(comment);
    return this.#feed.hurry();
  }

  // -- What the reader does --

  #onClick(event) {
    if (event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest("a");
    if (!link) return;
    const act = this.#actionOf(link);
    if (!act) return;
    event.preventDefault();
    Promise.resolve(act(link)).catch(() => location.assign(link.href));
  }

  #actionOf(link) {
    if (link.matches("a.reply") && this.#composers.canWrite) return () => this.#composers.reply(link.closest(".comment"));
    if (link.matches("a.edit") && this.#composers.canWrite) return () => this.#edit(link);
    if (link.matches("a.report")) return () => this.#report(link);
    if (link.matches("a.delete")) return () => this.#delete(link);
    if (link.matches("a.more-replies")) return () => this.#loadReplies(link);
    if (link.matches("a.more-comments")) return () => this.#loadMore(link);
    if (link.matches(".comment-orders a")) return () => this.#turn(link);
    return null;
  }

  #onSubmit(event) {
    const form = event.target;
    if (form.matches("form.like")) {
      event.preventDefault();
      this.#like(form);
    }
  }

  async #edit(link) {
    const comment = link.closest(".comment");
    const response = await fetch(link.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const text = page.querySelector("textarea[name=text]")?.value;
    if (!response.ok || text === undefined) throw new NotForIslands(); // too late to change it: the page says so
    this.#composers.edit(comment, { address: link.href, text, onClose: () => this.#stopEditing(comment) });
  }

  #stopEditing(comment) {
    const came = comment.dataset.busy;
    delete comment.dataset.busy;
    if (came) this.#thread.refresh(comment, parseComment(came));
  }

  async #like(form) {
    if (form.getAttribute("aria-busy")) return;
    const button = form.querySelector("button");
    const was = button.getAttribute("aria-pressed");
    form.setAttribute("aria-busy", "true");
    const fields = new FormData(form);
    button.setAttribute("aria-pressed", was !== "true"); // at once; what the server counts comes after
    try {
      const answer = await send(form.action, fields);
      if (answer.ok) return this.#thread.refresh(form.closest(".comment"), parseComment(answer.comment.html));
      this.#notify(answer.detail ?? this.#say("failed"));
    } catch (reason) {
      if (reason instanceof NotForIslands) return form.submit();
      this.#notify(this.#say("failed"));
    }
    button.setAttribute("aria-pressed", was);
    return form.removeAttribute("aria-busy");
  }

  #delete(link) {
    const comment = link.closest(".comment");
    const neighbour = neighbourOf(comment) ?? this.#section.querySelector("#comments-title");
    const remove = () => {
      if (!repliesOf(comment).children.length) this.#thread.remove(comment.dataset.comment);
      this.#showWhetherEmpty();
      this.#feed.hurry(); // one with replies leaves a placeholder
    };
    const act = () => this.#sendAnswered(link.href, new URLSearchParams({ csrfmiddlewaretoken: pageToken() }), () => location.assign(link.href), remove);
    return this.#dialogs.ask("delete", act, () => lead(comment.isConnected ? comment : neighbour));
  }

  #report(link) {
    return this.#dialogs.ask("report", ({ reason, note }) => {
      const fields = new URLSearchParams({ reason, note, csrfmiddlewaretoken: pageToken() });
      return this.#sendAnswered(link.href, fields, () => location.assign(link.href));
    });
  }

  /** Send what was asked about in a dialog; gives what stands in its way, or nothing. */
  async #sendAnswered(address, fields, leave, then = () => {}) {
    try {
      const answer = await send(address, fields);
      if (!answer.ok) return answer.errors?.join(" ") || answer.detail || this.#say("failed");
      then();
      this.#notify(answer.notice);
      return "";
    } catch (reason) {
      if (!(reason instanceof NotForIslands)) return this.#say("failed");
      leave();
      return "";
    }
  }

  // -- More of them --

  async #loadReplies(link) {
    const comment = link.closest(".comment");
    const page = await this.#load(link);
    const found = page.querySelector(`#${comment.id}`);
    if (!found) throw new NotForIslands();
    const first = this.#addMissing(repliesOf(comment), [...repliesOf(found).children]);
    const next = [...found.children].find((element) => element.matches(".more-replies"));
    if (next) link.replaceWith(document.importNode(next, true));
    else link.remove();
    if (first) lead(first);
  }

  async #loadMore(link) {
    const page = await this.#load(link);
    const list = page.querySelector(".comment-list");
    if (!list) throw new NotForIslands();
    const way = link.closest(".thread-way");
    const next = page.querySelector(".more-comments")?.closest(".thread-way");
    const first = this.#addMissing(this.#thread.list, [...list.children]);
    if (next) way.replaceWith(document.importNode(next, true));
    else way.remove();
    if (first) lead(first);
  }

  /** Append those of some comments that are not on the page; gives the first of them. */
  #addMissing(list, comments) {
    const missing = comments.filter((comment) => !this.#thread.find(comment.dataset.comment));
    const added = missing.map((comment) => parseComment(comment.outerHTML));
    list.append(...added);
    list.hidden = list.children.length === 0;
    return added[0];
  }

  /** Show the comments in another order. */
  async #turn(link) {
    const page = await this.#load(link);
    const list = page.querySelector(".comment-list");
    const orders = page.querySelector(".comment-orders");
    if (!list || !orders) throw new NotForIslands();
    this.#composers.close();
    this.#arrivals.clear();
    this.#lastCount = 0;
    const shown = this.#thread.list;
    for (const name of ["order", "top", "thread"]) shown.dataset[name] = list.dataset[name];
    shown.replaceChildren(...[...list.children].map((comment) => parseComment(comment.outerHTML)));
    this.#section.querySelector(".comment-orders").replaceWith(document.importNode(orders, true));
    this.#section.querySelector(".more-comments")?.closest(".thread-way").remove();
    const next = page.querySelector(".more-comments")?.closest(".thread-way");
    if (next) shown.after(document.importNode(next, true));
    history.replaceState(history.state, "", link.href);
    this.#section.querySelector(".comment-orders [aria-current]")?.focus({ preventScroll: true });
  }

  async #load(link) {
    link.setAttribute("aria-busy", "true");
    this.#announce("loading");
    try {
      return await fetchComments(link.href);
    } finally {
      link.removeAttribute("aria-busy");
    }
  }
}

const nameOf = (comment) => mainOf(comment).querySelector(".comment-author")?.textContent ?? "";
const pageToken = () => document.querySelector("input[name=csrfmiddlewaretoken]").value;

/** Where one is when a comment has gone: at the next, else the one before, else the one it answered. */
const neighbourOf = (comment) =>
  comment.nextElementSibling ?? comment.previousElementSibling ?? comment.parentElement.closest(".comment");

/** Lead eyes and keyboard to a comment. */
function lead(comment) {
  comment.tabIndex = -1;
  comment.focus({ preventScroll: true });
  comment.scrollIntoView({ block: "nearest", behavior: motion() });
}

const motion = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");
