import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LONGEST_MS, makeAutosave, QUIET_MS } from "../../../static/islands/editor/autosave.js";

let form, sent, told, answers, kept;

const store = {
  getItem: (key) => kept[key] ?? null,
  setItem: (key, value) => {
    kept[key] = value;
  },
  removeItem: (key) => {
    delete kept[key];
  },
};

function make() {
  return makeAutosave({
    read: () => ({ ...form }),
    send: async (fields) => {
      sent.push(fields);
      const next = answers.shift() ?? { status: 200, answer: { draft: 7, revision: sent.length } };
      if (next instanceof Error) throw next;
      return next;
    },
    tell: (state, answer) => told.push([state, answer]),
    store,
    key: "draft",
  });
}

function type(autosave, text) {
  form.body_markdown = text;
  autosave.changed();
}

beforeEach(() => {
  vi.useFakeTimers();
  form = { title: "面馆", body_markdown: "" };
  [sent, told, answers, kept] = [[], [], [], {}];
});

afterEach(() => vi.useRealTimers());

test("what is typed is kept once, a while after the last key, and named by the last answer from then on", async () => {
  const autosave = make();
  for (const text of ["一", "一碗", "一碗面"]) {
    type(autosave, text);
    await vi.advanceTimersByTimeAsync(QUIET_MS - 1);
  }
  expect(sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(sent).toEqual([{ title: "面馆", body_markdown: "一碗面" }]);

  type(autosave, "一碗热面");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(sent[1]).toMatchObject({ draft: 7, revision: 1, body_markdown: "一碗热面" });
  expect(told.map(([state]) => state).filter((state) => state === "saved")).toHaveLength(2);
});

test("whoever never stops typing is saved all the same", async () => {
  const autosave = make();
  for (let passed = 0; passed <= LONGEST_MS; passed += 1000) {
    type(autosave, "字".repeat(passed / 1000 + 1));
    await vi.advanceTimersByTimeAsync(1000);
  }
  expect(sent).toHaveLength(1);
});

test("nothing is sent when nothing has changed", async () => {
  const autosave = make();
  autosave.changed();
  type(autosave, "一");
  type(autosave, "");
  await vi.advanceTimersByTimeAsync(LONGEST_MS);
  expect(sent).toEqual([]);
});

test("what is typed while it is being sent is sent afterwards", async () => {
  let release;
  const autosave = makeAutosave({
    read: () => ({ ...form }),
    send: (fields) => {
      sent.push(fields);
      return new Promise((resolve) => {
        release = () => resolve({ status: 200, answer: { draft: 7, revision: sent.length } });
      });
    },
    tell: () => {},
    store,
    key: "draft",
  });
  type(autosave, "一");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  type(autosave, "一二");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(sent).toHaveLength(1);
  release();
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(sent[1]).toMatchObject({ body_markdown: "一二", draft: 7, revision: 1 });
});

test("a draft that another page has written on is left alone: the answer names a new one", async () => {
  const autosave = make();
  answers = [{ status: 409, answer: { draft: 9, revision: 1, elsewhere: [{ address: "/x", title: "面馆" }] } }];
  type(autosave, "一");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(told.at(-1)[0]).toBe("elsewhere");
  type(autosave, "一二");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(sent[1]).toMatchObject({ draft: 9, revision: 1 });
});

test.each([
  [new Error("offline"), "offline"],
  [{ status: 401, answer: { error: "登录已失效" } }, "signed-out"],
  [{ status: 500, answer: {} }, "refused"],
])("a text that does not get through stays in this browser and is tried again (%s)", async (failure, state) => {
  const autosave = make();
  answers = [failure];
  type(autosave, "一碗面");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(told.map(([name]) => name)).toContain(state);
  expect(JSON.parse(kept.draft).fields.body_markdown).toBe("一碗面");
  expect(autosave.isDirty()).toBe(true);

  await vi.advanceTimersByTimeAsync(LONGEST_MS);
  expect(told.at(-1)[0]).toBe("saved");
  expect(kept).toEqual({});
});

test("after a crash the copy of this browser is offered, unless the form has the same", () => {
  kept.draft = JSON.stringify({ at: 1, fields: { title: "面馆", body_markdown: "没存上的" } });
  expect(make().leftHere().fields.body_markdown).toBe("没存上的");
  form.body_markdown = "没存上的";
  expect(make().leftHere()).toBeNull();
  expect(kept).toEqual({});
});

test("a browser that keeps nothing is no reason to fail", async () => {
  const broken = {
    getItem: () => "no JSON",
    setItem: () => {
      throw new Error("full");
    },
    removeItem: () => {
      throw new Error("forbidden");
    },
  };
  const autosave = makeAutosave({
    read: () => ({ ...form }),
    send: async () => ({ status: 200, answer: { draft: 1, revision: 1 } }),
    tell: (state) => told.push(state),
    store: broken,
    key: "draft",
  });
  expect(autosave.leftHere()).toBeNull();
  type(autosave, "一");
  await vi.advanceTimersByTimeAsync(QUIET_MS);
  expect(told.at(-1)).toBe("saved");
});
