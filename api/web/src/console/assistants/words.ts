/** What the fields of an assistant are called (serve/assistant.py), with their units. */

interface LimitWords {
  group: "limits" | "tool_limits" | null;
  field: string;
  label: string;
  unit: string;
  hint?: string;
}

export const LIMITS: readonly LimitWords[] = [
  { group: "limits", field: "max_minutes", label: "Longest call", unit: "minutes", hint: "Then it says goodbye; 0: never." },
  { group: "limits", field: "silence_seconds", label: "Silence until it asks", unit: "seconds", hint: "0: it never asks." },
  { group: "limits", field: "silence_prompts", label: "Asks before it ends", unit: "times" },
  { group: null, field: "max_tokens", label: "Longest answer", unit: "tokens" },
  { group: null, field: "file_characters", label: "Files in a prompt", unit: "characters" },
  { group: "tool_limits", field: "deadline", label: "Tool, at most", unit: "seconds", hint: "Then it is given up." },
  { group: "tool_limits", field: "filler_after", label: "Tool, until a word", unit: "seconds", hint: "Then the caller is asked to wait; 0: never." },
  { group: "tool_limits", field: "at_once", label: "Tools at once", unit: "of a call" },
  { group: "tool_limits", field: "max_result", label: "Result of a tool", unit: "characters" },
];

export const TEXTS: readonly { field: string; label: string }[] = [
  { field: "filler", label: "A tool takes long" },
  { field: "silence", label: "Nobody has said anything for a while" },
  { field: "silence_end", label: "The end after silence" },
  { field: "too_long", label: "The end of the longest call" },
  { field: "goodbye", label: "It ends the call, and the model has no words" },
  { field: "transfer", label: "Before a caller is put through" },
  { field: "apology", label: "No language model answers" },
  { field: "unheard", label: "Nothing transcribes what was said" },
  { field: "file_read", label: "A file was read ({name} is its name)" },
  { field: "file_refused", label: "A file was not read ({name} is its name)" },
];
