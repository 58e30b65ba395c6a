// While somebody writes, the blog's model reads along: who is about to be harsh learns of it before sending.
// It only ever says something; sending neither waits for it nor asks it.

import { onScopeDispose, ref } from "vue";

export const PAUSE_MS = 900; // of somebody who stops to think
const SHORTEST = 6; // characters that can be judged
const TIMEOUT_MS = 3000;

/** Gives `isHarsh`, and `read(text)` to be called at every change. `token` is the page's token against forgery. */
export function useNudge(address, token) {
  const isHarsh = ref(false);
  let timer = 0;
  let asked = "";
  let silentUntil = 0;
  let question = null;

  function read(text) {
    clearTimeout(timer);
    question?.abort();
    const draft = text.trim();
    if (draft.length < SHORTEST) {
      isHarsh.value = false;
      asked = "";
    } else if (draft !== asked) {
      timer = setTimeout(ask, PAUSE_MS, draft);
    }
  }

  async function ask(draft) {
    if (Date.now() < silentUntil) return;
    question = new AbortController();
    try {
      const response = await fetch(address, {
        method: "POST",
        headers: { Accept: "application/json", "X-CSRFToken": token() },
        body: new URLSearchParams({ text: draft }),
        signal: AbortSignal.any([question.signal, AbortSignal.timeout(TIMEOUT_MS)]),
      });
      if (response.status === 429) silentUntil = Date.now() + 1000 * Number(response.headers.get("Retry-After") || 60);
      isHarsh.value = response.status === 200 && (await response.json()).harsh;
      asked = draft;
    } catch {
      // Cut off, or overtaken by the next word: nobody is to be warned by chance.
    }
  }

  function stop() {
    clearTimeout(timer);
    question?.abort();
    isHarsh.value = false;
    asked = "";
  }

  onScopeDispose(stop);
  return { isHarsh, read, stop };
}
