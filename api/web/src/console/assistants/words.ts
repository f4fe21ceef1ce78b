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
  { group: "limits", field: "silence_prompts", label: "Times it asks", unit: "before it ends the call" },
  { group: null, field: "max_tokens", label: "Longest answer", unit: "tokens" },
  { group: null, field: "file_characters", label: "Callers' files in one prompt", unit: "characters" },
  { group: "tool_limits", field: "deadline", label: "A tool may take", unit: "seconds" },
  { group: "tool_limits", field: "filler_after", label: "A tool runs until the caller is asked to wait", unit: "seconds", hint: "0: never asked." },
  { group: "tool_limits", field: "at_once", label: "Tools at once", unit: "in one call" },
  { group: "tool_limits", field: "max_result", label: "Longest result of a tool", unit: "characters" },
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
