// What makes the comments under an article alive.

import "./comments/badges.js";
import "./comments/explanations.js";
