import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { uploadPicture } from "../../../static/islands/editor/uploads.js";

const texts = { tooLarge: "too large", uploadFailed: "failed" };
const picture = () => new File(["a picture"], "a.png", { type: "image/png" });
const settings = { address: "/media/upload/", token: "t", maxBytes: 100, texts };
let sent;

/** A request that the test answers itself. */
class Request extends EventTarget {
  upload = new EventTarget();
  headers = {};
  open() {}
  setRequestHeader(name, value) {
    this.headers[name] = value;
  }
  send() {
    sent = this;
  }
  answer(status, response) {
    Object.assign(this, { status, response });
    this.dispatchEvent(new Event("load"));
  }
}

beforeEach(() => vi.stubGlobal("XMLHttpRequest", Request));
afterEach(() => vi.unstubAllGlobals());

test("what the server says of a picture is given", async () => {
  const done = uploadPicture(picture(), settings);
  sent.answer(201, { markdown: "![](a.webp)" });
  expect(await done).toEqual({ markdown: "![](a.webp)" });
});

test.each([
  [400, { error: "no picture" }, "no picture"],
  [429, { detail: "wait" }, "wait"],
  [413, null, "too large"],
  [502, null, "failed"],
])("a refusal with status %i is said in words", async (status, response, message) => {
  const done = uploadPicture(picture(), settings);
  expect(sent.headers.Accept).toBe("application/json");
  sent.answer(status, response);
  await expect(done).rejects.toThrow(message);
});

test("a picture that is too large is not sent", async () => {
  sent = null;
  await expect(uploadPicture(picture(), { ...settings, maxBytes: 1 })).rejects.toThrow("too large");
  expect(sent).toBeNull();
});
