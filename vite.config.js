// Builds each static/islands/*.js, one an island, into static/built/; `{% island 'name' %}` reads its manifest.

import { readdirSync } from "node:fs";
import { basename } from "node:path";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vitest/config";

const SOURCES = new URL("static/islands/", import.meta.url).pathname;
// Twelve hexadecimal digits, as in the names that Django gives: the gateway and WhiteNoise know by them what never changes.
const NAMES = "[name].[hash:12]";

const islands = readdirSync(SOURCES)
  .filter((file) => file.endsWith(".js"))
  .map((file) => [basename(file, ".js"), SOURCES + file]);

export default defineConfig({
  plugins: [vue({ features: { optionsAPI: false } })],
  base: "./", // wherever STATIC_URL is
  publicDir: false,
  build: {
    outDir: "static/built",
    emptyOutDir: true,
    assetsDir: "",
    assetsInlineLimit: 0, // the pages' policy knows no data: addresses
    manifest: "manifest.json",
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: Object.fromEntries(islands),
      output: {
        hashCharacters: "hex",
        entryFileNames: `${NAMES}.js`,
        chunkFileNames: `${NAMES}.js`,
        assetFileNames: `${NAMES}[extname]`,
      },
    },
  },
  test: {
    environment: "happy-dom",
    include: ["tests/islands/**/*.test.js"],
    restoreMocks: true,
    unstubGlobals: true,
  },
});
