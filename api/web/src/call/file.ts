/** Files on their way into a call, and the agent's word on each (text stream `parley.file`). */

/** The agent takes no larger ones; said here before anything is sent. */
export const MOST_BYTES = 10 * 2 ** 20;
export const TOO_LARGE = "is larger than 10 MB; send a smaller one, or a part of it";
export const NO_LINE = "can be sent as soon as the line is open";
export const NOT_SENT = "was not sent: the connection broke on the way";

export interface FileStatus {
  /** Of the stream; empty when it came another way than from this page. */
  id: string;
  name: string;
  status: "read" | "refused";
  detail: string;
}

/** Null when the text is not a status. */
export function parseFileStatus(json: string): FileStatus | null {
  let raw: unknown;
  try {
    raw = JSON.parse(json);
  } catch {
    return null;
  }
  if (typeof raw !== "object" || raw === null) return null;
  const fields = raw as Record<string, unknown>;
  const { id, name, status, reason, note } = fields;
  if (typeof name !== "string" || (status !== "read" && status !== "refused")) return null;
  const detail = status === "read" ? note : reason;
  return { id: typeof id === "string" ? id : "", name, status, detail: typeof detail === "string" ? detail : "" };
}

/** One sentence for the eye and for a screen reader. */
export function fileSentence(file: { name: string; status: string; detail: string }): string {
  switch (file.status) {
    case "sending":
      return `Sending ${file.name}`;
    case "reading":
      return `${file.name} is being read`;
    case "read":
      return file.detail === "" ? `${file.name} was read` : `${file.name} was read: ${file.detail}`;
    default:
      return `${file.name} ${file.detail === "" ? "was not read" : file.detail}`;
  }
}
