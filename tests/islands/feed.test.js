import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Feed, LONGEST_MS, SOON_MS, USUAL_MS } from "../../static/islands/comments/feed.js";
import { json } from "./markup.js";

const QUIET = { cursor: "100", more: false, comments: [], gone: [], counts: {} };
const unchanged = () => new Response(null, { status: 304 });
let feed;
let answers;
let applied;
let isWaiting;

function follow() {
  applied = [];
  feed = new Feed({ address: "/changes/", since: "100", apply: (answer) => applied.push(answer), isWaiting: () => isWaiting });
  feed.start();
}

const asked = () => fetch.mock.calls.map(([address, { headers }]) => [address, headers["If-None-Match"]]);
const hide = (hidden) => {
  vi.spyOn(document, "hidden", "get").mockReturnValue(hidden);
  document.dispatchEvent(new Event("visibilitychange"));
};

beforeEach(() => {
  vi.useFakeTimers();
  isWaiting = false;
  answers = [];
  vi.stubGlobal("fetch", vi.fn(async () => (answers.shift() ?? unchanged)()));
});

afterEach(() => {
  feed.stop();
  vi.useRealTimers();
});

describe("a feed", () => {
  it("asks soon, from where the page stands, and hands the answer on", async () => {
    answers = [() => json({ ...QUIET, cursor: "200", comments: [{ id: 1 }] })];
    follow();
    await vi.advanceTimersByTimeAsync(SOON_MS);
    expect(asked()).toEqual([["/changes/?since=100", undefined]]);
    expect(applied).toMatchObject([{ cursor: "200", comments: [{ id: 1 }] }]);
    await vi.advanceTimersByTimeAsync(USUAL_MS);
    expect(asked()[1]).toEqual(["/changes/?since=200", undefined]);
  });

  it("lets the server answer that nothing has changed, and does not count that as news", async () => {
    answers = [() => json(QUIET, { headers: { ETag: '"state"' } })];
    follow();
    await vi.advanceTimersByTimeAsync(SOON_MS + 2 * USUAL_MS);
    expect(asked()[1]).toEqual(["/changes/?since=100", '"state"']);
    expect(applied).toHaveLength(1);
  });

  it("asks ever more rarely while nothing happens, and never stops asking", async () => {
    follow();
    await vi.advanceTimersByTimeAsync(10 * 60_000);
    const within = fetch.mock.calls.length;
    expect(within).toBeGreaterThan(8);
    expect(within).toBeLessThan(25);
    await vi.advanceTimersByTimeAsync(LONGEST_MS);
    expect(fetch.mock.calls.length).toBe(within + 1);
  });

  it("asks often while a badge is waited for, and not for ever", async () => {
    isWaiting = true;
    follow();
    await vi.advanceTimersByTimeAsync(5000);
    expect(fetch.mock.calls.length).toBeGreaterThan(4);
    await vi.advanceTimersByTimeAsync(120_000);
    const before = fetch.mock.calls.length;
    await vi.advanceTimersByTimeAsync(USUAL_MS);
    expect(fetch.mock.calls.length - before).toBeLessThan(2);
  });

  it("is silent in a hidden tab, and asks at once when it is seen again", async () => {
    follow();
    hide(true);
    await vi.advanceTimersByTimeAsync(10 * 60_000);
    expect(fetch).not.toHaveBeenCalled();
    hide(false);
    await vi.advanceTimersByTimeAsync(SOON_MS);
    expect(fetch).toHaveBeenCalledOnce();
  });

  it("fetches the rest at once when one answer did not hold everything", async () => {
    answers = [() => json({ ...QUIET, cursor: "150", more: true, comments: [{ id: 1 }] })];
    follow();
    await vi.advanceTimersByTimeAsync(2 * SOON_MS);
    expect(asked().map(([address]) => address)).toEqual(["/changes/?since=100", "/changes/?since=150"]);
  });

  it("waits as long as a busy server asks for, and goes on after a lost connection", async () => {
    answers = [
      () => new Response("", { status: 429, headers: { "Retry-After": "30" } }),
      () => Promise.reject(new TypeError("offline")),
      () => json({ ...QUIET, cursor: "300", gone: [4] }),
    ];
    follow();
    await vi.advanceTimersByTimeAsync(SOON_MS + 29_000);
    expect(fetch).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(2 * LONGEST_MS);
    expect(applied).toMatchObject([{ gone: [4] }]);
  });

  it("ends when the article is gone", async () => {
    answers = [() => new Response("", { status: 404 })];
    follow();
    await vi.advanceTimersByTimeAsync(10 * 60_000);
    expect(fetch).toHaveBeenCalledOnce();
  });
});
