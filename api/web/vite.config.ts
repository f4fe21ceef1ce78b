import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// `npm run dev` serves the page by itself; a running Parley answers for /api. No environment is read here but this one.
declare const process: { env: Record<string, string | undefined> };
const backend = process.env["PARLEY_API"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    // The page may load from its own address alone, and from no data: address.
    assetsInlineLimit: 0,
    // livekit-client and Swagger UI are chunks of their own, fetched after the first paint: they may be larger than the page.
    chunkSizeWarningLimit: 2000,
    rollupOptions: { input: { main: "index.html", docs: "docs.html" } },
  },
  server: { host: "127.0.0.1", proxy: { "/api": backend } },
});
