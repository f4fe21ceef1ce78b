import { RoomAudioRenderer } from "@livekit/components-react";
import type { Room } from "livekit-client";

/** Plays what comes from the room. A module of its own, because it brings livekit-client with it. */
export default function CallAudio({ room }: { room: Room }) {
  return <RoomAudioRenderer room={room} />;
}
