import type { Call } from "../call/call";
import type { CallState } from "../call/model";
import { SOUND_BLOCKED, type Trouble, type WayOut } from "../call/trouble";

const WAY_OUT_WORDS: Record<Exclude<WayOut, null>, string> = {
  retry: "Try again",
  microphone: "Try the microphone again",
  sound: "Turn the sound on",
};

/** One thing at a time: the queue, then the connection, then the sound, then the microphone. */
export function Notice({ call, state }: { call: Call; state: CallState }) {
  if (state.phase === "waiting") return <Queue call={call} position={state.position} />;
  const trouble = state.trouble ?? (state.soundBlocked ? SOUND_BLOCKED : state.micTrouble);
  if (trouble === null) return <div role="alert" className="notice-slot" />;
  return (
    <div role="alert" className="notice-slot">
      <div className="notice" data-passing={trouble.passing ?? false}>
        <p className="notice-title">{trouble.title}</p>
        <p className="notice-detail">{trouble.detail}</p>
        <Ways call={call} trouble={trouble} calling={state.line !== null} />
      </div>
    </div>
  );
}

function Ways({ call, trouble, calling }: { call: Call; trouble: Trouble; calling: boolean }) {
  const { wayOut } = trouble;
  // Without a call, the one button below is the way out.
  const offeredBelow = wayOut === "retry" && !calling;
  if (trouble.passing === true || offeredBelow) return null;
  const act = { retry: () => call.again(), microphone: () => call.retryMicrophone(), sound: () => call.allowSound() };
  return (
    <div className="notice-ways">
      {wayOut !== null && (
        <button type="button" className="button button-small" onClick={() => void act[wayOut]()}>
          {WAY_OUT_WORDS[wayOut]}
        </button>
      )}
      {wayOut !== "sound" && calling && (
        <button type="button" className="button-quiet" onClick={() => call.dismiss()}>
          Dismiss
        </button>
      )}
    </div>
  );
}

function Queue({ call, position }: { call: Call; position: number | null }) {
  return (
    <div role="alert" className="notice-slot">
      <div className="notice" data-passing="true">
        <p className="notice-title">All lines are busy: we ring as soon as one is free</p>
        <p className="notice-detail">
          {position === null ? "You are in line." : position === 1 ? "You are next." : `You are number ${position} in line.`}{" "}
          Keep this page open.
        </p>
        <div className="notice-ways">
          <button type="button" className="button button-small" onClick={() => call.end()}>
            Stop waiting
          </button>
        </div>
      </div>
    </div>
  );
}
