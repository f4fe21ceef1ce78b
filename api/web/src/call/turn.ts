/** The agent's report on one answered turn (text stream `parley.turn`). Any figure may be missing. */

export interface Stage {
  label: string;
  ms: number;
  /** Where it begins, in ms after the caller fell silent. Stages overlap: the answer is prepared before the turn is over. */
  from: number;
}

export interface TurnReport {
  turn: number | null;
  heard: string;
  answer: string | null;
  interrupted: boolean;
  voiceToVoiceMs: number | null;
  stages: readonly Stage[];
  models: readonly { role: string; name: string }[];
  retries: number;
  fallback: string | null;
}

const STAGES: Record<string, string> = {
  stt: "Speech to text",
  endpointing: "End of turn",
  llm: "First word",
  tts: "First sound",
};

const ROLES: Record<string, string> = { stt: "Speech to text", llm: "Language model", tts: "Voice" };

/** Below this the remainder is rounding, not a stage. */
const REST_MS = 5;

/** Null when the text is not a report; unknown keys are ignored. */
export function parseTurn(json: string): TurnReport | null {
  let raw: unknown;
  try {
    raw = JSON.parse(json);
  } catch {
    return null;
  }
  const report = record(raw);
  if (report === null) return null;
  const voiceToVoiceMs = figure(report["voice_to_voice_ms"]);
  return {
    turn: figure(report["turn"]),
    heard: words(report["heard"]) ?? "",
    answer: words(report["answer"]),
    interrupted: report["interrupted"] === true,
    voiceToVoiceMs,
    stages: stagesOf(report["timeline"], voiceToVoiceMs),
    models: Object.entries(record(report["models"]) ?? {}).flatMap(([role, name]) =>
      typeof name === "string" ? [{ role: ROLES[role] ?? role, name }] : [],
    ),
    retries: figure(report["retries"]) ?? 0,
    fallback: fallbackOf(report["fallback"]),
  };
}

function stagesOf(raw: unknown, total: number | null): Stage[] {
  const stages = (Array.isArray(raw) ? raw : []).flatMap((item: unknown): Stage[] => {
    const fields = record(item) ?? {};
    const from = figure(fields["from_ms"]);
    const to = figure(fields["to_ms"]);
    const label = STAGES[words(fields["stage"]) ?? ""];
    return from === null || to === null || to < from || label === undefined ? [] : [{ label, from, ms: to - from }];
  });
  stages.sort((a, b) => a.from - b.from || a.ms - b.ms);
  const last = Math.max(0, ...stages.map((stage) => stage.from + stage.ms));
  if (total !== null && stages.length > 0 && total - last > REST_MS) {
    stages.push({ label: "On the way", ms: total - last, from: last });
  }
  return stages;
}

function fallbackOf(raw: unknown): string | null {
  if (typeof raw === "string" && raw !== "") return raw;
  const fields = record(raw);
  if (fields === null) return null;
  const names = Object.values(fields).filter((value) => typeof value === "string");
  return names.length > 0 ? names.join(", ") : null;
}

function record(raw: unknown): Record<string, unknown> | null {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw) ? (raw as Record<string, unknown>) : null;
}

function figure(raw: unknown): number | null {
  return typeof raw === "number" && Number.isFinite(raw) && raw >= 0 ? raw : null;
}

function words(raw: unknown): string | null {
  return typeof raw === "string" ? raw : null;
}

/** 612 -> "0.6 s". */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
}
