// Keeps what is typed: on the server every few seconds, and in this browser until the server has it.

export const QUIET_MS = 3000; // after the last key
export const LONGEST_MS = 15_000; // while keys go on

/**
 * Watch a form. `send(fields)` posts it and gives { status, answer }; `tell(state, answer)` is called with one of typing,
 * saving, saved, elsewhere, signed-out, refused, offline.
 */
export function makeAutosave({ read, send, tell, store, key, now = () => Date.now() }) {
  let draft = null; // { id, revision } of the last answer
  let saved = fingerprint(read());
  let sending = null;
  let timer = null;
  let waitsSince = null;

  const isDirty = () => fingerprint(read()) !== saved;

  function changed() {
    if (!isDirty()) return;
    keepHere();
    tell("typing");
    waitsSince ??= now();
    clearTimeout(timer);
    timer = setTimeout(save, Math.max(0, Math.min(QUIET_MS, waitsSince + LONGEST_MS - now())));
  }

  /** Keep a copy here; a browser that is full or forbids it keeps none. */
  function keepHere() {
    try {
      store?.setItem(key, JSON.stringify({ at: now(), fields: read() }));
    } catch {
      // The server has it a moment later.
    }
  }

  async function save() {
    clearTimeout(timer);
    if (sending) return sending;
    if (!isDirty()) return undefined;
    waitsSince = null;
    sending = sendOnce().finally(() => {
      sending = null;
      if (isDirty()) changed();
    });
    return sending;
  }

  async function sendOnce() {
    const fields = read();
    tell("saving");
    let status, answer;
    try {
      ({ status, answer } = await send(draft ? { ...fields, draft: draft.id, revision: draft.revision } : fields));
    } catch {
      retryLater();
      tell("offline");
      return;
    }
    if (status === 200 || status === 409) {
      draft = { id: answer.draft, revision: answer.revision };
      saved = fingerprint(fields);
      if (!isDirty()) forget();
      tell(status === 409 ? "elsewhere" : "saved", answer);
      return;
    }
    retryLater();
    tell(status === 401 || status === 403 ? "signed-out" : "refused", answer);
  }

  /** What did not get through is tried again, though nothing more is typed. */
  function retryLater() {
    clearTimeout(timer);
    timer = setTimeout(save, LONGEST_MS);
  }

  function forget() {
    try {
      store?.removeItem(key);
    } catch {
      // As above.
    }
  }

  /** What was kept here and did not reach the server: another text than the form's, or null. */
  function leftHere() {
    try {
      const kept = JSON.parse(store?.getItem(key) ?? "null");
      if (kept && fingerprint(kept.fields) !== fingerprint(read())) return kept;
    } catch {
      // Of another version of this page.
    }
    forget();
    return null;
  }

  return {
    changed,
    save,
    isDirty,
    keepHere,
    leftHere,
    forget,
    goOn: (id, revision) => {
      draft = id ? { id, revision } : null;
    },
    draft: () => draft,
    stop: () => clearTimeout(timer),
  };
}

function fingerprint(fields) {
  return JSON.stringify(Object.entries(fields).sort(([one], [other]) => (one < other ? -1 : 1)));
}
