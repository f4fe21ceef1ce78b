/** Everything that can go wrong, in words a person uses, each with its way out. */

/** What the button under a trouble does; null where the words alone say what to do, or nothing is needed. */
export type WayOut = "retry" | "microphone" | "sound" | null;

export interface Trouble {
  title: string;
  detail: string;
  wayOut: WayOut;
  /** It goes away by itself: shown calmly, with no button. */
  passing?: boolean;
}

const TYPE_INSTEAD = "You can go on by typing.";

/** Names are those of the DOMException that getUserMedia rejects with. */
export function microphoneTrouble(error: unknown): Trouble {
  const name = error instanceof Error ? error.name : "";
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return {
        title: "Your microphone is blocked for this page",
        detail: `Click the lock beside the address, allow the microphone, then try again. ${TYPE_INSTEAD}`,
        wayOut: "microphone",
      };
    case "NotFoundError":
    case "OverconstrainedError":
      return {
        title: "No microphone was found",
        detail: `Plug one in or switch it on, then try again. ${TYPE_INSTEAD}`,
        wayOut: "microphone",
      };
    case "NotReadableError":
    case "AbortError":
      return {
        title: "Your microphone is in use",
        detail: `Another program holds it. Close that one, then try again. ${TYPE_INSTEAD}`,
        wayOut: "microphone",
      };
    case "InsecureContextError":
      return {
        title: "This address may not use the microphone",
        detail: `Browsers allow it on https addresses and on localhost only. ${TYPE_INSTEAD}`,
        wayOut: null,
      };
    default:
      return {
        title: "Your microphone could not be opened",
        detail: `Check that it works elsewhere, then try again. ${TYPE_INSTEAD}`,
        wayOut: "microphone",
      };
  }
}

export const MICROPHONE_GONE: Trouble = {
  title: "Your microphone went away",
  detail: `Choose another one below, or plug it in again. ${TYPE_INSTEAD}`,
  wayOut: "microphone",
};

export const NO_ASSISTANT: Trouble = {
  title: "The line is open, but no assistant has come",
  detail: "It may still be starting. You can wait here, or try a new call.",
  wayOut: "retry",
};

export const ASSISTANT_LEFT: Trouble = {
  title: "The assistant dropped out",
  detail: "Another one is being called. What you said is kept.",
  wayOut: null,
  passing: true,
};

export const GIVEN_UP: Trouble = {
  title: "This call cannot go on",
  detail: "Every assistant who took it broke off. A new call begins anew; what was said stays here to be read.",
  wayOut: "retry",
};

export const BROKEN: Trouble = {
  title: "The connection broke: coming back",
  detail: "Stay here, nothing needs doing.",
  wayOut: null,
  passing: true,
};

export function redialling(attempt: number, of: number): Trouble {
  return {
    title: "The connection broke: coming back",
    detail: `Calling again, attempt ${attempt} of ${of}.`,
    wayOut: null,
    passing: true,
  };
}

export const LOST: Trouble = {
  title: "The connection is lost",
  detail: "It could not be brought back. Check your network, then call again: the conversation stays here.",
  wayOut: "retry",
};

export const ELSEWHERE: Trouble = {
  title: "This call goes on in another window",
  detail: "It can be open in one place at a time.",
  wayOut: "retry",
};

export const NO_SERVER: Trouble = {
  title: "Parley does not answer",
  detail: "The server may be starting or stopped. Wait a moment, then try again.",
  wayOut: "retry",
};

export const NO_LINE: Trouble = {
  title: "The voice line cannot be reached",
  detail: "The page works, but its call server does not answer, or something between you blocks calls.",
  wayOut: "retry",
};

export const SOUND_BLOCKED: Trouble = {
  title: "Your browser holds the sound back",
  detail: "It waits for a click before a page may speak.",
  wayOut: "sound",
};

export const NOT_SENT: Trouble = {
  title: "Your message waits",
  detail: "The connection broke on the way. It is sent as soon as the line is back.",
  wayOut: null,
  passing: true,
};

/** A refusal by the server, told by its own words (RFC 9457). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
  ) {
    super(title);
    this.name = "Refused";
  }
}

/** No answer at all from the page's own server. */
export class Unreachable extends Error {
  override name = "Unreachable";
}

export function connectTrouble(error: unknown): Trouble {
  if (error instanceof Refused) return { title: error.title, detail: error.detail, wayOut: "retry" };
  return error instanceof Unreachable ? NO_SERVER : NO_LINE;
}
