import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { type PageOf, get, query } from "../api";
import { When } from "../parts";
import type { EventShown } from "./shapes";

const PAGE = 100;

/** What happened in a call; read when it is opened. */
export function Events({ path, id, live }: { path: string; id: string; live: boolean }) {
  const [open, setOpen] = useState(false);
  const [wanted, setWanted] = useState("");
  const events = useInfiniteQuery({
    queryKey: ["call", id, "events"],
    queryFn: ({ pageParam, signal }) =>
      get<PageOf<EventShown>>(`${path}/events${query({ limit: PAGE, after: pageParam })}`, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
    enabled: open,
  });
  const all = events.data?.pages.flatMap((page) => page.items) ?? [];
  const names = [...new Set(all.map((event) => event.event))].sort();
  const shown = wanted === "" ? all : all.filter((event) => event.event === wanted);
  return (
    <details className="events" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <h2>Events</h2>
      </summary>
      {events.isError && <p role="alert">{events.error.message}</p>}
      {events.isFetching && all.length === 0 && <p className="hint">Loading…</p>}
      {open && !events.isFetching && all.length === 0 && !events.isError && (
        <p className="hint">{live ? "They are written every few seconds." : "None are kept of this call."}</p>
      )}
      {names.length > 1 && (
        <label className="field">
          <span>Show</span>
          <select value={wanted} onChange={(event) => setWanted(event.target.value)}>
            <option value="">All</option>
            {names.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      )}
      <ol className="event-list">
        {shown.map((event) => (
          <li key={event.id}>
            <When at={event.at} /> <code>{event.event}</code>
            {Object.keys(event.fields).length > 0 && <span className="event-fields">{said(event.fields)}</span>}
          </li>
        ))}
      </ol>
      {events.hasNextPage && (
        <button type="button" className="button-quiet" onClick={() => void events.fetchNextPage()}>
          Show more
        </button>
      )}
    </details>
  );
}

function said(fields: Record<string, unknown>): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : String(value)}`)
    .join(", ");
}
