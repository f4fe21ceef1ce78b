import { useEffect, useRef } from "react";
import type { Call } from "../call/call";
import { inCall } from "../call/model";

/** A press shorter than this is a tap: it leaves the microphone as it set it. A longer one is push to talk. */
const TAP_MS = 350;

interface Typing {
  typing: boolean;
  stopTyping: () => void;
}

/**
 * Space talks or mutes, Escape ends. Space on a focused control works that control, and in a text field it is a space.
 * Escape first closes what is open: a menu (which stops the key itself), then the keyboard, then the call.
 */
export function useCallKeys(call: Call, typing: Typing): void {
  const latest = useRef(typing);
  latest.current = typing;

  useEffect(() => {
    let heldSince: number | null = null;

    const down = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") escape(call, latest.current, event);
      if (event.key !== " " || takesSpace(event.target)) return;
      event.preventDefault();
      if (event.repeat) return;
      const { phase, mic } = call.store.get();
      if (!inCall(phase)) return void call.start(true);
      if (mic === "muted") heldSince = performance.now();
      void call.toggleMute();
    };
    const up = (event: KeyboardEvent) => {
      if (event.key !== " " || heldSince === null) return;
      const held = performance.now() - heldSince;
      heldSince = null;
      if (held > TAP_MS) void call.toggleMute(true);
    };

    addEventListener("keydown", down);
    addEventListener("keyup", up);
    return () => {
      removeEventListener("keydown", down);
      removeEventListener("keyup", up);
    };
  }, [call]);
}

function escape(call: Call, { typing, stopTyping }: Typing, event: KeyboardEvent): void {
  if (!inCall(call.store.get().phase)) return;
  event.preventDefault();
  if (typing && isTextField(event.target)) stopTyping();
  else call.end();
}

function isTextField(target: EventTarget | null): boolean {
  return target instanceof HTMLTextAreaElement || (target instanceof HTMLInputElement && target.type !== "radio");
}

function takesSpace(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("button, a, input, textarea, select, summary") !== null;
}
