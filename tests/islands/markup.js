// The page's markup as far as islands rely on it; templates/comments/_comment.html says what that is. That the server
// sends it so is for tests/browser to show.

export const TEXTS = {
  draft_address: "/comments/draft-sentiment/",
  reasons: [
    ["spam", "Spam"],
    ["abuse", "Abuse"],
  ],
  new: "{n} new comments",
  new_one: "{n} new comment",
  new_here: "New comment by {name}",
  counter: "{n} / {limit}",
  too_long: "{n} characters too many",
  hint: "Ctrl + Enter",
  restored: "From last time.",
  discard: "Clear",
  nudge: "This may sound harsh.",
  sending: "Sending",
  posted: "Posted",
  unreachable: "Not sent",
  failed: "Failed",
  answering: "Reply to {name}",
  send_reply: "Reply",
  edit: "Edit",
  save: "Save",
  cancel: "Cancel",
  delete_title: "Delete?",
  delete_text: "For good.",
  delete: "Delete",
  report_title: "Why?",
  report_note: "More",
  report: "Report",
  choose_reason: "Choose a reason.",
  loading: "Loading",
};

export const say = (key, values = {}) => (TEXTS[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);

const BADGE = '<span class="badge badge-waiting">waiting</span>';
export const badge = (label) => `<a class="badge badge-${label}" title="${label}" href="/comments/1/explanation/">${label}</a>`;

export function commentHtml(id, { parent = "", text = "words", worth = 0, likes = 0, mark = BADGE, name = `reader${id}`, replies = "", minute = id, more = "" } = {}) {
  const created = `2026-01-01T00:${String(minute).padStart(2, "0")}:00+08:00`;
  return `<li class="comment" id="comment-${id}" data-comment="${id}" data-parent="${parent}" data-status="visible"
      data-created="${created}" data-worth="${worth}" data-likes="${likes}" data-replies="0">
    <div class="comment-main">
      <div class="comment-head"><a class="comment-author">${name}</a><a class="comment-time" href="/a/?comment=${id}#comment-${id}">now</a>${mark}</div>
      <div class="comment-text"><p>${text}</p></div>
      <div class="comment-actions">
        <form class="like" method="post" action="/comments/${id}/like/"><input type="hidden" name="csrfmiddlewaretoken" value="masked-${Math.random()}"><input type="hidden" name="liked" value="1"><button aria-pressed="false">Like ${likes}</button></form>
        <a class="reply" data-reply="${id}" href="/a/?reply=${id}">Reply</a>
        <a class="edit" href="/comments/${id}/edit/">Edit</a>
        <a class="delete" href="/comments/${id}/delete/">Delete</a>
        <a class="report" href="/comments/${id}/report/">Report</a>
      </div>
    </div>
    <ol class="comment-replies"${replies ? "" : " hidden"}>${replies}</ol>${more}
  </li>`;
}

export const FORM = `<form class="comment-form" id="comment-form" method="post" data-writer="7" action="/articles/a/comments/">
  <input type="hidden" name="csrfmiddlewaretoken" value="token">
  <label for="comment-text">Write</label>
  <textarea id="comment-text" name="text" maxlength="20"></textarea>
  <div class="form-actions"><div class="composer-tools"></div><button class="button">Post</button></div>
</form>`;

const ORDERS = ["newest", "oldest", "constructive"];

/** An article's comments on the page; gives the section. */
export function showSection(comments = "", { order = "newest", top = "1", thread = "", form = FORM, more = "" } = {}) {
  const keys = ["positive", "neutral", "negative", "waiting"];
  document.body.innerHTML = `<section class="comments" id="comments">
    <h2 id="comments-title">Comments <span class="count">0</span></h2>
    <div class="echo" id="echo" hidden><svg>${keys.slice(0, 3).map((key) => `<rect data-label="${key}"></rect>`).join("")}</svg>
      ${keys.map((key) => `<div class="echo-key echo-key-${key}"><b data-count="${key}">0</b></div>`).join("")}</div>
    ${form}
    <nav class="comment-orders">${ORDERS.map((name) => `<a data-order="${name}" href="/a/?order=${name}#comments"${name === order ? ' aria-current="true"' : ""}>${name}</a>`).join("")}</nav>
    <ol class="comment-list" data-changes="/articles/a/comments/changes/" data-cursor="100" data-order="${order}" data-thread="${thread}" data-top="${top}">${comments}</ol>
    ${more}
    <p class="empty"${comments ? " hidden" : ""}>Nothing yet</p>
    <p id="badge-news" aria-live="polite"></p>
    <script id="comment-texts" type="application/json">${JSON.stringify(TEXTS)}</script>
  </section>`;
  return document.getElementById("comments");
}

export const ids = (list) => [...list.children].map((comment) => Number(comment.dataset.comment));

export const json = (body, { status = 200, headers = {} } = {}) =>
  new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });

export const page = (body, status = 200) => new Response(body, { status, headers: { "Content-Type": "text/html" } });
