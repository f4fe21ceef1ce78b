/** One conversation from the click to the end: microphone, line, assistant, and every way in which they fail. */

import { MOST_BYTES, NO_LINE, NOT_SENT, TOO_LARGE, parseFileStatus } from "./file";
import { Meter, ring, wakeAudio } from "./level";
import type { LineEvents, LossReason, Notice } from "./line";
import { openMicrophone } from "./microphone";
import { type AgentState, type CallState, FRESH_STEPS, type Step, type StepName, inCall } from "./model";
import { Store } from "./store";
import { TICKET_FRESH_MS, type Ticket, fetchTicket } from "./token";
import { type SentFile, closed, withBreak, withCaption, withFile, withFileId, withReport, withTyped } from "./transcript";
import * as trouble from "./trouble";
import { parseTurn } from "./turn";

/** An assistant is there within a second; after this long, silence would be a lie. */
const ASSISTANT_PATIENCE_MS = 10_000;
/** LiveKit resumes a broken connection within seconds or hardly ever; after this long a new call is the quicker way. */
const RESUME_PATIENCE_MS = 30_000;
/** A call that moves has its next assistant within a second: until then nothing is wrong, and nothing is said. */
const MOVE_GRACE_MS = 2000;
/** Typed messages that are kept until they are known to have been heard. */
const MOST_TYPED = 20;
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

/** A typed message. `sent`: to the assistant who is there now. */
interface Typed {
  readonly id: string;
  readonly words: string;
  sent: boolean;
}

export class Call {
  readonly store = new Store<CallState>(FRESH);
  /** Read by the shape on every frame, so they are no state. */
  readonly meters: { caller: Meter | null; agent: Meter | null } = { caller: null, agent: null };

  #abort = new AbortController();
  #track: MediaStreamTrack | null = null;
  #patience: ReturnType<typeof setTimeout> | undefined;
  #grace: ReturnType<typeof setTimeout> | undefined;
  /** Not known to be heard yet: whoever comes after an assistant who has left is told them again, and knows doubles. */
  #typed: Typed[] = [];
  #gone = false;
  #agent = "";
  readonly #early = new Map<string, Partial<SentFile>>();
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
    this.#typed = [...this.#typed.slice(1 - MOST_TYPED), { id, words, sent: false }];
    if (this.#state.phase === "live" && !this.#gone) await this.#sendAll();
  }

  /** Sends files one after the other; what becomes of each is in the transcript. */
  async sendFiles(files: readonly File[]): Promise<void> {
    for (const file of files) await this.#sendFile(file);
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
      file: heard((json) => this.#fileTold(json)),
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
      if (identity !== this.#agent) this.#unsend();
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
    const heard = this.#typed.findLastIndex(({ sent, words }) => sent && words === report.heard);
    this.#typed = this.#typed.slice(heard + 1);
    this.#set({ transcript: withReport(this.#state.transcript, report, this.#id("answer")) });
  }

  async #sendFile(file: File): Promise<void> {
    const { line, phase } = this.#state;
    const { signal } = this.#abort;
    const { name } = file;
    let id = this.#id("file");
    const told = (change: Partial<SentFile>) => {
      if (!signal.aborted) this.#set({ transcript: withFile(this.#state.transcript, { ...change, id, name }) });
    };
    if (line === null || phase !== "live") return told({ status: "refused", detail: NO_LINE });
    if (file.size > MOST_BYTES) return told({ status: "refused", detail: TOO_LARGE });
    told({ status: "sending" });
    try {
      let shown = 0;
      const stream = await line.sendFile(file, (progress) => {
        if (progress - shown < 0.02) return;
        shown = progress;
        told({ progress });
      });
      // The agent's word may have come before the stream's name was known here.
      const early = this.#early.get(stream);
      this.#set({ transcript: withFileId(this.#state.transcript, id, stream) });
      id = stream;
      told(early ?? { status: "reading", progress: 1 });
      this.#early.delete(stream);
    } catch {
      told({ status: "refused", detail: NOT_SENT });
    }
  }

  #fileTold(json: string): void {
    const told = parseFileStatus(json);
    if (told === null) return;
    const { status, detail } = told;
    const known = this.#state.transcript.some((item) => item.id === told.id);
    // What another brought into the call is shown, too.
    const ours = known || this.#state.transcript.every((item) => item.speaker !== "file" || item.status !== "sending");
    if (!ours) this.#early.set(told.id, { status, detail });
    else this.#set({ transcript: withFile(this.#state.transcript, { ...told, id: told.id || this.#id("file") }) });
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
    for (let next; line !== null && (next = this.#typed.find(({ sent }) => !sent)) !== undefined; ) {
      next.sent = true;
      try {
        await line.say(next.words, next.id);
      } catch {
        next.sent = false;
        return this.#set({ trouble: trouble.NOT_SENT });
      }
    }
  }

  #unsend(): void {
    for (const message of this.#typed) message.sent = false;
  }

  #fail(error: unknown): void {
    this.#hangUp();
    this.#set({ phase: "failed", trouble: trouble.connectTrouble(error) });
  }

  #hangUp(): void {
    this.#abort.abort();
    this.#typed = [];
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
    this.#unsend();
    const { line } = this.#state;
    this.#voice(null);
    this.#set({ line: null });
    void line?.close();
  }
}

/** Waits, or less when the network is back sooner. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal.addEventListener("abort", done, { once: true });
  });
}
