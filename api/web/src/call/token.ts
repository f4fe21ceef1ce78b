/** Asks the page's own server for a line: an address and a short-lived token that names the room. */

import { Refused, Unreachable } from "./trouble";

export interface Ticket {
  serverUrl: string;
  token: string;
  at: number;
}

const TIMEOUT_MS = 10_000;

/** A ticket lives minutes; one that waited at a permission prompt for longer than this is asked for anew. */
export const TICKET_FRESH_MS = 45_000;

/** Who shall answer, where the page's address says it: `?assistant=` and a name, an id, or an id with a version. */
function wanted(): { assistant?: string } {
  const assistant = new URLSearchParams(window.location.search).get("assistant");
  return assistant ? { assistant } : {};
}

export async function fetchTicket(signal: AbortSignal): Promise<Ticket> {
  let response: Response;
  try {
    response = await fetch("/api/v1/token", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wanted()),
      cache: "no-store",
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Unreachable("no answer from /api/v1/token", { cause: error });
  }
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) throw refusal(response.status, body);
  const serverUrl = text(body, "server_url");
  const token = text(body, "participant_token");
  if (serverUrl === null || token === null) {
    throw new Refused(response.status, "Parley gave no line", "Its answer could not be read. Try again in a moment.");
  }
  return { serverUrl, token, at: Date.now() };
}

function refusal(status: number, body: unknown): Error {
  const title = text(body, "title");
  // A gateway's error page is no answer of Parley's.
  if (title === null) return status >= 502 ? new Unreachable(`status ${status}`) : new Refused(status, "Parley refused the call", `It answered with status ${status}. Try again in a moment.`);
  return new Refused(status, title, text(body, "detail") ?? "Try again in a moment.");
}

function text(body: unknown, key: string): string | null {
  if (typeof body !== "object" || body === null) return null;
  const value = (body as Record<string, unknown>)[key];
  return typeof value === "string" && value !== "" ? value : null;
}
