import { useEffect, useRef, useState } from "react";
import type { Call } from "../call/call";
import { fileSentence } from "../call/file";
import { type CallState, inCall } from "../call/model";

/** A file may be dropped anywhere. Without this, the browser would leave the page, and the call, to show it. */
export function FileDrop({ call, state }: { call: Call; state: CallState }) {
  const [over, setOver] = useState(false);
  const calling = inCall(state.phase);
  const latest = useRef(calling);
  latest.current = calling;

  useEffect(() => {
    // Every element that is entered or left tells: what counts is whether any is still entered.
    let depth = 0;
    const withFile = (act: (event: DragEvent) => void) => (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      act(event);
    };
    const enter = withFile(() => setOver(++depth > 0));
    const leave = withFile(() => setOver(--depth > 0));
    const hover = withFile((event) => {
      if (event.dataTransfer !== null) event.dataTransfer.dropEffect = latest.current ? "copy" : "none";
    });
    const drop = withFile((event) => {
      depth = 0;
      setOver(false);
      if (latest.current) void call.sendFiles([...(event.dataTransfer?.files ?? [])]);
    });
    addEventListener("dragenter", enter);
    addEventListener("dragleave", leave);
    addEventListener("dragover", hover);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragenter", enter);
      removeEventListener("dragleave", leave);
      removeEventListener("dragover", hover);
      removeEventListener("drop", drop);
    };
  }, [call]);

  const newest = state.transcript.findLast((item) => item.speaker === "file");
  const settled = newest?.speaker === "file" && (newest.status === "read" || newest.status === "refused");
  return (
    <>
      {over && (
        <div className="drop" aria-hidden="true">
          <p className="drop-words">{calling ? "Drop the file: Parley reads it" : "Start a call first, then drop the file"}</p>
        </div>
      )}
      {/* What became of a file is news, wherever the reader is; the words themselves stand in the conversation. */}
      <p className="visually-hidden" aria-live="polite">
        {settled ? fileSentence(newest) : ""}
      </p>
    </>
  );
}
