import { useQueryClient } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { NavLink } from "react-router";
import { ask } from "./api";
import type { Me } from "./me";

const ROOMS = [
  { to: "/calls", name: "Calls", scope: "calls:read" },
  { to: "/assistants", name: "Assistants", scope: "assistants:read" },
  { to: "/models", name: "Models", scope: "models:read" },
  { to: "/usage", name: "Usage", scope: "usage:read" },
  { to: "/settings", name: "Settings", scope: "tenant:read" },
];

/** What stands around every page: where one is, where one can go, who one is. */
export function Shell({ me, children }: { me: Me; children: ReactNode }) {
  return (
    <div className="console">
      <a className="skip" href="#content">
        Skip to content
      </a>
      <header className="console-head">
        <a className="wordmark" href="/" title="Talk to Parley">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <circle className="wordmark-core" cx="16" cy="16" r="5.5" />
            <circle cx="16" cy="16" r="10" />
            <circle className="wordmark-far" cx="16" cy="16" r="14.4" />
          </svg>
          Parley
        </a>
        <nav className="rooms" aria-label="Console">
          {ROOMS.filter((room) => me.scopes.includes(room.scope)).map((room) => (
            <NavLink key={room.to} to={room.to}>
              {room.name}
            </NavLink>
          ))}
        </nav>
        <Who me={me} />
      </header>
      <main id="content" className="console-main" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

function Who({ me }: { me: Me }) {
  const client = useQueryClient();
  const leave = async () => {
    await ask("DELETE", "/sign-in");
    client.clear();
    window.location.assign("/console");
  };
  return (
    <p className="who">
      <span className="who-name">{me.name || me.id}</span>
      <span className="who-role">{me.role ?? "key"}</span>
      {me.id !== "per_local" && (
        <button type="button" className="button-quiet" onClick={() => void leave()}>
          Sign out
        </button>
      )}
    </p>
  );
}
