// What somebody has written and not sent, kept in their browser until it is sent.

const PREFIX = "draft:";
const KEPT_MS = 30 * 24 * 3600 * 1000;

export function readDraft(key) {
  try {
    const kept = JSON.parse(localStorage.getItem(PREFIX + key));
    return kept && Date.now() - kept.at < KEPT_MS ? kept.text : "";
  } catch {
    return ""; // storage that is switched off, or somebody else's entry
  }
}

export function keepDraft(key, text) {
  try {
    if (text.trim()) localStorage.setItem(PREFIX + key, JSON.stringify({ text, at: Date.now() }));
    else localStorage.removeItem(PREFIX + key);
  } catch {
    // Storage that is full or switched off: what is written stays in the form all the same.
  }
}

/** Remove drafts that nobody came back to. */
export function forgetOldDrafts() {
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(PREFIX) && !readDraft(key.slice(PREFIX.length))) localStorage.removeItem(key);
    }
  } catch {
    // as above
  }
}
