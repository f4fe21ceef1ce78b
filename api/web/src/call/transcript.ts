/** The conversation as text, built from captions, typed messages and turn reports. Pure functions on plain data. */

import type { TurnReport } from "./turn";

export type Speaker = "caller" | "agent";

interface Segment {
  id: string;
  text: string;
  final: boolean;
}

export interface Message {
  id: string;
  speaker: Speaker;
  typed: boolean;
  segments: readonly Segment[];
  /** What was really heard of an interrupted answer; it takes the segments' place. */
  settled: string | null;
  report: TurnReport | null;
}

/** A line across the conversation, where a new call took the old one's place. */
export interface Break {
  id: string;
  speaker: "break";
  text: string;
}

/** A file that was sent, and what became of it. `id` is the stream's, once it is known. */
export interface SentFile {
  id: string;
  speaker: "file";
  name: string;
  status: "sending" | "reading" | "read" | "refused";
  /** Of the way to the call, 0 to 1. */
  progress: number;
  /** Why it was refused, or what was left out; may be empty. */
  detail: string;
}

export type Item = Message | Break | SentFile;
export type Transcript = readonly Item[];

export interface Caption {
  id: string;
  speaker: Speaker;
  text: string;
  final: boolean;
}

export function textOf(message: Message): string {
  return message.settled ?? message.segments.map((segment) => segment.text.trim()).filter(Boolean).join(" ");
}

export function isFinal(message: Message): boolean {
  return message.settled !== null || message.segments.every((segment) => segment.final);
}

/** A caption replaces its segment, or joins the message of the same speaker, or begins a new message. */
export function withCaption(transcript: Transcript, caption: Caption): Transcript {
  const segment: Segment = { id: caption.id, text: caption.text, final: caption.final };
  const known = transcript.findLastIndex((item) => holds(item, caption));
  if (known >= 0) return replaced(transcript, known, (message) => ({ ...message, segments: upsert(message.segments, segment) }));
  const last = transcript.at(-1);
  if (last !== undefined && joins(last, caption)) {
    return replaced(transcript, transcript.length - 1, (message) => ({ ...message, segments: [...message.segments, segment] }));
  }
  if (caption.text.trim() === "") return transcript;
  return [...transcript, message(`${caption.speaker}-${caption.id}`, caption.speaker, [segment])];
}

export function withTyped(transcript: Transcript, id: string, text: string): Transcript {
  return [...transcript, { ...message(id, "caller", [{ id, text, final: true }]), typed: true }];
}

/** A new file, or a change of one that is there. */
export function withFile(transcript: Transcript, file: Partial<SentFile> & { id: string; name: string }): Transcript {
  const known = transcript.findLastIndex((item) => item.speaker === "file" && item.id === file.id);
  if (known < 0) return [...transcript, { speaker: "file", status: "sending", progress: 0, detail: "", ...file }];
  return transcript.map((item, index) => (index === known && item.speaker === "file" ? { ...item, ...file } : item));
}

/** The stream has a name of its own, which the agent's answer bears. */
export function withFileId(transcript: Transcript, id: string, stream: string): Transcript {
  return transcript.map((item) => (item.speaker === "file" && item.id === id ? { ...item, id: stream } : item));
}

export function withBreak(transcript: Transcript, id: string, text: string): Transcript {
  const last = transcript.at(-1);
  return last === undefined || last.speaker === "break" ? transcript : [...transcript, { id, speaker: "break", text }];
}

/** Nothing that was still being said will be finished: the connection it came over is gone. */
export function closed(transcript: Transcript): Transcript {
  return transcript.map((item) =>
    item.speaker === "file"
      ? stranded(item)
      : item.speaker === "break" || isFinal(item)
      ? item
      : { ...item, segments: item.segments.map((segment) => ({ ...segment, final: true })) },
  );
}

function stranded(file: SentFile): SentFile {
  if (file.status === "read" || file.status === "refused") return file;
  return { ...file, status: "refused", detail: "the connection broke on the way; send it again" };
}

/** Hangs the report on the answer it is about, and lets an interrupted answer end where the caller stopped it. */
export function withReport(transcript: Transcript, report: TurnReport, id: string): Transcript {
  const at = reportedMessage(transcript, report);
  if (at >= 0) return replaced(transcript, at, (answer) => settle(answer, report));
  if (report.answer === null || report.answer.trim() === "") return transcript;
  return [...transcript, settle(message(id, "agent", []), report)];
}

function settle(answer: Message, report: TurnReport): Message {
  const replaces = report.answer !== null && (report.interrupted || answer.segments.length === 0);
  return {
    ...answer,
    report,
    segments: answer.segments.map((segment) => ({ ...segment, final: true })),
    settled: replaces ? report.answer : answer.settled,
  };
}

/** The captions carry no turn number, so the answer's own words decide; with none alike, the latest unreported one. */
function reportedMessage(transcript: Transcript, report: TurnReport): number {
  const open = (item: Item): item is Message => item.speaker === "agent" && item.report === null;
  const wanted = bare(report.answer ?? "");
  const alike = transcript.findLastIndex((item) => {
    if (!open(item)) return false;
    const said = bare(textOf(item));
    return said !== "" && wanted !== "" && (said.startsWith(wanted) || wanted.startsWith(said));
  });
  return alike >= 0 ? alike : transcript.findLastIndex(open);
}

function isMessage(item: Item): item is Message {
  return item.speaker === "caller" || item.speaker === "agent";
}

function bare(text: string): string {
  return text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

function holds(item: Item, caption: Caption): item is Message {
  return isMessage(item) && item.speaker === caption.speaker && item.segments.some((segment) => segment.id === caption.id);
}

function joins(item: Item, caption: Caption): item is Message {
  return isMessage(item) && item.speaker === caption.speaker && !item.typed && item.report === null && item.settled === null;
}

function upsert(segments: readonly Segment[], segment: Segment): readonly Segment[] {
  return segments.map((known) => (known.id === segment.id ? segment : known));
}

function message(id: string, speaker: Speaker, segments: readonly Segment[]): Message {
  return { id, speaker, typed: false, segments, settled: null, report: null };
}

function replaced(transcript: Transcript, at: number, change: (message: Message) => Message): Transcript {
  return transcript.map((item, index) => (index === at && isMessage(item) ? change(item) : item));
}
