/** One conversation from the click to the end: microphone, line, assistant, and every way in which they fail. */

import { Meter, ring, wakeAudio } from "./level";
import type { LineEvents, LossReason, Notice } from "./line";
import { openMicrophone } from "./microphone";
import { type AgentState, type CallState, FRESH_STEPS, type Step, type StepName, inCall } from "./model";
import { Parcels } from "./parcels";
import { pause } from "./pause";
import { Store } from "./store";
import { TICKET_FRESH_MS, type Ticket, fetchTicket } from "./token";
import { closed, withBreak, withCaption, withReport, withTyped } from "./transcript";
import * as trouble from "./trouble";
import { parseTurn } from "./turn";
import { TypedMessages } from "./typed";

/** An assistant is there within a second; after this long, silence would be a lie. */
const ASSISTANT_PATIENCE_MS = 10_000;
/** LiveKit resumes a broken connection within seconds or hardly ever; after this long a new call is the quicker way. */
const RESUME_PATIENCE_MS = 30_000;
/** A call that moves has its next assistant within a second: until then nothing is wrong, and nothing is said. */
const MOVE_GRACE_MS = 2000;
/** Waits between calling again after the line was lost: half a minute in all, then the person decides. */
const REDIAL_MS = [300, 1000, 2000, 4000, 8000, 15_000];

const loadLine = () => import("./line");

const FRESH: CallState = {
  phase: "idle",
  steps: FRESH_STEPS,
  agent: "absent",
  mic: "off",
  position: null,
  trouble: null,
  micTrouble: null,
  soundBlocked: false,
  transcript: [],
  startedAt: null,
  endedAt: null,
  line: null,
};

export class Call {
  readonly store = new Store<CallState>(FRESH);
  /** Read by the shape on every frame, so they are no state. */
  readonly meters: { caller: Meter | null; agent: Meter | null } = { caller: null, agent: null };

