// Pictures on their way: fetch tells nothing of an upload's progress, so XMLHttpRequest.

export const KINDS = ["image/jpeg", "image/png", "image/webp", "image/gif"];

/** The pictures among what was pasted, dropped or chosen. */
export function picturesIn(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => KINDS.includes(file.type));
}

/** Upload one picture; gives what the server says of it. Rejects with an Error whose message can be shown. */
export function uploadPicture(file, { address, token, maxBytes, texts, onProgress = () => {} }) {
  if (file.size > maxBytes) return Promise.reject(new Error(texts.tooLarge));
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.responseType = "json";
    request.setRequestHeader("X-CSRFToken", token);
    request.setRequestHeader("Accept", "application/json"); // else a refusal would be a page
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.error ?? request.response?.detail ?? (request.status === 413 ? texts.tooLarge : texts.uploadFailed)));
    });
    request.addEventListener("error", () => reject(new Error(texts.uploadFailed)));
    const body = new FormData();
    body.append("file", file);
    request.send(body);
  });
}
