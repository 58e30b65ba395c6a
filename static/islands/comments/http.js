// Talking to the blog: the forms of a page sent without leaving it, fragments of pages, and what changes.

const TIMEOUT_MS = 15_000;

/** The blog did not answer as an island needs it: leave it to the browser, which shows whatever comes. */
export class NotForIslands extends Error {}

/**
 * Send a form as the browser would, and get what an island needs instead of a page: `{ ok, ...answer }`, with
 * `errors` where the blog refuses. Throws NotForIslands for anything else, such as the way to sign in, and TypeError
 * or a DOMException without a connection.
 */
export async function send(address, fields) {
  const response = await fetch(address, {
    method: "POST",
    body: fields,
    headers: { Accept: "application/json" },
    redirect: "manual", // to a page to sign in on, once the session has ended
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.status === 204) return { ok: true };
  if (!/^application\/(problem\+)?json/.test(response.headers.get("Content-Type"))) throw new NotForIslands();
  return { ok: response.ok, status: response.status, ...(await response.json()) };
}

/** The comments of an article's page at an address, as a document. */
export async function fetchComments(address) {
  const asked = new URL(address, location.href);
  asked.hash = "";
  asked.searchParams.set("part", "comments");
  const response = await fetch(asked, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok || response.redirected) throw new NotForIslands();
  return new DOMParser().parseFromString(await response.text(), "text/html");
}
