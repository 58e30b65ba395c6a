import { describe, expect, it, vi } from "vitest";
import { mainOf, parseComment, repliesOf, Thread } from "../../static/islands/comments/thread.js";
import { badge, commentHtml, ids, showSection } from "./markup.js";

function threadOf(comments, options) {
  const section = showSection(comments, options);
  const list = section.querySelector(".comment-list");
  return { list, thread: new Thread(list, options) };
}

const fresh = (...description) => parseComment(commentHtml(...description));
const MORE = '<p class="thread-way"><a class="more-comments" href="/a/?after=x">More</a></p>';

describe("a new comment", () => {
  it.each([
    ["newest", [5, 3, 1]],
    ["oldest", [1, 3, 5]],
  ])("stands where the order %s has it", (order, expected) => {
    const shown = expected.filter((id) => id !== 3);
    const { list, thread } = threadOf(shown.map((id) => commentHtml(id)).join(""), { order });
    expect(thread.insert(fresh(3))).toBe(true);
    expect(ids(list)).toEqual(expected);
  });

  it("stands by its worth among the constructive ones", () => {
    const { list, thread } = threadOf(commentHtml(1, { worth: 0.9 }) + commentHtml(2, { worth: 0.1 }), { order: "constructive" });
    thread.insert(fresh(3, { worth: 0.5 }));
    expect(ids(list)).toEqual([1, 3, 2]);
  });

  it.each([
    ["after the last of a page that goes on", { order: "oldest", more: MORE }, 9],
    ["before the first of a page that does not begin at the top", { order: "newest", top: "" }, 9],
    ["beside the one conversation that is shown", { order: "oldest", thread: "4" }, 9],
  ])("has no place on this page %s", (_name, options, id) => {
    const { list, thread } = threadOf(commentHtml(4) + commentHtml(3), options);
    expect(thread.insert(fresh(id))).toBe(false);
    expect(ids(list)).toEqual([4, 3]);
  });

  it("stands below what it answers, the oldest first, and opens the list of replies", () => {
    const { thread } = threadOf(commentHtml(1));
    thread.insert(fresh(8, { parent: 1 }));
    thread.insert(fresh(6, { parent: 1 }));
    const replies = repliesOf(thread.find(1));
    expect(ids(replies)).toEqual([6, 8]);
    expect(replies.hidden).toBe(false);
  });

  it("that answers what is not on the page is not on it either", () => {
    const { list, thread } = threadOf(commentHtml(1));
    expect(thread.insert(fresh(8, { parent: 77 }))).toBe(false);
    expect(list.querySelectorAll(".comment")).toHaveLength(1);
  });
});

describe("a changed comment", () => {
  it("keeps its replies and shows its new text", () => {
    const { thread } = threadOf(commentHtml(1, { replies: commentHtml(2, { parent: 1 }) }));
    thread.refresh(thread.find(1), fresh(1, { text: "changed", likes: 3 }));
    expect(mainOf(thread.find(1)).querySelector(".comment-text").textContent).toBe("changed");
    expect(thread.find(1).dataset.likes).toBe("3");
    expect(ids(repliesOf(thread.find(1)))).toEqual([2]);
  });

  it("tells of a badge that has come, once", () => {
    const onBadge = vi.fn();
    const { thread } = threadOf(commentHtml(1), { onBadge });
    thread.refresh(thread.find(1), fresh(1, { mark: badge("positive") }));
    thread.refresh(thread.find(1), fresh(1, { mark: badge("positive"), likes: 1 }));
    expect(onBadge).toHaveBeenCalledOnce();
    expect(onBadge.mock.calls[0][1].textContent).toBe("positive");
  });

  it("leaves the keyboard where it was", () => {
    const { thread } = threadOf(commentHtml(1));
    mainOf(thread.find(1)).querySelector(".like button").focus();
    thread.refresh(thread.find(1), fresh(1, { likes: 4 }));
    expect(document.activeElement.textContent).toBe("Like 4");
  });

  it("leaves an explanation open as long as the text is the same", () => {
    const { thread } = threadOf(commentHtml(1, { mark: badge("negative") }));
    const shown = thread.find(1);
    const opened = shown.querySelector("a.badge");
    opened.setAttribute("aria-expanded", "true");
    shown.querySelector(".comment-text").insertAdjacentHTML("afterend", '<div class="explanation">why</div>');
    thread.refresh(shown, fresh(1, { mark: badge("negative"), likes: 1 }));
    expect(shown.querySelector("a.badge")).toBe(opened);
    expect(shown.querySelector(".explanation").textContent).toBe("why");
    thread.refresh(shown, fresh(1, { mark: badge("negative"), text: "other" }));
    expect(shown.querySelector(".explanation")).toBeNull();
  });

  it("is kept for later while its text is being edited", () => {
    const { thread } = threadOf(commentHtml(1));
    const shown = thread.find(1);
    shown.dataset.busy = "";
    thread.refresh(shown, fresh(1, { text: "changed elsewhere" }));
    expect(mainOf(shown).querySelector(".comment-text").textContent).toBe("words");
    expect(shown.dataset.busy).toContain("changed elsewhere");
  });
});

it("a comment that is gone takes the last reply's list with it", () => {
  const { list, thread } = threadOf(commentHtml(1, { replies: commentHtml(2, { parent: 1 }) }));
  thread.remove(2);
  expect(repliesOf(thread.find(1)).hidden).toBe(true);
  thread.remove(1);
  thread.remove(1);
  expect(list.children).toHaveLength(0);
});

it("a comment's forms are sent with the token of the page", () => {
  showSection();
  expect(fresh(1).querySelector("[name=csrfmiddlewaretoken]").value).toBe("token");
});
