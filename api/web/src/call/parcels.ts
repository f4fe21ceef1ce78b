/** Files into the call: each is shown while it goes, and then what the assistant made of it. */

import { MOST_BYTES, NO_LINE, NOT_SENT, TOO_LARGE, parseFileStatus } from "./file";
import type { CallState } from "./model";
import { type SentFile, withFile, withFileId } from "./transcript";

/** The call that files go into. */
interface Call {
  get(): CallState;
  show(transcript: CallState["transcript"]): void;
  /** A new id for the transcript. */
  id(): string;
  /** Of this call: what comes after it has ended is nobody's. */
  signal(): AbortSignal;
}

export class Parcels {
  readonly #early = new Map<string, Partial<SentFile>>();
  readonly #call: Call;

  constructor(call: Call) {
    this.#call = call;
  }

  async send(file: File): Promise<void> {
    const { line, phase } = this.#call.get();
    const signal = this.#call.signal();
    const { name } = file;
    let id = this.#call.id();
    const told = (change: Partial<SentFile>) => {
      if (!signal.aborted) this.#call.show(withFile(this.#call.get().transcript, { ...change, id, name }));
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
      this.#call.show(withFileId(this.#call.get().transcript, id, stream));
      id = stream;
      told(early ?? { status: "reading", progress: 1 });
      this.#early.delete(stream);
    } catch {
      told({ status: "refused", detail: NOT_SENT });
    }
  }

  /** What the agent says of a file. */
  told(json: string): void {
    const told = parseFileStatus(json);
    if (told === null) return;
    const { status, detail } = told;
    const { transcript } = this.#call.get();
    const known = transcript.some((item) => item.id === told.id);
    // What another brought into the call is shown, too.
    const ours = known || transcript.every((item) => item.speaker !== "file" || item.status !== "sending");
    if (!ours) this.#early.set(told.id, { status, detail });
    else this.#call.show(withFile(transcript, { ...told, id: told.id || this.#call.id() }));
  }

  /** The call is over. */
  clear(): void {
    this.#early.clear();
  }
}
