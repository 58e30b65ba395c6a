import { flushPromises } from "@vue/test-utils";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { SOON_MS, USUAL_MS } from "../../static/islands/comments/feed.js";
import { enliven } from "../../static/islands/comments/section.js";
import { badge, commentHtml, ids, json, page, showSection } from "./markup.js";

const QUIET = { cursor: "100", more: false, comments: [], gone: [] };
const COUNTS = { comments: 0, positive: 0, neutral: 0, negative: 0, waiting: 0 };

let section;
let list;
let answers;
let changes;

function open(comments, options) {
  section = showSection(comments, options);
  list = section.querySelector(".comment-list");
  enliven(section);
}

async function feed(answer) {
  changes = { ...QUIET, counts: COUNTS, ...answer };
  await vi.advanceTimersByTimeAsync(SOON_MS + USUAL_MS);
  await flushPromises();
}

async function press(selector) {
  section.querySelector(selector).click();
  await flushPromises();
}

const sent = (address) => fetch.mock.calls.filter(([asked, options]) => new URL(asked, location.href).pathname === address && options?.method === "POST");
const comment = (id, options = {}) => ({ id, parent: options.parent ?? null, html: commentHtml(id, options) });
const said = () => section.querySelector(".live-notice").textContent;

beforeEach(() => {
  localStorage.clear();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
  vi.spyOn(Element.prototype, "scrollIntoView").mockImplementation(() => {});
  vi.spyOn(location, "assign").mockImplementation(() => {});
  changes = { ...QUIET, counts: COUNTS };
  answers = { "/articles/a/comments/changes/": () => json(changes) };
  vi.stubGlobal("fetch", vi.fn(async (address) => answers[new URL(address, location.href).pathname](address)));
});

afterEach(() => {
  document.body.innerHTML = "";
  vi.clearAllTimers();
  vi.useRealTimers();
});

describe("what others do", () => {
  it("appears, with the numbers, and is read out", async () => {
    open("");
    const counts = { comments: 2, positive: 1, neutral: 0, negative: 1, waiting: 0 };
    await feed({ comments: [comment(2, { parent: 1 }), comment(1)], counts });
    expect(ids(list)).toEqual([1]);
    expect(list.querySelector("#comment-1 #comment-2")).not.toBeNull();
    expect(section.querySelector(".count").textContent).toBe("2");
    expect([...section.querySelectorAll("rect")].map((bar) => bar.getAttribute("width"))).toEqual(["50", "0", "50"]);
    expect(section.querySelector("#echo").hidden).toBe(false);
    expect(section.querySelector(".empty").hidden).toBe(true);
    expect(section.querySelector("#badge-news").textContent).toBe("New comment by reader2");
  });

  it("brings a badge to a comment that waited for it", async () => {
    open(commentHtml(1));
    await feed({ comments: [comment(1, { mark: badge("positive") })] });
    expect(list.querySelector(".badge-positive.badge-fresh")).not.toBeNull();
    expect(section.querySelector("#badge-news").textContent).toBe("reader1: positive");
  });

  it("takes away what is gone", async () => {
    open(commentHtml(2) + commentHtml(1));
    await feed({ gone: [1, 99] });
    expect(ids(list)).toEqual([2]);
  });
});

