/** Opens the microphone by the browser's own means, so that its prompt needs no library loaded first. */

const CHOICE = "parley.microphone";

export const CAPTURE = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
} satisfies MediaTrackConstraints;

/** Rejects with the DOMException of getUserMedia, or an `InsecureContextError` where there is none. */
export async function openMicrophone(deviceId = chosen()): Promise<MediaStreamTrack> {
  // Absent in spite of its type: browsers hide it from pages on plain http.
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  if (devices === undefined) {
    const error = new Error("mediaDevices is absent");
    error.name = "InsecureContextError";
    throw error;
  }
  const audio: MediaTrackConstraints = deviceId === null ? CAPTURE : { ...CAPTURE, deviceId: { ideal: deviceId } };
  const stream = await devices.getUserMedia({ audio });
  const [track] = stream.getAudioTracks();
  if (track === undefined) throw new DOMException("no audio track", "NotFoundError");
  return track;
}

export function remember(deviceId: string): void {
  try {
    localStorage.setItem(CHOICE, deviceId);
  } catch {
    // Private windows may refuse storage; the choice then lasts as long as the call.
  }
}

function chosen(): string | null {
  try {
    return localStorage.getItem(CHOICE);
  } catch {
    return null;
  }
}
