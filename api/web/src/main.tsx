import "@fontsource-variable/hanken-grotesk/wght.css";
import "./styles/tokens.css";
import "./styles/base.css";
import { StrictMode, Suspense, lazy } from "react";
import { createRoot } from "react-dom/client";

// Two products in one: neither waits for the other's code.
const Page = lazy(() => import("./App"));
const Console = lazy(() => import("./console/Console"));

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
const console = /^\/console(\/|$)/.test(window.location.pathname);
createRoot(root).render(
  <StrictMode>
    <Suspense fallback={null}>{console ? <Console /> : <Page />}</Suspense>
  </StrictMode>,
);
