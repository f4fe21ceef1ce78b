/** What the page knows about a call. Plain data: everything on screen is drawn from one `CallState`. */

import type { Line } from "./line";
import type { Transcript } from "./transcript";
import type { Trouble } from "./trouble";

/**
 * idle: nothing runs. connecting: from the click to the assistant's arrival. live: they can talk.
 * waiting: all lines are busy. alone: connected, but no assistant came. returning: the connection broke.
 * ended: hung up, the conversation stays to be read. failed: could not begin, or could not come back.
 */
export type Phase = "idle" | "connecting" | "live" | "waiting" | "alone" | "returning" | "ended" | "failed";

export type AgentState = "absent" | "initializing" | "idle" | "listening" | "thinking" | "speaking";

/** off: the call goes on by typing, because the microphone was refused, is absent, or was not wanted. */
export type MicState = "off" | "on" | "muted";

export type StepName = "microphone" | "line" | "assistant";
export type StepStatus = "pending" | "active" | "done" | "skipped" | "failed";

export interface Step {
  name: StepName;
  status: StepStatus;
  startedAt: number | null;
  ms: number | null;
}

export interface CallState {
  phase: Phase;
  steps: readonly Step[];
  agent: AgentState;
  mic: MicState;
  /** Place in the queue while all lines are busy; null when unknown. */
  position: number | null;
  /** What is wrong with the connection; it goes before what is wrong with the microphone. */
  trouble: Trouble | null;
  micTrouble: Trouble | null;
  /** The browser holds the assistant's voice back until the person clicks once more. */
  soundBlocked: boolean;
  transcript: Transcript;
  startedAt: number | null;
  endedAt: number | null;
  /** The open room, for the parts of the page that play its sound and list its devices. */
  line: Line | null;
}

export const FRESH_STEPS: readonly Step[] = (["microphone", "line", "assistant"] as const).map((name) => ({
  name,
  status: "pending",
  startedAt: null,
  ms: null,
}));

export function inCall(phase: Phase): boolean {
  return phase === "live" || phase === "waiting" || phase === "alone" || phase === "returning" || phase === "connecting";
}

/** The state as one or two words, the same ones for the eye and for a screen reader. */
export function stateWord(state: Pick<CallState, "phase" | "agent" | "mic" | "steps">): string {
  switch (state.phase) {
    case "idle":
      return "Ready";
    case "connecting":
      return connectingWord(state.steps);
    case "waiting":
      return "In line";
    case "alone":
      return "Nobody there";
    case "returning":
      return "Coming back";
    case "ended":
      return "Call ended";
    case "failed":
      return "Not connected";
    case "live":
      return liveWord(state.agent, state.mic);
  }
}

function connectingWord(steps: readonly Step[]): string {
  const active = steps.find((step) => step.status === "active");
  if (active?.name === "microphone") return "Asking for your microphone";
  if (active?.name === "assistant") return "Waiting for the assistant";
  return "Calling";
}

function liveWord(agent: AgentState, mic: MicState): string {
  if (agent === "thinking") return "Thinking";
  if (agent === "speaking") return "Speaking";
  if (agent === "absent" || agent === "initializing") return "Waiting for the assistant";
  if (mic === "muted") return "Muted";
  return mic === "off" ? "Ready" : "Listening";
}
