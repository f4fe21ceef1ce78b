/** What the API says of calls (api/calls/shapes.py). */

export interface CallItem {
  id: string;
  status: "waiting" | "live" | "ended";
  assistant: string;
  assistant_id: string | null;
  version: number | null;
  medium: string;
  caller: string;
  created_at: string;
  answered_at: string | null;
  ended_at: string | null;
  reason: string;
  turns: number;
  errors: number;
  interruptions: number;
  median_ms: number | null;
  cost: string;
  currency: string;
}

export interface CallShown extends CallItem {
  participants: { identity: string; name: string; medium: string; joined_at: string; left_at: string | null }[];
  usage: { role: string; model: string; amounts: Record<string, number>; cost: string }[];
  files: number;
  annotations: Record<string, string>;
}

export interface TurnShown {
  id: string;
  number: number;
  at: string;
  heard: string;
  answer: string;
  interrupted: boolean;
  typed: boolean;
  error: string | null;
  voice_ms: number | null;
  timeline: unknown[];
  models: Record<string, string>;
  fallback: Record<string, string> | null;
  retries: number;
  cost: string | null;
}

export interface EventShown {
  id: string;
  at: string;
  event: string;
  fields: Record<string, unknown>;
}

export interface LiveCall {
  id: string;
  assistant: string;
  caller: string;
  medium: string;
  began: number;
  caller_state: string;
  assistant_state: string;
  turns: number;
}

export const MEDIA: Record<string, string> = { standard: "Browser", sip: "Phone", agent: "Agent", egress: "Recorder", ingress: "Stream" };

/** Why calls end, in words; LiveKit's and our own names otherwise. */
const REASONS: Record<string, string> = {
  CLIENT_INITIATED: "Caller hung up",
  "caller left": "Caller hung up",
  "room closed": "Room closed",
  "ended by API": "Ended from here",
  lost: "Lost",
  silence: "Nobody spoke",
};

export function reasonOf(reason: string): string {
  return REASONS[reason] ?? reason.replaceAll("_", " ").toLowerCase();
}

/** Seconds that a call took, or takes so far. */
export function lasted(call: CallItem, now = Date.now()): number | null {
  const from = call.answered_at ?? (call.status === "ended" ? null : call.created_at);
  if (from === null) return null;
  return Math.max(0, ((call.ended_at ? Date.parse(call.ended_at) : now) - Date.parse(from)) / 1000);
}
