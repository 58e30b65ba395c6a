// Of the islands, their tests and the plain modules of static/js/.

import js from "@eslint/js";
import vue from "eslint-plugin-vue";
import globals from "globals";

export default [
  { ignores: ["static/built*/", "var/", ".venv*/", "docs/"] },
  js.configs.recommended,
  ...vue.configs["flat/recommended"],
  {
    languageOptions: { ecmaVersion: "latest", sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": "error",
      "object-shorthand": "error",
      // A policy without 'unsafe-inline' and texts of strangers: no HTML from a string in a template.
      "vue/no-v-html": "error",
      "vue/component-api-style": ["error", ["script-setup"]],
      "vue/block-order": ["error", { order: ["script", "template", "style"] }],
      // How lines break is no matter of correctness.
      "vue/max-attributes-per-line": "off",
      "vue/singleline-html-element-content-newline": "off",
      "vue/html-self-closing": ["error", { html: { void: "never", normal: "never" } }],
    },
  },
  { files: ["static/**"], languageOptions: { globals: globals.browser } },
  { files: ["tests/islands/**"], languageOptions: { globals: { ...globals.browser, ...globals.node } } },
  { files: ["*.config.js"], languageOptions: { globals: globals.node } },
];
