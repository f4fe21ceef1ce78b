import { useCallback, useLayoutEffect, useRef, useState } from "react";
import { type CallState, inCall } from "../call/model";
import { fileSentence } from "../call/file";
import { type Break, type Message, type SentFile, isFinal, textOf } from "../call/transcript";
import { TurnDetails } from "./TurnDetails";
import { FileIcon } from "./icons";

/** Within this of the end, the reader is at the end. */
const NEAR_PX = 56;

/**
 * The words of both sides. It follows the newest unless the reader has scrolled up. Not a live region: the
 * assistant's answer is heard already, and a screen reader's voice over it would be taken for the caller's.
 */
export function Conversation({ state }: { state: CallState }) {
  const scroller = useRef<HTMLElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const follow = useRef(true);
  const top = useRef(0);
  const [behind, setBehind] = useState(false);

  const toEnd = useCallback(() => {
    follow.current = true;
    setBehind(false);
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  }, []);

  const scrolled = () => {
    const box = scroller.current;
    if (box === null) return;
    const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;
    // Text that grew since the last scroll also puts the end out of sight: only a reader moves upwards.
    const up = box.scrollTop < top.current;
    top.current = box.scrollTop;
    follow.current = near || (follow.current && !up);
    setBehind(!follow.current);
  };

  // Growth of the text, an opened turn, a keyboard that takes room: all of them move the end.
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => follow.current && scroller.current?.scrollTo({ top: scroller.current.scrollHeight }));
    if (scroller.current !== null) observer.observe(scroller.current);
    if (content.current !== null) observer.observe(content.current);
    return () => observer.disconnect();
  }, []);

  return (
    <div className="conversation">
      <section
        className="scroller"
        ref={scroller}
        onScroll={scrolled}
        role="log"
        aria-live="off"
        aria-label="What was said"
        // A region that scrolls must be reachable by keyboard.
        tabIndex={0}
      >
        <div className="lines" ref={content}>
          {state.transcript.length === 0 && state.phase === "live" && (
            <p className="hint">{state.mic === "off" ? "Type your first question below." : "Say hello, or ask anything."}</p>
          )}
          {state.transcript.map((item) =>
            item.speaker === "break" ? (
              <Divider key={item.id} item={item} />
            ) : item.speaker === "file" ? (
              <FileLine key={item.id} file={item} />
            ) : (
              <Line key={item.id} message={item} />
            ),
          )}
          {!inCall(state.phase) && state.phase === "ended" && <p className="divider">Call ended</p>}
        </div>
      </section>
      {behind && (
        <button type="button" className="to-end" onClick={toEnd}>
          Newest
        </button>
      )}
    </div>
  );
}

function Divider({ item }: { item: Break }) {
  return <p className="divider">{item.text}</p>;
}

function FileLine({ file }: { file: SentFile }) {
  return (
    <div className="file" data-status={file.status}>
      <FileIcon />
      <p className="file-words">{fileSentence(file)}</p>
      {file.status === "sending" && <progress className="file-way" max={1} value={file.progress} aria-label={`Sending ${file.name}`} />}
    </div>
  );
}

function Line({ message }: { message: Message }) {
  const { speaker, report } = message;
  const text = textOf(message);
  const cut = report?.interrupted === true;
  return (
    <article className="line" data-speaker={speaker} data-final={isFinal(message)}>
      <h2 className="who">{speaker === "caller" ? "You" : "Parley"}</h2>
      <div className="said">
        <p className="words">
          {text}
          {cut && (
            <span className="cut" title="You interrupted here">
              {text === "" ? "not heard" : " —"}
              <span className="visually-hidden"> interrupted</span>
            </span>
          )}
        </p>
        {report !== null && <TurnDetails report={report} id={message.id} />}
      </div>
    </article>
  );
}