describe("what one does", () => {
  it("an answer is written below a comment and stands there once it is posted", async () => {
    answers["/articles/a/comments/"] = () => json({ ...{ comment: comment(9, { parent: 1 }) }, notice: "" }, { status: 201 });
    open(commentHtml(1));
    await press("#comment-1 a.reply");
    const form = section.querySelector("#comment-1 .comment-composer form");
    expect(form.querySelector("label").textContent).toBe("Reply to reader1");
    expect(document.activeElement).toBe(form.elements.text);
    form.elements.text.value = "I agree";
    form.requestSubmit();
    await flushPromises();
    expect(Object.fromEntries(sent("/articles/a/comments/")[0][1].body)).toMatchObject({ parent: "1", text: "I agree" });
    expect(section.querySelector(".comment-composer")).toBeNull();
    expect(list.querySelector("#comment-1 .comment-replies #comment-9")).toBe(document.activeElement);
    expect(said()).toBe("Posted");
    expect([".count", "[data-count=waiting]"].map((one) => section.querySelector(one).textContent)).toEqual(["1", "1"]);
  });

  it("a form that is open moves to where one wants to answer next, and what stood in it is kept", async () => {
    open(commentHtml(2) + commentHtml(1));
    await press("#comment-1 a.reply");
    section.querySelector(".comment-composer textarea").value = "unfinished";
    await press("#comment-2 a.reply");
    expect(section.querySelectorAll(".comment-composer")).toHaveLength(1);
    await press("#comment-1 a.reply");
    expect(section.querySelector("#comment-1 textarea").value).toBe("unfinished");
    await press("#comment-1 .cancel");
    expect(section.querySelector(".comment-composer")).toBeNull();
  });

  it("a comment whose place is on another page is gone to", async () => {
    answers["/articles/a/comments/"] = () => json({ comment: comment(9) }, { status: 201 });
    open(commentHtml(1), { order: "oldest", more: '<p class="thread-way"><a class="more-comments" href="/a/?after=1">More</a></p>' });
    section.querySelector("#comment-form").requestSubmit();
    await flushPromises();
    expect(location.assign).toHaveBeenCalledWith(expect.stringContaining("?comment=9#comment-9"));
  });

  it("a like shows at once, and is taken back when it did not count", async () => {
    answers["/comments/1/like/"] = () => json({ comment: comment(1, { likes: 1 }) });
    open(commentHtml(1));
    const pressed = () => list.querySelector(".like button").getAttribute("aria-pressed");
    list.querySelector(".like").requestSubmit();
    expect(pressed()).toBe("true");
    await flushPromises();
    expect(list.querySelector(".like button").textContent).toBe("Like 1");
    answers["/comments/1/like/"] = () => Promise.reject(new TypeError("offline"));
    list.querySelector(".like").requestSubmit();
    await flushPromises();
    expect(pressed()).toBe("false");
    expect(said()).toBe("Failed");
  });

  it("a text is changed in its place, while what comes for it meanwhile waits", async () => {
    answers["/comments/1/edit/"] = (address) =>
      String(address).includes("edit") && sent("/comments/1/edit/").length
        ? json({ comment: comment(1, { text: "mended" }), notice: "Changed" })
        : page('<textarea name="text">as I\nwrote it</textarea>');
    open(commentHtml(1));
    await press("#comment-1 a.edit");
    const form = section.querySelector(".comment-composer form");
    expect(form.elements.text.value).toBe("as I\nwrote it");
    await feed({ comments: [comment(1, { text: "from the feed" })] });
    expect(list.querySelector(".comment-text").textContent).toBe("words");
    form.requestSubmit();
    await flushPromises();
    expect(list.querySelector(".comment-text").textContent).toBe("mended");
    expect(list.querySelector("#comment-1").dataset.busy).toBeUndefined();
    expect(said()).toBe("Changed");
  });

  it("deleting is asked about first, and then one stands at the next comment", async () => {
    answers["/comments/2/delete/"] = () => json({ notice: "Gone" });
    open(commentHtml(2) + commentHtml(1));
    await press("#comment-2 a.delete");
    section.querySelector("dialog form").requestSubmit();
    await flushPromises();
    expect(ids(list)).toEqual([1]);
    expect(document.activeElement.id).toBe("comment-1");
  });

  it("of the last one that is deleted the list says that it is empty", async () => {
    answers["/comments/1/delete/"] = () => json({ notice: "Gone" });
    open(commentHtml(1));
    await press("#comment-1 a.delete");
    expect(sent("/comments/1/delete/")).toEqual([]);
    const dialog = section.querySelector("dialog");
    expect(dialog.open).toBe(true);
    dialog.querySelector("form").requestSubmit();
    await flushPromises();
    expect(sent("/comments/1/delete/")).toHaveLength(1);
    expect(dialog.open).toBe(false);
    expect(ids(list)).toEqual([]);
    expect(section.querySelector(".empty").hidden).toBe(false);
    expect(document.activeElement.id).toBe("comments-title");
  });

  it("a report needs a reason, and says what becomes of it", async () => {
    answers["/comments/1/report/"] = () => json({ notice: "Thanks" });
    open(commentHtml(1));
    await press("#comment-1 a.report");
    const form = section.querySelector("dialog form");
    form.requestSubmit();
    await flushPromises();
    expect(form.querySelector("[role=alert]").textContent).toBe("Choose a reason.");
    form.querySelector("[value=abuse]").click();
    form.requestSubmit();
    await flushPromises();
    expect(Object.fromEntries(sent("/comments/1/report/")[0][1].body)).toEqual({ reason: "abuse", note: "", csrfmiddlewaretoken: "token" });
    expect(said()).toBe("Thanks");
  });
});

