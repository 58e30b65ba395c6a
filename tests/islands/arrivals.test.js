import { beforeEach, describe, expect, it, vi } from "vitest";
import { Arrivals } from "../../static/islands/comments/arrivals.js";
import { parseComment, Thread } from "../../static/islands/comments/thread.js";
import { commentHtml, ids, showSection } from "./markup.js";

let arrivals;
let list;
let tops;
let seen;

function place(element, top) {
  tops.set(element, top);
}

beforeEach(() => {
  tops = new Map();
  vi.stubGlobal(
    "IntersectionObserver",
    class {
      constructor(tell) {
        seen = (target) => tell([{ isIntersecting: true, target }]);
      }
      observe() {}
      unobserve() {}
    },
  );
  vi.spyOn(Element.prototype, "getBoundingClientRect").mockImplementation(function () {
    const top = tops.get(this) ?? 100;
    return { top, bottom: top + 50 };
  });
  list = showSection(commentHtml(2) + commentHtml(1)).querySelector(".comment-list");
  arrivals = new Arrivals(new Thread(list));
});

const arrive = (id, options) => arrivals.add(parseComment(commentHtml(id, options)));

describe("a comment that arrives", () => {
  it("appears at once before the eyes of who looks at its place", () => {
    expect(arrive(3)).toBe(true);
    expect(ids(list)).toEqual([3, 2, 1]);
    expect(list.firstElementChild.classList).toContain("comment-fresh");
    expect(arrivals.state.count).toBe(0);
  });

  it("waits where it would push down what is being read, until it is asked for", () => {
    place(list.firstElementChild, -400);
    expect(arrive(3)).toBe(false);
    expect(arrive(4)).toBe(false);
    expect(ids(list)).toEqual([2, 1]);
    expect(arrivals.state.count).toBe(2);
    expect(arrivals.show().dataset.comment).toBe("4");
    expect(ids(list)).toEqual([4, 3, 2, 1]);
    expect(arrivals.state.count).toBe(0);
  });

  it("waits while somebody writes below its place", () => {
    list.insertAdjacentHTML("beforeend", "<li><textarea></textarea></li>");
    const field = list.querySelector("textarea");
    field.focus();
    place(field, 300);
    expect(arrive(3)).toBe(false);
    expect(arrivals.state.count).toBe(1);
  });

  it("is put in further down where nobody looks, and counted until it is seen", () => {
    place(list.firstElementChild, window.innerHeight + 10);
    expect(arrive(3)).toBe(false);
    expect(ids(list)).toEqual([3, 2, 1]);
    expect(arrivals.state.count).toBe(1);
    seen(list.firstElementChild);
    expect(arrivals.state.count).toBe(0);
  });

  it("waits with what it answers", () => {
    place(list.firstElementChild, -400);
    arrive(3);
    arrive(4, { parent: 3 });
    expect(arrivals.state.count).toBe(2);
    arrivals.show();
    expect(list.querySelector("#comment-3 .comment-replies #comment-4")).not.toBeNull();
  });

  it("is forgotten when it is taken back before anybody saw it", () => {
    place(list.firstElementChild, -400);
    arrive(3);
    arrivals.forget(3);
    expect(arrivals.state.count).toBe(0);
    expect(arrivals.show()).toBeNull();
  });
});
