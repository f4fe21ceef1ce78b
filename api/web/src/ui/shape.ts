/**
 * The geometry of the shape: a core and rings round it, like the rings that a drop makes.
 *
 * A voice is a wave that needs time: the caller's comes in from the outermost ring, the assistant's goes out from the
 * core. While thinking the rings close in and turn.
 */

import type { CallState } from "../call/model";

export interface Ink {
  accent: string;
  core: string;
  glow: number;
}

export interface Moment {
  state: CallState;
  /** Loudness of each side, 0 to 1. */
  caller: number;
  agent: number;
}

type Mood = "rest" | "calling" | "listening" | "thinking" | "speaking" | "muted" | "troubled";

interface Pose {
  /** Radius of the core and of the outermost ring, as parts of half the side. */
  core: number;
  reach: number;
  /** How far a ring departs from a circle. */
  wander: number;
  /** Turns per second. */
  spin: number;
  breath: number;
  strength: number;
}

const POSES: Record<Mood, Pose> = {
  rest: { core: 0.27, reach: 0.8, wander: 0.022, spin: 0.015, breath: 0.02, strength: 0.86 },
  calling: { core: 0.2, reach: 0.7, wander: 0.03, spin: 0.12, breath: 0.045, strength: 0.85 },
  listening: { core: 0.24, reach: 0.76, wander: 0.026, spin: 0.02, breath: 0.035, strength: 0.9 },
  thinking: { core: 0.15, reach: 0.5, wander: 0.075, spin: 0.3, breath: 0.015, strength: 1 },
  speaking: { core: 0.34, reach: 0.8, wander: 0.03, spin: 0.03, breath: 0.012, strength: 1 },
  muted: { core: 0.16, reach: 0.66, wander: 0.008, spin: 0, breath: 0.008, strength: 0.42 },
  troubled: { core: 0.12, reach: 0.62, wander: 0.012, spin: 0.02, breath: 0.05, strength: 0.4 },
};

const RINGS = 6;
const POINTS = 72;
/** A ring hears what its neighbour heard this many frames ago. */
const LAG = 3;
const HISTORY = RINGS * LAG + 1;
const EASE_MS = 160;
const TURN = 2 * Math.PI;

export class Shape {
  #pose: Pose = { ...POSES.rest };
  #clock = 0;
  #angle = 0;
  #caller = new Array<number>(HISTORY).fill(0);
  #agent = new Array<number>(HISTORY).fill(0);
  loud = false;

