import { flushPromises, mount } from "@vue/test-utils";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import CommentComposer from "../../static/islands/comments/CommentComposer.vue";
import { keepDraft, readDraft } from "../../static/islands/comments/drafts.js";
import { PAUSE_MS } from "../../static/islands/comments/nudge.js";
import { json, page, say, showSection } from "./markup.js";

let composer;
let form;
let answers; // by address

function compose({ draftKey = "key" } = {}) {
  form = showSection().querySelector("#comment-form");
  composer = mount(CommentComposer, {
    props: { form, say, draftAddress: "/draft/", draftKey },
    attachTo: form.querySelector(".composer-tools"),
  });
}

function write(text) {
  form.elements.text.value = text;
  form.elements.text.dispatchEvent(new Event("input"));
}

async function send() {
  form.requestSubmit();
  await flushPromises();
}

const words = () => composer.text().replace(/\s+/g, " ");
const sentTo = (address) => fetch.mock.calls.filter(([asked]) => new URL(asked, location.href).pathname === address);

beforeEach(() => {
  localStorage.clear();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
  answers = {};
  vi.stubGlobal("fetch", vi.fn(async (address) => answers[new URL(address, location.href).pathname]()));
});

afterEach(() => {
  composer.unmount();
  vi.useRealTimers();
});

describe("a composer", () => {
  it("counts characters as the server does, and says by how many there are too many", async () => {
    compose();
    write("好👍🏽");
    await composer.vm.$nextTick();
    expect(words()).toContain("3 / 20");
    write("x".repeat(25));
    await composer.vm.$nextTick();
    expect(words()).toContain("5 characters too many");
    expect(form.elements.text.maxLength).toBe(-1);
  });

  it("keeps what is not sent, gives it back the next time, and lets it be thrown away", async () => {
    compose();
    write("half a thought");
    vi.advanceTimersByTime(1000);
    composer.unmount();
    compose();
    await composer.vm.$nextTick();
    expect(form.elements.text.value).toBe("half a thought");
    await composer.get("button").trigger("click");
    expect(form.elements.text.value).toBe("");
    expect(readDraft("key")).toBe("");
  });

  it("leaves alone what the server has given back", async () => {
    keepDraft("key", "older");
    form = showSection().querySelector("#comment-form");
    form.elements.text.value = "refused just now";
    composer = mount(CommentComposer, { props: { form, say, draftAddress: "/draft/", draftKey: "key" } });
    await composer.vm.$nextTick();
    expect(form.elements.text.value).toBe("refused just now");
  });

  it("sends the form's fields once, hands the answer on, and is empty afterwards", async () => {
    answers["/articles/a/comments/"] = () => json({ comment: { id: 5 }, notice: "" }, { status: 201 });
    compose();
    write("hello there");
    form.requestSubmit();
    await send();
    const [[, { body, headers }], ...others] = sentTo("/articles/a/comments/");
    expect(others).toEqual([]);
    expect(Object.fromEntries(body)).toEqual({ csrfmiddlewaretoken: "token", text: "hello there" });
    expect(headers.Accept).toBe("application/json");
    expect(composer.emitted("sent")).toEqual([[{ ok: true, status: 201, comment: { id: 5 }, notice: "" }]]);
    expect(form.elements.text.value).toBe("");
    expect(readDraft("key")).toBe("");
  });

  it("sends by Ctrl and Enter, but not while a word is still being put together", async () => {
    answers["/articles/a/comments/"] = () => json({ comment: {} }, { status: 201 });
    compose();
    write("你好");
    const press = (more) => form.elements.text.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, ...more }));
    press({ isComposing: true });
    press({});
    await flushPromises();
    expect(sentTo("/articles/a/comments/")).toHaveLength(1);
  });

  it("shows why it was refused, and keeps the words", async () => {
    answers["/articles/a/comments/"] = () => json({ errors: ["Please write something", "And a name"] }, { status: 400 });
    compose();
    write("x");
    await send();
    expect(composer.get("[role=alert]").text()).toBe("Please write something And a name");
    expect(form.elements.text.value).toBe("x");
    write("xy");
    await composer.vm.$nextTick();
    expect(composer.get("[role=alert]").text()).toBe("");
  });

  it("says when there is no connection, and can be sent again", async () => {
    answers["/articles/a/comments/"] = () => Promise.reject(new TypeError("offline"));
    compose();
    write("keep me");
    await send();
    expect(composer.get("[role=alert]").text()).toBe("Not sent");
    expect(readDraft("key")).toBe("keep me");
    answers["/articles/a/comments/"] = () => json({ comment: {} }, { status: 201 });
    await send();
    expect(composer.emitted("sent")).toHaveLength(1);
  });

  it("leaves to the browser what is no answer for it, such as the way to sign in", async () => {
    answers["/articles/a/comments/"] = () => page("<h1>Sign in</h1>");
    compose();
    const submitted = vi.spyOn(form, "submit").mockImplementation(() => {});
    write("after the session's end");
    await send();
    expect(submitted).toHaveBeenCalledOnce();
    expect(composer.emitted("sent")).toBeUndefined();
  });

  it("can be left by Escape while nothing is written", () => {
    compose();
    const press = () => form.elements.text.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    write("not yet");
    press();
    expect(composer.emitted("cancel")).toBeUndefined();
    write("");
    press();
    expect(composer.emitted("cancel")).toHaveLength(1);
  });
});

