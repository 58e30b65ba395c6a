// What changes among the comments, asked for again and again: soon while something happens or is waited for, ever more
// rarely while nothing does, not at all in a hidden tab.

const TIMEOUT_MS = 10_000;
export const SOON_MS = 400;
export const USUAL_MS = 4000;
export const LONGEST_MS = 60_000;
const BACK_OFF = 1.35;
const EAGER_FOR_MS = 60_000; // somebody waits for a badge; then as usual

/**
 * Follow an article's comments. `apply` is handed each answer (`{ comments, gone, counts }`), and `isWaiting` says
 * whether the page shows something that is about to change.
 */
export class Feed {
  #address;
  #since;
  #apply;
  #isWaiting;
  #tag = "";
  #delay = USUAL_MS;
  #eagerUntil = 0;
  #timer = 0;
  #asking = false;

  constructor({ address, since, apply, isWaiting = () => false }) {
    this.#address = address;
    this.#since = since;
    this.#apply = apply;
    this.#isWaiting = isWaiting;
  }

  start() {
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.hurry();
  }

  stop() {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** Something is about to happen: ask soon, and often for a while. */
  hurry() {
    this.#eagerUntil = Date.now() + EAGER_FOR_MS;
    this.#delay = SOON_MS;
    this.#wait();
  }

  #onVisibility = () => {
    if (document.hidden) clearTimeout(this.#timer);
    else this.hurry();
  };

  #wait(delay = this.#delay) {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #ask() {
    if (this.#asking) return;
    this.#asking = true;
    let news = false;
    let pause = 0;
    try {
      const response = await this.#fetch();
      if (response.status === 404 || response.status === 403) return this.stop(); // the article is gone
      if (response.ok) news = this.#take(await response.json(), response.headers.get("ETag"));
      else if (response.status !== 304) pause = this.#patience(response);
    } catch {
      pause = Math.max(USUAL_MS, this.#delay * 2); // offline, or cut off: what was missed comes with the next answer
    } finally {
      this.#asking = false;
    }
    this.#delay = Math.min(pause || this.#next(news), LONGEST_MS);
    this.#wait();
    return undefined;
  }

  #fetch() {
    const headers = { Accept: "application/json" };
    if (this.#tag) headers["If-None-Match"] = this.#tag;
    return fetch(`${this.#address}?since=${encodeURIComponent(this.#since)}`, {
      headers,
      cache: "no-store", // 304 is for us to see
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  }

  /** Hand an answer on. While nothing is new the cursor stays, and the same question can be answered with 304. */
  #take(answer, tag) {
    this.#tag = answer.cursor === this.#since ? (tag ?? "") : "";
    this.#since = answer.cursor;
    this.#apply(answer);
    return answer.more ? "more" : answer.comments.length > 0 || answer.gone.length > 0;
  }

  #patience(response) {
    const seconds = Number(response.headers.get("Retry-After"));
    return Math.max(seconds * 1000 || 0, USUAL_MS, this.#delay * 2);
  }

  #next(news) {
    if (news === "more") return SOON_MS;
    if (this.#isWaiting() && Date.now() < this.#eagerUntil) return Math.min(this.#delay * BACK_OFF, USUAL_MS);
    return news ? USUAL_MS : Math.max(USUAL_MS, this.#delay * BACK_OFF);
  }
}
