/** What the API says of assistants (api/routes/assistants.py, serve/assistant.py). */

export type Role = "stt" | "llm" | "tts";

export const ROLES: Record<Role, string> = { stt: "Speech to text", llm: "Language model", tts: "Voice model" };

/** As it was read, or as it was typed. */
type Amount = number | string;

export interface Definition {
  description: string;
  instructions: string;
  examples: { user: string; assistant: string }[];
  greeting: string;
  language: string;
  voice: string | null;
  max_tokens: Amount;
  file_characters: Amount;
  models: Partial<Record<Role, string>>;
  tools: string[];
  mcp: { url: string; headers?: Record<string, string>; tools?: string[] | null }[];
  tool_limits: Record<string, Amount>;
  limits: Record<string, Amount>;
  texts: Record<string, string | null>;
  numbers: string[];
  person: string | null;
}

export interface Summary {
  id: string;
  name: string;
  description: string;
  source: "database" | "profile";
  version: number | null;
  ref: string;
  created_at: string | null;
  updated_at: string | null;
}

export interface Detail extends Summary {
  definition: Definition;
}

export interface Version {
  number: number;
  created_at: string;
  created_by: string;
}

export interface Rules {
  tools: string[];
  mcp: string[];
  people: string[];
}

export interface Draft {
  name: string;
  definition: Definition;
}

/** How a draft is sent: numbers as numbers, what is empty left to its default. */
export function sent({ name, definition }: Draft): { name: string; definition: Record<string, unknown> } {
  const { max_tokens, file_characters, tool_limits, limits, texts, voice, person, ...rest } = definition;
  return {
    name,
    definition: {
      ...rest,
      ...amounts({ max_tokens, file_characters }),
      limits: amounts(limits),
      tool_limits: amounts(tool_limits),
      texts: Object.fromEntries(Object.entries(texts).filter(([, text]) => text?.trim())),
      voice: voice?.trim() || null,
      person: person?.trim() || null,
    },
  };
}

function amounts(given: Record<string, Amount>): Record<string, Amount> {
  const typed = Object.entries(given).filter(([, amount]) => String(amount).trim() !== "");
  // What is no number goes as it is: the API says what would be right.
  return Object.fromEntries(typed.map(([name, amount]) => [name, Number.isFinite(Number(amount)) ? Number(amount) : amount]));
}

const NAMES: Record<string, string> = { max_tokens: "length of an answer", file_characters: "callers' files", tool_limits: "limits of tools", mcp: "MCP servers", person: "person to transfer to" };

/** Say in which parts two definitions differ. */
export function differences(one: Definition, other: Definition): string[] {
  const fields = Object.keys(other) as (keyof Definition)[];
  return fields.filter((field) => JSON.stringify(one[field]) !== JSON.stringify(other[field])).map((field) => NAMES[field] ?? field);
}
