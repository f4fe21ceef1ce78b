/** How loud a stream is right now, for the shape in the middle of the page. */

let context: AudioContext | null = null;

/** Call it in a click: browsers start no audio context before one. */
export function wakeAudio(): void {
  context ??= new AudioContext({ latencyHint: "interactive" });
  if (context.state === "suspended") void context.resume().catch(() => undefined);
}

/** Speech at arm's length has an RMS of about 0.02 to 0.2; the range between is what the eye should see. */
const FLOOR_DB = -50;
const CEILING_DB = -14;

export class Meter {
  readonly #source: MediaStreamAudioSourceNode | null = null;
  readonly #analyser: AnalyserNode | null = null;
  readonly #samples = new Float32Array(512);

  constructor(track: MediaStreamTrack) {
    if (context === null) return;
    this.#source = context.createMediaStreamSource(new MediaStream([track]));
    this.#analyser = context.createAnalyser();
    this.#analyser.fftSize = this.#samples.length;
    this.#source.connect(this.#analyser);
  }

  /** 0 silent, 1 loud. */
  read(): number {
    if (this.#analyser === null) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    const db = 10 * Math.log10(sum / this.#samples.length + 1e-12);
    return Math.min(1, Math.max(0, (db - FLOOR_DB) / (CEILING_DB - FLOOR_DB)));
  }

  close(): void {
    this.#source?.disconnect();
    this.#analyser?.disconnect();
  }
}

const RING_HZ = [659.3, 880];

/** Two soft notes, for the one who waited in line and may have looked away. */
export function ring(): void {
  if (context === null) return;
  for (const [index, hz] of RING_HZ.entries()) {
    const at = context.currentTime + index * 0.16;
    const note = new OscillatorNode(context, { frequency: hz });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setTargetAtTime(0.12, at, 0.01);
    gain.gain.setTargetAtTime(0, at + 0.12, 0.12);
    note.connect(gain).connect(context.destination);
    note.start(at);
    note.stop(at + 0.9);
  }
}
