import { MicIcon } from "./icons";

interface Props {
  again: boolean;
  failed: boolean;
  onStart: (withMicrophone: boolean) => void;
}

/** One button starts; what happens with the microphone is said before the browser asks. */
export function StartControls({ again, failed, onStart }: Props) {
  return (
    <div className="start">
      <button type="button" className="button button-start" aria-describedby="before" onClick={() => onStart(true)}>
        <MicIcon />
        {failed ? "Try again" : again ? "Talk again" : "Start talking"}
      </button>
      <button type="button" className="button-quiet" onClick={() => onStart(false)}>
        Type instead
      </button>
      <p className="before" id="before">
        Your browser will ask for the microphone. Parley hears you from then until you mute or end the call.
      </p>
    </div>
  );
}
