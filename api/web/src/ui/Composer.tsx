import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import type { Call } from "../call/call";
import { SendIcon } from "./icons";

/** Typing in place of talking. Enter sends, Shift and Enter begins a line. */
export function Composer({ call, onClose }: { call: Call; onClose: () => void }) {
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);

  useEffect(() => {
    field.current?.focus();
  }, []);

  const send = (event?: FormEvent) => {
    event?.preventDefault();
    void call.say(text);
    setText("");
    field.current?.focus();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) send(event);
    if (event.key === "Escape") {
      event.preventDefault();
      onClose();
    }
  };

  return (
    <form className="composer" onSubmit={send}>
      <label className="visually-hidden" htmlFor="message">
        Your message
      </label>
      <textarea
        id="message"
        ref={field}
        rows={1}
        maxLength={4000}
        placeholder="Type your message"
        autoComplete="off"
        enterKeyHint="send"
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={key}
      />
      <button type="submit" className="send" aria-label="Send" disabled={text.trim() === ""}>
        <SendIcon />
      </button>
    </form>
  );
}
