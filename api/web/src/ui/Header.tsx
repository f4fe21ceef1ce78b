import { useEffect, useState } from "react";
import { type CallState, inCall } from "../call/model";

export function Header({ state }: { state: CallState }) {
  return (
    <header className="header">
      <p className="wordmark">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <circle className="wordmark-core" cx="16" cy="16" r="5.5" />
          <circle cx="16" cy="16" r="10" />
          <circle className="wordmark-far" cx="16" cy="16" r="14.4" />
        </svg>
        Parley
      </p>
      {state.startedAt !== null && state.phase !== "failed" && (
        <Clock from={state.startedAt} to={state.endedAt} running={inCall(state.phase)} />
      )}
    </header>
  );
}

/** Ticks for the eye only: a timer read out every second would drown the call. */
function Clock({ from, to, running }: { from: number; to: number | null; running: boolean }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!running) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running, from]);
  const elapsed = Math.max(0, Math.round(((to ?? now) - from) / 1000));
  return (
    <p className="clock" role="timer" aria-live="off" aria-label="Length of the call">
      {Math.floor(elapsed / 60)}:{String(elapsed % 60).padStart(2, "0")}
    </p>
  );
}
