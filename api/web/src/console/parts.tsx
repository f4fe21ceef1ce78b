/** Small pieces that all pages of the console are made of. */

import type { ReactNode } from "react";
import { Problem } from "./api";

export function Loading({ what }: { what?: string }) {
  return (
    <p className="loading" role="status">
      Loading{what ? ` ${what}` : ""}…
    </p>
  );
}

/** Something did not work: in words, with the way on. */
export function Trouble({ error, again }: { error: Error; again?: () => void }) {
  const title = error instanceof Problem ? error.title : "Something went wrong";
  return (
    <section className="trouble" role="alert">
      <h2>{title}</h2>
      <p>{error.message}</p>
      {again && (
        <button type="button" className="button button-small" onClick={again}>
          Try again
        </button>
      )}
    </section>
  );
}

/** Nothing is here yet: what to do first. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <section className="empty">
      <h2>{title}</h2>
      {children && <div>{children}</div>}
    </section>
  );
}

export function PageHead({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <header className="page-head">
      <h1>{title}</h1>
      <div className="page-actions">{children}</div>
    </header>
  );
}

/** A figure and its name, in a list of them. */
export function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Badge({ kind, children }: { kind: "live" | "quiet" | "warn"; children: ReactNode }) {
  return <span className={`badge badge-${kind}`}>{children}</span>;
}

const SECONDS_IN = { minute: 60, hour: 3600, day: 86400 };

/** A moment as people say it: "14:05:09" today, "24 Nov, 14:05" this year, else with the year. The title has it in full. */
export function When({ at }: { at: string }) {
  const then = new Date(at);
  const now = new Date();
  const today = then.toDateString() === now.toDateString();
  const year = then.getFullYear() === now.getFullYear() ? {} : ({ year: "numeric" } as const);
  const text = today
    ? then.toLocaleTimeString()
    : then.toLocaleString(undefined, { day: "numeric", month: "short", ...year, hour: "2-digit", minute: "2-digit" });
  return (
    <time dateTime={at} title={then.toLocaleString()}>
      {text}
    </time>
  );
}

/** Seconds as "48 s", "3:07 min", "1:02 h". */
export function length(seconds: number): string {
  if (seconds < SECONDS_IN.minute) return `${Math.round(seconds)} s`;
  const hours = seconds >= SECONDS_IN.hour;
  const [big, small] = hours ? [SECONDS_IN.hour, SECONDS_IN.minute] : [SECONDS_IN.minute, 1];
  return `${Math.floor(seconds / big)}:${String(Math.floor((seconds % big) / small)).padStart(2, "0")} ${hours ? "h" : "min"}`;
}

/** An exact amount as people read it: two digits, or as many as it takes to see that it is not nothing. */
export function money(amount: string, currency: string): string {
  const value = Number(amount);
  const digits = value !== 0 && Math.abs(value) < 0.01 ? 6 : 2;
  if (!currency) return value.toFixed(digits);
  return new Intl.NumberFormat(undefined, { style: "currency", currency, maximumFractionDigits: digits }).format(value);
}