describe("the nudge", () => {
  const HARSH = { label: "negative", score: 0.97, harsh: true };

  async function pause() {
    await vi.advanceTimersByTimeAsync(PAUSE_MS);
    await flushPromises();
  }

  it("comes when somebody stops over harsh words, and goes when they change them", async () => {
    answers["/draft/"] = () => json(HARSH);
    compose();
    write("what utter rubb");
    write("what utter rubbish");
    await pause();
    expect(sentTo("/draft/").map(([, { body }]) => body.get("text"))).toEqual(["what utter rubbish"]);
    expect(sentTo("/draft/")[0][1].headers["X-CSRFToken"]).toBe("token");
    expect(words()).toContain("This may sound harsh.");
    answers["/draft/"] = () => json({ ...HARSH, harsh: false });
    write("I see it differently");
    await pause();
    expect(words()).not.toContain("harsh");
  });

  it.each([
    ["has nothing to say", () => new Response(null, { status: 204 })],
    ["is away", () => Promise.reject(new TypeError("offline"))],
    ["breaks", () => page("oops", 500)],
  ])("does not come when the service %s", async (_name, answer) => {
    answers["/draft/"] = answer;
    compose();
    write("what utter rubbish");
    await pause();
    expect(sentTo("/draft/")).toHaveLength(1);
    expect(words()).not.toContain("harsh");
  });

  it("is not asked for while sending, and sending does not wait for it", async () => {
    answers["/draft/"] = () => new Promise(() => {});
    answers["/articles/a/comments/"] = () => json({ comment: {} }, { status: 201 });
    compose();
    write("what utter rubbish");
    await pause();
    await send();
    expect(composer.emitted("sent")).toHaveLength(1);
    await pause();
    expect(sentTo("/draft/")).toHaveLength(1);
  });

  it("asks no more for as long as the server says that it was too often", async () => {
    answers["/draft/"] = () => json({ detail: "slow down" }, { status: 429, headers: { "Retry-After": "40" } });
    compose();
    write("what utter rubbish");
    await pause();
    write("what utter rubbish again");
    await pause();
    expect(sentTo("/draft/")).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(40_000);
    write("what utter rubbish once more");
    await pause();
    expect(sentTo("/draft/")).toHaveLength(2);
  });

  it("is not asked about a word or two", async () => {
    compose();
    write("bad");
    await pause();
    expect(fetch).not.toHaveBeenCalled();
  });
});
