import { describe, expect, test } from "vitest";
import {
  continueList,
  countWords,
  describeFile,
  insertBlock,
  insertLink,
  toggleLines,
  toggleMarks,
} from "../../../static/islands/editor/text.js";

/** A text whose selection stands between | and |, or whose caret is a single |. */
function at(marked) {
  const start = marked.indexOf("|");
  const end = marked.lastIndexOf("|");
  const text = marked.replaceAll("|", "");
  return { text, start, end: end === start ? start : end - 1 };
}

function shown({ text, start, end }) {
  return start === end
    ? `${text.slice(0, start)}|${text.slice(start)}`
    : `${text.slice(0, start)}|${text.slice(start, end)}|${text.slice(end)}`;
}

describe("marks around a selection", () => {
  test.each([
    ["喝|豆浆|去", "喝**|豆浆|**去"],
    ["喝**|豆浆|**去", "喝|豆浆|去"],
    ["喝|去", "喝**|**去"],
    ["**|**", "|"],
  ])("%s becomes %s", (before, after) => {
    expect(shown(toggleMarks(at(before), "**"))).toBe(after);
  });
});

describe("marks at the beginning of lines", () => {
  test.each([
    ["- ", "一\n|二\n三|\n四", "一\n|- 二\n- 三|\n四"],
    ["- ", "|- 二\n- 三|", "|二\n三|"],
    ["1. ", "|二\n三|", "|1. 二\n2. 三|"],
    ["1. ", "|1. 二\n2. 三|", "|二\n三|"],
    ["## ", "一\n二|", "一\n|## 二|"],
    ["> ", "|一\n|二", "|> 一|\n二"],
    ["> ", "|", "|> |"],
  ])("%s: %s becomes %s", (mark, before, after) => {
    expect(shown(toggleLines(at(before), mark))).toBe(after);
  });
});

test("a link asks for its address, or for its words where the address was chosen", () => {
  expect(shown(insertLink(at("看|这里|。")))).toBe("看[这里](|https://|)。");
  expect(shown(insertLink(at("看|https://a.example/b|。")))).toBe("看[|](https://a.example/b)。");
});

test("a block stands between empty lines", () => {
  expect(shown(insertBlock(at("前|后"), "![](a)"))).toBe("前\n\n![](a)|\n\n后");
  expect(shown(insertBlock(at("|"), "![](a)"))).toBe("![](a)|\n");
});

describe("Enter in a list", () => {
  test.each([
    ["- 一|", "- 一\n- |"],
    ["  * 一|", "  * 一\n  * |"],
    ["9. 一|", "9. 一\n10. |"],
    ["- [x] 一|", "- [x] 一\n- [ ] |"],
    ["- 一\n- |", "- 一\n|"],
  ])("%s becomes %s", (before, after) => {
    expect(shown(continueList(at(before)))).toBe(after);
  });

  test.each(["一|", "|- 一", "|- 一|", "-一|"])("%s is none of it", (text) => {
    expect(continueList(at(text))).toBeNull();
  });
});

test("Chinese is counted by characters and other words whole", () => {
  expect(countWords("今天喝了 2 碗 soy milk，very-good！")).toBe(4 + 1 + 1 + 2 + 2);
  expect(countWords("")).toBe(0);
});

test("a file's name describes the picture unless a camera gave it", () => {
  expect(describeFile("清晨的[面馆].jpeg")).toBe("清晨的 面馆");
  expect(describeFile("IMG_20260102_080000.jpg")).toBe("");
  expect(describeFile("image.png")).toBe("");
});
