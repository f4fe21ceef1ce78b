/** One LiveKit room, told in the call's own words. Loaded on demand: livekit-client is most of the page's weight. */

import {
  DisconnectReason,
  LocalAudioTrack,
  type Participant,
  type RemoteParticipant,
  type RemoteTrack,
  Room,
  RoomEvent,
  type TextStreamReader,
  Track,
  TrackEvent,
  setLogLevel,
} from "livekit-client";
import { CAPTURE } from "./microphone";
import type { AgentState } from "./model";
import type { Ticket } from "./token";
import type { Caption } from "./transcript";

export type LossReason = "over" | "elsewhere" | "broken";

/** What the room's metadata says of the call. failed: every assistant who took it broke, so none comes any more. */
export interface Notice {
  busy: boolean;
  failed: boolean;
  position: number | null;
}

export interface LineEvents {
  /** `identity` tells one assistant from the next, who may come before the other has left. */
  agent(state: AgentState, identity: string): void;
  caption(caption: Caption): void;
  report(json: string): void;
  /** What became of a file. */
  file(json: string): void;
  /** The queue's notice in the room's metadata; null when there is none. */
  queue(notice: Notice | null): void;
  interrupted(): void;
  resumed(): void;
  lost(reason: LossReason): void;
  soundBlocked(blocked: boolean): void;
  microphone(track: MediaStreamTrack | null): void;
  voice(track: MediaStreamTrack | null): void;
}

const AGENT_STATE = "lk.agent.state";
const AGENT_STATES = new Set<string>(["initializing", "idle", "listening", "thinking", "speaking"]);
const TRANSCRIPTION = "lk.transcription";
const REPORT = "parley.turn";
const CHAT = "lk.chat";
const MESSAGE = "parley.message";
const FILE = "parley.file";

/** A device that was unplugged ends its track; livekit-client takes the next one within this time, or none. */
const DEVICE_GRACE_MS = 1500;

setLogLevel("error");

let lines = 0;

export class Line {
  readonly room: Room;
  /** Segments are numbered by the agent, and the next line's agent may begin anew. */
  readonly #number = ++lines;
  readonly #events: LineEvents;
  #microphone: LocalAudioTrack | null = null;
  #pending: MediaStreamTrack | null = null;
  #muted = false;
  #order = 0;
  readonly #newest = new Map<string, number>();

  private constructor(events: LineEvents) {
    this.#events = events;
    this.room = new Room({
      audioCaptureDefaults: CAPTURE,
      publishDefaults: { dtx: true, red: true },
      // The microphone outlives a room that was lost, so that coming back asks for nothing.
      stopLocalTrackOnUnpublish: false,
    });
    this.#listen();
  }

  static async open(ticket: Ticket, events: LineEvents, signal: AbortSignal): Promise<Line> {
    const line = new Line(events);
    const hangUp = () => void line.close();
    signal.addEventListener("abort", hangUp, { once: true });
    try {
      await line.room.connect(ticket.serverUrl, ticket.token, { maxRetries: 1 });
      signal.throwIfAborted();
    } catch (error) {
      line.room.removeAllListeners();
      throw error;
    }
    line.#greet();
    return line;
  }

