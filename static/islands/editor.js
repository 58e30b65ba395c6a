// The writing page with tools, pictures by paste and drop, a preview beside the text, and what is typed kept as a draft.

import { createApp } from "vue";
import ArticleEditor from "./editor/ArticleEditor.vue";

const form = document.getElementById("write-form");
const mount = document.createElement("div");
const textarea = form.elements.body_markdown;
textarea.before(mount);
form.classList.add("has-editor");
const texts = JSON.parse(document.getElementById("editor-texts").textContent);
createApp(ArticleEditor, { form, textarea, texts }).mount(mount);