  advance(moment: Moment, ms: number): void {
    const mood = moodOf(moment.state);
    const muted = mood === "muted" || moment.state.mic !== "on";
    const share = 1 - Math.exp(-ms / EASE_MS);
    for (const key of Object.keys(this.#pose) as (keyof Pose)[]) {
      this.#pose[key] += (POSES[mood][key] - this.#pose[key]) * share;
    }
    this.#clock += ms / 1000;
    this.#angle += (ms / 1000) * this.#pose.spin * TURN;
    hear(this.#caller, muted ? 0 : moment.caller);
    hear(this.#agent, mood === "speaking" ? moment.agent : 0);
    this.loud = this.#caller.some((level) => level > 0.05) || this.#agent.some((level) => level > 0.05) || mood === "thinking";
  }

  /** One pose for each state, with nothing that moves. */
  still(state: CallState): void {
    this.#pose = { ...POSES[moodOf(state)] };
    this.#caller.fill(0);
    this.#agent.fill(0);
    this.loud = false;
  }

  draw(pen: CanvasRenderingContext2D, side: number, ink: Ink): void {
    const half = side / 2;
    pen.translate(half, half);
    const breath = 1 + this.#pose.breath * Math.sin((this.#clock * TURN) / 4.2);
    this.#drawGlow(pen, half, ink, breath);
    for (let ring = RINGS - 1; ring >= 0; ring--) this.#drawRing(pen, half, ring, ink, breath);
    this.#drawCore(pen, half, ink, breath);
  }

  #drawGlow(pen: CanvasRenderingContext2D, half: number, ink: Ink, breath: number): void {
    const level = Math.max(this.#agent[0] ?? 0, (this.#caller.at(-1) ?? 0) * 0.6);
    const radius = half * Math.min(1, this.#pose.reach * breath + 0.2);
    const glow = pen.createRadialGradient(0, 0, 0, 0, 0, radius);
    const strength = ink.glow * this.#pose.strength * (0.7 + 0.6 * level);
    glow.addColorStop(0, `rgb(${ink.accent} / ${strength})`);
    glow.addColorStop(0.55, `rgb(${ink.accent} / ${strength * 0.35})`);
    glow.addColorStop(1, `rgb(${ink.accent} / 0)`);
    pen.fillStyle = glow;
    pen.beginPath();
    pen.arc(0, 0, radius, 0, TURN);
    pen.fill();
  }

  #drawRing(pen: CanvasRenderingContext2D, half: number, ring: number, ink: Ink, breath: number): void {
    const { core, reach, wander, strength } = this.#pose;
    const out = (ring + 1) / RINGS;
    // The caller's wave travels inwards, the assistant's outwards.
    const caller = this.#caller[(RINGS - 1 - ring) * LAG] ?? 0;
    const agent = this.#agent[ring * LAG] ?? 0;
    const radius = half * (core + (reach - core) * out) * breath * (1 + 0.07 * agent * (1.3 - out));
    const depart = half * (wander * (0.4 + out) + caller * 0.085 * out + agent * 0.03);
    pen.beginPath();
    for (let point = 0; point <= POINTS; point++) {
      const angle = (point / POINTS) * TURN;
      const wave = this.#wave(angle, ring, caller, agent);
      const at = Math.min(half * 0.985, radius + depart * wave);
      pen.lineTo(Math.cos(angle) * at, Math.sin(angle) * at);
    }
    pen.closePath();
    pen.lineWidth = half * (0.011 + 0.01 * Math.max(caller, agent) + 0.004 * (1 - out));
    pen.strokeStyle = `rgb(${ink.accent} / ${strength * (0.78 - 0.62 * out) + 0.35 * Math.max(caller, agent)})`;
    pen.stroke();
  }

  /** A sum of a few slow waves, -1 to 1: never the same twice, and cheap. */
  #wave(angle: number, ring: number, caller: number, agent: number): number {
    const turned = angle + this.#angle * (ring % 2 === 0 ? 1 : -0.7);
    const calm = 0.6 * Math.sin(2 * turned + ring * 0.9 + this.#clock * 0.5) + 0.4 * Math.sin(3 * turned - ring * 1.3 - this.#clock * 0.7);
    const busy = Math.sin(5 * turned + this.#clock * 3.1 + ring) * 0.6 + Math.sin(8 * turned - this.#clock * 4.3) * 0.4;
    const voice = Math.min(1, caller + agent);
    return calm * (1 - 0.5 * voice) + busy * 0.7 * voice;
  }

  #drawCore(pen: CanvasRenderingContext2D, half: number, ink: Ink, breath: number): void {
    const { core, strength } = this.#pose;
    const caller = this.#caller.at(-1) ?? 0;
    const agent = this.#agent[0] ?? 0;
    const radius = half * core * breath * (0.82 + 0.2 * agent + 0.06 * caller);
    pen.beginPath();
    for (let point = 0; point <= POINTS; point++) {
      const angle = (point / POINTS) * TURN;
      const at = radius * (1 + (0.025 + 0.05 * agent) * this.#wave(angle, 0, caller, agent));
      pen.lineTo(Math.cos(angle) * at, Math.sin(angle) * at);
    }
    pen.closePath();
    const fill = pen.createRadialGradient(-radius * 0.35, -radius * 0.4, radius * 0.1, 0, 0, radius * 1.15);
    fill.addColorStop(0, `rgb(${ink.core} / ${0.35 + 0.65 * strength})`);
    fill.addColorStop(1, `rgb(${ink.accent} / ${0.35 + 0.65 * strength})`);
    pen.fillStyle = fill;
    pen.fill();
  }
}

function hear(history: number[], level: number): void {
  const before = history[0] ?? 0;
  // Quick to rise, slow to fall, as a needle does.
  history.pop();
  history.unshift(before + (level - before) * (level > before ? 0.55 : 0.16));
}

function moodOf({ phase, agent, mic }: CallState): Mood {
  switch (phase) {
    case "connecting":
    case "waiting":
      return "calling";
    case "returning":
    case "alone":
    case "failed":
      return "troubled";
    case "live":
      if (agent === "thinking" || agent === "speaking") return agent;
      return mic === "muted" ? "muted" : "listening";
    default:
      return "rest";
  }
}