  /** A muted track is silent from its first sample: LiveKit's own mute needs a published track. */
  async publish(track: MediaStreamTrack, muted: boolean): Promise<void> {
    this.#muted = muted;
    track.enabled = !muted;
    const microphone = new LocalAudioTrack(track, CAPTURE, false);
    microphone.on(TrackEvent.Restarted, () => this.#events.microphone(microphone.mediaStreamTrack));
    microphone.on(TrackEvent.Ended, () => this.#watchDevice(microphone));
    this.#pending = track;
    await this.room.localParticipant.publishTrack(microphone, { source: Track.Source.Microphone });
    this.#microphone = microphone;
    this.#pending = null;
    if (this.#muted) await microphone.mute();
  }

  async mute(muted: boolean): Promise<void> {
    this.#muted = muted;
    if (this.#pending !== null) this.#pending.enabled = !muted;
    await (muted ? this.#microphone?.mute() : this.#microphone?.unmute());
  }

  /** Said again with the same id, it is answered once. */
  async say(text: string, id: string): Promise<void> {
    await this.room.localParticipant.sendText(text, { topic: CHAT, attributes: { [MESSAGE]: id } });
  }

  /** Resolves with the stream's name, once the file is on its way to the end. */
  async sendFile(file: File, onProgress: (share: number) => void): Promise<string> {
    const options = { topic: FILE, mimeType: file.type || "application/octet-stream", onProgress };
    return (await this.room.localParticipant.sendFile(file, options)).id;
  }

  async close(): Promise<void> {
    this.room.removeAllListeners();
    await this.room.disconnect(false);
  }

  #listen(): void {
    const { room } = this;
    room
      .on(RoomEvent.ParticipantConnected, (who) => this.#heed(who))
      .on(RoomEvent.ParticipantAttributesChanged, (_, who) => this.#heed(who))
      .on(RoomEvent.ParticipantDisconnected, (who) => {
        if (who.isAgent && !this.#someAgent()) this.#events.agent("absent", "");
      })
      .on(RoomEvent.TrackSubscribed, (track, _, who) => this.#hear(track, who))
      .on(RoomEvent.TrackUnsubscribed, (track, _, who) => {
        if (who.isAgent && track.kind === Track.Kind.Audio) this.#events.voice(null);
      })
      .on(RoomEvent.RoomMetadataChanged, (metadata) => this.#events.queue(notice(metadata)))
      .on(RoomEvent.AudioPlaybackStatusChanged, () => this.#events.soundBlocked(!room.canPlaybackAudio))
      .on(RoomEvent.SignalReconnecting, () => this.#events.interrupted())
      .on(RoomEvent.Reconnecting, () => this.#events.interrupted())
      .on(RoomEvent.Reconnected, () => this.#events.resumed())
      .on(RoomEvent.Disconnected, (reason) => this.#events.lost(loss(reason)));
    room.registerTextStreamHandler(TRANSCRIPTION, (reader, who) => void this.#caption(reader, who.identity));
    room.registerTextStreamHandler(FILE, (reader) => {
      void reader.readAll().then((json) => this.#events.file(json), () => undefined);
    });
    room.registerTextStreamHandler(REPORT, (reader) => {
      void reader.readAll().then((json) => this.#events.report(json), () => undefined);
    });
  }

  /** Who and what was in the room before us. */
  #greet(): void {
    this.#events.queue(notice(this.room.metadata));
    const agent = this.#someAgent();
    if (agent !== undefined) this.#heed(agent);
  }

  #someAgent(): RemoteParticipant | undefined {
    return [...this.room.remoteParticipants.values()].find((who) => who.isAgent);
  }

  #heed(who: Participant): void {
    if (who.isLocal || !who.isAgent) return;
    const state = who.attributes[AGENT_STATE];
    this.#events.agent(state !== undefined && AGENT_STATES.has(state) ? (state as AgentState) : "initializing", who.identity);
  }

  #hear(track: RemoteTrack, who: RemoteParticipant): void {
    if (who.isAgent && track.kind === Track.Kind.Audio) this.#events.voice(track.mediaStreamTrack);
  }

  /** A stream is one version of its segment: an answer grows in it, a caller's interim is superseded by the next. */
  async #caption(reader: TextStreamReader, identity: string): Promise<void> {
    const attributes = reader.info.attributes ?? {};
    const id = `${this.#number}-${attributes["lk.segment_id"] ?? reader.info.id}`;
    const speaker = this.#isCaller(identity, attributes["lk.transcribed_track_id"]) ? "caller" : "agent";
    const order = ++this.#order;
    this.#newest.set(id, order);
    const current = () => this.#newest.get(id) === order;
    let text = "";
    try {
      for await (const piece of reader) {
        text += piece;
        if (current()) this.#events.caption({ id, speaker, text, final: false });
      }
    } catch {
      // Cut off with its sender: what came is what was said.
    }
    const final = speaker === "agent" || attributes["lk.transcription_final"] === "true";
    if (current()) this.#events.caption({ id, speaker, text, final });
  }

  #isCaller(identity: string, trackId: string | undefined): boolean {
    const me = this.room.localParticipant;
    if (identity === me.identity) return true;
    return trackId !== undefined && [...me.trackPublications.values()].some((track) => track.trackSid === trackId);
  }

  #watchDevice(microphone: LocalAudioTrack): void {
    setTimeout(() => {
      const gone = microphone.mediaStreamTrack.readyState === "ended" && this.#microphone === microphone;
      if (!gone) return;
      this.#microphone = null;
      void this.room.localParticipant.unpublishTrack(microphone);
      this.#events.microphone(null);
    }, DEVICE_GRACE_MS);
  }
}

function notice(metadata: string | undefined): Notice | null {
  try {
    const parley = (JSON.parse(metadata ?? "") as { parley?: { status?: unknown; position?: unknown } }).parley;
    if (parley?.status === undefined) return null;
    const { position } = parley;
    const place = typeof position === "number" && position > 0 ? position : null;
    return { busy: parley.status === "busy", failed: parley.status === "failed", position: place };
  } catch {
    return null;
  }
}

function loss(reason: DisconnectReason | undefined): LossReason {
  if (reason === DisconnectReason.DUPLICATE_IDENTITY) return "elsewhere";
  const over = reason === DisconnectReason.ROOM_DELETED || reason === DisconnectReason.CLIENT_INITIATED;
  return over ? "over" : "broken";
}
