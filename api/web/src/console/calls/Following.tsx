import { useState } from "react";
import { Badge } from "../parts";
import { useStream } from "./useStream";

/** What is being said now, until it is a turn. */
export interface Captions {
  caller: string;
  assistant: string;
}

const TYPES = ["caption", "state", "turn", "event", "gap", "cut_off", "ended"] as const;

/** Follows a live call: captions as they grow, who is doing what; says when a turn is there to be read. */
export function Following({
  path,
  take,
  told,
}: {
  path: string;
  take: (change: (before: Captions) => Captions) => void;
  told: () => void;
}) {
  const [state, setState] = useState({ caller: "listening", assistant: "listening" });
  const [missed, setMissed] = useState(false);
  const connection = useStream(`${path}/live`, TYPES, (type, data) => {
    const event = data as Record<string, unknown>;
    switch (type) {
      case "caption":
        if (event["who"] === "caller" || event["who"] === "assistant") {
          const [who, text] = [event["who"], String(event["text"] ?? "")];
          // A new question: what was answered before it is a turn by now.
          take((before) => (who === "caller" ? { caller: text, assistant: "" } : { ...before, assistant: text }));
        }
        return;
      case "state":
        setState({ caller: String(event["caller"]), assistant: String(event["assistant"]) });
        return;
      case "gap":
        setMissed(true);
        return;
      case "turn":
      case "ended":
        take(() => ({ caller: "", assistant: "" }));
        // It is on its way to the database.
        setTimeout(told, 600);
        return;
    }
  });
  return (
    <p className="following" role="status">
      {connection === "open" && (
        <>
          <Badge kind={state.caller === "speaking" ? "live" : "quiet"}>Caller: {state.caller}</Badge>
          <Badge kind={state.assistant === "speaking" ? "live" : "quiet"}>Assistant: {state.assistant}</Badge>
        </>
      )}
      {connection === "opening" && "Joining…"}
      {connection === "broken" && "The connection broke: coming back."}
      {connection === "over" && "The call has ended."}
      {missed && " Something was missed; the transcript has all of it."}
    </p>
  );
}
