// What tools do to a text: pure functions over { text, start, end }, the text with its selection.

/** Put marks around the selection, or take them away where they are; without one, the caret goes between them. */
export function toggleMarks({ text, start, end }, before, after = before) {
  const chosen = text.slice(start, end);
  if (text.slice(start - before.length, start) === before && text.slice(end, end + after.length) === after) {
    return {
      text: text.slice(0, start - before.length) + chosen + text.slice(end + after.length),
      start: start - before.length,
      end: end - before.length,
    };
  }
  return {
    text: text.slice(0, start) + before + chosen + after + text.slice(end),
    start: start + before.length,
    end: end + before.length,
  };
}

/** Begin every line of the selection with a mark (a number goes up by one a line), or take it away from all of them. */
export function toggleLines({ text, start, end }, mark) {
  const from = text.lastIndexOf("\n", start - 1) + 1;
  const next = text.indexOf("\n", Math.max(end - (end > start && text[end - 1] === "\n" ? 1 : 0), from));
  const to = next === -1 ? text.length : next;
  const lines = text.slice(from, to).split("\n");
  const numbered = mark === "1. ";
  const has = (line) => (numbered ? /^\d+\. /.test(line) : line.startsWith(mark));
  const bare = (line) => (numbered ? line.replace(/^\d+\. /, "") : line.slice(mark.length));
  const changed = (
    lines.every(has) ? lines.map(bare) : lines.map((line, at) => (numbered ? `${at + 1}. ` : mark) + line)
  ).join("\n");
  return { text: text.slice(0, from) + changed + text.slice(to), start: from, end: from + changed.length };
}

/** Make the selection a link, with the place for its address chosen; a chosen address becomes the link's. */
export function insertLink({ text, start, end }) {
  const chosen = text.slice(start, end);
  const isAddress = /^https?:\/\/\S+$/.test(chosen);
  const link = isAddress ? `[](${chosen})` : `[${chosen}](https://)`;
  const at = isAddress ? start + 1 : start + chosen.length + 3;
  return {
    text: text.slice(0, start) + link + text.slice(end),
    start: at,
    end: isAddress ? at : at + "https://".length,
  };
}

/** Put a block in the selection's place, with an empty line before and after it. */
export function insertBlock({ text, start, end }, block) {
  const head = text.slice(0, start).trimEnd();
  const tail = text.slice(end).trimStart();
  const before = head ? `${head}\n\n` : "";
  return {
    text: `${before}${block}\n${tail ? `\n${tail}` : ""}`,
    start: before.length + block.length,
    end: before.length + block.length,
  };
}

const ITEM = /^(\s*)([-*+]|\d+\.)( \[[ xX]\])? (.*)$/;

/** What Enter does within a list: a further item, or, in an empty one, the list's end. Null elsewhere. */
export function continueList({ text, start, end }) {
  if (start !== end) return null;
  const from = text.lastIndexOf("\n", start - 1) + 1;
  const item = ITEM.exec(text.slice(from, start));
  if (!item) return null;
  const [, indent, mark, task, words] = item;
  if (!words) return { text: text.slice(0, from) + text.slice(start), start: from, end: from };
  const next = /\d/.test(mark) ? `${parseInt(mark, 10) + 1}.` : mark;
  const begun = `\n${indent}${next}${task ? " [ ]" : ""} `;
  return { text: text.slice(0, start) + begun + text.slice(start), start: start + begun.length, end: start + begun.length };
}

/** Chinese characters one by one, other words and numbers whole. */
export function countWords(text) {
  return (text.match(/[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\p{P}\p{S}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+/gu) ?? [])
    .length;
}

/** A file's name as the words for those who do not see the picture. */
export function describeFile(name) {
  const bare = name.replace(/\.[^.]*$/, "").replace(/[[\]()!\\\n]/g, " ").trim();
  // The last three: what WeChat and Chinese phones begin such names with (微信图片, 截屏, 截图).
  return /^(image|img|dsc|screenshot|mmexport|\u5fae\u4fe1\u56fe\u7247|\u622a\u5c4f|\u622a\u56fe)?[\s\d_().-]*$/i.test(bare) ? "" : bare;
}
