import { createApp } from "vue";
import A from "./comments/A.vue";
createApp(A).mount(document.createElement("div"));
