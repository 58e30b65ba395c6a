// Forms to write in: the one above the comments, one below a comment to answer it, one in the place of its text to
// change it. All are the server's form, or copies of it.

import { createApp } from "vue";
import CommentComposer from "./CommentComposer.vue";
import { mainOf } from "./thread.js";

export class Composers {
  #say;
  #texts;
  #onSent;
  #blank = null; // the form as the server made it, without an answer's words
  #open = null;

  /** `onSent(answer)` is handed what the server says of a comment that was posted or changed. */
  constructor(form, { say, draftAddress, onSent }) {
    this.#say = say;
    this.#texts = { draftAddress };
    this.#onSent = onSent;
    if (!form) return; // one cannot write here, or not without signing in
    this.#blank = blankCopy(form);
    const parent = form.elements.parent?.value ?? "";
    this.#mount(form, { draftKey: this.#draftKey(parent), onSent });
  }

  get canWrite() {
    return this.#blank !== null;
  }

  /** Open a form below a comment; one that is open elsewhere is closed, and what stands in it is kept. */
  reply(comment) {
    const id = comment.dataset.comment;
    if (this.#open?.key === `reply-${id}`) return this.#open.form.elements.text.focus();
    const form = this.#copy(`reply-${id}`, {
      label: this.#say("answering", { name: nameOf(comment) }),
      submit: this.#say("send_reply"),
    });
    const parent = Object.assign(document.createElement("input"), { type: "hidden", name: "parent", value: id });
    form.prepend(parent);
    return this.#show(comment, form, { key: `reply-${id}`, draftKey: this.#draftKey(id) });
  }

  /** Open a form with a comment's text; until it is closed, `busy` keeps what comes for the comment meanwhile. */
  edit(comment, { address, text, onClose }) {
    const key = `edit-${comment.dataset.comment}`;
    if (this.#open?.key === key) return this.#open.form.elements.text.focus();
    const form = this.#copy(key, { label: this.#say("edit"), submit: this.#say("save") });
    form.action = address;
    form.querySelector(".guest-name")?.remove();
    form.elements.text.value = text;
    comment.dataset.busy = "";
    return this.#show(comment, form, { key, draftKey: "", onClose });
  }

  close() {
    const open = this.#open;
    this.#open = null;
    if (!open) return;
    open.unmount();
    open.form.parentElement.remove();
    open.onClose?.();
  }

  #show(comment, form, { key, draftKey, onClose }) {
    this.close();
    const box = document.createElement("div");
    box.className = "comment-composer";
    box.append(form);
    mainOf(comment).after(box);
    const done = (answer) => {
      this.close();
      this.#onSent(answer);
    };
    const unmount = this.#mount(form, { draftKey, onSent: done, onCancel: () => this.#cancel(comment, key.startsWith("edit") ? "a.edit" : "a.reply") });
    this.#open = { key, form, unmount, onClose };
    form.elements.text.focus();
  }

  #cancel(comment, opener) {
    this.close();
    mainOf(comment).querySelector(opener)?.focus();
  }

  #mount(form, { draftKey, onSent, onCancel = () => {} }) {
    form.querySelector(".cancel")?.addEventListener("click", onCancel);
    const props = { form, say: this.#say, draftKey, ...this.#texts, onSent, onCancel };
    const app = createApp(CommentComposer, props);
    app.mount(form.querySelector(".composer-tools"));
    return () => app.unmount();
  }

  #copy(id, { label, submit }) {
    const form = this.#blank.cloneNode(true);
    form.id = id;
    for (const field of form.querySelectorAll("[id]")) {
      const labels = form.querySelectorAll(`label[for="${field.id}"]`);
      field.id = `${id}-${field.id}`;
      for (const each of labels) each.htmlFor = field.id;
    }
    form.querySelector(`label[for$="comment-text"]`).textContent = label;
    const actions = form.querySelector(".form-actions");
    actions.querySelector(".button").textContent = submit;
    form.querySelector(".help")?.remove();
    const cancel = Object.assign(document.createElement("button"), { type: "button", className: "link cancel" });
    cancel.textContent = this.#say("cancel");
    actions.querySelector(".button").before(cancel);
    return form;
  }

  #draftKey(parent) {
    return `${this.#blank.dataset.writer}:${this.#blank.getAttribute("action")}:${parent}`;
  }
}

const nameOf = (comment) => mainOf(comment).querySelector(".comment-author").textContent;

function blankCopy(form) {
  const copy = form.cloneNode(true);
  for (const element of copy.querySelectorAll(".answering, .field-error, [name=parent]")) element.remove();
  const field = copy.elements.text;
  field.value = field.textContent = "";
  for (const name of ["autofocus", "aria-invalid", "aria-describedby"]) field.removeAttribute(name);
  return copy;
}