  #abort = new AbortController();
  #track: MediaStreamTrack | null = null;
  #patience: ReturnType<typeof setTimeout> | undefined;
  #grace: ReturnType<typeof setTimeout> | undefined;
  readonly #typed = new TypedMessages();
  #gone = false;
  #agent = "";
  readonly #parcels = new Parcels({
    get: () => this.#state,
    show: (transcript) => this.#set({ transcript }),
    id: () => this.#id("file"),
    signal: () => this.#abort.signal,
  });
  #count = 0;
  #waitingSaid = false;
  #spoken = true;

  /** Fetches the call's library while the person still reads, so that the click is quick. */
  warm(): void {
    void loadLine().catch(() => undefined);
  }

  /** Must be called in the click itself: the prompt and the sound both need it. */
  async start(withMicrophone: boolean): Promise<void> {
    if (inCall(this.#state.phase)) return;
    wakeAudio();
    this.#spoken = withMicrophone;
    const signal = this.#begin();
    this.#set({
      ...FRESH,
      phase: "connecting",
      transcript: withBreak(this.#state.transcript, this.#id("break"), "New call"),
      startedAt: Date.now(),
      steps: FRESH_STEPS,
    });
    try {
      this.#step("line", "active");
      const microphone = withMicrophone ? this.#askMicrophone(signal) : this.#skipMicrophone();
      const [, ticket] = await Promise.all([microphone, fetchTicket(signal), loadLine()]);
      const stale = Date.now() - ticket.at > TICKET_FRESH_MS;
      await this.#dial(stale ? await fetchTicket(signal) : ticket, signal);
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  end(): void {
    if (!inCall(this.#state.phase)) return;
    this.#hangUp();
    this.#set({ phase: "ended", trouble: null, micTrouble: null, endedAt: Date.now() });
  }

  /** Leaves a line on which nothing comes, and calls anew. */
  async again(): Promise<void> {
    this.end();
    await this.start(this.#spoken);
  }

  async toggleMute(muted = this.#state.mic === "on"): Promise<void> {
    if (this.#state.mic === "off") return;
    this.#set({ mic: muted ? "muted" : "on" });
    await this.#state.line?.mute(muted);
  }

  /** After the person has unblocked or plugged in the microphone. */
  async retryMicrophone(): Promise<void> {
    wakeAudio();
    const { signal } = this.#abort;
    await this.#askMicrophone(signal);
    const { line } = this.#state;
    if (this.#track !== null && line !== null && !signal.aborted) await line.publish(this.#track, false);
  }

  async allowSound(): Promise<void> {
    wakeAudio();
    await this.#state.line?.room.startAudio();
  }

  async say(text: string): Promise<void> {
    const words = text.trim();
    if (words === "" || !inCall(this.#state.phase)) return;
    const id = this.#id("typed");
    this.#set({ transcript: withTyped(this.#state.transcript, id, words) });
    this.#typed.add(id, words);
    if (this.#state.phase === "live" && !this.#gone) await this.#sendAll();
  }

  /** Sends files one after the other; what becomes of each is in the transcript. */
  async sendFiles(files: readonly File[]): Promise<void> {
    for (const file of files) await this.#parcels.send(file);
  }

  dismiss(): void {
    this.#set({ trouble: null, micTrouble: null });
  }

  get #state(): CallState {
    return this.store.get();
  }

  #set(change: Partial<CallState>): void {
    this.store.set(change);
  }

  #id(kind: string): string {
    return `${kind}-${++this.#count}`;
  }

  #begin(): AbortSignal {
    this.#abort.abort();
    this.#abort = new AbortController();
    return this.#abort.signal;
  }

  #step(name: StepName, status: Step["status"]): void {
    const now = performance.now();
    this.#set({
      steps: this.#state.steps.map((step) => {
        if (step.name !== name || step.status === status) return step;
        const startedAt = status === "active" ? now : step.startedAt;
        return { name, status, startedAt, ms: status === "done" && startedAt !== null ? now - startedAt : null };
      }),
    });
  }

  async #skipMicrophone(): Promise<void> {
    this.#step("microphone", "skipped");
  }

  /** Never rejects: a call without a microphone goes on by typing. */
  async #askMicrophone(signal: AbortSignal): Promise<void> {
    this.#step("microphone", "active");
    try {
      const track = await openMicrophone();
      if (signal.aborted) return track.stop();
      this.#useMicrophone(track);
      this.#step("microphone", "done");
      this.#set({ mic: "on", micTrouble: null });
    } catch (error) {
      if (signal.aborted) return;
      this.#step("microphone", "failed");
      this.#set({ mic: "off", micTrouble: trouble.microphoneTrouble(error) });
    }
  }

  #useMicrophone(track: MediaStreamTrack | null): void {
    if (this.#track !== track) this.#track?.stop();
    this.#track = track;
    this.meters.caller?.close();
    this.meters.caller = track === null ? null : new Meter(track);
  }

  async #dial(ticket: Ticket, signal: AbortSignal): Promise<void> {
    const { Line } = await loadLine();
    this.#waitingSaid = false;
    this.#set({ agent: "absent" });
    this.#step("line", "active");
    const line = await Line.open(ticket, this.#events(signal), signal);
    this.#set({ line });
    this.#step("line", "done");
    if (this.#state.agent === "absent") this.#step("assistant", "active");
    this.#wait();
    if (this.#track !== null) await line.publish(this.#track, this.#state.mic === "muted");
  }

  #events(signal: AbortSignal): LineEvents {
    const heard = <A extends unknown[]>(act: (...args: A) => void) => (...args: A): void => {
      if (!signal.aborted) act(...args);
    };
    return {
      agent: heard((state, identity) => this.#agentIs(state, identity)),
      caption: heard((caption) => this.#set({ transcript: withCaption(this.#state.transcript, caption) })),
      report: heard((json) => this.#report(json)),
      file: heard((json) => this.#parcels.told(json)),
      queue: heard((notice) => this.#queued(notice)),
      interrupted: heard(() => this.#interrupted()),
      resumed: heard(() => this.#resumed()),
      lost: heard((reason) => this.#lost(reason)),
      soundBlocked: heard((blocked) => this.#set({ soundBlocked: blocked })),
      microphone: heard((track) => this.#microphoneChanged(track)),
      voice: heard((track) => this.#voice(track)),
    };
  }

  #agentIs(agent: AgentState, identity: string): void {
    const here = agent !== "absent" && agent !== "initializing";
    this.#gone = !here && (this.#gone || agent === "absent");
    // While a call moves, the page goes on showing what it did.
    if (here || this.#state.phase !== "live") this.#set({ agent });
    if (here) {
      clearTimeout(this.#patience);
      clearTimeout(this.#grace);
      if (identity !== this.#agent) this.#typed.unsend();
      this.#agent = identity;
      this.#step("assistant", "active");
      this.#step("assistant", "done");
      if (this.#state.phase === "waiting") ring();
      this.#set({ phase: "live", position: null, trouble: null });
      void this.#sendAll();
    } else if (agent === "absent" && this.#state.phase === "live") {
      const { signal } = this.#abort;
      clearTimeout(this.#grace);
      this.#grace = setTimeout(() => {
        if (signal.aborted || !this.#gone || this.#state.phase !== "live") return;
        this.#set({ agent, trouble: trouble.ASSISTANT_LEFT, transcript: closed(this.#state.transcript) });
        this.#wait();
      }, MOVE_GRACE_MS);
    }
  }

  #wait(): void {
    clearTimeout(this.#patience);
    const { signal } = this.#abort;
    this.#patience = setTimeout(() => {
      const { agent, phase } = this.#state;
      const missing = agent === "absent" || agent === "initializing";
      if (signal.aborted || !missing || phase === "waiting" || phase === "returning") return;
      this.#set({ phase: "alone", trouble: trouble.NO_ASSISTANT });
    }, ASSISTANT_PATIENCE_MS);
  }

  #queued(notice: Notice | null): void {
    const { agent, phase } = this.#state;
    if (notice?.failed === true) {
      clearTimeout(this.#patience);
      return this.#set({ phase: "alone", position: null, trouble: trouble.GIVEN_UP });
    }
    if (notice?.busy === true && (agent === "absent" || agent === "initializing")) {
      this.#waitingSaid = true;
      this.#set({ phase: "waiting", position: notice.position, trouble: null });
    } else if (this.#waitingSaid && phase === "waiting") {
      this.#set({ phase: "connecting", position: null });
      this.#wait();
    }
  }

  #report(json: string): void {
    const report = parseTurn(json);
    if (report === null) return;
    this.#typed.heard(report.heard);
    this.#set({ transcript: withReport(this.#state.transcript, report, this.#id("answer")) });
  }

  #interrupted(): void {
    if (this.#state.phase === "returning") return;
    this.#set({ phase: "returning", trouble: trouble.BROKEN });
    clearTimeout(this.#patience);
    const { signal } = this.#abort;
    this.#patience = setTimeout(() => !signal.aborted && this.#lost("broken"), RESUME_PATIENCE_MS);
  }

  #resumed(): void {
    clearTimeout(this.#patience);
    const { agent } = this.#state;
    const here = agent !== "absent" && agent !== "initializing" && !this.#gone;
    this.#set({ phase: here ? "live" : "connecting", trouble: null });
    if (!here) this.#wait();
    else void this.#sendAll();
  }

  #lost(reason: LossReason): void {
    if (reason === "over") return this.end();
    const mic = this.#state.mic;
    if (reason === "elsewhere") {
      this.#hangUp();
      return this.#set({ phase: "failed", trouble: trouble.ELSEWHERE });
    }
    const signal = this.#begin();
    this.#forgetLine();
    this.#set({ phase: "returning", mic, agent: "absent", transcript: closed(this.#state.transcript) });
    void this.#redial(signal);
  }

  async #redial(signal: AbortSignal): Promise<void> {
    for (const [tried, wait] of REDIAL_MS.entries()) {
      this.#set({ phase: "returning", trouble: trouble.redialling(tried + 1, REDIAL_MS.length) });
      await pause(wait, signal);
      if (signal.aborted) return;
      try {
        const ticket = await fetchTicket(signal);
        const steps = FRESH_STEPS.map((step) => (step.name === "microphone" ? this.#microphoneStep() : step));
        this.#set({ steps, transcript: withBreak(this.#state.transcript, this.#id("break"), "Called again") });
        await this.#dial(ticket, signal);
        if (this.#state.phase === "returning") this.#set({ phase: "connecting", trouble: null });
        return;
      } catch {
        if (signal.aborted) return;
      }
    }
    this.#hangUp();
    this.#set({ phase: "failed", trouble: trouble.LOST });
  }

  #microphoneStep(): Step {
    return { name: "microphone", status: this.#track === null ? "skipped" : "done", startedAt: null, ms: null };
  }

  #microphoneChanged(track: MediaStreamTrack | null): void {
    this.#useMicrophone(track);
    if (track === null) this.#set({ mic: "off", micTrouble: trouble.MICROPHONE_GONE });
  }

  #voice(track: MediaStreamTrack | null): void {
    this.meters.agent?.close();
    this.meters.agent = track === null ? null : new Meter(track);
  }

  async #sendAll(): Promise<void> {
    const { line } = this.#state;
    if (line !== null && !(await this.#typed.send(line))) this.#set({ trouble: trouble.NOT_SENT });
  }

  #fail(error: unknown): void {
    this.#hangUp();
    this.#set({ phase: "failed", trouble: trouble.connectTrouble(error) });
  }

  #hangUp(): void {
    this.#abort.abort();
    this.#typed.clear();
    this.#forgetLine();
    this.#useMicrophone(null);
    this.#set({
      agent: "absent",
      mic: "off",
      position: null,
      soundBlocked: false,
      micTrouble: null,
      transcript: closed(this.#state.transcript),
    });
  }

  #forgetLine(): void {
    clearTimeout(this.#patience);
    clearTimeout(this.#grace);
    this.#gone = false;
    this.#typed.unsend();
    const { line } = this.#state;
    this.#voice(null);
    this.#set({ line: null });
    void line?.close();
  }
}
