import { useState } from "react";
import { Link } from "react-router";
import { Badge, length } from "../parts";
import { type LiveCall, MEDIA } from "./shapes";
import { useNow } from "./useNow";
import { useStream } from "./useStream";

const DOING: Record<string, string> = {
  initializing: "joining",
  idle: "waiting",
  listening: "listening",
  thinking: "thinking",
  speaking: "speaking",
};

/** Calls that go on, with what they do now. */
export function LiveCalls() {
  const [calls, setCalls] = useState<LiveCall[] | null>(null);
  const connection = useStream("/calls/live", ["calls"], (_, data) => setCalls((data as { calls: LiveCall[] }).calls));
  const now = useNow(1000);
  return (
    <section className="live" aria-labelledby="live-title">
      <h2 id="live-title">
        Live{" "}
        <span className="count" aria-live="polite">
          {calls === null ? "" : calls.length}
        </span>
      </h2>
      {connection === "broken" && <p className="hint">The connection broke: coming back.</p>}
      {calls?.length === 0 && (
        <p className="hint">
          Nobody is calling. <a href="/">Talk to Parley</a> and watch it here.
        </p>
      )}
      {calls !== null && calls.length > 0 && (
        <ul className="live-calls">
          {calls.map((call) => (
            <li key={call.id}>
              <Link to={`/calls/${encodeURIComponent(call.id)}`} className="live-call">
                <span className="live-who">{call.caller || "Caller"}</span>
                <span className="live-meta">
                  {MEDIA[call.medium] ?? call.medium} · {call.assistant} · {call.turns} {call.turns === 1 ? "turn" : "turns"}
                </span>
                <State call={call} />
                <span className="live-time">{length(Math.max(0, now / 1000 - call.began))}</span>
              </Link>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function State({ call }: { call: LiveCall }) {
  if (call.caller_state === "speaking") return <Badge kind="live">Caller speaks</Badge>;
  const doing = DOING[call.assistant_state] ?? call.assistant_state;
  return <Badge kind={call.assistant_state === "speaking" ? "live" : "quiet"}>Assistant: {doing}</Badge>;
}
