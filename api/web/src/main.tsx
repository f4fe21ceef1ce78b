import "@fontsource-variable/hanken-grotesk/wght.css";
import "./styles/tokens.css";
import "./styles/base.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");

// Two products in one: neither waits for the other's code. Not by React's `lazy`, which holds what has come back for 300 ms.
const isConsole = /^\/console(\/|$)/.test(window.location.pathname);
const { default: Page } = await (isConsole ? import("./console/Console") : import("./App"));
createRoot(root).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
