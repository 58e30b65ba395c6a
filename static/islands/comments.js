// The comments under an article (templates/articles/_comments.html) made live.

import { enliven } from "./comments/section.js";

const section = document.getElementById("comments");
if (section) enliven(section);
