import { useEffect, useState } from "react";

/** What the list is narrowed to; it stands in the address, so that a link shows the same. */
export interface Wanted {
  status: string;
  assistant: string;
  medium: string;
  from: string;
  to: string;
  errors: string;
  caller: string;
}

export const NAMES: readonly (keyof Wanted)[] = ["status", "assistant", "medium", "from", "to", "errors", "caller"];

const TYPING_MS = 300;

export function Filters({
  wanted,
  assistants,
  change,
  clear,
}: {
  wanted: Wanted;
  assistants: readonly string[];
  change: (name: keyof Wanted, value: string) => void;
  clear: () => void;
}) {
  const any = NAMES.some((name) => wanted[name] !== "");
  // On a phone they would push the calls out of sight.
  const [open, setOpen] = useState(any);
  return (
    <form className="filters" data-open={open} role="search" aria-label="Calls" onSubmit={(event) => event.preventDefault()}>
      <Search value={wanted.caller} change={(value) => change("caller", value)} />
      <button type="button" className="button-quiet filters-more" aria-expanded={open} onClick={() => setOpen(!open)}>
        {open ? "Fewer filters" : "More filters"}
      </button>
      <Choice label="Status" value={wanted.status} change={(value) => change("status", value)}>
        <option value="ended">Ended</option>
        <option value="live">Live</option>
        <option value="waiting">Waiting</option>
      </Choice>
      <Choice label="Assistant" value={wanted.assistant} change={(value) => change("assistant", value)}>
        {assistants.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </Choice>
      <Choice label="By" value={wanted.medium} change={(value) => change("medium", value)}>
        <option value="standard">Browser</option>
        <option value="sip">Phone</option>
      </Choice>
      <Choice label="Turns" value={wanted.errors} change={(value) => change("errors", value)}>
        <option value="true">With errors</option>
        <option value="false">Without errors</option>
      </Choice>
      <label className="field">
        <span>From</span>
        <input type="date" value={wanted.from} max={wanted.to} onChange={(event) => change("from", event.target.value)} />
      </label>
      <label className="field">
        <span>To</span>
        <input type="date" value={wanted.to} min={wanted.from} onChange={(event) => change("to", event.target.value)} />
      </label>
      {any && (
        <button type="button" className="button-quiet" onClick={clear}>
          Clear
        </button>
      )}
    </form>
  );
}

/** Asks once one has stopped typing. */
function Search({ value, change }: { value: string; change: (value: string) => void }) {
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    if (typed === value) return;
    const timer = setTimeout(() => change(typed), TYPING_MS);
    return () => clearTimeout(timer);
  });
  return (
    <label className="field field-wide">
      <span>Caller</span>
      <input type="search" placeholder="Name or number" maxLength={100} value={typed} onChange={(event) => setTyped(event.target.value)} />
    </label>
  );
}

function Choice({
  label,
  value,
  change,
  children,
}: {
  label: string;
  value: string;
  change: (value: string) => void;
  children: React.ReactNode;
}) {
  return (
    <label className="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => change(event.target.value)}>
        <option value="">All</option>
        {children}
      </select>
    </label>
  );
}