describe("more of them", () => {
  const more = (href) => `<a class="more-replies" href="${href}">more</a>`;

  it("replies are added below those that are shown, none twice", async () => {
    answers["/a/"] = () => page(`<ol>${commentHtml(1, { replies: commentHtml(2, { parent: 1 }) + commentHtml(3, { parent: 1 }), more: more("/a/?after=3") })}</ol>`);
    open(commentHtml(1, { replies: commentHtml(2, { parent: 1 }), more: more("/a/?thread=1#comment-1") }));
    await press(".more-replies");
    expect(String(fetch.mock.calls.at(-1)[0])).toContain("?thread=1&part=comments");
    expect(ids(list.querySelector("#comment-1 .comment-replies"))).toEqual([2, 3]);
    expect(list.querySelector(".more-replies").getAttribute("href")).toBe("/a/?after=3");
  });

  it("the next page is added to this one, until there is none", async () => {
    answers["/a/"] = () => page(`<ol class="comment-list">${commentHtml(1)}</ol>`);
    open(commentHtml(2), { more: '<p class="thread-way"><a class="more-comments" href="/a/?after=2">More</a></p>' });
    await press(".more-comments");
    expect(ids(list)).toEqual([2, 1]);
    expect(section.querySelector(".more-comments")).toBeNull();
  });

  it("another order replaces the list, and the address follows", async () => {
    answers["/a/"] = () =>
      page(`<nav class="comment-orders"><a href="/a/" aria-current="true">oldest</a></nav>
        <ol class="comment-list" data-order="oldest" data-top="1" data-thread="">${commentHtml(1)}${commentHtml(2)}</ol>`);
    const address = vi.spyOn(history, "replaceState").mockImplementation(() => {});
    open(commentHtml(2) + commentHtml(1));
    await press("[data-order=oldest]");
    expect(ids(list)).toEqual([1, 2]);
    expect(list.dataset.order).toBe("oldest");
    expect(address.mock.calls[0][2]).toContain("/a/?order=oldest");
    await feed({ comments: [comment(3)] });
    expect(ids(list)).toEqual([1, 2, 3]);
  });

  it("what cannot be loaded is gone to as a page", async () => {
    answers["/a/"] = () => page("broken", 500);
    open(commentHtml(2) + commentHtml(1));
    await press("[data-order=oldest]");
    expect(location.assign).toHaveBeenCalledWith(expect.stringContaining("/a/?order=oldest"));
    expect(ids(list)).toEqual([2, 1]);
  });

  it("a link that is opened in another tab is left alone", () => {
    open(commentHtml(1));
    const click = new MouseEvent("click", { bubbles: true, cancelable: true, ctrlKey: true });
    section.querySelector("a.reply").dispatchEvent(click);
    expect(click.defaultPrevented).toBe(false);
    expect(section.querySelector(".comment-composer")).toBeNull();
  });
});
